//! A model of two lanes and their closing, explored exhaustively.
//!
//! Four members of which one lies, two payees, two lanes and three spends. The device of the first
//! lane lies too: it signs spend A for one payee and spend B for the other, in the same place. The
//! device of the second lane is honest and signs C. Messages may be delayed, lost, doubled and
//! reordered at will: an action is the arrival of a message, and nothing demands that it happens.
//! The liar signs whatever helps to break something, and may report anything.

use stateright::{Checker, Model, Property};

const HONEST: usize = 3;
const QUORUM: usize = 3;

/// The two contradicting spends of the lane that is spent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Branch {
    A,
    B,
}

use Branch::{A, B};

/// What an honest member holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Member {
    /// Which of both it has voted for; a vote cannot be taken back.
    voted: Option<Branch>,
    /// Whether it holds the other as well.
    has_other: bool,
    /// Of which it has processed a certificate.
    processed: Option<Branch>,
    /// Whether it holds, and has voted for, the honest lane's spend.
    has_honest: bool,
    processed_honest: bool,
    /// Whether it has applied the entry that begins the closing.
    is_frozen: bool,
}

/// What the log has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Decision {
    settled: Option<Branch>,
    /// Spends that are settled by the waterfall.
    claims: [bool; 2],
    settled_honest: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    members: [Member; HONEST],
    recorded: Option<Branch>,
    recorded_honest: bool,
    has_intent: bool,
    decision: Option<Decision>,
}

/// What the liar puts into its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LiarReport {
    holds: [bool; 2],
    /// It shows a certificate where there is one.
    shows_certificate: bool,
    holds_honest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Deposit(usize, Branch),
    DepositHonest(usize),
    Process(usize, Branch),
    ProcessHonest(usize),
    Record(Branch),
    RecordHonest,
    Intent,
    Freeze(usize),
    /// The log decides by the reports of these honest members, and by the liar's if there is one.
    Close {
        honest: [bool; HONEST],
        liar: Option<LiarReport>,
    },
}

impl State {
    /// Whether a quorum's votes exist, wherever they are: the liar's is always to be had.
    fn is_certified(&self, branch: Branch) -> bool {
        let votes = self.members.iter().filter(|member| member.voted == Some(branch)).count();
        votes + 1 >= QUORUM
    }

    fn is_certified_honest(&self) -> bool {
        self.members.iter().filter(|member| member.has_honest).count() + 1 >= QUORUM
    }

    /// Whether a payee may hold the words of a quorum that has processed a certificate.
    fn is_final(&self, branch: Branch) -> bool {
        let count = self.members.iter().filter(|member| member.processed == Some(branch)).count();
        count + 1 >= QUORUM
    }

    fn holds(member: &Member, branch: Branch) -> bool {
        member.voted == Some(branch)
            || (member.voted.is_some() && member.has_other)
            || member.processed == Some(branch)
    }

    fn decide(&self, honest: [bool; HONEST], liar: Option<LiarReport>) -> Decision {
        let reports =
            || self.members.iter().zip(honest).filter(|(_, reports)| *reports).map(|(one, _)| one);
        let mut base = self.recorded;
        for member in reports() {
            base = base.or(member.processed);
        }
        let mut holds = [A, B].map(|branch| reports().any(|one| Self::holds(one, branch)));
        let mut holds_honest = self.recorded_honest || reports().any(|one| one.has_honest);
        if let Some(report) = liar {
            holds = [holds[0] | report.holds[0], holds[1] | report.holds[1]];
            holds_honest |= report.holds_honest;
            if report.shows_certificate {
                let shown = [A, B].into_iter().find(|branch| self.is_certified(*branch));
                base = base.or(shown);
            }
        }
        let settled = match (base, holds) {
            (Some(branch), _) => Some(branch),
            (None, [true, false]) => Some(A),
            (None, [false, true]) => Some(B),
            (None, _) => None,
        };
        let claims = [A, B].map(|branch| holds[branch as usize] && settled != Some(branch));
        Decision { settled, claims, settled_honest: holds_honest }
    }
}

struct Lanes;

