//! Proving that one holds a ticket's secret, without showing it, or that one has a key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vudo_state::SignedRecord;

use super::message::Nonce;

/// The public key that is a node's name on the network.
pub type NodeId = [u8; 32];
/// What a ticket carries and a session proves.
pub type Secret = [u8; 32];

/// How whoever dials shows that it may sync a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It holds the namespace's secret.
    Secret(Secret),
    /// Records of the namespace say so of its key. These are among them, for a peer that does not hold
    /// them yet.
    Capability(Vec<SignedRecord>),
}

impl From<Secret> for Access {
    fn from(secret: Secret) -> Access {
        Access::Secret(secret)
    }
}

/// What digests of ranges are keyed with, in place of a role.
const RANGES: u8 = 3;

/// Keeps these proofs apart from any other use of the secret.
const DOMAIN: &[u8] = b"vudo/sync/1 proof";
/// Keeps these signatures apart from any other use of the key.
const KEY_DOMAIN: &[u8] = b"vudo/sync/1 key proof";

/// Who proves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    Client = 1,
    Server = 2,
}

impl Role {
    /// The role of the other side.
    pub(super) fn other(self) -> Role {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
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
        let is_right = self.authenticate(role as u8, secret).verify_slice(proof).is_ok();
        is_right || cfg!(vudo_mutation = "proof_not_verified")
    }

    /// What a role signs to prove that it has its key.
    pub(super) fn bytes_to_sign(&self, role: Role) -> Vec<u8> {
        let mut out = Vec::from(KEY_DOMAIN);
        self.visit(role as u8, |part| out.extend_from_slice(part));
        out
    }

    fn authenticate(&self, purpose: u8, secret: &Secret) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any size");
        mac.update(DOMAIN);
        self.visit(purpose, |part| mac.update(part));
        mac
    }

    /// Everything that a proof is bound to. All but the namespace, which comes last, has a fixed size:
    /// no two bindings give the same bytes.
    fn visit(&self, purpose: u8, mut visit: impl FnMut(&[u8])) {
        visit(&[purpose]);
        for part in [self.client, self.server, self.client_nonce, self.server_nonce] {
            visit(part);
        }
        visit(self.namespace.as_bytes());
    }
}
