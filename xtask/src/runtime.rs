//! The WASM runtime that the compiler embeds: rebuilt from source, compared byte for byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::{cargo, has_program, output, succeed};

const RUNTIME: &str = "crates/vudo-gen/runtime/vudo_gen_runtime.wasm";
const TARGET: &str = "wasm32-unknown-unknown";

/// What rustc's default wasm32 target emits; anything more would shut out older browsers.
const FEATURES: [&str; 8] = [
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-call-indirect-overlong",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let rebuilt = rebuild(root)?;
    let hash = hexadecimal(&Sha256::digest(&rebuilt));
    let path = root.join(RUNTIME);
    let hash_path = path.with_extension("wasm.sha256");
    if check {
        let checked_in = std::fs::read(&path).with_context(|| format!("cannot read {RUNTIME}"))?;
        let recorded = std::fs::read_to_string(&hash_path)?;
        if checked_in != rebuilt || recorded.trim() != hash {
            bail!("{RUNTIME} is not what its source builds to: run `cargo xtask runtime`");
        }
    } else {
        std::fs::create_dir_all(path.parent().context("the runtime has a folder")?)?;
        std::fs::write(&path, &rebuilt)?;
        std::fs::write(&hash_path, format!("{hash}\n"))?;
    }
    println!("{RUNTIME}: {} bytes, SHA-256 {hash}", rebuilt.len());
    Ok(())
}

fn rebuild(root: &Path) -> Result<Vec<u8>> {
    // A folder of its own: flags differ from the host's, and would invalidate its artefacts.
    let target_folder = root.join("target/runtime");
    let arguments = [
        "build",
        "--package",
        "vudo-gen-runtime",
        "--lib",
        "--profile",
        "wasm",
        "--target",
        TARGET,
    ];
    succeed(
        cargo(root, &arguments)
            .env("CARGO_TARGET_DIR", &target_folder)
            .env("CARGO_ENCODED_RUSTFLAGS", path_flags(root)?.join("\u{1f}")),
    )?;
    let built = target_folder.join(TARGET).join("wasm/vudo_gen_runtime.wasm");
    let optimised = target_folder.join("optimised.wasm");
    let mut optimise = Command::new(wasm_opt(root)?);
    optimise.arg("-Oz").args(FEATURES).arg(&built).arg("-o").arg(&optimised);
    succeed(&mut optimise)?;
    std::fs::read(&optimised).context("wasm-opt wrote nothing")
}

/// The bytes must not depend on where the sources lie.
fn path_flags(root: &Path) -> Result<Vec<String>> {
    let sysroot = output(Command::new("rustc").current_dir(root).args(["--print", "sysroot"]))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let sysroot = Path::new(sysroot.trim());
    Ok(vec![remap(root, "vudo"), remap(&home, "cargo"), remap(sysroot, "rust")])
}

/// The pinned wasm-opt, installed from the lock file where it is not there yet.
fn wasm_opt(root: &Path) -> Result<PathBuf> {
    let folder = root.join("tools/wasm-opt");
    let program = folder.join("node_modules/.bin/wasm-opt");
    if !program.exists() {
        if !has_program("npm") {
            bail!("npm brings the pinned wasm-opt; install Node.js first");
        }
        let mut install = Command::new("npm");
        install.current_dir(&folder).args(["ci", "--no-audit", "--no-fund"]);
        succeed(&mut install)?;
    }
    Ok(program)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