impl Model for Lanes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for member in 0..HONEST {
            actions.extend([A, B].map(|branch| Action::Deposit(member, branch)));
            actions.push(Action::DepositHonest(member));
            actions.extend([A, B].map(|branch| Action::Process(member, branch)));
            actions.push(Action::ProcessHonest(member));
            actions.push(Action::Freeze(member));
        }
        actions.extend([A, B].map(Action::Record));
        actions.extend([Action::RecordHonest, Action::Intent]);
        if state.decision.is_some() {
            return;
        }
        for bits in 0..1 << HONEST {
            let honest = [0, 1, 2].map(|member| bits >> member & 1 == 1);
            let count = honest.iter().filter(|reports| **reports).count();
            if count >= QUORUM {
                actions.push(Action::Close { honest, liar: None });
            }
            if count + 1 >= QUORUM {
                for lie in 0..16 {
                    let bit = |place: u32| lie >> place & 1 == 1;
                    let liar = Some(LiarReport {
                        holds: [bit(0), bit(1)],
                        shows_certificate: bit(2),
                        holds_honest: bit(3),
                    });
                    actions.push(Action::Close { honest, liar });
                }
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Deposit(member, branch) => {
                let member = &mut state.members[member];
                if member.is_frozen {
                    return None;
                }
                match member.voted {
                    None if member.processed.is_none_or(|one| one == branch) => {
                        member.voted = Some(branch);
                    }
                    None => member.has_other = true,
                    Some(voted) => member.has_other |= voted != branch,
                }
            }
            Action::DepositHonest(member) => {
                let member = &mut state.members[member];
                member.has_honest |= !member.is_frozen;
            }
            Action::Process(member, branch) => {
                let can = state.is_certified(branch) && !state.members[member].is_frozen;
                let member = &mut state.members[member];
                if can && member.processed.is_none() {
                    member.processed = Some(branch);
                }
            }
            Action::ProcessHonest(member) => {
                let can = state.is_certified_honest() && !state.members[member].is_frozen;
                if can {
                    state.members[member].has_honest = true;
                    state.members[member].processed_honest = true;
                }
            }
            Action::Record(branch) => {
                if state.is_certified(branch) && state.decision.is_none() {
                    state.recorded = state.recorded.or(Some(branch));
                }
            }
            Action::RecordHonest => {
                state.recorded_honest |= state.is_certified_honest() && state.decision.is_none();
            }
            Action::Intent => state.has_intent = true,
            Action::Freeze(member) => state.members[member].is_frozen |= state.has_intent,
            Action::Close { honest, liar } => {
                let are_frozen =
                    (0..HONEST).all(|member| !honest[member] || state.members[member].is_frozen);
                if are_frozen && state.decision.is_none() {
                    state.decision = Some(state.decide(honest, liar));
                }
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Lanes>> {
        vec![
            Property::always("a lane has one certified chain", |_, state: &State| {
                !(state.is_certified(A) && state.is_certified(B))
            }),
            Property::always("what is final is settled", |_, state: &State| {
                let Some(decision) = state.decision else { return true };
                [A, B]
                    .into_iter()
                    .all(|branch| !state.is_final(branch) || decision.settled == Some(branch))
            }),
            Property::always(
                "what an honest device's payee deposited is settled",
                |_, state: &State| {
                    let receipts = state.members.iter().filter(|member| member.has_honest).count();
                    let is_deposited = receipts + 1 >= QUORUM;
                    let Some(decision) = state.decision else { return true };
                    !is_deposited || decision.settled_honest
                },
            ),
            Property::always("nobody is paid by the lane and by a claim", |_, state: &State| {
                let Some(decision) = state.decision else { return true };
                let branches = [A, B].into_iter();
                branches
                    .filter(|branch| decision.settled == Some(*branch))
                    .all(|branch| !decision.claims[branch as usize])
            }),
            Property::always("a double spend costs one allowance at most", |_, state: &State| {
                let Some(decision) = state.decision else { return true };
                let claims = decision.claims.iter().filter(|claim| **claim).count();
                // Two payees: the lane's allowance pays one of two equal claims.
                claims + usize::from(decision.settled.is_some()) <= 2
            }),
            Property::sometimes("a double spend is settled by claims", |_, state: &State| {
                state.decision.is_some_and(|decision| decision.claims == [true, true])
            }),
            Property::sometimes("a lying lane settles one side", |_, state: &State| {
                state.decision.is_some_and(|decision| {
                    decision.settled == Some(A) && decision.claims == [false, true]
                })
            }),
            Property::sometimes(
                "an undeposited spend is lost with its lane",
                |_, state: &State| state.decision.is_some_and(|decision| !decision.settled_honest),
            ),
        ]
    }
}

#[test]
fn every_order_of_events_keeps_the_promises() {
    let checker = Lanes.checker().threads(2).spawn_dfs().join();
    println!(
        "{} states, {} of them unique, explored exhaustively",
        checker.state_count(),
        checker.unique_state_count()
    );
    assert!(checker.is_done());
    assert!(checker.unique_state_count() > 50_000);
    checker.assert_properties();
}
