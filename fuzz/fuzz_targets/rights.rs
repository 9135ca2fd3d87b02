//! Records of rights from outside: refused, or the same bytes again; and what follows from those that
//! hold, in any order the same.
//!
//! The input is records, each behind the number of the change that carries it and its length in two
//! bytes. Where the issuer is one of a few keys the record is signed, since a fuzzer would not find a
//! signature.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_state::{
    Founding, PublicKey, Rights, RightsRecord, SecretKeyBytes, SignedRecord, public_key_of,
};

const KEY_COUNT: u8 = 5;

fn keys() -> Vec<(SecretKeyBytes, PublicKey)> {
    (1..=KEY_COUNT).map(|name| ([name; 32], public_key_of(&[name; 32]))).collect()
}

/// The same record of one of the known keys, for any that begins as their numbers do.
fn with_known_keys(record: &RightsRecord, keys: &[(SecretKeyBytes, PublicKey)]) -> RightsRecord {
    let known = |key: &mut PublicKey| {
        if let Some((_, public)) = keys.get(usize::from(key.0[0])) {
            *key = *public;
        }
    };
    let mut record = record.clone();
    match &mut record {
        RightsRecord::Founding(_) => {}
        RightsRecord::Certificate { person, replica } => [person, replica].into_iter().for_each(known),
        RightsRecord::Grant(grant) => [&mut grant.issuer, &mut grant.subject].into_iter().for_each(known),
        RightsRecord::Revocation(revocation) => {
            [&mut revocation.issuer, &mut revocation.subject].into_iter().for_each(known);
        }
        RightsRecord::Checkpoint(checkpoint) => {
            known(&mut checkpoint.issuer);
            // So that there is something to judge.
            for (_, key) in keys {
                let number = checkpoint.vector.get(key).max(u64::from(checkpoint.issuer.0[1]));
                checkpoint.vector.advance(*key, number);
            }
        }
    }
    record
}

fuzz_target!(|input: &[u8]| {
    let keys = keys();
    let founding = Founding { salt: [1; 16], owners: vec![keys[0].1, keys[1].1] };
    let namespace = founding.namespace("fuzz");
    let mut records = vec![(SignedRecord::founding(founding), None)];
    let mut rest = input;
    while let [carrier, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, next) = tail.split_at(length);
        rest = next;
        let Ok(record) = SignedRecord::decode(bytes) else { continue };
        assert_eq!(record.bytes(), bytes);
        let is_signed = record.record().issuer().is_some() && record.holds(&namespace);
        assert!(!is_signed, "nobody has signed it");
        let known = with_known_keys(record.record(), &keys);
        let signer = keys.iter().find(|(_, public)| known.issuer() == Some(public));
        let Some((secret, _)) = signer else { continue };
        let Ok(signed) = SignedRecord::sign(known, &namespace, secret) else { continue };
        assert!(signed.holds(&namespace));
        let replica = keys[usize::from(*carrier) % keys.len()].1;
        records.push((signed, Some((replica, u64::from(*carrier) + 1))));
    }
    let mut forwards = Rights::new(&namespace).unwrap();
    forwards.hold(records.clone());
    let mut backwards = Rights::new(&namespace).unwrap();
    records.reverse();
    records.into_iter().for_each(|record| {
        backwards.hold([record]);
    });
    for (_, key) in &keys {
        for number in [1, 2, 100, u64::MAX] {
            let may_write =
                |rights: &Rights| rights.check_write(key, number, "Task", b"milk").is_ok();
            assert_eq!(may_write(&forwards), may_write(&backwards));
        }
        assert_eq!(forwards.readable_until(key, 5), backwards.readable_until(key, 5));
        forwards.acting_through(key);
    }
});
