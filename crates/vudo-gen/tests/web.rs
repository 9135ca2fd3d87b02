//! A sample project with a generated module, of typed and of generic accessors: its types pass
//! `tsc --strict`, and it runs without a bundler, in Node and in Chromium, and as Vite bundles it, in
//! Chromium.

#[path = "wasm/javascript.rs"]
mod javascript;

use std::path::Path;
use std::process::Command;

use javascript::{Page, installed, is_there, new_folder, node};
use serde_json::{Value as Json, json};
use vudo_gen::wasm::{Accessors, BuildOptions, Module, build_with};
use vudo_gen::{SourceFile, compile};
use vudo_testkit::skip::missing_program;

const TEST: &str = "a_sample_project_passes_tsc_and_runs_as_it_is_and_as_vite_bundles_it";

const VITE_CONFIGURATION: &str = r#"export default {
  base: "./",
  logLevel: "warn",
  build: {
    rollupOptions: {
      input: "main.ts",
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "main.js" },
    },
  },
};
"#;

/// Runs a program of `tools/web` on the project.
fn run(tools: &Path, folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(tools.join("node_modules/.bin").join(program));
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {out}{error}");
}

#[test]
fn a_sample_project_passes_tsc_and_runs_as_it_is_and_as_vite_bundles_it() {
    for program in ["node", "npm"] {
        if !is_there(program) {
            missing_program(TEST, program, "install Node.js 20.16 or later, with npm");
            return;
        }
    }
    let tools = installed("web", "typescript");
    let text = include_str!("wasm/item.dol").to_owned();
    let compilation = compile(&[SourceFile { name: "item.dol".into(), text, lock: None }]);
    let schema = compilation.schema.unwrap();
    for accessors in [Accessors::Typed, Accessors::Generic] {
        let options = BuildOptions { accessors, ..BuildOptions::default() };
        let module = build_with(&schema, &options).unwrap();
        check_project(&tools, &new_folder(&format!("web_{accessors:?}")), &module);
    }
}

/// Checks the types of the project with a module in its folder, bundles it, and runs it both ways.
fn check_project(tools: &Path, folder: &Path, module: &Module) {
    let files: [(&str, &[u8]); 7] = [
        ("app.wasm", &module.wasm),
        ("app.js", module.javascript.as_bytes()),
        ("app.d.ts", module.typescript.as_bytes()),
        ("main.ts", include_bytes!("web/main.ts")),
        ("package.json", br#"{"type": "module"}"#),
        ("vite.config.mjs", VITE_CONFIGURATION.as_bytes()),
        ("run.mjs", b"import run from './main.js'; console.log(JSON.stringify(await run()));"),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let strict = "--strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --target es2022 \
                  --module esnext --moduleResolution bundler --lib es2022,dom,dom.iterable main.ts";
    run(tools, folder, "tsc", &strict.split_whitespace().collect::<Vec<_>>());
    run(tools, folder, "vite", &["build", "."]);

    let check = |given: Json| assert_eq!(given["shown"], json!("t 7 r c p 4"));
    check(node(TEST, folder, &["run.mjs"]).unwrap());
    if let Some(page) = Page::find(TEST) {
        check(page.run(folder, "main.js"));
        check(page.run(&folder.join("dist"), "main.js"));
    }
}
