//! How a module starts in Node and in a real Chromium.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use vudo_benchmarks::budgets::Measurement;
use vudo_gen::wasm::Module;

/// Prints what Node takes for a module, or that there is no Node.
pub(crate) fn print_node(module: &Module) {
    let Some(node) = program("node") else {
        println!("startup_time/wasm_node: skipped: install Node.js 20 or later");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder for the module");
    write(module, folder.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("startup_time/node.mjs");
    let medians = medians(Command::new(node).arg(script).arg(folder.path()));
    print_medians("wasm_node", &medians);
}

/// Prints what Chromium takes for a module that it compiles while it streams in, and for one that
/// it fetches whole first, or what is missing for that.
pub(crate) fn print_chromium(module: &Module) {
    let name = "startup_time/wasm_streaming";
    let Some(chromium) = program("chromium") else {
        println!("{name}: skipped: install chromium");
        return;
    };
    let (Some(node), Some(npm)) = (program("node"), program("npm")) else {
        println!("{name}: skipped: install Node.js 20 or later, with npm");
        return;
    };
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/chromium");
    if !tools.join("node_modules/playwright-core").is_dir() {
        let install = Command::new(npm).arg("ci").current_dir(&tools).output();
        if !install.is_ok_and(|output| output.status.success()) {
            println!("{name}: skipped: `npm ci` failed in tools/chromium");
            return;
        }
    }
    let folder = tempfile::tempdir().expect("a folder for the module");
    write(module, folder.path());
    let mut streaming = Command::new(node);
    streaming.arg(tools.join("streaming.mjs")).arg(chromium).arg(folder.path());
    print_medians("wasm_streaming", &medians(&mut streaming));
}

/// A program that can be started by its name.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&folders).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

fn write(module: &Module, folder: &Path) {
    let files: [(&str, &[u8]); 3] = [
        ("app.wasm", &module.wasm),
        ("app.js", module.javascript.as_bytes()),
        ("package.json", br#"{"type": "module"}"#),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).expect("the folder takes the file");
    }
}

/// The one line of JSON that a measuring script prints.
fn medians(script: &mut Command) -> BTreeMap<String, serde_json::Value> {
    let output = script.output().expect("Node was found");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the script failed: {error}");
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// Prints every median of a host; those that count from bytes in memory beside the budget for
/// starting a module, which no transfer is part of.
fn print_medians(host: &str, medians: &BTreeMap<String, serde_json::Value>) {
    let version = medians["version"].as_str().expect("the host has a version");
    for (name, value) in medians {
        let Some(part) = name.strip_suffix("_milliseconds") else { continue };
        let milliseconds = value.as_f64().expect("a median is a number");
        let title = format!("startup_time/{host}/{part}");
        let line = if ["instantiation", "first_operation"].contains(&part) {
            let row = Measurement::new("wasm_instantiation_milliseconds", "ms", milliseconds);
            row.expect("it has a budget").line(&title)
        } else {
            format!("{title}: {milliseconds:.3} ms")
        };
        println!("{line}, {version}");
    }
}
