//! Commands on their way into the log: batched on the leader, forwarded from everywhere else, never waited for without end.

use std::sync::Arc;
use std::time::Duration;

use mcp_model::admission::time_of_command;
use mcp_model::barrier::has_to_wait;
use mcp_model::command::{Envelope, Outcome};
use mcp_model::ids::NodeId;
use mcp_model::receipt::Receipt;
use mcp_model::rules::AllRules;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::barrier;
use crate::link::{Lane, LinkError};
use crate::node::Core;
use crate::rpc::{TRAVEL, WRITE, WaitFor, Write, WriteAnswer};
use crate::types::{Batch, LogId};

/// Commands and bytes that share one log entry.
const BATCH_COMMANDS_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Longest command. An entry has to get to everybody before the others miss the leader.
const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Entries under way at once.
const IN_FLIGHT_MAX: usize = 2;
/// Commands that may wait for a place in an entry.
pub(crate) const WAITING_MAX: usize = 4_096;
/// How long an entry may take to be committed and applied.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// The pause before another try.
const RETRY: Duration = Duration::from_millis(25);

/// A command that was carried out.
#[derive(Debug, Clone)]
pub struct Written {
    /// What became of it.
    pub outcome: Outcome,
    /// Where it took a right away and the caller waited for that: who can no longer admit it.
    pub receipt: Option<Receipt>,
}

/// A command that was not, or nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteFailed {
    /// Nobody led for as long as the caller would wait. Nothing was changed.
    #[error("no leader: nothing was changed")]
    NoLeader,
    /// Too many commands wait. Nothing was changed.
    #[error("too many writes at once: nothing was changed")]
    Busy,
    /// It is longer than what travels among replicas in time. Nothing was changed.
    #[error("the change is too long to be replicated (at most 1 MiB): nothing was changed")]
    TooLong,
    /// It was sent, and no answer came back. The same command may be sent again.
    #[error("the outcome is unknown: the same request may be sent again")]
    OutcomeUnknown,
}

pub(crate) struct Queued {
    bytes: Vec<u8>,
    answer: oneshot::Sender<Proposed>,
}

/// What became of a proposal on this node.
enum Proposed {
    /// Carried out, perhaps by an earlier entry; this one was proposed there.
    Done(Outcome, LogId),
    NotLeader,
    Unknown,
}

/// Gets a command into the log through whoever leads, sending it again with the same id until it is answered or the deadline has come.
pub(crate) async fn write(
    core: &Arc<Core>,
    envelope: &Envelope,
    wait: WaitFor,
    deadline: Duration,
) -> Result<Written, WriteFailed> {
    let bytes = envelope.encode();
    if bytes.len() > COMMAND_BYTES_MAX {
        return Err(WriteFailed::TooLong);
    }
    let began = core.clock.reading();
    let mut sent = false;
    let mut busy = false;
    loop {
        let passed = Duration::from_millis(core.clock.reading().ms_since(began));
        let Some(left) = deadline.checked_sub(passed).filter(|left| !left.is_zero()) else {
            return Err(match (sent, busy) {
                (true, _) => WriteFailed::OutcomeUnknown,
                (false, true) => WriteFailed::Busy,
                (false, false) => WriteFailed::NoLeader,
            });
        };
        match attempt(core, &bytes, wait, left).await {
            Attempt::Answered(answer) => match *answer {
                WriteAnswer::Done { outcome, receipt } => return Ok(Written { outcome, receipt }),
                WriteAnswer::Busy => busy = true,
                WriteAnswer::Unknown => sent = true,
                WriteAnswer::NotLeader => {}
            },
            Attempt::Lost => sent = true,
            Attempt::NotSent => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY.min(left)) => {}
            () = core.leader_changed() => {}
        }
    }
}

enum Attempt {
    Answered(Box<WriteAnswer>),
    NotSent,
    Lost,
}

async fn attempt(core: &Arc<Core>, bytes: &[u8], wait: WaitFor, left: Duration) -> Attempt {
    let Some(leader) = core.leader() else {
        return Attempt::NotSent;
    };
    if leader == core.me {
        let answer = Box::pin(lead(core, bytes.to_vec(), wait, left)).await;
        return Attempt::Answered(Box::new(answer));
    }
    let Some(link) = core.link(leader) else {
        return Attempt::NotSent;
    };
    let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let question = Write {
        envelope: bytes.to_vec(),
        wait,
        deadline_ms,
    };
    let answer = tokio::select! {
        answer = link.call(Lane::Bulk, WRITE, &question, left + TRAVEL) => answer,
        // A leader that is frozen never answers; its successor is sent the same command.
        () = leads_no_more(core, leader) => return Attempt::Lost,
    };
    match answer {
        Ok(answer) => Attempt::Answered(Box::new(answer)),
        Err(LinkError::Refused(..) | LinkError::NotConnected(..)) => Attempt::NotSent,
        Err(_) => Attempt::Lost,
    }
}

