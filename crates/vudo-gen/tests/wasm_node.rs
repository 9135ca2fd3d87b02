//! The generated JavaScript in Node, against the generated module.

use std::path::Path;
use std::process::Command;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType};
use vudo_gen::wasm::{Accessors, BuildOptions};
use vudo_testkit::skip::missing_program;

fn schema() -> Schema {
    let lww =
        |name: &str, number, value_type| FieldSchema::new(name, number, Strategy::Lww, value_type);
    let user = vec![
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::String),
        lww("name", 2, ValueType::String),
        FieldSchema::new("reputation", 3, Strategy::PnCounter, ValueType::I64),
    ];
    let mut greeting = lww("greeting", 10, ValueType::String);
    greeting.default = Some("hello".into());
    let mut level = FieldSchema::new("level_count", 11, Strategy::PnCounter, ValueType::U8);
    level.counter.max_value = Some(10);
    let sample = vec![
        lww("safe", 1, ValueType::Int),
        lww("natural", 2, ValueType::UInt),
        lww("byte", 3, ValueType::U8),
        lww("short", 4, ValueType::I16),
        lww("large", 5, ValueType::U64),
        lww("signed", 6, ValueType::I64),
        lww("flag", 7, ValueType::Bool),
        lww("ratio", 8, ValueType::F64),
        lww("coarse", 9, ValueType::F32),
        greeting,
        level,
        lww("delete", 12, ValueType::String),
        lww("constructor", 13, ValueType::String),
        lww("type", 14, ValueType::String),
        lww("__proto__", 15, ValueType::String),
        lww("photo", 16, ValueType::Bytes),
        lww("token", 17, ValueType::Uuid),
        lww("at", 18, ValueType::Timestamp),
    ];
    let gens =
        [("User", user), ("Sample", sample), ("merge", Vec::new()), ("chat.message", Vec::new())];
    let gens = gens.map(|(name, fields)| GenSchema::new(name, fields));
    Schema::from(Vec::from(gens))
}

#[test]
fn the_javascript_works_in_node() {
    let found = Command::new("node").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        missing_program("the_javascript_works_in_node", "node", "install Node.js 20 or later");
        return;
    }
    for accessors in [Accessors::Typed, Accessors::Generic] {
        run_driver(accessors);
    }
}

fn run_driver(accessors: Accessors) {
    // A name whose characters mean something in an address.
    let options = BuildOptions { wasm_file_name: "my app #1.wasm", accessors };
    let module = vudo_gen::wasm::build_with(&schema(), &options).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wasm_node_{accessors:?}"));
    // What an earlier run left there must not be what this one finds.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("package.json"), "{\"type\":\"module\"}").unwrap();
    std::fs::write(folder.join("my app #1.wasm"), &module.wasm).unwrap();
    std::fs::write(folder.join("app.js"), &module.javascript).unwrap();
    std::fs::write(folder.join("app.d.ts"), &module.typescript).unwrap();
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wasm/app.mjs");
    let run = Command::new("node").arg(driver).arg(&folder).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("all passed"), "{out}{error}");
}
