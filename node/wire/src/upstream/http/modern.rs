//! A server of both eras is spoken to in the era of the client: what the newer one knows and the older does not (an answer that
//! asks for input, its retry) then passes untouched. Whether a server speaks it is found out when the first modern client calls.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{HttpLink, Session};
use crate::upstream::handshake;
use crate::upstream::{Cause, UpstreamError};

/// What is known about the server's newer era.
#[derive(Clone, Default)]
enum Known {
    /// It was not asked, or has been started anew since.
    #[default]
    Nothing,
    /// It speaks only the older one.
    No,
    /// It has said nothing for so long, in milliseconds: many a server of the older era is silent before `initialize`.
    Silent(u64),
    /// It speaks it, and this is how.
    Yes(Arc<Session>),
}

/// The slot for it.
#[derive(Default)]
pub(super) struct Modern(RwLock<Known>);

impl Modern {
    fn known(&self) -> Known {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, known: Known) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// The server is another one now.
    pub(super) fn forget(&self) {
        self.note(Known::Nothing);
    }

    /// What was spent in vain on asking a server that may be down, in milliseconds.
    pub(super) fn spent_ms(&self) -> u64 {
        match self.known() {
            Known::Silent(spent_ms) => spent_ms,
            Known::Nothing | Known::No | Known::Yes(_) => 0,
        }
    }

    /// It was silent, and has been asked in the older era: if it answered there, it knows only that.
    pub(super) fn silence_was(&self, answered: bool) {
        if let Known::Silent(_) = self.known() {
            self.note(if answered { Known::No } else { Known::Nothing });
        }
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        match self.known() {
            Known::Yes(session) => Some(session),
            Known::Nothing | Known::No | Known::Silent(_) => None,
        }
    }

    /// Whether nothing is to be found out any more; and if so, whether it speaks it.
    pub(super) fn answer(&self) -> Option<bool> {
        match self.known() {
            Known::Nothing => None,
            Known::No | Known::Silent(_) => Some(false),
            Known::Yes(_) => Some(true),
        }
    }
}

impl HttpLink {
    /// How to speak to the server in the newer era; none if it does not know it.
    pub(super) async fn open_modern(&self) -> Result<Option<Arc<Session>>, UpstreamError> {
        if self.modern.answer().is_some() {
            return Ok(self.modern.session());
        }
        let _one_at_a_time = self.opening.lock().await;
        if self.modern.answer().is_some() {
            return Ok(self.modern.session());
        }
        let limit = self.wire.config.limits.handshake_ms / 2;
        let asked = tokio::time::timeout(Duration::from_millis(limit), handshake::discover(&*self.wire));
        let opened = match asked.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(UpstreamError {
                cause: Cause::Deadline(waited_ms),
                ..
            })) => return self.is_silent(waited_ms.min(limit)),
            Ok(Err(error)) if is_down(&error.cause) => return Err(error),
            // Some servers of the older era break the connection off, or answer rubbish, where they should refuse.
            Ok(Err(_)) => None,
            Err(_) => return self.is_silent(limit),
        };
        let Some(opened) = opened else {
            self.modern.note(Known::No);
            return Ok(None);
        };
        let session = self.plain_session(opened);
        self.modern.note(Known::Yes(session.clone()));
        Ok(Some(session))
    }

    fn is_silent(&self, waited_ms: u64) -> Result<Option<Arc<Session>>, UpstreamError> {
        self.modern.note(Known::Silent(waited_ms));
        Ok(None)
    }
}

/// Whether the server would have answered the older era no better.
fn is_down(cause: &Cause) -> bool {
    match cause {
        Cause::Connect(_) | Cause::Down(_) => true,
        Cause::Closed(_)
        | Cause::Rubbish(_)
        | Cause::TooMuch(_)
        | Cause::Deadline(_)
        | Cause::Status(_)
        | Cause::SessionGone
        | Cause::Unsupported(_)
        | Cause::Held(_)
        | Cause::Handshake(_)
        | Cause::Busy(_)
        | Cause::Resting(_)
        | Cause::Refused(_) => false,
    }
}

/// Whether a server has refused a modern request in a way that says that it is another server now: one of the older era.
pub(super) fn is_refusal_of_era(error: &UpstreamError) -> bool {
    matches!(error.cause, Cause::Status(status) if handshake::is_refusal(status))
}
