//! What clients of the older era have said in their sessions and is not in the session's id: the level of log messages they want, and
//! that their roots have changed. Every node is told, because any may serve the next request; one that was started since asks the others
//! when it first serves a session that is older than itself.

use dashmap::DashMap;
use mcp_model::ids::Id;
use mcp_store::view::HashBits;
use mcp_wire::level::{Level, Logs};
use mcp_wire::message::Message;
use mcp_wire::refusal::{INVALID_PARAMS, Refusal};
use serde::{Deserialize, Serialize};

use crate::Inner;
use crate::dispatch::Request;
use crate::relay;
use crate::session::Session;

/// Sessions of which this node keeps notes. What more of them say has no effect here.
const NOTES_MAX: usize = 100_000;

/// What a client has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The number of the level.
    level: Option<u8>,
    /// How often its roots have changed.
    pub(crate) roots_changes: u32,
}

/// A change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// It wants log messages of this level.
    Level(u8),
    /// Its roots have changed.
    Roots,
}

impl Note {
    /// Which log messages the client wants.
    pub(crate) fn logs(&self) -> Logs {
        self.level.and_then(Level::from_number).map_or(Logs::All, Logs::From)
    }

    fn take(&mut self, news: News) {
        match news {
            News::Level(level) => self.level = Some(level),
            News::Roots => self.roots_changes = self.roots_changes.wrapping_add(1),
        }
    }
}

/// The notes of this node.
pub(crate) struct Notes {
    of: DashMap<Id, (u64, Note), HashBits>,
    /// When it was started, ms since 1970.
    began_ms: u64,
}

impl Notes {
    pub(crate) fn new(began_ms: u64) -> Notes {
        Notes {
            of: DashMap::default(),
            began_ms,
        }
    }

    /// What is known here of a session.
    pub(crate) fn known(&self, session: Id) -> Option<Note> {
        self.of.get(&session).map(|known| known.1)
    }

    /// Notes what a client of this node, or of another, has said.
    pub(crate) fn take(&self, session: Id, news: News, now_ms: u64) {
        if self.of.len() < NOTES_MAX || self.of.contains_key(&session) {
            let mut known = self.of.entry(session).or_insert((now_ms, Note::default()));
            known.0 = now_ms;
            known.1.take(news);
        }
    }

    fn keep(&self, session: Id, note: Note, now_ms: u64) {
        if self.of.len() < NOTES_MAX {
            // What was said meanwhile is newer.
            self.of.entry(session).or_insert((now_ms, note));
        }
    }

    /// A session was ended.
    pub(crate) fn end(&self, session: Id) {
        self.of.remove(&session);
    }

    /// Forgets what was said longer ago than a session lasts.
    pub(crate) fn sweep(&self, now_ms: u64, session_ms: u64) {
        self.of
            .retain(|_, (said_ms, _)| now_ms.saturating_sub(*said_ms) <= session_ms);
    }
}

/// What the client of a session has said, on whichever node.
pub(crate) async fn of(gateway: &Inner, session: &Session) -> Note {
    if let Some(known) = gateway.notes.known(session.uuid) {
        return known;
    }
    if session.issued_ms >= gateway.notes.began_ms {
        return Note::default();
    }
    let note = relay::ask_for_note(gateway, session.uuid).await.unwrap_or_default();
    gateway.notes.keep(session.uuid, note, gateway.clock.wall_ms());
    note
}

/// The client of this request has said something; every node that can be reached knows it afterwards.
async fn note(gateway: &Inner, request: &Request, news: News) {
    let Some(session) = request.call.session.as_ref() else {
        return;
    };
    // What it has said before is not to be lost by this.
    let _before = of(gateway, session).await;
    gateway.notes.take(session.uuid, news, gateway.clock.wall_ms());
    relay::noted(gateway, session.uuid, news).await;
}

/// `logging/setLevel`: servers are told when the client calls them next.
pub(crate) async fn set_level(gateway: &Inner, request: &Request) -> Result<(), Refusal> {
    let Some(level) = Level::of(&request.call.message) else {
        let why = format!("params.level is to be one of {}", Level::names());
        return Err(Refusal::inside(INVALID_PARAMS, why));
    };
    note(gateway, request, News::Level(level.number())).await;
    Ok(())
}

/// `notifications/roots/list_changed`: the same.
pub(crate) async fn roots_changed(gateway: &Inner, request: &Request) {
    note(gateway, request, News::Roots).await;
}

/// Whether a message says that a client's roots have changed.
pub(crate) fn is_roots_change(message: &Message) -> bool {
    message.method() == Some("notifications/roots/list_changed")
}
