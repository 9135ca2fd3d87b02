//! `vudo credit`: wallets and members of the mutual credit ledger.
//!
//! ```text
//! store.rs   a folder: keys, and on the engine's storage what wallet or member wrote
//! ledger.rs  the file that names a ledger: its genesis, and where its members are
//! wallet.rs  what works without a network: pay, receive, balance, backup
//! online.rs  what the committee is needed for: open, limit, grant, settle, ...
//! member.rs  a member of the committee as a process
//! audit.rs   logs as files, and checking them
//! ```
//!
//! The ledger itself is `vudo-credit`, which does no input or output. Here its effects are carried
//! out: writes are on disk, synced, before a message or a payment leaves.

mod audit;
mod ledger;
mod member;
mod online;
mod store;
mod wallet;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use vudo_credit::Key;

use crate::Context;

/// What `vudo credit --help` begins with.
pub(crate) const ABOUT: &str = "\
Mutual credit: pay without a network, settle with a committee.

There is no coin. Accounts open at 0 and may owe up to a limit; all balances together are always 0.
A wallet has part of its limit reserved (`grant`), and then pays from it without a network.

A ledger of four members, of which one may fail or lie:

  vudo --store m0 credit key                 the key of a member; m1, m2, m3 alike
  vudo --store boss credit key               the key of an operator, who sets limits
  vudo credit committee found town --member KEY=127.0.0.1:4000 ... --operator KEY
  vudo --store m0 credit committee serve town.ledger       and so on for the others

Two people:

  vudo --store anna credit init town.ledger                bela alike
  vudo --store anna credit open
  vudo --store boss credit limit ANNA 1000 --tier 2        boss has run init and open, too
  vudo --store anna credit grant 200         from here on Anna needs no network
  vudo --store bela credit receive 25        prints an invoice for Anna
  vudo --store anna credit pay INVOICE       prints a payment for Bela
  vudo --store bela credit receive PAYMENT   checks it, offline
  vudo --store bela credit settle            once the network is back
  vudo --store bela credit audit             proves the whole log, trusting nobody";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print the key of this store: a member's, an operator's or an account's. It is made where
    /// there is none.
    Key,
    /// Found a ledger, be one of its members, or see how they are.
    #[command(subcommand)]
    Committee(CommitteeCommand),
    /// Make this store a wallet of a ledger.
    Init {
        /// The ledger's file, as in town.ledger.
        ledger: PathBuf,
    },
    /// Open this wallet's account, at 0 and with a limit of 0.
    Open(Online),
    /// Set what an account may owe. Operators only.
    Limit {
        /// The account.
        #[arg(value_parser = ledger::parse_key)]
        account: Key,
        /// In units.
        limit: u64,
        /// The tier, which bounds the limit, and the size and life of grants.
        #[arg(long, default_value_t = 1)]
        tier: u8,
        #[command(flatten)]
        online: Online,
    },
    /// Vouch for an account with free credit of one's own.
    Pledge {
        /// The account.
        #[arg(value_parser = ledger::parse_key)]
        account: Key,
        /// In units.
        amount: u64,
        #[command(flatten)]
        online: Online,
    },
    /// Reserve credit for this device, to be spent without a network.
    Grant {
        /// In units.
        amount: u64,
        /// An invoice of the only payee that may be paid with it: such a grant cannot be spent
        /// twice.
        #[arg(long, value_name = "INVOICE")]
        payee: Option<String>,
        #[command(flatten)]
        online: Online,
    },
    /// Give a device of this account, a lost one say, no more grants.
    Revoke {
        /// The device's key, as `balance` prints it.
        #[arg(value_parser = ledger::parse_key)]
        device: Key,
        #[command(flatten)]
        online: Online,
    },
    /// Pay an invoice, without a network; prints the payment. An invoice that was paid before gives
    /// the same payment again.
    Pay {
        /// The invoice, or `-` to read it from standard input.
        invoice: String,
    },
    /// Ask for an amount, which prints an invoice; or check and take a payment. Needs no network.
    Receive {
        /// A number of units, a payment, or `-` to read a payment from standard input.
        amount_or_payment: String,
    },
    /// Settle with the committee what was received and paid.
    Settle(Online),
    /// Say what the account has, by the entries of the log that this wallet knows.
    Balance {
        /// Ask the committee for what is new first.
        #[arg(long)]
        refresh: bool,
        #[command(flatten)]
        online: Online,
    },
    /// Check a whole log from its first entry: certificates, rules, postings, every invariant.
    Audit {
        /// A log that `vudo credit log` wrote; without it, the one of this store.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// The ledger that it has to be of; without it, this store's or the one the log names.
        #[arg(long, value_name = "FILE")]
        ledger: Option<PathBuf>,
    },
    /// Write this store's log into a file, for auditors.
    Log {
        /// The file, which is replaced.
        file: PathBuf,
    },
    /// Write this wallet into a folder, without the key of its device: a wallet restored from it
    /// asks for grants of its own, and cannot spend anything twice.
    Backup {
        /// The folder, which must not exist.
        folder: PathBuf,
    },
}

