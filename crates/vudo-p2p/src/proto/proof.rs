//! Proving that one holds a ticket's secret, without showing it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::message::Nonce;

/// The public key that is a node's name on the network.
pub type NodeId = [u8; 32];
/// What a ticket carries and a session proves.
pub type Secret = [u8; 32];

/// What digests of ranges are keyed with, in place of a role.
const RANGES: u8 = 3;

/// Keeps these proofs apart from any other use of the secret.
const DOMAIN: &[u8] = b"vudo/sync/1 proof";

/// Who proves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    Client = 1,
    Server = 2,
}

/// What a proof is bound to. A proof is worth nothing between other nodes, in another session or
/// for another namespace.
#[derive(Clone, Debug)]
pub(super) struct Binding<'a> {
    pub(super) client: &'a NodeId,
    pub(super) server: &'a NodeId,
    pub(super) client_nonce: &'a Nonce,
    pub(super) server_nonce: &'a Nonce,
    pub(super) namespace: &'a str,
}

impl Binding<'_> {
    /// The proof of one role.
    pub(super) fn prove(&self, role: Role, secret: &Secret) -> [u8; 32] {
        self.authenticate(role as u8, secret).finalize().into_bytes().into()
    }

    /// A key that both sides have a part in and nobody else knows.
    pub(super) fn range_key(&self, secret: &Secret) -> [u8; 32] {
        self.authenticate(RANGES, secret).finalize().into_bytes().into()
    }

    /// Whether a proof is the role's, in a time that does not depend on where they differ.
    pub(super) fn verify(&self, role: Role, secret: &Secret, proof: &[u8; 32]) -> bool {
        self.authenticate(role as u8, secret).verify_slice(proof).is_ok()
    }

    fn authenticate(&self, purpose: u8, secret: &Secret) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any size");
        mac.update(DOMAIN);
        mac.update(&[purpose]);
        // Everything but the namespace, which comes last, has a fixed size: no two bindings give
        // the same bytes.
        for part in [self.client, self.server, self.client_nonce, self.server_nonce] {
            mac.update(part);
        }
        mac.update(self.namespace.as_bytes());
        mac
    }
}
