//! The `vudo` command line.
//!
//! Exit status: 0 when it did what was asked, 1 when it could not, 2 when the question was wrong.

#![forbid(unsafe_code)]

#[cfg(unix)]
mod control;
mod credit;
mod data;
mod demo;
mod doctor;
mod examination;
mod import;
mod network;
mod output;
mod retention;
mod rights;
mod schema;
mod standing;
mod store;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vudo_gen::wasm::Accessors;

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
    /// The namespace in the store: the unit of sync. Of one that has owners the label will do.
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
        /// Read and write fields through exports that take a field's number, instead of through
        /// exports for each field: smaller for Gens of many fields. app.js offers the same.
        #[arg(long)]
        generic: bool,
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
    #[command(flatten)]
    Store(store::StoreCommand),
    /// Let other stores sync with this one; prints the ticket that they need.
    Serve {
        /// The UDP address to listen on, for QUIC.
        #[arg(long, default_value = "0.0.0.0:0")]
        bind: std::net::SocketAddr,
        /// Be a sync server too: the TCP address on which WebSockets are served at /sync, and the
        /// server's health at /health.
        #[arg(long, value_name = "ADDR")]
        websocket: Option<std::net::SocketAddr>,
        /// A relay at which others find this store where no direct way leads to it, as from one home
        /// network to another: https://relay.example.org. May be given up to four times.
        ///
        /// The ticket names it, so whoever syncs needs no option; both sides go over to a direct way where
        /// they find one. The relay is a program of your own, `iroh-relay`, at a place that both reach;
        /// nothing goes to anybody else's. It sees which keys talk to each other, and not what they say.
        /// With https it needs a certificate of a public authority, with http none.
        #[arg(long = "relay", value_name = "URL")]
        relays: Vec<String>,
    },
    /// Sync with the store behind a ticket until both hold the same.
    Sync {
        /// What `vudo serve` printed.
        ticket: String,
        /// Give up when nothing has moved for so many seconds: no change went over, and no session got
        /// further than those before. A sync that goes on may take as long as it needs.
        #[arg(long, default_value_t = 30)]
        timeout_seconds: u64,
    },
    /// Say what this machine sees of the network, and why it does not sync.
    ///
    /// Looks at the store, at what became of its rights and at what waits for whom, and tries the network;
    /// with a ticket every way to the node behind it. Of a store that is served its process says what is in
    /// it, and the network is tried under a throwaway key, which takes nothing.
    Doctor {
        /// What `vudo serve` printed.
        ticket: Option<String>,
    },
    /// Mutual credit: pay without a network, settle with a committee.
    #[command(subcommand, long_about = credit::ABOUT)]
    Credit(credit::Command),
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
    let context = arguments.context;
    start_log(&context, &arguments.command);
    let done = match arguments.command {
        Command::Check { files, against } => schema::check(&context, &files, &against),
        Command::Fmt { files, check } => schema::format(&context, &files, check),
        Command::Inspect { module } => schema::inspect(&context, &module),
        Command::Build { files, output, rust, generic } => {
            let accessors = if generic { Accessors::Generic } else { Accessors::Typed };
            schema::build(&context, &files, &output, rust.as_deref(), accessors)
        }
        Command::Describe { field, files } => schema::describe(&context, &field, &files),
        Command::Explain { code } => schema::explain(&context, code.as_deref()),
        Command::Init { files } => schema::init(&context, &files),
        Command::Store(command) => store::open_and_run(&context, command),
        Command::Serve { bind, websocket, relays } => {
            network::serve(&context, bind, websocket, relays)
        }
        Command::Sync { ticket, timeout_seconds } => {
            network::sync(&context, &ticket, timeout_seconds)
        }
        Command::Doctor { ticket } => doctor::run(&context, ticket.as_deref()),
        Command::Credit(command) => credit::run(&context, command),
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

/// The log goes to standard error: of a server all that an operator may want to know, else only
/// what is wrong. For machines every line is a JSON object.
fn start_log(context: &Context, command: &Command) {
    use tracing_subscriber::filter::LevelFilter;

    let level = match command {
        Command::Serve { .. } | Command::Credit(credit::Command::Committee(_)) => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    };
    // Of the network's own crates only what is wrong.
    let levels = Targets::new().with_default(LevelFilter::WARN).with_target("vudo", level);
    // iroh calls it an error that its transport for relays ends where an endpoint is closed.
    const RELAY_TRANSPORT: &str = "iroh::socket::transports::relay";
    let levels = levels
        .with_target(RELAY_TRANSPORT, LevelFilter::OFF)
        .with_target(format!("{RELAY_TRANSPORT}::actor"), LevelFilter::WARN);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match context.json {
        true => registry.with(lines.json().with_filter(levels)).init(),
        false => registry.with(lines.with_filter(levels)).init(),
    }
}