/// How long to wait for the committee.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Online {
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 30)]
    timeout_seconds: u64,
}

#[derive(Subcommand)]
pub(crate) enum CommitteeCommand {
    /// Write the file of a new ledger. It cannot be changed later.
    Found {
        /// For people; the file is NAME.ledger.
        name: String,
        /// A member's key and where it listens, as in KEY=127.0.0.1:4000. The first one orders the
        /// log.
        #[arg(long = "member", value_name = "KEY=ADDR", required = true)]
        members: Vec<ledger::MemberPlace>,
        /// The key of somebody who sets limits.
        #[arg(long = "operator", value_name = "KEY", required = true)]
        #[arg(value_parser = ledger::parse_key)]
        operators: Vec<Key>,
        /// The account that pays for what others lost to fraud; without it, the first operator's.
        #[arg(long, value_name = "KEY", value_parser = ledger::parse_key)]
        reserve: Option<Key>,
        /// How long a tick is: grants live for some number of ticks.
        #[arg(long, default_value_t = 86_400)]
        tick_seconds: u64,
        /// How many ticks after its end the payments of a grant may still be deposited.
        #[arg(long, default_value_t = 30)]
        settle_window_ticks: u64,
    },
    /// Be a member until interrupted. This store's key has to be one of the ledger's.
    Serve {
        /// The ledger's file.
        ledger: PathBuf,
        /// The UDP address to listen on; without it, the one that the ledger names.
        #[arg(long)]
        bind: Option<SocketAddr>,
        /// This store was moved here, nothing was written at its old place since, and that is gone.
        #[arg(long)]
        moved: bool,
    },
    /// Say which members answer, and how many entries each has.
    Status {
        /// The ledger's file.
        ledger: PathBuf,
        /// Wait so many seconds for answers.
        #[arg(long, default_value_t = 3)]
        timeout_seconds: u64,
    },
}

pub(crate) fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Key => wallet::key(context),
        Command::Committee(command) => committee(context, command),
        Command::Init { ledger } => wallet::init(context, &ledger),
        Command::Open(online) => online::open(context, online),
        Command::Limit { account, limit, tier, online } => {
            online::limit(context, account, tier, limit, online)
        }
        Command::Pledge { account, amount, online } => {
            online::pledge(context, account, amount, online)
        }
        Command::Grant { amount, payee, online } => {
            online::grant(context, amount, payee.as_deref(), online)
        }
        Command::Revoke { device, online } => online::revoke(context, device, online),
        Command::Pay { invoice } => wallet::pay(context, &invoice),
        Command::Receive { amount_or_payment } => wallet::receive(context, &amount_or_payment),
        Command::Settle(online) => online::settle(context, online),
        Command::Balance { refresh, online } => online::balance(context, refresh.then_some(online)),
        Command::Audit { log, ledger } => audit::run(context, log.as_deref(), ledger.as_deref()),
        Command::Log { file } => audit::export(context, &file),
        Command::Backup { folder } => wallet::backup(context, &folder),
    }
}

fn committee(context: &Context, command: CommitteeCommand) -> Result<()> {
    match command {
        CommitteeCommand::Found {
            name,
            members,
            operators,
            reserve,
            tick_seconds,
            settle_window_ticks,
        } => {
            let reserve = reserve.unwrap_or(operators[0]);
            let terms = ledger::Terms { operators, reserve, tick_seconds, settle_window_ticks };
            ledger::found(context, &name, &members, terms)
        }
        CommitteeCommand::Serve { ledger, bind, moved } => {
            member::serve(context, &ledger, bind, moved)
        }
        CommitteeCommand::Status { ledger, timeout_seconds } => {
            member::status(context, &ledger, timeout_seconds)
        }
    }
}
