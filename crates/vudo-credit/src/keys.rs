//! Hashes, keys and signatures.
//!
//! Every signature is over a hash with a domain tag, so nothing that was signed for one purpose
//! or network can be passed off for another. Signatures are checked by the rules of ZIP-215
//! (<https://zips.z.cash/zip-0215>), under which checking one by one and checking in a batch always
//! give the same answer; RFC 8032 leaves that open, and then two honest members could disagree.

use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt;
use std::collections::BTreeMap;

use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

use crate::limits::{COMMITTEE_MEMBERS_MAX, SETTLEMENT_HEADS_MAX};
use crate::wire::{Listed, MalformedFrame, Reader, Wire};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// Names a ledger: the hash of its genesis.
pub type NetworkId = Digest;

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature(pub [u8; 64]);

/// A secret Ed25519 key. It is wiped when it is dropped and never printed.
pub struct Secret(SigningKey);

impl Digest {
    /// The hash of `parts` under a domain tag. All parts but the last have a fixed size for each
    /// tag, so no two lists of parts run together into the same bytes.
    pub fn of(tag: &str, parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        hash.update([tag.len() as u8]);
        hash.update(tag.as_bytes());
        for part in parts {
            hash.update(part);
        }
        Digest(hash.finalize().into())
    }
}

impl Secret {
    /// The key that 32 random bytes are.
    pub fn from_seed(seed: [u8; 32]) -> Secret {
        Secret(SigningKey::from(seed))
    }

    /// The bytes to keep the key in: whoever has them can sign.
    pub fn seed(&self) -> [u8; 32] {
        *self.0.as_bytes()
    }

    /// The public key.
    pub fn key(&self) -> Key {
        Key(VerificationKeyBytes::from(&self.0).into())
    }

    /// Signs a hash.
    pub fn sign(&self, digest: &Digest) -> Signature {
        let signature = Signature(self.0.sign(&digest.0).to_bytes());
        note(&self.key(), digest, &signature, true);
        signature
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Key {
    /// Whether a signature of a hash is this key's.
    pub fn verifies(&self, digest: &Digest, signature: &Signature) -> bool {
        let check = || {
            let signature = ed25519_zebra::Signature::from_bytes(&signature.0);
            VerificationKey::try_from(self.0)
                .is_ok_and(|key| key.verify(&signature, &digest.0).is_ok())
        };
        known(self, digest, signature).unwrap_or_else(|| {
            let is_right = check();
            note(self, digest, signature, is_right);
            is_right
        })
    }
}

thread_local! {
    /// Whether signatures are right, by their names, where this thread keeps that.
    static KNOWN: RefCell<Option<BTreeMap<Digest, bool>>> = const { RefCell::new(None) };
}

/// Makes this thread remember what it finds out about signatures, and which it has made itself,
/// beginning with none. Nothing is decided otherwise by that; but where many nodes are simulated in
/// one thread, each signature is checked at most once, and not by each of them. There is no bound to
/// what it remembers, so it is of no use outside of simulations.
pub fn remember_signatures() {
    KNOWN.with_borrow_mut(|known| *known = Some(BTreeMap::new()));
}

fn known(key: &Key, digest: &Digest, signature: &Signature) -> Option<bool> {
    KNOWN.with_borrow(|known| {
        known.as_ref()?.get(&name_of_signature(key, digest, signature)).copied()
    })
}

fn note(key: &Key, digest: &Digest, signature: &Signature, is_right: bool) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.insert(name_of_signature(key, digest, signature), is_right);
        }
    });
}

fn name_of_signature(key: &Key, digest: &Digest, signature: &Signature) -> Digest {
    Digest::of("vudo-credit/1/signature", &[&key.0, &digest.0, &signature.0])
}

/// Signatures that are checked together, which takes half the time of checking each.
#[derive(Default)]
pub struct Batch {
    items: Vec<(Key, Signature, Digest)>,
    is_trusted: bool,
}

impl Batch {
    /// A batch of signatures that were checked before, which checks none of them again.
    pub(crate) fn trusted() -> Batch {
        Batch { is_trusted: true, ..Batch::default() }
    }

    /// Adds a signature.
    pub fn add(&mut self, key: Key, digest: Digest, signature: Signature) {
        if !self.is_trusted {
            self.items.push((key, signature, digest));
        }
    }

