//! Our module beside what others ship to a browser: its size, and how it starts in Node.
//!
//! The packages are pinned in `benchmarks/peers/javascript`; ours is built by `vudo build` there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Row;
use crate::command::{cargo, has_program, output, succeed, target_folder};
use crate::runtime::gzipped_bytes;

const FOLDER: &str = "benchmarks/peers/javascript";
const NODE_VERSION_MIN: u32 = 20;

/// More than of the other rows: a start takes milliseconds, and the disk is cold at first.
const PROCESS_COUNT: usize = 9;

const OUR_MODULE: &str = "app.wasm";
const YJS_BUNDLE: &str = "yjs.js";

/// Ours comes first. The modules are those of the packages; Yjs is JavaScript and has none.
const LIBRARIES: [(&str, Option<&str>); 6] = [
    ("vudo", None),
    ("yjs", None),
    ("jazz", Some("cojson-core-wasm/public/cojson_core_wasm.wasm")),
    ("ywasm", Some("ywasm/ywasm_bg.wasm")),
    ("automerge", Some("@automerge/automerge/dist/automerge.wasm")),
    ("loro", Some("loro-crdt/browser/loro_wasm_bg.wasm")),
];

/// The rows, or none where Node.js is missing.
pub(super) fn measure(root: &Path) -> Result<Vec<Row>> {
    if !has_node() || !has_program("npm") {
        eprintln!("skipped: install Node.js {NODE_VERSION_MIN} or later");
        return Ok(Vec::new());
    }
    let folder = root.join(FOLDER);
    // No package runs a program of its own on this machine before its code is measured.
    let install = ["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
    output(Command::new("npm").current_dir(&folder).args(install))?;
    let built_folder = target_folder(root)?.join("peers/javascript");
    std::fs::create_dir_all(&built_folder)
        .with_context(|| format!("cannot create {}", built_folder.display()))?;
    build_own_module(root, &folder, &built_folder)?;
    let bundle = built_folder.join(YJS_BUNDLE);
    output(Command::new("node").arg(folder.join("yjs_bundle.mjs")).arg(bundle))?;
    eprintln!("measuring javascript");
    let mut rows = vec![sizes(&folder, &built_folder)?];
    rows.extend(starts(&folder, &built_folder)?);
    Ok(rows)
}

fn has_node() -> bool {
    let question = ["--print", "process.versions.node.split('.')[0]"];
    let answer = Command::new("node").args(question).output();
    answer.is_ok_and(|answer| {
        let version = String::from_utf8_lossy(&answer.stdout);
        version.trim().parse().is_ok_and(|version: u32| version >= NODE_VERSION_MIN)
    })
}

/// Builds the module with the program that users build theirs with.
fn build_own_module(root: &Path, folder: &Path, built_folder: &Path) -> Result<()> {
    // Of the whole workspace: naming a package would choose other features of the dependencies.
    let build = ["build", "--release", "--locked", "--workspace", "--bin", "vudo"];
    succeed(&mut cargo(root, &build))?;
    let mut vudo = Command::new(target_folder(root)?.join("release/vudo"));
    vudo.arg("build").arg(folder.join("user.dol"));
    output(vudo.arg("--output").arg(built_folder.join(OUR_MODULE)))?;
    Ok(())
}

fn sizes(folder: &Path, built_folder: &Path) -> Result<Row> {
    let file = |(library, module): (&str, Option<&str>)| -> PathBuf {
        match module {
            Some(module) => folder.join("node_modules").join(module),
            None if library == "yjs" => built_folder.join(YJS_BUNDLE),
            None => built_folder.join(OUR_MODULE),
        }
    };
    let size = |library: (&str, Option<&str>)| {
        let path = file(library);
        let bytes = std::fs::read(&path).with_context(|| format!("no {}", path.display()))?;
        Ok((library.0.to_owned(), Some(gzipped_bytes(&bytes)? as f64)))
    };
    let figures = LIBRARIES.into_iter().map(size).collect::<Result<_>>()?;
    Ok(Row { name: "module_gzipped_bytes".into(), figures })
}

fn starts(folder: &Path, built_folder: &Path) -> Result<Vec<Row>> {
    let libraries = LIBRARIES.map(|(library, _)| library.to_owned());
    super::measure("the start in Node.js", &libraries, PROCESS_COUNT, |library| {
        let mut node = Command::new("node");
        node.arg(folder.join("start.mjs")).arg(library).arg(built_folder);
        node
    })
}
