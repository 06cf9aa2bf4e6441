//! What all parts of a run share: where nodes are, who is a member, which tokens there are, and where things are written down.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::history::{Recorder, Slot, Subject};
use super::machine::{api_url, name};
use crate::api::Api;
use crate::random::Random;

/// How long a question about the cluster may take.
const LOOK_WAIT: Duration = Duration::from_millis(1_500);
/// Tokens kept of each kind for probes: the newest.
const KEPT: usize = 64;

/// A token as clients hold it.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) subject: Subject,
    pub(super) id: String,
    pub(super) bearer: Arc<str>,
}

/// Shared by everybody.
pub(super) struct World {
    pub(super) slots: Slot,
    pub(super) recorder: Recorder,
    /// The administrator's session.
    pub(super) session: String,
    state: Mutex<State>,
    subjects: AtomicU32,
    probes: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    members: BTreeSet<Slot>,
    /// Never revoked.
    lasting: Vec<Token>,
    fresh: VecDeque<Token>,
    revoked: VecDeque<Token>,
    made: Vec<Made>,
}

/// What was made and is looked for at the end: a token by its id, with the user and the definition that it hangs on.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) subject: Subject,
    pub(super) token: String,
    pub(super) user: Option<(String, String)>,
}

impl World {
    pub(super) fn new(slots: Slot, members: Slot, recorder: Recorder, session: String) -> World {
        let state = State {
            members: (0..members).collect(),
            ..State::default()
        };
        World {
            slots,
            recorder,
            session,
            state: Mutex::new(state),
            subjects: AtomicU32::new(0),
            probes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn next_subject(&self) -> Subject {
        self.subjects.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_probe(&self) -> u64 {
        self.probes.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn members(&self) -> Vec<Slot> {
        self.state().members.iter().copied().collect()
    }

    pub(super) fn has_joined(&self, slot: Slot) {
        self.state().members.insert(slot);
    }

    pub(super) fn has_left(&self, slot: Slot) {
        self.state().members.remove(&slot);
    }

    pub(super) fn random_member(&self, random: &mut Random) -> Slot {
        let members = self.members();
        members[random.below(members.len())]
    }

    pub(super) fn made(&self, made: Made) {
        self.state().made.push(made);
    }

    pub(super) fn all_made(&self) -> Vec<Made> {
        self.state().made.clone()
    }

    pub(super) fn lasts(&self, token: Token) {
        self.state().lasting.push(token);
    }

    pub(super) fn minted(&self, token: Token) {
        keep(&mut self.state().fresh, token);
    }

    /// Before it is asked for, so that nobody takes it for a fresh one.
    pub(super) fn is_going(&self, token: &Token) {
        self.state().fresh.retain(|t| t.subject != token.subject);
    }

    pub(super) fn revoked(&self, token: Token) {
        keep(&mut self.state().revoked, token);
    }

    /// A token to probe with: one that lasts, a fresh one, one of the newest revoked ones or any of them.
    pub(super) fn token(&self, random: &mut Random) -> Option<Token> {
        let state = self.state();
        let newest = |of: &VecDeque<Token>, among: usize, random: &mut Random| {
            let among = among.min(of.len());
            (among > 0).then(|| of[of.len() - 1 - random.below(among)].clone())
        };
        let found = match random.below(10) {
            0..4 => None,
            4..6 => newest(&state.fresh, 8, random),
            6..9 => newest(&state.revoked, 8, random),
            _ => newest(&state.revoked, KEPT, random),
        };
        found.or_else(|| match state.lasting.as_slice() {
            [] => None,
            lasting => Some(lasting[random.below(lasting.len())].clone()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who leads, by whoever of the members knows of the newest term.
    pub(super) async fn leader(&self) -> Option<Slot> {
        let asked = self.members().into_iter().map(|slot| {
            let session = self.session.clone();
            tokio::spawn(async move { tokio::time::timeout(LOOK_WAIT, leader_by(slot, &session)).await })
        });
        let mut newest = None;
        for answer in asked.collect::<Vec<_>>() {
            if let Ok(Ok(Ok(known))) = answer.await {
                newest = newest.max(Some(known));
            }
        }
        newest.map(|(_term, slot)| slot)
    }
}

fn keep(tokens: &mut VecDeque<Token>, token: Token) {
    tokens.push_back(token);
    if tokens.len() > KEPT {
        tokens.pop_front();
    }
}

async fn leader_by(slot: Slot, session: &str) -> anyhow::Result<(u64, Slot)> {
    let mut api = Api::open(&api_url(slot), session).await?;
    let status = api.must("GET", "cluster/status", &Value::Null).await?;
    let members = status["members"].as_array().context("no members")?;
    let leading = members.iter().find(|m| m["state"] == "leader").context("no leader")?;
    let leader = (0..=u8::MAX).find(|slot| leading["name"] == name(*slot).as_str());
    let term = status["term"].as_u64().context("no term")?;
    Ok((term, leader.context("the leader has no place")?))
}
