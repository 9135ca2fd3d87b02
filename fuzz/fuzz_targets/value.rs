//! A value: what is accepted is canonical, so that decoding and encoding give its bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::Value;
use vudo_crdt::value::{decode_i64, decode_str, skip_value};
use vudo_crdt::wire::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let Ok(value_bytes) = skip_value(&mut reader) else {
        return;
    };
    assert_eq!(value_bytes.len() + reader.rest().len(), bytes.len());
    if let Some(value) = Value::decode(value_bytes) {
        assert_eq!(value.to_bytes(), value_bytes);
        assert_eq!(value, value.clone());
    }
    if let Some(number) = decode_i64(value_bytes) {
        assert_eq!(Value::decode(value_bytes), Some(Value::from(number)));
    }
    if let Some(text) = decode_str(value_bytes) {
        assert_eq!(Value::decode(value_bytes), Some(Value::from(text)));
    }
});
