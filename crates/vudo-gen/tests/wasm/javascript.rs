//! Scripts in Node and in a real Chromium.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value as Json;
use vudo_testkit::skip::missing_program;

/// An empty folder for the files of one test.
pub(crate) fn new_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left there must not be what this one finds.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Whether a program starts.
pub(crate) fn is_there(program: &str) -> bool {
    let started = Command::new(program).arg("--version").output();
    started.is_ok_and(|output| output.status.success())
}

/// What a script prints in Node, or nothing where this machine has none.
pub(crate) fn node(test: &str, folder: &Path, arguments: &[&str]) -> Option<Json> {
    if !is_there("node") {
        missing_program(test, "node", "install Node.js 20.16 or later");
        return None;
    }
    Some(json_of(Command::new("node").current_dir(folder).args(arguments)))
}

/// The one line of JSON that a script prints.
fn json_of(command: &mut Command) -> Json {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{error}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}

/// The folder of `tools` with this name, and in it what its lock file pins.
pub(crate) fn installed(tools: &str, package: &str) -> PathBuf {
    // Tests run at the same time, and one of them installs for all.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools").join(tools);
    if !folder.join("node_modules").join(package).is_dir() {
        let arguments = ["ci", "--no-audit", "--no-fund"];
        let output = Command::new("npm").args(arguments).current_dir(&folder).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "npm ci in tools/{tools}: {error}");
    }
    folder
}

/// What runs scripts in pages: `tools/chromium/run.mjs`.
pub(crate) struct Page {
    runner: PathBuf,
    chromium: PathBuf,
}

/// Where a program lies.
fn path_of(program: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(program));
    paths.find(|path| path.is_file()).unwrap_or_else(|| program.into())
}

impl Page {
    /// `None` where this machine has no Chromium.
    pub(crate) fn find(test: &str) -> Option<Page> {
        for program in ["node", "npm", "chromium"] {
            if !is_there(program) {
                missing_program(test, program, "install Node.js 20.16 or later, npm and chromium");
                return None;
            }
        }
        let tools = installed("chromium", "playwright-core");
        Some(Page { runner: tools.join("run.mjs"), chromium: path_of("chromium") })
    }

    /// What a script of a folder gives in a page.
    pub(crate) fn run(&self, folder: &Path, script: &str) -> Json {
        let mut command = Command::new("node");
        json_of(command.arg(&self.runner).arg(&self.chromium).arg(folder).arg(script))
    }
}