/// Resolves when this node knows of another leader.
async fn leads_no_more(core: &Core, leader: NodeId) {
    let mut metrics = core.metrics.clone();
    let another = metrics.wait_for(|m| m.current_leader.is_some_and(|now| now != leader.0));
    // The core is gone only when the node is.
    if another.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries out a command on the leader, and waits behind it for what it has to wait for.
pub(crate) async fn lead(core: &Arc<Core>, bytes: Vec<u8>, wait: WaitFor, deadline: Duration) -> WriteAnswer {
    if core.office.term().is_none() || !core.is_fit() {
        return WriteAnswer::NotLeader;
    }
    let began = core.clock.reading();
    let bytes = by_our_clock(core, bytes);
    let (answer, proposed) = oneshot::channel();
    if core.batches.try_send(Queued { bytes, answer }).is_err() {
        return WriteAnswer::Busy;
    }
    let (outcome, committed) = match tokio::time::timeout(deadline, proposed).await {
        Ok(Ok(Proposed::Done(outcome, at))) => (outcome, at),
        Ok(Ok(Proposed::NotLeader)) => return WriteAnswer::NotLeader,
        Ok(Ok(Proposed::Unknown) | Err(_)) | Err(_) => return WriteAnswer::Unknown,
    };
    if wait == WaitFor::Committed || !has_to_wait(AllRules, &outcome, committed.index) {
        return WriteAnswer::Done { outcome, receipt: None };
    }
    let left = deadline.saturating_sub(Duration::from_millis(core.clock.reading().ms_since(began)));
    match barrier::wait(core, outcome.index, committed.leader_id.term, left).await {
        Some(receipt) => WriteAnswer::Done {
            outcome,
            receipt: Some(receipt),
        },
        // It is committed, but another office must say when it is in force.
        None => WriteAnswer::Unknown,
    }
}

/// The time that the cluster goes by is the leader's (rule 9).
fn by_our_clock(core: &Core, bytes: Vec<u8>) -> Vec<u8> {
    // Whatever came in was decoded at the door.
    let Ok(envelope) = Envelope::decode(&bytes) else {
        return bytes;
    };
    let now_ms = time_of_command(envelope.now_ms, core.clock.wall_ms());
    if envelope.now_ms == now_ms {
        return bytes;
    }
    let (said_ms, command) = (envelope.now_ms, envelope.command.kind());
    tracing::warn!(
        said_ms,
        now_ms,
        command,
        "a command's time was refused: the node it came through has another clock"
    );
    Envelope { now_ms, ..envelope }.encode()
}

/// Gathers commands into entries and proposes them.
pub(crate) async fn run(core: Arc<Core>, mut queued: mpsc::Receiver<Queued>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut carried: Option<Queued> = None;
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        let first = match carried.take() {
            Some(first) => first,
            None => match queued.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.bytes.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_COMMANDS_MAX
            && let Ok(next) = queued.try_recv()
        {
            if bytes + next.bytes.len() > BATCH_BYTES_MAX {
                carried = Some(next);
                break;
            }
            bytes += next.bytes.len();
            batch.push(next);
        }
        let core = Arc::clone(&core);
        tokio::spawn(async move {
            propose(&core, batch).await;
            drop(permit);
        });
    }
}

async fn propose(core: &Core, batch: Vec<Queued>) {
    // Whoever has given up must not find later that it was carried out all the same.
    let batch: Vec<Queued> = batch.into_iter().filter(|queued| !queued.answer.is_closed()).collect();
    if batch.is_empty() {
        return;
    }
    let (commands, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|q| (q.bytes, q.answer)).unzip();
    let proposed = tokio::time::timeout(COMMIT_WAIT, core.raft.client_write(Batch(commands))).await;
    match proposed {
        Ok(Ok(response)) => {
            for (answer, outcome) in answers.into_iter().zip(response.data.0) {
                answer.send(Proposed::Done(outcome, response.log_id)).unwrap_or(());
            }
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            answers
                .into_iter()
                .for_each(|answer| answer.send(Proposed::NotLeader).unwrap_or(()));
        }
        Ok(Err(_)) | Err(_) => answers
            .into_iter()
            .for_each(|answer| answer.send(Proposed::Unknown).unwrap_or(())),
    }
}
