//! Who invites whom to what, and what comes of it.

use vudo_state::{Database, Grant, RightsRecord, Scope};

use super::Place;

/// Passes everything on that one store lacks of a namespace, as sync does, whoever may read it.
pub(super) fn pass_on(place: &Place, from: &str, to: &str, namespace: &str) {
    let [from, to] = [from, to].map(|store| {
        let database = Database::open(place.path(store)).unwrap();
        database.replication(namespace).unwrap()
    });
    while let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

/// Stores with keys, of which the first has founded a namespace.
struct Team {
    place: Place,
    name: String,
}

impl Team {
    fn new(stores: &[&str]) -> Team {
        Team::found(stores, &[])
    }

    fn found(stores: &[&str], more: &[&str]) -> Team {
        let place = Place::new();
        for store in stores {
            place.succeed(&["--store", store, "init", "task.dol"]);
        }
        let found = [&["--store", stores[0], "found", "team"], more].concat();
        let name = place.succeed(&found).trim().to_owned();
        Team { place, name }
    }

    fn key(&self, store: &str) -> String {
        self.place.succeed(&["--store", store, "whoami"]).trim().to_owned()
    }

    fn on(&self, store: &str, arguments: &[&str]) -> String {
        self.place.succeed(&[&["--store", store, "--namespace", "team"], arguments].concat())
    }

    fn refused(&self, store: &str, arguments: &[&str]) -> String {
        self.place.fail(&[&["--store", store, "--namespace", "team"], arguments].concat())
    }

    fn pass_on(&self, from: &str, to: &str) {
        pass_on(&self.place, from, to, &self.name);
    }

    /// What `vudo peers` says of a key.
    fn standing(&self, store: &str, key: &str) -> String {
        let peers = self.on(store, &["peers"]);
        let line = peers.lines().find(|line| line.starts_with(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{peers}")).to_owned()
    }
}

#[test]
fn a_delegate_invites_as_far_as_it_may_write_itself_and_as_long_as_it_is_not_revoked() {
    let team = Team::new(&["owner", "delegate", "member"]);
    let (delegate, member) = (team.key("delegate"), team.key("member"));
    let reader = "22".repeat(32);
    team.pass_on("owner", "delegate");
    let refused = team.refused("delegate", &["invite", &member]);
    assert!(refused.contains(&format!("vudo invite {delegate} --delegate")), "{refused}");
    team.on("owner", &["invite", &delegate, "--delegate", "--write", "Task/draft-"]);
    team.pass_on("owner", "delegate");

    for beyond in ["Task", "Task/", "Task/dra", "Note/draft-", "*", "*/draft-"] {
        let both = ["invite", &member, "--write", "Task/draft-a", "--write", beyond];
        let refused = team.refused("delegate", &both);
        assert!(refused.contains("may let others write Task/draft-*"), "{beyond}: {refused}");
        assert!(refused.contains("goes beyond that"), "{beyond}: {refused}");
    }
    assert!(!team.on("delegate", &["peers"]).contains(&member), "nothing has been written");
    team.on("delegate", &["invite", &member, "--write", "Task/draft-a"]);
    team.on("delegate", &["invite", &reader]);
    team.pass_on("delegate", "member");
    team.on("member", &["set", "Task/draft-a1", "title=Mine"]);
    let granted = "reads, and writes Task/draft-a*, by ";
    assert!(team.standing("member", &member).contains(&format!(": {granted}")));

    team.pass_on("member", "owner");
    team.on("owner", &["revoke", &delegate]);
    let standing = team.standing("owner", &member);
    assert!(standing.contains(&format!(": cut off: {granted}")), "{standing}");
    assert!(team.standing("owner", &delegate).contains(": revoked; cut off: reads"));
    team.pass_on("owner", "delegate");
    for arguments in [&["invite", &member][..], &["invite", &reader, "--device"]] {
        let refused = team.refused("delegate", arguments);
        assert!(refused.contains("has been revoked, so whoever it invites"), "{refused}");
    }
    // Whom it had let in may let in nobody either.
    team.pass_on("owner", "member");
    let refused = team.refused("member", &["invite", &reader, "--device"]);
    assert!(refused.contains("has been cut off"), "{refused}");
}

#[test]
fn a_delegate_that_has_taken_back_an_invitation_cannot_give_it_again() {
    let team = Team::new(&["owner", "delegate"]);
    let (delegate, member) = (team.key("delegate"), "22".repeat(32));
    team.on("owner", &["invite", &delegate, "--delegate"]);
    team.pass_on("owner", "delegate");
    team.on("delegate", &["invite", &member]);
    team.on("delegate", &["revoke", &member]);
    assert!(team.standing("delegate", &member).contains(": cut off: reads, by "));
    let refused = team.refused("delegate", &["invite", &member]);
    assert!(refused.contains("for good"), "{refused}");
    // It is not the owner who has revoked it.
    team.pass_on("delegate", "owner");
    team.on("owner", &["invite", &member]);
    let standing = team.standing("owner", &member);
    assert_eq!(standing.matches("reads, by ").count(), 2, "{standing}");
    assert_eq!(standing.matches("cut off: reads, by ").count(), 1, "{standing}");
}

#[test]
fn an_owner_that_has_been_revoked_invites_nobody() {
    let team = Team::found(&["owner"], &["--recovery", "recovery.key"]);
    let own = team.key("owner").split_whitespace().next().unwrap().to_owned();
    let member = "22".repeat(32);
    team.on("owner", &["revoke", &own, "--key", "recovery.key"]);
    assert!(team.on("owner", &["whoami"]).contains("revoked; owner 2 of 2"));
    let refused = team.refused("owner", &["invite", &member]);
    assert!(refused.contains("has been revoked, so whoever it invites gets nothing"), "{refused}");
    team.on("owner", &["invite", &member, "--key", "recovery.key"]);
    assert!(team.standing("owner", &member).contains(": reads, by "));
}

#[test]
fn an_invitation_has_an_end_and_another_store_of_the_same_person_has_it_too() {
    let team = Team::new(&["owner", "laptop", "phone"]);
    let (laptop, phone) = (team.key("laptop"), team.key("phone"));
    let never = ["--store", "owner", "--namespace", "team", "invite", &laptop, "--days", "0"];
    assert_eq!(team.place.run(&never).status.code(), Some(2));
    let json = team.on("owner", &["invite", &laptop, "--write", "Task", "--days", "30", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let said = json["rights"][0].as_str().unwrap();
    let (granted, until) = said.split_once(", until ").unwrap();
    assert!(granted.starts_with("reads, and writes Task/*, by "), "{said}");
    let digits = until.replace(|letter: char| letter.is_ascii_digit(), "0");
    assert_eq!(digits, "0000-00-00 00:00 UTC", "{said}");

    team.pass_on("owner", "laptop");
    let refused = team.refused("laptop", &["invite", &phone]);
    assert!(refused.contains("may not invite"), "{refused}");
    team.on("laptop", &["invite", &phone, "--device"]);
    team.pass_on("laptop", "phone");
    let said = team.on("phone", &["whoami"]);
    let short = &laptop[..10];
    assert!(said.contains(&format!("writes for {short}, until {until}")), "{said}");
    let json = team.on("phone", &["whoami", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["people"], serde_json::json!([laptop]));
    team.on("phone", &["set", "Task/milk", "title=Buy milk"]);
    team.pass_on("phone", "owner");
    assert_eq!(team.on("owner", &["list", "Task"]).lines().count(), 1);
    // A replica answers for nobody.
    let refused = team.refused("phone", &["invite", &"22".repeat(32), "--device"]);
    assert!(refused.contains("may not invite"), "{refused}");
}

#[test]
fn who_has_expired_invites_nobody() {
    let team = Team::new(&["owner", "delegate"]);
    let subject = Database::open(team.place.path("delegate")).unwrap().replica_key();
    let database = Database::open(team.place.path("owner")).unwrap().in_namespace(&team.name);
    let grant = Grant {
        issuer: database.replica_key(),
        subject,
        can_delegate: true,
        expires_milliseconds: Some(951_782_400_000),
        scopes: vec![Scope::everything()],
    };
    database.issue(RightsRecord::Grant(grant), None).unwrap();
    drop(database);
    team.pass_on("owner", "delegate");
    let standing = team.standing("owner", &team.key("delegate"));
    assert!(
        standing.contains("expired on 2000-02-29 00:00 UTC: reads, and writes *"),
        "{standing}"
    );
    let reader = "22".repeat(32);
    for device in [&[][..], &["--device"]] {
        let invite = [&["invite", &*reader], device].concat();
        let refused = team.refused("delegate", &invite);
        assert!(refused.contains("has expired, so whoever it invites gets nothing"), "{refused}");
    }
}

#[test]
fn owners_are_named_with_the_founding_and_a_revocation_accepts_what_it_names() {
    let other = "33".repeat(32);
    let team = Team::found(&["owner", "member"], &["--owner", &other]);
    let json: serde_json::Value =
        serde_json::from_str(&team.on("owner", &["whoami", "--json"])).unwrap();
    assert_eq!(json["rights"], serde_json::json!(["owner 1 of 2"]));
    assert!(team.standing("owner", &other).ends_with(": owner 2 of 2"));

    let member = team.key("member");
    team.on("owner", &["invite", &member, "--write", "Task"]);
    team.pass_on("owner", "member");
    for key in ["Task/one", "Task/two", "Task/three"] {
        team.on("member", &["set", key, "title=Mine"]);
    }
    team.pass_on("member", "owner");
    assert_eq!(team.on("owner", &["list", "Task"]).lines().count(), 3);
    let json = team.on("owner", &["revoke", &member, "--accept", "2", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["accepted"], serde_json::json!({ member.clone(): 2 }));
    assert_eq!(team.on("owner", &["list", "Task"]).lines().count(), 2);
    let standing = team.standing("owner", &member);
    assert!(standing.ends_with("1 of its changes are set aside"), "{standing}");
}
