//! A spend, a chain and a payment: what is accepted is canonical, and following it never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_credit::wire::Wire;
use vudo_credit::{Chain, Digest, Grant, Invoice, Key, Payment, Spend};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(spend) = Spend::from_bytes(bytes) {
        assert_eq!(spend.to_bytes(), bytes);
    }
    if let Ok(payment) = Payment::from_bytes(bytes) {
        assert_eq!(payment.to_bytes(), bytes);
        assert_eq!(Payment::from_text(&payment.to_text()), Ok(payment));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (Invoice::from_text(text), Payment::from_text(text));
    }
    let Ok(chain) = Chain::from_bytes(bytes) else { return };
    assert_eq!(chain.to_bytes(), bytes);
    let grant = Grant {
        account: Key([1; 32]),
        device: Key([2; 32]),
        allocated: 1 << 40,
        max_spends: 64,
        expires: 1,
        settle_by: 2,
        epoch: 0,
        payee: None,
    };
    if let Ok(heads) = chain.heads(&Digest::default(), &grant) {
        assert!(heads.iter().all(|head| head.cumulative <= grant.allocated));
    }
});
