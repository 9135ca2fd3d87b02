//! The doctor: on a store that is served, and on one whose rights are not what its user thinks.

use vudo_state::{Database, Grant, RightsRecord};

use super::invitations::pass_on;
use super::{Place, Server, stderr};

/// What the doctor prints, and whether it found nothing wrong.
fn doctor(place: &Place, store: &str, more: &[&str]) -> (String, bool) {
    let output = place.run(&[&["--store", store, "doctor"], more].concat());
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!said.is_empty(), "{}", stderr(&output));
    (said, output.status.success())
}

/// The line about something.
fn line<'a>(said: &'a str, about: &str) -> &'a str {
    said.lines().find(|line| line.contains(about)).unwrap_or_else(|| panic!("{about}: {said}"))
}

#[cfg(unix)]
#[test]
fn the_doctor_looks_at_a_store_that_is_served_and_tries_the_network() {
    let place = Place::new();
    for store in ["held", "other"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
        place.succeed(&["--store", store, "set", "Task/milk", "votes+=1"]);
    }
    let server = Server::start_with(&place, "held", &["--websocket", "127.0.0.1:0"]);
    let (said, is_well) = doctor(&place, "held", &[&server.ticket]);
    assert!(is_well, "{said}");
    let key = place.succeed(&["--store", "held", "whoami"]);
    assert!(line(&said, "store:").contains(&format!("replica {}", &key[..10])), "{said}");
    assert!(line(&said, "store:").contains("in use by the process that serves it"), "{said}");
    assert!(line(&said, "namespace 'default':").contains("1 changes of 1 replicas"), "{said}");
    assert!(line(&said, "outbox of").contains("1 changes wait; no other store"), "{said}");
    assert!(line(&said, "network").contains("tried under a throwaway key"), "{said}");
    for way in ["QUIC to 127.0.0.1:", "WebSocket to ws://127.0.0.1:"] {
        assert!(line(&said, way).starts_with("ok "), "{said}");
        assert!(line(&said, way).contains("accepts the ticket"), "{said}");
    }
    assert!(line(&said, "sync of").starts_with("WARNING"), "{said}");
    // Nothing of it counts as an acknowledgement: what was in memory is gone.
    let outbox = place.succeed(&["--store", "held", "outbox", "--json"]);
    assert!(outbox.contains("\"acknowledged\":{}"), "{outbox}");

    // The same from another store, which the server's outbox knows afterwards.
    let (said, is_well) = doctor(&place, "other", &[&server.ticket]);
    assert!(is_well && line(&said, "sync of").contains("both stores are equal"), "{said}");
    let other = place.succeed(&["--store", "other", "whoami"]);
    let (said, _) = doctor(&place, "held", &[]);
    assert!(line(&said, "outbox of").contains(&format!("0 for {}", other.trim())), "{said}");

    let ticket: vudo_p2p::Ticket = server.ticket.parse().unwrap();
    let forged = vudo_p2p::Ticket { access: vudo_p2p::proto::Access::Secret([7; 32]), ..ticket };
    let (said, is_well) = doctor(&place, "held", &["--json", &forged.to_string()]);
    assert!(!is_well);
    let told = line(&said, "QUIC to");
    assert!(told.contains("\"ok\":false") && told.contains("secret"), "{said}");
}

/// Who looks whether a namespace could be synced has not shared it.
#[test]
fn the_doctor_shares_nothing() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    place.succeed(&["set", "Task/milk", "votes+=1"]);
    let (said, is_well) = doctor(&place, "vudo-store", &[]);
    assert!(is_well && line(&said, "network").contains("others would find this"), "{said}");
    let is_shared = || {
        let database = Database::open(place.path("vudo-store")).unwrap();
        database.setting("share/default").unwrap().is_some()
    };
    assert!(!is_shared());
    drop(Server::start(&place, "vudo-store"));
    assert!(is_shared(), "this is how it would be seen");
}

