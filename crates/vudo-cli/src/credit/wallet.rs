//! What a wallet does without a network.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::json;
use vudo_credit::limits::PAYMENT_TEXT_MAX;
use vudo_credit::wallet::payee_of;
use vudo_credit::{Device, Invoice, Payment, Receiver, Refusal};

use super::ledger::Ledger;
use super::store::{Role, Store, random_bytes};
use crate::Context;

pub(crate) fn key(context: &Context) -> Result<()> {
    let key = Store::open(context)?.owner()?.key();
    match context.json {
        true => println!("{}", json!({ "key": key.to_string() })),
        false => println!("{key}"),
    }
    Ok(())
}

pub(crate) fn init(context: &Context, file: &Path) -> Result<()> {
    let ledger = Ledger::read(file)?;
    let store = Store::open(context)?;
    store.settle_role(Role::Wallet, &ledger)?;
    let (account, device) = (store.owner()?.key(), store.device()?.key());
    let id = ledger.genesis.network();
    match context.json {
        true => println!(
            "{}",
            json!({
                "ledger": id.to_string(),
                "account": account.to_string(),
                "device": device.to_string(),
            })
        ),
        false => println!(
            "a wallet of ledger '{}' ({id}), account {account}; open it with `vudo credit open`",
            ledger.genesis.name
        ),
    }
    Ok(())
}

/// The store of a wallet, and its ledger.
pub(crate) fn open(context: &Context) -> Result<(Store, Ledger)> {
    let store = Store::open_existing(context)?;
    let path = context.store.display();
    let ledger = store.ledger()?.with_context(|| {
        format!("{path} is no wallet yet: make it one with `vudo credit init LEDGER`")
    })?;
    store.check_role(Role::Wallet)?;
    Ok((store, ledger))
}

pub(crate) fn pay(context: &Context, invoice: &str) -> Result<()> {
    let invoice = Invoice::from_text(&text(invoice)?)?;
    let (store, ledger) = open(context)?;
    let committee = ledger.genesis.committee()?;
    let mut device = Device::open(committee, store.device()?, store.entries_without_log()?)?;
    let prepared = device.pay(&invoice).map_err(|refusal| match refusal {
        Refusal::NothingToSpend { amount } => anyhow!(
            "no grant of this device has {amount} units left for this payee ({} are left in all): \
             ask for one with `vudo credit grant`, with a network",
            device.spendable()
        ),
        refusal => refusal.into(),
    })?;
    let is_new = !prepared.writes.is_empty();
    store.commit(prepared.writes)?;
    let payment = prepared.payment.to_text();
    match context.json {
        true => println!(
            "{}",
            json!({
                "payment": payment,
                "amount": invoice.amount,
                "new": is_new,
                "spendable": device.spendable(),
            })
        ),
        false => {
            let (amount, left) = (invoice.amount, device.spendable());
            let what = if is_new { "pays" } else { "paid before, the same payment again:" };
            eprintln!("{what} {amount} units; {left} are left to spend. Give this to the payee:");
            println!("{payment}");
        }
    }
    Ok(())
}

pub(crate) fn receive(context: &Context, amount_or_payment: &str) -> Result<()> {
    let given = text(amount_or_payment)?;
    let (store, ledger) = open(context)?;
    let committee = ledger.genesis.committee()?;
    let payee = payee_of(&store.owner()?, &store.device()?);
    let mut receiver = Receiver::open(committee, payee, store.entries_without_log()?)?;
    if let Ok(amount) = given.trim().parse::<u64>() {
        let (writes, invoice) = receiver.invoice(random_bytes()?, amount)?;
        store.commit(writes)?;
        match context.json {
            true => {
                println!("{}", json!({ "invoice": invoice.to_text(), "amount": amount }));
            }
            false => println!("{}", invoice.to_text()),
        }
        return Ok(());
    }
    if given.trim().starts_with("vudo-invoice-") {
        bail!("this is an invoice: pay it with `vudo credit pay`, or give it to who should");
    }
    let accepted = receiver.accept(&Payment::from_text(&given)?)?;
    store.commit(accepted.writes)?;
    let (amount, incoming) = (accepted.amount, receiver.incoming());
    match context.json {
        true => println!("{}", json!({ "amount": amount, "incoming": incoming })),
        false => println!(
            "received {amount} units; {incoming} are incoming and can be settled with \
             `vudo credit settle`"
        ),
    }
    Ok(())
}

pub(crate) fn backup(context: &Context, folder: &Path) -> Result<()> {
    let (store, _) = open(context)?;
    let bytes = store.backup(folder)?;
    match context.json {
        true => println!("{}", json!({ "bytes": bytes })),
        false => println!(
            "{bytes} bytes in {}. It holds the key of the account, so keep it secret; the key of \
             this device stays here",
            folder.display()
        ),
    }
    Ok(())
}

/// What was given, or standard input where that is `-`.
pub(crate) fn text(given: &str) -> Result<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(PAYMENT_TEXT_MAX as u64 + 1);
    input.read_to_string(&mut text).context("standard input is no text")?;
    if text.len() > PAYMENT_TEXT_MAX {
        bail!("standard input has more than {PAYMENT_TEXT_MAX} letters, and is no payment");
    }
    Ok(text)
}
