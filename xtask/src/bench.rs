//! The criterion suite: measuring it, saving a baseline, holding it against one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::baselines;
use crate::command::{cargo, succeed, target_folder};

/// What the suite may take once it is built; a slower one is not run before each commit.
const SUITE_DURATION_MAX: Duration = Duration::from_secs(300);

/// Where criterion puts the latest figures, whatever they are compared with.
pub(crate) const LATEST: &str = "new";

/// Measures every bench of the workspace, and tells whether none is too slow against a baseline.
pub(crate) fn run(root: &Path, save: Option<&str>, against: Option<&str>) -> Result<bool> {
    let bench = ["bench", "--workspace"];
    succeed(cargo(root, &bench).arg("--no-run"))?;
    let mut measure = cargo(root, &bench);
    if let Some(name) = save {
        measure.args(["--", "--save-baseline", name]);
    } else if let Some(name) = against {
        // Lenient: a bench that is new has nothing to be compared with.
        measure.args(["--", "--baseline-lenient", name]);
    }
    let start = Instant::now();
    succeed(&mut measure)?;
    let elapsed = start.elapsed();
    println!("the suite took {:.0} s", elapsed.as_secs_f64());
    if elapsed > SUITE_DURATION_MAX {
        println!("that is more than {} s: use smaller samples", SUITE_DURATION_MAX.as_secs());
    }
    match against {
        Some(name) => compare(root, name, LATEST),
        None => Ok(true),
    }
}

/// Holds one saved baseline against another.
pub(crate) fn compare(root: &Path, old: &str, new: &str) -> Result<bool> {
    baselines::compare(&target_folder(root)?.join("criterion"), old, new)
}
