//! What children have written to their stderr, and whether they run: kept by each node for its own, gathered from all for whoever asks.
//!
//! Lines are kept in memory only, in a ring per server that outlives connections and restarts of the child. What was a secret of the
//! server when a line was written is taken out before it comes here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::future::join_all;
use mcp_model::clock::Clock;
use mcp_model::ids::{Id, NodeId};
use mcp_wire::upstream::Ear;
use serde::{Deserialize, Serialize};

use crate::Inner;

/// The first byte of what is said here, so that it is told from whatever else gateways say to each other.
const MARK: u8 = 0xf4;
/// Lines that are kept of one server.
const LINES_MAX: usize = 2_000;
/// And their bytes.
const BYTES_MAX: usize = 256 << 10;
/// How long another node may take to say what it has.
const TELL_WAIT: Duration = Duration::from_secs(3);
/// And whether its children run, which is asked for every list of servers.
const STATE_WAIT: Duration = Duration::from_millis(500);

/// A line of a child's stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Rises with every line of its server on its node, also over a restart of the node.
    pub number: u64,
    /// When it was read, ms since 1970.
    pub at_ms: u64,
    /// The session whose child wrote it, where sessions have children of their own.
    pub session: Option<Id>,
    /// The line.
    pub text: String,
}

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsWanted {
    /// At most so many of each node, the newest.
    pub tail: usize,
    /// Not older than this, ms since 1970.
    pub since_ms: u64,
    /// Of this node alone.
    pub node: Option<NodeId>,
    /// Of these nodes only what came after the line of this number.
    pub after: Vec<(NodeId, u64)>,
}

/// What one node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLogs {
    /// Which.
    pub node: NodeId,
    /// The lines, oldest first, and the number of the last one that there is; none: it cannot be reached.
    pub lines: Option<(Vec<LogLine>, u64)>,
}

/// The lines of this node's children.
pub(crate) struct ChildLogs {
    rings: DashMap<Id, Arc<Mutex<Ring>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

/// What nodes ask each other.
#[derive(Serialize, Deserialize)]
enum Asked {
    Lines {
        server: Id,
        after: u64,
        since_ms: u64,
        tail: u32,
    },
    Running,
}

impl ChildLogs {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> ChildLogs {
        let rings = DashMap::new();
        ChildLogs { rings, clock }
    }

    /// For a child of this server.
    pub(crate) fn ear(&self, server: Id, session: Option<Id>) -> Ear {
        let ring = self.rings.entry(server).or_default().clone();
        let clock = self.clock.clone();
        Arc::new(move |text| {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.push(clock.wall_ms(), session, text);
        })
    }

    /// Forgets servers that are no more.
    pub(crate) fn keep(&self, is_there: impl Fn(Id) -> bool) {
        self.rings.retain(|server, _| is_there(*server));
    }

    fn lines(&self, server: Id, after: u64, since_ms: u64, tail: usize) -> (Vec<LogLine>, u64) {
        let Some(ring) = self.rings.get(&server).map(|ring| ring.clone()) else {
            return (Vec::new(), 0);
        };
        let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |line: &&LogLine| line.number > after && line.at_ms >= since_ms;
        let mut lines: Vec<LogLine> = ring.lines.iter().rev().filter(wanted).take(tail).cloned().collect();
        lines.reverse();
        (lines, ring.last)
    }
}

impl Ring {
    fn push(&mut self, at_ms: u64, session: Option<Id>, text: &str) {
        // Higher than any number of a run before this one, if time has passed since.
        self.last = (self.last + 1).max(at_ms.saturating_mul(1_000));
        self.bytes += text.len();
        self.lines.push_back(LogLine {
            number: self.last,
            at_ms,
            session,
            text: text.to_owned(),
        });
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.text.len());
        }
    }
}

