//! What goes from payee to payer and back: invoices and payments, as bytes and as text.

use data_encoding::BASE64URL_NOPAD;

use crate::error::Refusal;
use crate::keys::{Digest, NetworkId};
use crate::limits::PAYMENT_TEXT_MAX;
use crate::operation::{CertifiedEntry, CertifiedHead};
use crate::spend::{Chain, Nonce, Payee};
use crate::wire::{Wire, wire_struct};

/// A payee asks for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The ledger.
    pub network: NetworkId,
    /// Who is to be paid.
    pub payee: Payee,
    /// Good for one payment.
    pub nonce: Nonce,
    /// In units.
    pub amount: u64,
}

/// A payment that a payee can verify without a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The grant of the lane, from the log.
    pub granted: CertifiedEntry,
    /// What the chain begins with, unless it begins with the lane.
    pub start: Option<CertifiedHead>,
    /// The spends since then; the payment is among them.
    pub chain: Chain,
}

wire_struct!(Invoice { network, payee, nonce, amount });
wire_struct!(Payment { granted, start, chain });

/// Text of a value: a word that says what it is, the bytes and a checksum in URL-safe Base64.
fn to_text<T: Wire>(word: &str, value: &T) -> String {
    let mut bytes = value.to_bytes();
    let checksum = Digest::of(word, &[&bytes]);
    bytes.extend_from_slice(&checksum.0[..4]);
    format!("{word}{}", BASE64URL_NOPAD.encode(&bytes))
}

fn from_text<T: Wire>(word: &str, what: &'static str, text: &str) -> Result<T, Refusal> {
    let bad = Refusal::BadText { what };
    let text = text.trim();
    let encoded = text.strip_prefix(word).filter(|_| text.len() <= PAYMENT_TEXT_MAX);
    let bytes = encoded.and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    let bytes = bytes.ok_or(bad.clone())?;
    let (bytes, checksum) = bytes.split_last_chunk::<4>().ok_or(bad.clone())?;
    if Digest::of(word, &[bytes]).0[..4] != *checksum {
        return Err(bad);
    }
    Ok(T::from_bytes(bytes)?)
}

impl Invoice {
    /// The invoice as text.
    pub fn to_text(&self) -> String {
        to_text("vudo-invoice-", self)
    }

    /// Reads an invoice.
    ///
    /// # Errors
    /// The text is damaged, or something else.
    pub fn from_text(text: &str) -> Result<Invoice, Refusal> {
        from_text("vudo-invoice-", "invoice", text)
    }
}

impl Payment {
    /// The payment as text.
    pub fn to_text(&self) -> String {
        to_text("vudo-payment-", self)
    }

    /// Reads a payment.
    ///
    /// # Errors
    /// The text is damaged, or something else.
    pub fn from_text(text: &str) -> Result<Payment, Refusal> {
        from_text("vudo-payment-", "payment", text)
    }
}
