//! Compares this replica's state with that of the others, at indexes on which all agree.
//!
//! An entry without a command is such an index: whoever leads puts one into the log now and then, every replica holds its state as of that
//! entry, hashes it beside its work, and asks the others what they have. Each judges for itself, by
//! [`mcp_model::agreement`]; nobody has to believe the leader, whose state may be the wrong one. A version that knows nothing of this carries
//! such an entry out, as nothing, and does not answer.
//!
//! A replica whose state is not that of the majority admits nobody any more and leads no more. It goes on otherwise: its log is
//! none the worse, and the others may need its voice. What happens to its state when it starts again stands in [`crate::doubt`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_model::agreement::{self, StateDigest, Verdict};
use mcp_model::ids::NodeId;
use mcp_store::{Pinned, Replica, StoreError};
use openraft::EntryPayload;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::doubt::Doubt;
use crate::link::{Lane, LinkError};
use crate::node::Core;
use crate::outside::{Compared, Likeness};
use crate::rpc::{COMPARE, DIGEST, Digested};
use crate::types::{Batch, Entry};

/// Whoever comes to lead does not wait for longer than this.
const FIRST: Duration = Duration::from_secs(10);
/// How often a node that is in doubt asks for a comparison, and the least time between two.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer of a peer may take.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// The pause before those are asked again who have not hashed their state yet.
const RETRY: Duration = Duration::from_millis(200);
/// How long the others are waited for who are still hashing. Until then nobody says that there is no majority.
const OTHERS_WAIT_MS: u64 = 120_000;
/// And those who cannot be reached.
const ABSENT_WAIT_MS: u64 = 5_000;
/// How often a node has to say that it does not know, until it is believed: it may be just about to hold its state.
const DENIALS: u8 = 2;
/// How long an entry may take to be committed and applied.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// After each stretch of rows the hash makes room for others: it may take long, requests may not.
const REST: Duration = Duration::from_millis(2);
/// Digests that are kept for those who ask.
const KEPT: usize = 4;

/// What one node knows of its own state and the others'.
#[derive(Default)]
pub(crate) struct Compare {
    /// The newest state that is to be hashed. An older one that nobody has come to is not waited for.
    pinned: Mutex<Option<Pinned>>,
    came: Notify,
    /// The last index at which a state was held.
    marked: watch::Sender<u64>,
    known: Mutex<VecDeque<StateDigest>>,
    /// At which index the state is being hashed or compared.
    at_work: Mutex<Option<u64>>,
    asked: Notify,
    /// Whether this process is not to be believed any more.
    for_good: AtomicBool,
    told: Mutex<Option<Compared>>,
}

/// Whether replicas hold their state as of this entry.
pub(crate) fn is_point(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(Batch(commands)) if commands.is_empty())
}

impl Compare {
    /// Holds the state as it is now: behind an entry without a command.
    pub(crate) fn hold(&self, replica: &Replica) {
        match replica.pin() {
            Ok(pinned) => {
                let index = pinned.index();
                *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = Some(pinned);
                self.marked.send_replace(index);
                self.came.notify_one();
            }
            Err(error) => tracing::warn!(%error, "the state cannot be compared this time"),
        }
    }

    fn take(&self) -> Option<Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn waiting_at(&self) -> Option<u64> {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.as_ref().map(Pinned::index)
    }

    fn at_work(&self) -> Option<u64> {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_at_work(&self, index: Option<u64>) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) = index;
    }

    fn is_idle(&self) -> bool {
        self.at_work().is_none() && self.waiting_at().is_none()
    }

    /// What this node says to somebody who asks what its state hashed to at an index.
    pub(crate) fn answer(&self, index: u64, applied: u64) -> Digested {
        if let Some(digest) = self.digest_at(index) {
            return Digested::At(digest);
        }
        let to_come = applied < index || self.at_work() == Some(index) || self.waiting_at() == Some(index);
        if to_come { Digested::ToCome } else { Digested::Never }
    }

    fn keep(&self, digest: StateDigest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back(digest);
        while known.len() > KEPT {
            known.pop_front();
        }
    }

    /// What this node's state hashed to at an index, if it knows that still.
    fn digest_at(&self, index: u64) -> Option<StateDigest> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|digest| digest.index == index).cloned()
    }

    /// Somebody wants to be compared.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Whether the majority has another state than this node. A doubt of another kind may pass.
    pub(crate) fn differs(&self) -> bool {
        self.for_good.load(Ordering::Acquire)
    }

    /// What the last comparison has shown.
    pub(crate) fn told(&self) -> Option<Compared> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, compared: Compared) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(compared);
    }
}

