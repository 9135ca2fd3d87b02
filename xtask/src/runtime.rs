//! The WASM runtimes that the compiler embeds: rebuilt from source, compared byte for byte.
//!
//! The bytes depend on the sources, on the toolchain that `rust-toolchain.toml` pins, on the wasm-opt
//! that `tools/wasm-opt` pins and on the crates of the lock file; never on the machine or on where its
//! folders are.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::arrange::{Effort, arrange};
use crate::command::{cargo, has_program, output, succeed, target_folder};
use crate::cut::{cut_panics, drop_names};
use crate::frames::{FixedFrame, fix_frames};

/// What the runtime is compiled for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const FOLDER: &str = "crates/vudo-gen/runtime";

/// The names of the runtimes' files and the features that they are built with. The compiler takes
/// the smallest that has what a schema needs.
const RUNTIMES: [(&str, &str); 6] = [
    ("vudo_gen_runtime.wasm", ""),
    ("vudo_gen_runtime_bounded.wasm", "bounded"),
    ("vudo_gen_runtime_composite.wasm", "composite"),
    ("vudo_gen_runtime_registers.wasm", "registers"),
    ("vudo_gen_runtime_collections.wasm", "collections"),
    ("vudo_gen_runtime_evolution.wasm", "evolution"),
];
const WASM_OPT_FOLDER: &str = "tools/wasm-opt";

/// What LLVM does for speed at the cost of length, even where it is asked for short code.
const LLVM_SETTINGS: [&str; 5] = [
    "-simplifycfg-sink-common=false",
    "-enable-pre=false",
    "-enable-load-pre=false",
    "-disable-lsr",
    "-memdep-block-scan-limit=1",
];

/// What wasm-opt does.
const OPTIMISATIONS: [&str; 8] = [
    // Control flow as LLVM leaves it has more blocks than it takes: it is made anew from its graph.
    "-Oz",
    "--flatten",
    "--rereloop",
    "-Oz",
    // Alignments are hints that change nothing of what a module does, and noise to what compresses.
    "--dealign",
    "--converge",
    // What is shorter than its calls, though more than the default takes for that.
    "--always-inline-max-function-size=4",
    // Packing would split segments that the compiler drops or keeps whole.
    "--skip-pass=memory-packing",
];

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

/// Rebuilds the runtimes; writes them, or with `check` only compares them with the checked-in ones.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let folder = target_folder(root)?.join("runtime");
    let mut all_built = Vec::new();
    for (name, features) in RUNTIMES {
        all_built.push((name, build(root, &Recipe { features, ..EMBEDDED }, &folder)?));
    }
    // Arranging takes far longer than building, and one after the other needlessly so.
    let arranged: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
        let started: Vec<_> =
            all_built.iter().map(|(name, built)| scope.spawn(|| built.arrange(name))).collect();
        let joined = started.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|_| bail!("arranging panicked"))).collect()
    });
    for ((name, _), rebuilt) in all_built.iter().zip(arranged) {
        write_or_compare(root, name, &rebuilt?, check)?;
    }
    Ok(())
}

fn write_or_compare(root: &Path, name: &str, rebuilt: &[u8], check: bool) -> Result<()> {
    let hash = hexadecimal(&Sha256::digest(rebuilt));
    let path = root.join(FOLDER).join(name);
    let hash_path = path.with_extension("wasm.sha256");
    if check {
        let remedy = "run `cargo xtask runtime` and commit what it writes";
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}: {remedy}", path.display()))
        };
        if read(&path)? != rebuilt || read(&hash_path)?.trim_ascii() != hash.as_bytes() {
            bail!("{} is not what its source builds to: {remedy}", path.display());
        }
    } else {
        std::fs::create_dir_all(path.parent().context("the runtime has a folder")?)?;
        std::fs::write(&path, rebuilt)?;
        std::fs::write(&hash_path, format!("{hash}\n"))?;
    }
    println!("{FOLDER}/{name}: {} bytes, SHA-256 {hash}", rebuilt.len());
    Ok(())
}

/// A way to build the runtime; the differences are what some setting brings.
struct Recipe {
    features: &'static str,
    opt_level: &'static str,
    /// Cargo does what the profile says of LTO only where no `rlib` is made beside the module.
    has_lto: bool,
    is_optimised: bool,
}

impl Recipe {
    fn effort(&self) -> Effort {
        match (self.is_optimised, self.features) {
            (false, _) => Effort::None,
            // Four times as long as the others, it would take ten minutes.
            (true, "evolution") => Effort::Sort,
            (true, _) => Effort::Search,
        }
    }
}

const EMBEDDED: Recipe =
    Recipe { features: "", opt_level: "z", has_lto: false, is_optimised: true };

const VARIANTS: [(&str, Recipe); 5] = [
    ("no-wasm-opt", Recipe { is_optimised: false, ..EMBEDDED }),
    ("wasm-opt", EMBEDDED),
    ("no-lto", EMBEDDED),
    ("lto", Recipe { has_lto: true, ..EMBEDDED }),
    ("opt-3", Recipe { opt_level: "3", ..EMBEDDED }),
];

/// Below the target folder.
pub(crate) const VARIANTS_FOLDER: &str = "wasm-variants";

