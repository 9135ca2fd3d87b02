//! The numbers of `budgets.toml`, and measurements held against them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One entry of `budgets.toml`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Budget {
    /// The promise: a regression test fails past it.
    pub budget: f64,
    /// What we build for.
    pub goal: Option<f64>,
    /// Whether the figure has to be above the budget and not below it.
    #[serde(default)]
    pub more_is_better: bool,
}

impl Budget {
    /// The entry of this name, in the file that `VUDO_BUDGETS` names or else in `budgets.toml`.
    ///
    /// # Errors
    /// The file is not there, is no TOML, or has no such entry.
    pub fn named(name: &str) -> Result<Budget> {
        let text = match std::env::var_os("VUDO_BUDGETS") {
            Some(path) => std::fs::read_to_string(&path)
                .with_context(|| format!("VUDO_BUDGETS names {}", path.display()))?,
            // The file as it is now where there is one, so that a changed number needs no build.
            None => std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.toml"))
                .unwrap_or_else(|_| include_str!("../budgets.toml").to_owned()),
        };
        let budgets: BTreeMap<String, Budget> = toml::from_str(&text).context("budgets.toml")?;
        budgets.get(name).copied().with_context(|| format!("budgets.toml has no [{name}]"))
    }

    /// Whether a figure keeps the promise.
    pub fn is_met_by(&self, measured: f64) -> bool {
        if self.more_is_better { measured > self.budget } else { measured < self.budget }
    }
}

/// A figure beside its budget.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// As in `budgets.toml`.
    pub name: &'static str,
    /// The promise.
    pub budget: f64,
    /// What we build for.
    pub goal: Option<f64>,
    /// The figure: the median where it was measured more than once.
    pub measured: f64,
    /// The unit of the three.
    pub unit: &'static str,
    /// Whether the promise is kept.
    pub met: bool,
}

impl Measurement {
    /// Holds a figure against the entry of this name.
    ///
    /// # Errors
    /// As for [`Budget::named`].
    pub fn new(name: &'static str, unit: &'static str, measured: f64) -> Result<Measurement> {
        let budget = Budget::named(name)?;
        let met = budget.is_met_by(measured);
        Ok(Measurement { name, budget: budget.budget, goal: budget.goal, measured, unit, met })
    }
    /// The figure beside what it is held against, as the benches print it.
    pub fn line(&self, title: &str) -> String {
        let Measurement { measured, unit, budget, .. } = self;
        let goal = self.goal.map(|goal| format!(", goal {goal} {unit}")).unwrap_or_default();
        let mark = if self.met { "" } else { ": MISSED" };
        format!("{title}: {measured:.3} {unit} (budget {budget} {unit}{goal}){mark}")
    }
}
