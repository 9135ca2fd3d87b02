//! Known bugs, put back one at a time: for each a named test must fail.
//!
//! A bug stands in the code behind `cfg(vudo_mutation = "name")`, which nothing but this sets. A
//! wrapper around the compiler sets it for the crates of the workspace only, so that dependencies
//! are compiled once. A test that does not compile, or does not run, is a fault here as well.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, target_folder};

/// A bug and the test that is there for it.
struct Mutation {
    package: &'static str,
    /// The name in `cfg(vudo_mutation = "name")`.
    name: &'static str,
    /// A test target of the package; `None` for the tests in its library.
    target: Option<&'static str>,
    /// The full name of the test.
    test: &'static str,
}

const fn credit(name: &'static str, test: &'static str) -> Mutation {
    Mutation { package: "vudo-credit", name, target: Some("known_bugs"), test }
}

const fn crdt(name: &'static str, target: &'static str, test: &'static str) -> Mutation {
    Mutation { package: "vudo-crdt", name, target: Some(target), test }
}

const fn p2p(name: &'static str, target: &'static str, test: &'static str) -> Mutation {
    Mutation { package: "vudo-p2p", name, target: Some(target), test }
}

const MUTATIONS: &[Mutation] = &[
    crdt("lww_tie_flipped", "behaviour", "create_against_create"),
    crdt(
        "clock_ratchet",
        "behaviour",
        "clock_a_year_ahead_is_overwritten_and_other_writes_keep_honest_times",
    ),
    crdt("greater_life_keeps_cells", "behaviour", "deletion_and_recreation_on_both_sides"),
    crdt("overflow_wrapped", "behaviour", "saturate_wrap_error_on_reading"),
    crdt("totals_by_max", "behaviour", "a_total_that_shrank_takes_the_place_of_the_greater_one"),
    crdt("remove_covers_unknown_adds", "collections", "adding_wins_over_removing_at_the_same_time"),
    crdt(
        "needed_change_dropped",
        "set_aside",
        "a_value_superseded_above_a_checkpoint_and_then_needed_again",
    ),
    crdt("set_aside_joined", "set_aside", "a_cut_that_comes_first_is_as_one_that_comes_last"),
    Mutation {
        package: "vudo-state",
        name: "journal_without_sync",
        target: Some("crash"),
        test: "whatever_crashes_nothing_acknowledged_is_lost_and_nothing_is_torn",
    },
    Mutation {
        package: "vudo-state",
        name: "failed_chunks_forgotten",
        target: Some("crash"),
        test: "whatever_crashes_nothing_acknowledged_is_lost_and_nothing_is_torn",
    },
    Mutation {
        package: "vudo-state",
        name: "left_frame_forgotten",
        target: Some("crash"),
        test: "whatever_crashes_nothing_acknowledged_is_lost_and_nothing_is_torn",
    },
    Mutation {
        package: "vudo-state",
        name: "others_not_synced",
        target: Some("storage"),
        test: "what_is_written_while_a_frame_arrives_is_synced_as_well",
    },
    Mutation {
        package: "vudo-state",
        name: "unsigned_changes_applied",
        target: Some("authenticity"),
        test: "what_its_writer_has_not_signed_is_refused",
    },
    Mutation {
        package: "vudo-state",
        name: "grant_not_checked",
        target: Some("rights"),
        test: "a_write_that_nobody_has_granted_is_refused_with_what_is_missing",
    },
    Mutation {
        package: "vudo-state",
        name: "cut_ignored",
        target: Some("rights"),
        test: "a_person_writes_from_certified_replicas_and_a_lost_one_is_revoked_alone",
    },
    Mutation {
        package: "vudo-state",
        name: "judged_by_old_records",
        target: Some("rights"),
        test: "stores_with_the_same_changes_judge_them_the_same_whatever_their_order",
    },
    Mutation {
        package: "vudo-state",
        name: "strangers_cut",
        target: None,
        test: "rights::judging::tests::what_keys_revoke_that_no_link_leads_to_is_judged_by_once_one_does",
    },
    Mutation {
        package: "vudo-state",
        name: "checkpoint_ignored",
        target: Some("rights"),
        test: "checkpoints::a_revocation_does_not_reach_below_a_checkpoint_whether_a_store_has_compacted_or_not",
    },
    Mutation {
        package: "vudo-state",
        name: "set_aside_dropped",
        target: Some("rights"),
        test: "checkpoints::what_a_checkpoint_sets_aside_stays_so_and_is_held_and_passed_on",
    },
    Mutation {
        package: "vudo-state",
        name: "checkpoint_of_anybody",
        target: Some("rights"),
        test: "checkpoints::nobody_goes_on_from_a_checkpoint_that_no_owner_has_signed",
    },
    Mutation {
        package: "vudo-state",
        name: "greater_branch_taken",
        target: Some("forks"),
        test: "what_nobody_writes_again_can_be_adopted_once",
    },
    Mutation {
        package: "vudo-state",
        name: "checkpoint_without_held",
        target: Some("catch_up"),
        test: "a_checkpoint_without_what_is_held_here_is_refused",
    },
    p2p(
        "journal_without_sync",
        "simulation",
        "every_seed_converges_with_nothing_acknowledged_lost",
    ),
    p2p(
        "waiting_frames_acknowledged",
        "simulation",
        "every_seed_converges_with_nothing_acknowledged_lost",
    ),
    Mutation {
        package: "vudo-state",
        name: "cursors_outlast_branches",
        target: Some("forks"),
        test: "cursors_are_forgotten_with_the_branch_that_they_have",
    },
    p2p("known_sent_again", "proto", "two_sessions_bring_two_stores_to_the_same_state"),
    p2p("proof_not_verified", "proto", "without_the_secret_nothing_is_revealed"),
    credit("negative_amounts", "an_amount_that_wraps_around_is_no_amount"),
    credit("unverified_votes", "forged_votes_settle_nothing"),
    credit("duplicate_votes", "one_members_votes_are_one_vote"),
    credit("quorum_of_two_thirds", "two_quorums_of_six_are_never_disjoint"),
    credit("own_limit", "a_device_cannot_set_its_own_limit"),
    credit("settled_twice", "a_certificate_is_posted_once"),
    credit("payee_not_credited", "a_payee_is_credited_with_what_the_payer_is_debited"),
    credit("spent_forgotten", "a_grant_that_comes_again_forgets_no_spend"),
    credit("spend_lost_on_merge", "two_offline_spends_both_arrive"),
    credit("expiry_by_own_clock", "deposits_end_by_the_log_and_not_by_a_clock"),
    credit("refund_of_all", "closing_frees_what_was_not_spent_and_no_more"),
    credit("silent_overdraft", "an_overdraft_is_refused_with_a_reason"),
    credit("replayed_request", "a_request_is_ordered_once"),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    let folder = target_folder(root)?.join("mutations");
    std::fs::create_dir_all(&folder)?;
    let mut faults = Vec::new();
    for mutation in MUTATIONS {
        let is_caught = is_caught(root, &folder, mutation)
            .with_context(|| format!("{}, {}", mutation.package, mutation.name))?;
        let verdict = if is_caught { "caught by" } else { "NOT CAUGHT by" };
        println!("{}: {} {verdict} {}", mutation.package, mutation.name, mutation.test);
        if !is_caught {
            faults.push(mutation.name);
        }
    }
    if !faults.is_empty() {
        bail!("bugs that no test catches: {}", faults.join(", "));
    }
    println!("{} bugs put back, all of them caught", MUTATIONS.len());
    Ok(())
}

/// Whether the test of a mutation fails, and only it was run.
fn is_caught(root: &Path, folder: &Path, mutation: &Mutation) -> Result<bool> {
    let mut arguments = vec!["test", "--release", "--package", mutation.package];
    match mutation.target {
        Some(target) => arguments.extend(["--test", target]),
        None => arguments.push("--lib"),
    }
    arguments.extend(["--", "--exact", mutation.test]);
    let mut command = cargo(root, &arguments);
    command.env("CARGO_TARGET_DIR", folder);
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper(folder, mutation.name)?);
    let tests = command.output()?;
    let said = String::from_utf8_lossy(&tests.stdout);
    let verdict = format!("test {} ... ", mutation.test);
    match said.lines().find_map(|line| line.strip_prefix(&verdict)) {
        Some("FAILED") => Ok(true),
        Some("ok") => Ok(false),
        _ => bail!("the test did not run:\n{}", String::from_utf8_lossy(&tests.stderr)),
    }
}

/// A compiler wrapper that puts one bug back. It has a path of its own for each, by which cargo
/// keeps the artefacts apart.
fn wrapper(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'vudo_mutation=\"{name}\"'\n");
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
