//! Measures the five budgets now, on this machine, and prints them.

use anyhow::Result;
use clap::Parser;
use vudo_benchmarks::{child, measure};

/// Measures VUDO's five performance budgets.
#[derive(Parser)]
struct Arguments {
    /// Print a list of {name, budget, goal, measured, unit, met}.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    child::run_if_asked();
    let arguments = Arguments::parse();
    let program = std::env::current_exe()?;
    let measured = measure::five(&program, |what| {
        if !arguments.json {
            eprintln!("measuring {what} ...");
        }
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        for row in &measured {
            let verdict = if row.met { "met" } else { "MISSED" };
            println!(
                "{:<32} {:>12.2} {:<6} budget {:>8}  {verdict}",
                row.name, row.measured, row.unit, row.budget
            );
        }
    }
    if measured.iter().any(|row| !row.met) {
        std::process::exit(1);
    }
    Ok(())
}
