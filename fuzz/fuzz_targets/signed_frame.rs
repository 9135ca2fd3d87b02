//! A signed frame from outside: refused without a trace, or exactly what its writers signed.
//!
//! The input is a frame without its checksum, and a byte that says how to sign it. A fuzzer would
//! find neither a checksum nor a signature, so both are put in here: the frame's writers are renamed
//! to ones whose keys are known, and each signs what the frame makes of an empty log, unless the byte
//! asks for a flaw.

#![no_main]

use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use vudo_crdt::head::Head;
use vudo_crdt::merkle::{MerkleLog, frame_leaf_hash};
use vudo_crdt::{
    Frame, FrameWriter, ReplicaKey, Seal, SignedFrame, VersionVector, checksum, write_signed_frame,
};
use vudo_state::Database;

fn key(place: usize) -> SigningKey {
    SigningKey::from_bytes(&[place as u8 + 1; 32])
}

/// The frame under keys that are known, signed as one frame of an empty log each.
fn signed(content: &[u8], flaw: u8) -> Option<Vec<u8>> {
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&checksum(content));
    let frame = Frame::parse(&bytes).ok()?;
    let keys: Vec<ReplicaKey> = (0..frame.replicas().len())
        .map(|n| ReplicaKey(key(n).verifying_key().to_bytes()))
        .collect();
    let mut writer = FrameWriter::new(&keys, frame.gen_names().iter());
    frame.changes().for_each(|change| writer.push(&change));
    let renamed = writer.finish();
    let frame = Frame::parse(&renamed).unwrap();
    let mut logs = vec![MerkleLog::new(); keys.len()];
    for change in frame.changes() {
        let log = &mut logs[change.replica as usize];
        if change.number == log.length() + 1 {
            log.push(frame_leaf_hash("default", &frame, &change), |_, _| ());
        }
    }
    let seal = |(place, log): (usize, &MerkleLog)| {
        let (replica, namespace) = (keys[place], "default".to_owned());
        let length = log.length() + u64::from(flaw == 1);
        let head = Head { namespace, replica, length, root: log.root() };
        let signature = key(place + usize::from(flaw == 2)).sign(&head.bytes_to_sign());
        Seal { root: head.root, signature: signature.to_bytes() }
    };
    let seals: Vec<Seal> = logs.iter().enumerate().map(seal).collect();
    let mut out = Vec::new();
    write_signed_frame(&renamed, &seals, &mut out);
    Some(out)
}

fuzz_target!(|input: &[u8]| {
    let Some((flaw, content)) = input.split_first() else { return };
    // The bytes as they are: no reader may panic.
    let _refused = SignedFrame::parse(content);
    let Some(bytes) = signed(content, flaw % 4) else { return };
    let database = Database::open_in_memory().unwrap();
    let replication = database.replication("default").unwrap();
    if replication.apply_frame(&bytes).is_err() {
        assert_eq!(replication.durable_vector(), VersionVector::new());
        return;
    }
    assert!(![1, 2].contains(&(flaw % 4)) || replication.durable_vector().replica_count() == 0);
    // What was accepted can be passed on.
    let passed_on = replication.frame_since(&VersionVector::new(), usize::MAX).unwrap();
    let Some(passed_on) = passed_on else { return };
    let other = Database::open_in_memory().unwrap().replication("default").unwrap();
    other.apply_frame(&passed_on.bytes).unwrap();
    assert_eq!(other.fingerprint().unwrap(), replication.fingerprint().unwrap());
});
