//! The `vudo` command line.
//!
//! Exit status: 0 when it did what was asked, 1 when it could not, 2 when the question was wrong.

#![forbid(unsafe_code)]

mod data;
mod demo;
mod import;
mod network;
mod output;
mod schema;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Local-first applications: declare a record type once, store it, merge it, sync it.
///
/// Start with `vudo demo`, which does all of it on real data. Then write a record type
/// into task.dol, `vudo init task.dol`, `vudo set Task/milk title="Buy milk"`,
/// `vudo serve`, and on another device `vudo sync TICKET`.
#[derive(Parser)]
#[command(name = "vudo", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

/// Where a command works, and how it prints.
#[derive(clap::Args)]
pub(crate) struct Context {
    /// The folder of the store.
    #[arg(long, global = true, env = "VUDO_STORE", default_value = "vudo-store")]
    store: PathBuf,
    /// The namespace in the store: the unit of sync.
    #[arg(long, global = true, default_value = vudo_state::DEFAULT_NAMESPACE)]
    namespace: String,
    /// Print JSON, for machines.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Check .dol files: what is wrong with them, and what holds their rules.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// An older version of the files: say what changes for replicas that have not upgraded.
        #[arg(long, value_name = "FILE")]
        against: Vec<PathBuf>,
    },
    /// Lay .dol files out anew, in the one layout.
    Fmt {
        /// The files, which are rewritten.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Change nothing, and fail where a file has another layout.
        #[arg(long)]
        check: bool,
    },
    /// Read the schema back that a module was built from.
    Inspect {
        /// The module, as in app.wasm.
        module: PathBuf,
    },
    /// Compile .dol files to a WASM module with its JavaScript and TypeScript.
    Build {
        /// The files; all Gens go into one module.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the module goes; app.js and app.d.ts go beside it.
        #[arg(short, long, default_value = "app.wasm")]
        output: PathBuf,
        /// Write the typed Rust API here as well.
        #[arg(long)]
        rust: Option<PathBuf>,
    },
    /// Say in words what merging does to a field, with an example that is merged on the spot.
    Describe {
        /// As in Task.title.
        field: String,
        /// The .dol files that declare it; without any, what the store knows.
        files: Vec<PathBuf>,
    },
    /// Say what a code such as E0301 means, or list all codes.
    Explain {
        /// The code.
        code: Option<String>,
    },
    /// Create a store, or teach one more Gens.
    Init {
        /// The .dol files of the store's Gens.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Import rows of a CSV file or lines of JSON.
    Import(import::Options),
    /// Print a document.
    Get {
        /// As in Task/milk.
        document: data::Address,
    },
    /// Set fields of a document, which is created where there is none.
    ///
    /// `title=milk` sets a field; `votes+=2` and `votes-=1` add to a counter.
    Set {
        /// As in Task/milk.
        document: data::Address,
        /// As in title=milk or votes+=1.
        #[arg(required = true)]
        fields: Vec<data::Assignment>,
    },
    /// Delete a document.
    Delete {
        /// As in Task/milk.
        document: data::Address,
    },
    /// List the documents of a Gen, ascending by key.
    List {
        /// The Gen.
        gen_name: String,
        /// At most so many.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Let other stores sync with this one; prints the ticket that they need.
    Serve {
        /// The address to listen on.
        #[arg(long, default_value = "0.0.0.0:0")]
        bind: std::net::SocketAddr,
    },
    /// Sync with the store behind a ticket until both hold the same.
    Sync {
        /// What `vudo serve` printed.
        ticket: String,
        /// Give up after so many seconds.
        #[arg(long, default_value_t = 30)]
        timeout_seconds: u64,
    },
    /// Say what the store holds.
    Stats,
    /// See VUDO do its job: compile, import, sync between two processes, merge, measure.
    Demo {
        /// Leave the measuring of the budgets out.
        #[arg(long)]
        skip_budgets: bool,
    },
}

fn main() -> ExitCode {
    vudo_benchmarks::child::run_if_asked();
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let context = arguments.context;
    let done = match arguments.command {
        Command::Check { files, against } => schema::check(&context, &files, &against),
        Command::Fmt { files, check } => schema::format(&context, &files, check),
        Command::Inspect { module } => schema::inspect(&context, &module),
        Command::Build { files, output, rust } => {
            schema::build(&context, &files, &output, rust.as_deref())
        }
        Command::Describe { field, files } => schema::describe(&context, &field, &files),
        Command::Explain { code } => schema::explain(&context, code.as_deref()),
        Command::Init { files } => schema::init(&context, &files),
        Command::Import(options) => import::run(&context, &options),
        Command::Get { document } => data::get(&context, &document),
        Command::Set { document, fields } => data::set(&context, &document, &fields),
        Command::Delete { document } => data::delete(&context, &document),
        Command::List { gen_name, limit } => data::list(&context, &gen_name, limit),
        Command::Serve { bind } => network::serve(&context, bind),
        Command::Sync { ticket, timeout_seconds } => {
            network::sync(&context, &ticket, timeout_seconds)
        }
        Command::Stats => data::stats(&context),
        Command::Demo { skip_budgets } => demo::run(skip_budgets),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
