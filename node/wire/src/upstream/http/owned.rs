//! Sessions with a server that belong to one client each. Most clients share a session, which is cheaper. One has its own where that
//! shows: it has set a level for log messages, or it has roots and the server asks for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::Mutex;

use super::{HttpLink, Session};
use crate::can::ClientCan;
use crate::level::Level;
use crate::message::Message;
use crate::upstream::handshake;
use crate::upstream::{Cause, Outgoing, UpstreamError, own_answer};
use crate::version::Era;

/// Sessions of one client that one server may have from one node. Whoever comes then shares one.
const OWNED_MAX: usize = 256;
const ROOTS_CHANGED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;

/// They, by client.
#[derive(Default)]
pub(super) struct Owned {
    all: std::sync::Mutex<HashMap<u128, Arc<One>>>,
    /// Whether there is any: most servers never take the lock.
    any: AtomicBool,
}

/// What one client has told the server.
#[derive(Default)]
struct One(Mutex<Told>, std::sync::Mutex<Option<Arc<Session>>>);

#[derive(Default)]
struct Told {
    level: Option<Level>,
    roots_changes: u32,
}

impl One {
    fn session(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owned {
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Arc<One>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self, owner: u128) -> Option<Arc<One>> {
        let mut all = self.lock();
        if !all.contains_key(&owner) && all.len() >= OWNED_MAX {
            return None;
        }
        self.any.store(true, Ordering::Release);
        Some(all.entry(owner).or_default().clone())
    }

    /// The session of a client, if it has one.
    pub(super) fn session(&self, owner: Option<u128>) -> Option<Arc<Session>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let one = self.lock().get(&owner?).cloned()?;
        one.session().clone()
    }

    /// Those of clients that are gone.
    pub(super) fn take(&self, is_gone: impl Fn(u128) -> bool) -> Vec<Arc<Session>> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        self.lock().retain(|owner, one| {
            let is_gone = is_gone(*owner);
            if is_gone {
                gone.extend(one.session().take());
            }
            !is_gone
        });
        gone
    }
}

impl HttpLink {
    /// Gives the client of a request a session of its own, if it needs one, and tells the server in it what the client has said since.
    /// What fails here is tried again before the next request; meanwhile the client shares a session as others do.
    pub(in crate::upstream) async fn prepare(&self, outgoing: &Outgoing<'_>) {
        let (Some(owner), level) = (outgoing.owner, outgoing.logs.level()) else {
            return;
        };
        let wants_roots = outgoing.can.has(ClientCan::ROOTS) && self.wire.asks_for_roots();
        let known = self.owned.session(Some(owner));
        if known.is_none() && level.is_none() && !wants_roots {
            return;
        }
        let limit = Duration::from_millis(self.wire.config.limits.handshake_ms);
        let prepared = tokio::time::timeout(limit, self.prepare_session(owner, outgoing, level, wants_roots));
        match prepared.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client has no session of its own"),
            Err(_) => tracing::debug!("a client has no session of its own: no answer in time"),
        }
    }

    async fn prepare_session(
        &self,
        owner: u128,
        outgoing: &Outgoing<'_>,
        level: Option<Level>,
        wants_roots: bool,
    ) -> Result<(), UpstreamError> {
        let shared = self.open(super::For::Client(outgoing.can)).await?;
        let logs = level.is_some() && shared.opened.can("logging");
        if shared.opened.revision.era() == Era::Modern || !(logs || wants_roots) {
            return Ok(());
        }
        let Some(one) = self.owned.one(owner) else {
            return Ok(());
        };
        let mut told = one.0.lock().await;
        let known = one.session().clone();
        let session = match known {
            Some(session) => session,
            None => {
                let opened = handshake::open(&*self.wire, &outgoing.can.json_of_one()).await?;
                let session = self.session_of(opened, Some(owner)).await;
                *told = Told {
                    level: None,
                    roots_changes: outgoing.roots_changes,
                };
                *one.session() = Some(session.clone());
                session
            }
        };
        let said = self.tell(&session, &mut told, outgoing, level.filter(|_| logs)).await;
        if let Err(UpstreamError {
            cause: Cause::SessionGone,
            ..
        }) = &said
        {
            *one.session() = None;
        }
        said
    }

    async fn tell(
        &self,
        session: &Arc<Session>,
        told: &mut Told,
        outgoing: &Outgoing<'_>,
        level: Option<Level>,
    ) -> Result<(), UpstreamError> {
        if let Some(new) = level.filter(|level| told.level != Some(*level)) {
            let params = json!({"level": new.as_str()}).to_string();
            let message = Message::request(0, "logging/setLevel", &params);
            own_answer(self.wire.call(session, Outgoing::new(&message)).await?).await?;
            told.level = Some(new);
        }
        if told.roots_changes != outgoing.roots_changes {
            let answer = self
                .wire
                .post(&session.headers, Bytes::from_static(ROOTS_CHANGED))
                .await?;
            match answer.status().as_u16() {
                404 if session.has_id() => return Err(UpstreamError::before(Cause::SessionGone)),
                status if !answer.status().is_success() => return Err(UpstreamError::before(Cause::Status(status))),
                _ => told.roots_changes = outgoing.roots_changes,
            }
        }
        Ok(())
    }

    /// Forgets the session of a client: the server does.
    pub(super) fn forget_owned(&self, owner: Option<u128>) {
        drop(self.owned.take(|known| Some(known) == owner));
    }

    /// Ends the sessions of clients that are gone.
    pub(in crate::upstream) async fn end_owned(&self, is_gone: impl Fn(u128) -> bool) {
        let gone = self.owned.take(is_gone);
        self.end_sessions(&gone).await;
    }
}