    /// Whether all of them are right.
    pub fn is_valid(&self) -> bool {
        let is_unknown = |(key, signature, digest): &&(Key, Signature, Digest)| {
            known(key, digest, signature) != Some(true)
        };
        let items: Vec<&(Key, Signature, Digest)> = self.items.iter().filter(is_unknown).collect();
        match items.as_slice() {
            // Even of nothing, a batch would cost half a signature.
            [] => return true,
            [(key, signature, digest)] => return key.verifies(digest, signature),
            _ => {}
        }
        let mut verifier = batch::Verifier::new();
        let mut transcript = Sha256::new();
        for (key, signature, digest) in &items {
            for part in [&key.0[..], &signature.0, &digest.0] {
                transcript.update(part);
            }
            let signature = ed25519_zebra::Signature::from_bytes(&signature.0);
            verifier.queue((VerificationKeyBytes::from(key.0), signature, &digest.0));
        }
        let coefficients = Coefficients { seed: transcript.finalize().into(), counter: 0 };
        let is_valid = verifier.verify(coefficients).is_ok();
        if is_valid {
            items.iter().for_each(|(key, signature, digest)| note(key, digest, signature, true));
        }
        is_valid
    }
}

/// The random coefficients of a batch, derived from all that is in it: whoever makes up signatures
/// cannot know them beforehand, and every member draws the same.
struct Coefficients {
    seed: [u8; 32],
    counter: u64,
}

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for piece in out.chunks_mut(32) {
            let counter = self.counter.to_be_bytes();
            let block = Digest::of("vudo-credit/1/batch", &[&self.seed, &counter]);
            self.counter += 1;
            piece.copy_from_slice(&block.0[..piece.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}

macro_rules! wire_array {
    ($name:ident) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }

            fn read(reader: &mut Reader<'_>) -> Result<$name, MalformedFrame> {
                reader.array().map($name)
            }
        }

        impl fmt::Display for $name {
            /// All bytes in hexadecimal.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            /// The first four bytes in hexadecimal.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    };
}

wire_array!(Digest);
wire_array!(Key);
wire_array!(Signature);

impl Listed for Key {
    const COUNT_MAX: usize = COMMITTEE_MEMBERS_MAX;
}

/// Hashes come in lists as the path from a leaf of a tree to its root.
impl Listed for Digest {
    const COUNT_MAX: usize = SETTLEMENT_HEADS_MAX.ilog2() as usize;
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret of {:?}", self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> Secret {
        Secret::from_seed([number; 32])
    }

    #[test]
    fn a_batch_is_valid_where_each_signature_is() {
        for wrong in 0..6 {
            let mut batch = Batch::default();
            for number in 0..5 {
                let digest = Digest::of("test", &[&[number]]);
                let signed = if number == wrong { Digest::default() } else { digest };
                let signature = secret(number % 3).sign(&signed);
                batch.add(secret(number % 3).key(), digest, signature);
            }
            assert_eq!(batch.is_valid(), wrong == 5, "signature {wrong} is wrong");
        }
        assert!(Batch::default().is_valid());
    }

    /// Points of small order, which the rules of libraries disagree about.
    /// The encodings are from "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020).
    #[test]
    fn single_and_batch_agree_on_points_of_small_order() {
        let small_order = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            // Not in canonical form.
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0100000000000000000000000000000000000000000000000000000000000080",
        ];
        let bytes = |hex: &str| {
            let mut bytes = [0_u8; 32];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).unwrap();
            }
            bytes
        };
        let digest = Digest::of("test", &[b"small order"]);
        let mut accepted_count = 0;
        for key in small_order {
            for point in small_order {
                let key = Key(bytes(key));
                let mut signature = Signature([0; 64]);
                signature.0[..32].copy_from_slice(&bytes(point));
                let alone = key.verifies(&digest, &signature);
                let mut batch = Batch::default();
                batch.add(key, digest, signature);
                batch.add(secret(1).key(), digest, secret(1).sign(&digest));
                assert_eq!(batch.is_valid(), alone, "{key} {signature}");
                accepted_count += usize::from(alone);
            }
        }
        // ZIP-215 multiplies by the cofactor, after which all of these vanish.
        assert_eq!(accepted_count, small_order.len() * small_order.len());
    }
}
