//! Sessions that this node has seen lately. A session's id holds all there is of it, so any node can take one over; what is kept here
//! is only when it was last used, so that one that was abandoned ends.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use mcp_model::ids::Id;
use mcp_model::records::McpToken;
use mcp_model::tables;
use mcp_store::Replica;
use mcp_store::view::HashBits;

use crate::admit::Permit;
use crate::quotas::{Held, OverQuota, Quotas, Use};
use crate::session::Session;

/// How late the cluster may hear that a token was used, in milliseconds.
const HEARD_LATE_MS: u64 = 120_000;

/// The sessions of this node.
#[derive(Default)]
pub(crate) struct Living {
    seen: DashMap<Id, Seen, HashBits>,
}

struct Seen {
    used_ms: AtomicU64,
    idle_ms: u64,
    _counted: Held,
}

impl Living {
    /// A place for a session that is about to be opened; it is kept once it is [`Living::begin`]ned.
    pub(crate) fn place(&self, quotas: &Quotas, permit: &Permit) -> Result<Held, OverQuota> {
        quotas.take(permit, Use::Session, &quotas.limits(permit))
    }

    /// A session was opened here.
    pub(crate) fn begin(&self, session: Id, place: Held, now_ms: u64, idle_ms: u64) {
        let seen = Seen {
            used_ms: AtomicU64::new(now_ms),
            idle_ms,
            _counted: place,
        };
        self.seen.insert(session, seen);
    }

    /// A session is used. `false`: it was idle for too long, here and, as far as this node has heard, everywhere else.
    pub(crate) fn uses(&self, session: &Session, permit: &Permit, quotas: &Quotas, replica: &Replica) -> bool {
        let now_ms = permit.at_ms();
        if let Some(seen) = self.seen.get(&session.uuid)
            && now_ms.saturating_sub(seen.used_ms.load(Ordering::Relaxed)) <= seen.idle_ms
        {
            seen.used_ms.store(now_ms, Ordering::Relaxed);
            return true;
        }
        let idle_ms = quotas.limits(permit).session_idle_ms.unwrap_or(u64::MAX);
        let is_young = now_ms.saturating_sub(session.issued_ms) <= idle_ms;
        if !is_young && !used_elsewhere(permit, replica, now_ms, idle_ms) {
            self.end(session.uuid);
            return false;
        }
        let place = quotas.count(session.token, session.project, Use::Session);
        self.begin(session.uuid, place, now_ms, idle_ms);
        true
    }

    /// Whether a session was used here lately.
    pub(crate) fn knows(&self, session: Id) -> bool {
        self.seen.contains_key(&session)
    }

    /// A session is held in use by its open stream.
    pub(crate) fn touch(&self, session: Id, now_ms: u64) {
        if let Some(seen) = self.seen.get(&session) {
            seen.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// A session was ended.
    pub(crate) fn end(&self, session: Id) {
        self.seen.remove(&session);
    }

    /// Forgets those that were idle for too long.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let is_alive = |seen: &Seen| now_ms.saturating_sub(seen.used_ms.load(Ordering::Relaxed)) <= seen.idle_ms;
        self.seen.retain(|_, seen| is_alive(seen));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }
}

/// Whether the session's token was used lately, on whichever node. Then the session may have been as well: nobody's is ended by
/// mistake.
fn used_elsewhere(permit: &Permit, replica: &Replica, now_ms: u64, idle_ms: u64) -> bool {
    let id = permit.token().id();
    let token = replica.read(|tables| tables::by_id::<McpToken>(tables, id));
    let used_ms = token.ok().flatten().and_then(|token| token.last_used_ms);
    used_ms.is_some_and(|used_ms| now_ms.saturating_sub(used_ms) <= idle_ms.saturating_add(HEARD_LATE_MS))
}
