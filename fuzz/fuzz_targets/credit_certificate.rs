//! Certificates: what is accepted is canonical, and checking one that nobody gave refuses it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_credit::committee::{Certificate, Committee, MerklePath};
use vudo_credit::operation::CertifiedHead;
use vudo_credit::wire::Wire;
use vudo_credit::{Digest, Secret};

fuzz_target!(|bytes: &[u8]| {
    let members = (1..5).map(|number| Secret::from_seed([number; 32]).key()).collect();
    let committee = Committee::new(Digest::default(), 0, members).unwrap();
    if let Ok(certificate) = Certificate::from_bytes(bytes) {
        assert_eq!(certificate.to_bytes(), bytes);
        let statement = certificate.statement;
        assert!(certificate.verify(&committee, &statement).is_err());
    }
    if let Ok(path) = MerklePath::from_bytes(bytes) {
        assert_eq!(path.to_bytes(), bytes);
        let _ = path.root(&Digest::default());
    }
    if let Ok(head) = CertifiedHead::from_bytes(bytes) {
        assert_eq!(head.to_bytes(), bytes);
    }
});
