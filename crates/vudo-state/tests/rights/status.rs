//! What grants and certificates are worth: who may pass on what, and until when it lets somebody in.

use vudo_state::{
    Grant, PublicKey, Revocation, RightStatus, Rights, RightsRecord, Scope, SignedRecord,
};

use super::writer::{public, signed};
use super::{founding, scope};

/// Of the stories below: an owner, a delegate, whom that one has invited, and somebody's replica.
const OWNER: u8 = 2;
const DELEGATE: u8 = 11;
const MEMBER: u8 = 12;
const REPLICA: u8 = 21;

const GOOD: RightStatus = RightStatus::Good { until_milliseconds: u64::MAX };

fn grant(issuer: u8, subject: u8, expires_milliseconds: Option<u64>) -> Grant {
    Grant {
        issuer: public(issuer),
        subject: public(subject),
        can_delegate: subject == DELEGATE,
        expires_milliseconds,
        scopes: vec![scope("Task", "draft-")],
    }
}

/// The rights where an owner has invited a delegate, who has invited a member, who has a replica.
fn rights(delegated_until: Option<u64>) -> (Rights, String) {
    let (name, founding) = founding();
    let mut rights = Rights::new(&name).unwrap();
    let certificate =
        RightsRecord::Certificate { person: public(MEMBER), replica: public(REPLICA) };
    let records = [
        founding,
        signed(RightsRecord::Grant(grant(OWNER, DELEGATE, delegated_until)), &name, OWNER),
        signed(RightsRecord::Grant(grant(DELEGATE, MEMBER, Some(2_000))), &name, DELEGATE),
        signed(certificate, &name, MEMBER),
    ];
    rights.hold(records.map(|record| (record, Some((public(OWNER), 1)))));
    (rights, name)
}

fn revoke(rights: &mut Rights, name: &str, issuer: u8, subject: u8) {
    let (issuer_key, subject) = (public(issuer), public(subject));
    let last_accepted = vudo_crdt::VersionVector::new();
    let revocation = Revocation { issuer: issuer_key, subject, last_accepted };
    let record: SignedRecord = signed(RightsRecord::Revocation(revocation), name, issuer);
    rights.hold([(record, Some((public(OWNER), 2)))]);
}

/// What the member's grant and its replica's certificate are worth.
fn statuses(rights: &Rights, now_milliseconds: u64) -> [RightStatus; 2] {
    let granted: PublicKey = public(MEMBER);
    let grant = rights.grants_to(&granted).next().unwrap();
    [
        rights.status_of_grant(grant, now_milliseconds),
        rights.status_of_certificate(&granted, &public(REPLICA), now_milliseconds),
    ]
}

#[test]
fn a_key_passes_on_what_it_may_do_itself_and_nothing_beyond_it() {
    let (rights, _) = rights(None);
    let may = |issuer: u8, scope: &Scope| rights.may_grant(&public(issuer), Some(scope), 0);
    let inside = [scope("Task", "draft-"), scope("Task", "draft-one")];
    let beyond = [scope("Task", ""), scope("Note", "draft-"), scope("", "draft-")];
    for scope in inside.iter().chain(&beyond).chain([&Scope::everything()]) {
        assert!(may(OWNER, scope), "an owner may grant {scope}");
        assert!(!may(MEMBER, scope), "nobody let the member invite");
    }
    assert!(inside.iter().all(|scope| may(DELEGATE, scope)));
    assert!(!beyond.iter().any(|scope| may(DELEGATE, scope)));
    // Reading takes no scope, and a replica no right to invite.
    assert!(rights.may_grant(&public(DELEGATE), None, 0));
    assert!(!rights.may_grant(&public(MEMBER), None, 0));
    assert!(rights.may_certify(&public(MEMBER), 0));
    assert!(!rights.may_certify(&public(REPLICA), 0), "a replica answers for nobody");
}

#[test]
fn a_grant_is_good_until_it_or_one_that_it_rests_on_expires() {
    let until = |until_milliseconds| RightStatus::Good { until_milliseconds };
    assert_eq!(statuses(&rights(None).0, 1_999), [until(2_000); 2]);
    assert_eq!(statuses(&rights(None).0, 2_000), [RightStatus::Expired; 2]);
    let (rights, _) = rights(Some(1_500));
    assert_eq!(statuses(&rights, 1_499), [until(1_500); 2]);
    assert_eq!(statuses(&rights, 1_500), [RightStatus::Expired; 2]);
    assert!(rights.may_grant(&public(DELEGATE), None, 1_499));
    assert!(!rights.may_grant(&public(DELEGATE), None, 1_500));
    let of_delegate = rights.grants_to(&public(DELEGATE)).next().unwrap();
    assert_eq!(rights.status_of_grant(&grant(OWNER, MEMBER, None), u64::MAX), GOOD);
    assert_eq!(rights.status_of_grant(of_delegate, 1_499), until(1_500));
}

#[test]
fn a_grant_is_cut_off_with_whom_it_rests_on() {
    let cut_off = RightStatus::CutOff;
    // Of whom the owner revokes, what they have given is worth nothing; of what has expired as well it
    // is told that it was cut off.
    for (revoked, expected) in [
        (DELEGATE, [cut_off; 2]),
        (MEMBER, [cut_off; 2]),
        (REPLICA, [RightStatus::Good { until_milliseconds: 2_000 }, cut_off]),
    ] {
        let (mut rights, name) = rights(None);
        revoke(&mut rights, &name, OWNER, revoked);
        assert_eq!(statuses(&rights, 1_000), expected, "{revoked}");
        let may_invite = rights.may_grant(&public(DELEGATE), None, 1_000);
        assert_eq!(may_invite, revoked != DELEGATE);
        assert_eq!(rights.may_certify(&public(MEMBER), 1_000), revoked == REPLICA);
    }
    // A delegate takes back what it has granted, and nobody else's.
    let (mut rights, name) = rights(None);
    revoke(&mut rights, &name, DELEGATE, MEMBER);
    assert_eq!(statuses(&rights, 1_000), [cut_off; 2]);
    assert_eq!(statuses(&rights, 3_000), [cut_off; 2]);
    assert!(!rights.is_revoked(&public(MEMBER)));
}