/// What the files in [`VARIANTS_FOLDER`] are called.
pub(crate) fn variant_names() -> impl Iterator<Item = &'static str> {
    VARIANTS.iter().map(|(name, _)| *name)
}

/// Builds the runtime in several ways into `target/wasm-variants`, where the bench `wasm_size`
/// looks for them.
pub(crate) fn build_variants(root: &Path) -> Result<()> {
    let folder = target_folder(root)?.join(VARIANTS_FOLDER);
    std::fs::create_dir_all(&folder)?;
    for (name, recipe) in &VARIANTS {
        let bytes = build(root, recipe, &folder.join("build"))?.arrange(name)?;
        let path = folder.join(name).with_extension("wasm");
        std::fs::write(&path, &bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{name}.wasm: {} bytes, {} gzipped", bytes.len(), gzipped_bytes(&bytes)?);
    }
    Ok(())
}

/// `target_folder` is one of its own: flags differ from the host's, and would invalidate its
/// artefacts.
fn build(root: &Path, recipe: &Recipe, target_folder: &Path) -> Result<Built> {
    let mut build = if recipe.has_lto {
        cargo(root, &["rustc", "--crate-type", "cdylib"])
    } else {
        cargo(root, &["build"])
    };
    let mut flags = path_flags(root, target_folder)?;
    flags.extend(LLVM_SETTINGS.map(|setting| format!("-Cllvm-args={setting}")));
    succeed(
        build
            .args(["--package", "vudo-gen-runtime", "--lib", "--profile", "wasm"])
            .args(["--target", TARGET, "--features", recipe.features])
            // The names tell which functions panic. They are dropped below.
            .env("CARGO_PROFILE_WASM_STRIP", "none")
            .env("CARGO_PROFILE_WASM_OPT_LEVEL", recipe.opt_level)
            .env("CARGO_TARGET_DIR", target_folder)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
    )?;
    let built = target_folder.join(TARGET).join("wasm/vudo_gen_runtime.wasm");
    let cut_bytes = std::fs::read(&built)?;
    let Ok((cut_bytes, frames)) = cut_panics(&cut_bytes).and_then(|cut| fix_frames(&cut)) else {
        bail!("{} is not a module as rustc links it", built.display());
    };
    let effort = recipe.effort();
    if !recipe.is_optimised {
        let bytes = drop_names(&cut_bytes).map_err(|_| anyhow!("what was cut is no module"))?;
        return Ok(Built { bytes, frames, effort });
    }
    let cut = target_folder.join("cut.wasm");
    std::fs::write(&cut, cut_bytes)?;
    let optimised = target_folder.join("optimised.wasm");
    let mut optimise = Command::new(wasm_opt(root)?);
    optimise.args(OPTIMISATIONS).args(FEATURES);
    optimise.arg(&cut).arg("-o").arg(&optimised);
    succeed(&mut optimise)?;
    let bytes = std::fs::read(&optimised).context("wasm-opt wrote nothing")?;
    Ok(Built { bytes, frames, effort })
}

/// A runtime whose frames have no place yet.
struct Built {
    bytes: Vec<u8>,
    frames: Vec<FixedFrame>,
    effort: Effort,
}

impl Built {
    fn arrange(&self, name: &str) -> Result<Vec<u8>> {
        arrange(&self.bytes, &self.frames, self.effort)
            .map_err(|_| anyhow!("{name} cannot be arranged: it is not as wasm-opt writes it"))
    }
}

pub(crate) fn gzipped_bytes(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// The bytes must not depend on where the sources lie. Of two prefixes that fit, rustc takes the
/// later one.
fn path_flags(root: &Path, target_folder: &Path) -> Result<Vec<String>> {
    let rustc = |question: &str| output(Command::new("rustc").current_dir(root).args([question]));
    let sysroot = rustc("--print=sysroot")?;
    let version = rustc("-vV")?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let sysroot = Path::new(sysroot.trim());
    let mut flags = Vec::new();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(&home, "/cargo");
    remap(sysroot, "/rust");
    remap(root, "/vudo");
    remap(target_folder, "/target");
    if let Some(commit) = commit {
        // Where the component rust-src is installed, rustc finds the standard library there.
        remap(&sysroot.join("lib/rustlib/src/rust"), &format!("/rustc/{commit}"));
    }
    Ok(flags)
}

/// The pinned wasm-opt, installed from the lock file where it is absent or of another version.
fn wasm_opt(root: &Path) -> Result<PathBuf> {
    let folder = root.join(WASM_OPT_FOLDER);
    let program = folder.join("node_modules/.bin/wasm-opt");
    let pinned = json(&folder.join("package.json"))?["dependencies"]["binaryen"].take();
    let installed = json(&folder.join("node_modules/binaryen/package.json"));
    if !installed.is_ok_and(|package| package["version"] == pinned) {
        if !has_program("npm") {
            bail!("npm brings the pinned wasm-opt; install Node.js first");
        }
        let mut install = Command::new("npm");
        succeed(install.current_dir(&folder).args(["ci", "--no-audit", "--no-fund"]))?;
    }
    Ok(program)
}

fn json(path: &Path) -> Result<serde_json::Value> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