/// Puts entries without a command into the log, while this node leads.
pub(crate) async fn place(core: Arc<Core>, every: Duration) {
    let mut marked = core.compare.marked.subscribe();
    let first = FIRST.min(every);
    let mut pause = first;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = marked.changed() => {
                pause = every;
                continue;
            }
            // Not faster than states are hashed, or each node would skip others. Whoever asks asks again.
            () = core.compare.asked.notified() => if !core.compare.is_idle() {
                continue;
            }
        }
        pause = first;
        if core.office.term().is_some() && core.is_fit() {
            let placed = timeout(COMMIT_WAIT, core.raft.client_write(Batch::default())).await;
            if !matches!(placed, Ok(Ok(_))) {
                tracing::debug!("no entry to compare at could be placed");
            }
            // However many ask.
            tokio::time::sleep(ASK_EVERY.min(every)).await;
        }
    }
}

/// Asks whoever leads for a comparison, while this node's state is in doubt and that may pass.
pub(crate) async fn insist(core: Arc<Core>) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        if core.replica.gate().why_doubted().is_none() || core.compare.differs() {
            continue;
        }
        match core.leader() {
            Some(leader) if leader == core.me => core.compare.ask(),
            Some(leader) => {
                let Some(link) = core.link(leader) else { continue };
                // Asked again in a moment.
                let _asked: Result<(), _> = link.call(Lane::Fast, COMPARE, &(), ANSWER_WAIT).await;
            }
            None => {}
        }
    }
}

/// Hashes what is held, and judges it.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let Some(pinned) = core.compare.take() else {
            core.compare.came.notified().await;
            continue;
        };
        let index = pinned.index();
        core.compare.set_at_work(Some(index));
        let runtime = tokio::runtime::Handle::current();
        let rest = move || runtime.block_on(tokio::time::sleep(REST));
        let hashed = tokio::task::spawn_blocking(move || pinned.digest(rest)).await;
        match hashed.unwrap_or_else(|error| Err(StoreError::Corrupt(error.to_string()))) {
            Ok(digest) => {
                core.compare.keep(digest.clone());
                compare(&core, &digest).await;
                check_view(&core).await;
            }
            Err(error @ StoreError::Corrupt(_)) => core.replica.fail(&error),
            Err(error) => tracing::warn!(index, %error, "the state could not be hashed this time"),
        }
        core.compare.set_at_work(None);
    }
}

/// What decides about bearers is in memory. The digest is of the store, so whether memory says the same is looked at too.
async fn check_view(core: &Arc<Core>) {
    let replica = Arc::clone(&core.replica);
    let runtime = tokio::runtime::Handle::current();
    let rest = move || runtime.block_on(tokio::time::sleep(REST));
    let checked = tokio::task::spawn_blocking(move || replica.check_view(rest)).await;
    match checked.unwrap_or_else(|error| Err(StoreError::Corrupt(error.to_string()))) {
        Ok(None) => tracing::debug!("the view is what the store says"),
        Ok(Some(what)) => core.replica.distrust_view(&what),
        // Whoever shut it has said why, and what cannot be read has shut it.
        Err(error) => tracing::warn!(%error, "the view could not be compared with the store this time"),
    }
}