/// The lines of a server, of every node that is wanted.
pub(crate) async fn gather(gateway: &Inner, server: Id, wanted: &LogsWanted) -> Vec<NodeLogs> {
    let nodes = std::iter::once(gateway.node).chain(gateway.cluster.others());
    let nodes = nodes.filter(|node| wanted.node.is_none_or(|only| only == *node));
    let gathered = nodes.map(|node| async move {
        let known = wanted.after.iter().find(|(of, _)| *of == node);
        let asked = Asked::Lines {
            server,
            after: known.map_or(0, |(_, number)| *number),
            since_ms: wanted.since_ms,
            tail: u32::try_from(wanted.tail).unwrap_or(u32::MAX),
        };
        let lines = ask(gateway, node, &asked).await;
        NodeLogs { node, lines }
    });
    join_all(gathered).await
}

/// The servers that have children, and whether one of them runs on some node. Who cannot be reached is left out.
pub(crate) async fn running(gateway: &Inner) -> Vec<(Id, bool)> {
    let nodes = std::iter::once(gateway.node).chain(gateway.cluster.others());
    let asked = nodes.map(|node| async move { ask::<Vec<(Id, bool)>>(gateway, node, &Asked::Running).await });
    let mut all: Vec<(Id, bool)> = Vec::new();
    for (server, runs) in join_all(asked).await.into_iter().flatten().flatten() {
        match all.iter_mut().find(|(known, _)| *known == server) {
            Some((_, known)) => *known |= runs,
            None => all.push((server, runs)),
        }
    }
    all
}

async fn ask<T: serde::de::DeserializeOwned>(gateway: &Inner, node: NodeId, asked: &Asked) -> Option<T> {
    let said = postcard::to_extend(asked, vec![MARK]).ok()?;
    let wait = match asked {
        Asked::Lines { .. } => TELL_WAIT,
        Asked::Running => STATE_WAIT,
    };
    let answer = match node == gateway.node {
        true => hear(gateway, &said)?,
        false => gateway.cluster.tell(node, said, wait).await.ok()?,
    };
    postcard::from_bytes(&answer).ok()
}

fn asked(said: &[u8]) -> Option<Asked> {
    postcard::from_bytes(said.strip_prefix(&[MARK])?).ok()
}

/// Hears what another node asks. None if it is about something else.
pub(crate) fn hear(gateway: &Inner, said: &[u8]) -> Option<Vec<u8>> {
    match asked(said)? {
        Asked::Lines {
            server,
            after,
            since_ms,
            tail,
        } => {
            let tail = usize::try_from(tail).unwrap_or(usize::MAX);
            postcard::to_stdvec(&gateway.upstreams.logs().lines(server, after, since_ms, tail)).ok()
        }
        Asked::Running => postcard::to_stdvec(&gateway.upstreams.running()).ok(),
    }
}

/// For the fuzzer: bytes as what another node asked, and as its answers.
pub(crate) fn decode(bytes: &[u8]) {
    if let Some(asked) = asked(bytes) {
        let again = postcard::to_extend(&asked, vec![MARK]).expect("plain data always encodes");
        assert!(self::asked(&again).is_some());
    }
    let _lines = postcard::from_bytes::<(Vec<LogLine>, u64)>(bytes).is_ok();
    let _running = postcard::from_bytes::<Vec<(Id, bool)>>(bytes).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_newest_lines_within_its_bounds_and_numbers_them_on() {
        let mut ring = Ring::default();
        for at in 0..3_000 {
            ring.push(5, None, &format!("line {at}"));
        }
        assert_eq!(ring.lines.len(), LINES_MAX);
        assert_eq!(ring.lines.back().unwrap().text, "line 2999");
        assert!(
            ring.lines
                .iter()
                .zip(ring.lines.iter().skip(1))
                .all(|(a, b)| a.number < b.number)
        );
        let before = ring.last;
        ring.push(6, None, &"x".repeat(BYTES_MAX));
        assert_eq!((ring.lines.len(), ring.bytes), (1, BYTES_MAX));
        assert!(ring.last > before);
        // A run that begins later numbers higher.
        let mut later = Ring::default();
        later.push(1_000, None, "first");
        assert!(later.last > ring.last);
    }
}