#[test]
fn the_doctor_says_what_became_of_the_rights_of_this_store_and_of_others() {
    let place = Place::new();
    for store in ["owner", "member", "guest"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
    }
    let name = place.succeed(&["--store", "owner", "found", "team"]);
    let name = name.trim();
    let on = |store: &str, arguments: &[&str]| {
        place.succeed(&[&["--store", store, "--namespace", "team"], arguments].concat())
    };
    let key = |store: &str| place.succeed(&["--store", store, "whoami"]).trim().to_owned();
    let (member, guest) = (key("member"), key("guest"));
    let rights = format!("rights of this store in namespace '{name}'");

    // Nobody has granted anything yet.
    pass_on(&place, "owner", "member", name);
    let (said, is_well) = doctor(&place, "member", &[]);
    assert!(is_well && line(&said, &rights).starts_with("WARNING"), "{said}");
    assert!(line(&said, &rights).contains(&format!("vudo invite {member}")), "{said}");
    let (said, is_well) = doctor(&place, "owner", &[]);
    assert!(is_well && line(&said, &rights).contains("owner 1 of 1"), "{said}");

    // Somebody writes where it may, is revoked, and writes on without knowing.
    on("owner", &["invite", &member, "--write", "Task", "--days", "30"]);
    pass_on(&place, "owner", "member", name);
    let (said, is_well) = doctor(&place, "member", &[]);
    assert!(is_well && line(&said, &rights).contains("writes Task/*"), "{said}");
    on("member", &["set", "Task/milk", "title=Buy milk"]);
    pass_on(&place, "member", "owner", name);
    on("owner", &["revoke", &member]);
    on("member", &["set", "Task/bread", "title=Buy bread"]);
    pass_on(&place, "member", "owner", name);
    pass_on(&place, "owner", "member", name);
    let (said, is_well) = doctor(&place, "member", &[]);
    assert!(!is_well && line(&said, &rights).starts_with("FAILED"), "{said}");
    assert!(line(&said, &rights).contains("has been revoked"), "{said}");
    let (said, is_well) = doctor(&place, "owner", &[]);
    let aside = line(&said, "changes set aside");
    assert!(is_well && aside.starts_with("WARNING"), "{said}");
    assert!(
        aside.contains(&format!("1 of {member} have no effect: it has been revoked")),
        "{said}"
    );

    // A grant that has ended already: the command line gives none of that kind.
    let database = Database::open(place.path("owner")).unwrap().in_namespace(name);
    let subject = Database::open(place.path("guest")).unwrap().replica_key();
    let grant = Grant {
        issuer: database.replica_key(),
        subject,
        can_delegate: false,
        expires_milliseconds: Some(951_782_400_000),
        scopes: Vec::new(),
    };
    database.issue(RightsRecord::Grant(grant), None).unwrap();
    drop(database);
    pass_on(&place, "owner", "guest", name);
    let (said, is_well) = doctor(&place, "guest", &[]);
    assert!(!is_well && line(&said, &rights).starts_with("FAILED"), "{said}");
    assert!(line(&said, &rights).contains("expired on 2000-02-29 00:00 UTC: reads"), "{said}");
    assert!(line(&said, &rights).contains(&format!("vudo invite {guest}")), "{said}");
    assert!(on("owner", &["peers"]).contains("expired on 2000-02-29 00:00 UTC: reads"));
}

/// The throwaway key is nobody's whom anything has been granted to, so what can be told is what the
/// ticket says.
#[cfg(unix)]
#[test]
fn the_doctor_reads_an_invitation_for_a_store_that_is_served() {
    let place = Place::new();
    for store in ["owner", "member"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
    }
    place.succeed(&["--store", "owner", "found", "team"]);
    let key = |store: &str| place.succeed(&["--store", store, "whoami"]).trim().to_owned();
    let owner = Server::start_with(&place, "owner", &["--namespace", "team"]);
    let invite = |key: &str, more: &[&str]| {
        let context = ["--store", "owner", "--namespace", "team", "invite", key];
        place.succeed(&[&context[..], more].concat()).trim().to_owned()
    };
    let own = invite(&key("member"), &["--days", "30"]);
    let anothers = invite(&"11".repeat(32), &[]);
    let _member = Server::start(&place, "member");
    let (said, is_well) = doctor(&place, "member", &[&own]);
    assert!(is_well, "{said}");
    assert!(line(&said, "ticket:").contains("let this store's key in until 20"), "{said}");
    assert!(line(&said, "QUIC to").contains("refuses the throwaway key"), "{said}");
    let (said, is_well) = doctor(&place, "member", &[&anothers]);
    assert!(!is_well && line(&said, "ticket:").contains("another key than this store's"), "{said}");
    drop(owner);
    let (said, is_well) = doctor(&place, "member", &[&own]);
    assert!(!is_well && line(&said, "QUIC to").contains("did not answer"), "{said}");
}