/// Asks everybody until all have said what they can say, or for as long as it is worth it.
async fn compare(core: &Arc<Core>, mine: &StateDigest) {
    let began = core.clock.reading();
    let mut others = BTreeMap::new();
    let mut denials: BTreeMap<NodeId, u8> = BTreeMap::new();
    loop {
        let membership = core.membership.borrow().clone();
        let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
        let everybody = membership.nodes().map(|(id, _)| NodeId(*id));
        let open: Vec<NodeId> = everybody
            .filter(|id| *id != core.me && !others.contains_key(id) && denials.get(id).is_none_or(|n| *n < DENIALS))
            .collect();
        let mut left = open.len();
        let waited_ms = core.clock.reading().ms_since(began);
        for (id, said) in ask(core, mine.index, open).await {
            match said {
                Some(Digested::At(digest)) => {
                    others.insert(id, digest);
                    left -= 1;
                }
                Some(Digested::Never) => {
                    let denied = denials.entry(id).or_default();
                    *denied += 1;
                    left -= usize::from(*denied >= DENIALS);
                }
                Some(Digested::ToCome) => {}
                None => left -= usize::from(waited_ms > ABSENT_WAIT_MS),
            }
        }
        let over = left == 0 || waited_ms > OTHERS_WAIT_MS;
        let verdict = agreement::judge(core.me, mine, &voters, &others);
        // Whoever sees what follows from a verdict finds the verdict.
        tell(core, mine, &verdict, (&voters, &others), over);
        take(core, mine, &verdict, over).await;
        if over {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// `None`: it does not answer.
async fn ask(core: &Core, index: u64, whom: Vec<NodeId>) -> Vec<(NodeId, Option<Digested>)> {
    let asked = whom.into_iter().map(async |id| {
        let Some(link) = core.link(id) else {
            return (id, None);
        };
        let said: Result<Digested, _> = link.call(Lane::Fast, DIGEST, &index, ANSWER_WAIT).await;
        match said {
            Ok(said) => (id, Some(said)),
            // One that knows nothing of comparisons.
            Err(LinkError::Refused(..)) => (id, Some(Digested::Never)),
            Err(_) => (id, None),
        }
    });
    join_all(asked).await
}

/// Does what follows from a verdict. That there is no majority is said when nobody can be waited for any more.
async fn take(core: &Core, mine: &StateDigest, verdict: &Verdict, over: bool) {
    let index = mine.index;
    match verdict {
        Verdict::Agrees => believe(core, index).await,
        Verdict::Differs(tables) if !core.compare.differs() => {
            core.compare.for_good.store(true, Ordering::Release);
            core.replica.doubt(&format!(
                "this node's state differs from that of most replicas at log index {index} (in {}): when it starts again, its state \
                 is set aside and made anew",
                tables.join(", ")
            ));
            note(core, Doubt::differs_after).await;
        }
        Verdict::Disputed(tables) if over && core.replica.gate().why_doubted().is_none() => {
            core.replica.doubt(&format!(
                "replicas differ at log index {index} (in {}), and none of their states has a majority: nobody can say which is right",
                tables.join(", ")
            ));
            note(core, |before| before.unwrap_or(Doubt::Disputed)).await;
        }
        Verdict::Differs(_) | Verdict::Disputed(_) | Verdict::Open => {}
    }
}

async fn believe(core: &Core, index: u64) {
    if core.compare.differs() || core.replica.gate().why_doubted().is_none() {
        return;
    }
    let dir = core.replica.dir().to_owned();
    match tokio::task::spawn_blocking(move || Doubt::forget(&dir)).await {
        Ok(Ok(())) => {
            core.replica.gate().believe();
            tracing::info!(
                index,
                "this node's state is what most replicas have: it may admit again"
            );
        }
        // The next comparison tries again.
        Ok(Err(error)) => tracing::warn!(%error, "the note that doubts the state cannot be removed"),
        Err(error) => tracing::warn!(%error, "the note that doubts the state was not removed"),
    }
}

async fn note(core: &Core, what: impl FnOnce(Option<Doubt>) -> Doubt + Send + 'static) {
    let dir = core.replica.dir().to_owned();
    let noted = tokio::task::spawn_blocking(move || what(Doubt::load(&dir)).save(&dir)).await;
    if !matches!(noted, Ok(Ok(()))) {
        tracing::error!(
            ?noted,
            "that the state is doubted could not be noted: a restart would forget it"
        );
    }
}

type Heard<'a> = (&'a BTreeSet<NodeId>, &'a BTreeMap<NodeId, StateDigest>);

fn tell(core: &Core, mine: &StateDigest, verdict: &Verdict, (voters, others): Heard<'_>, over: bool) {
    let likeness = match verdict {
        Verdict::Agrees => Likeness::Agrees,
        Verdict::Differs(_) => Likeness::Differs,
        Verdict::Disputed(_) if over => Likeness::Disputed,
        // Somebody may have hashed another state already and will not be asked for this one.
        Verdict::Disputed(_) | Verdict::Open if !over => return,
        Verdict::Disputed(_) | Verdict::Open => Likeness::Open,
    };
    let most = agreement::prevailing(core.me, mine, voters, others);
    let members = others.iter().chain([(&core.me, mine)]);
    let members: BTreeMap<NodeId, bool> = most
        .map(|most| members.map(|(id, said)| (*id, *said == most)).collect())
        .unwrap_or_default();
    let differing: Vec<String> = members
        .iter()
        .filter(|(id, alike)| !**alike && **id != core.me)
        .map(|(id, _)| id.to_string())
        .collect();
    if over && !differing.is_empty() {
        tracing::error!(
            index = mine.index,
            nodes = differing.join(", "),
            "these nodes have another state than most replicas"
        );
    }
    core.compare.tell(Compared {
        index: mine.index,
        rows: mine.rows(),
        likeness,
        members,
    });
}
