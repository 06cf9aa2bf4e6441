//! What a legacy server says beside the answers to calls: on the stream of its session. Many servers ask their clients there, and log
//! there, though it is because of a call. In a session of one client it is that client's. In a session that clients share it is given to
//! a call only where no other client can be meant.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::stream::{AGAIN_MS, SILENCE_MS, get};
use super::{Wire, answer_to_server, is_list_change, pong};
use crate::limits;
use crate::message::{Kind, Message};
use crate::upstream::live::elicitation_of;
use crate::upstream::{CallLimits, Said};

/// Messages that wait for one call.
const WAITING_MAX: usize = 256;
/// How long the opening of a session waits for its stream: a server that has one says so at once.
const OPEN_MS: u64 = 1_000;

/// The calls that are under way in one session.
pub(super) struct Aside {
    /// Whose session it is; none: several clients share it.
    owner: Option<u128>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    calls: BTreeMap<u64, Ear>,
    /// Requests that came while no call was under way, for the next one. Only in a session of one client.
    held: VecDeque<Message>,
}

/// Where the messages for one call go.
struct Ear {
    messages: mpsc::Sender<Message>,
    owner: Option<u128>,
    /// Nobody waits for it any more, but the server may still be at it.
    gone: bool,
    /// Requests that were given to this call, and the ids of its elicitations: what names them comes here too.
    asked: Vec<Box<str>>,
    elicitations: Vec<Box<str>>,
}

/// A call's end of it.
pub(super) struct Listening {
    aside: Arc<Aside>,
    id: u64,
    messages: mpsc::Receiver<Message>,
    /// The next one, if it was waited for.
    first: Option<Message>,
    /// How long the server may go on with a call that was given up, in milliseconds.
    lingers_ms: u64,
    finished: bool,
}

impl Listening {
    /// The next message. Never ends.
    pub(super) async fn next(&mut self) -> Message {
        if let Some(first) = self.first.take() {
            return first;
        }
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Waits until there is one.
    pub(super) async fn heard(&mut self) {
        let first = self.next().await;
        self.first = Some(first);
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut inner = self.aside.lock();
        let (false, Ok(runtime)) = (self.finished, tokio::runtime::Handle::try_current()) else {
            inner.calls.remove(&self.id);
            return;
        };
        // The server may not have heard yet, and what it asks because of this call is for nobody else.
        if let Some(ear) = inner.calls.get_mut(&self.id) {
            ear.gone = true;
            let (aside, id, lingers_ms) = (Arc::downgrade(&self.aside), self.id, self.lingers_ms);
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(lingers_ms)).await;
                if let Some(aside) = aside.upgrade() {
                    aside.lock().calls.remove(&id);
                }
            });
        }
    }
}

impl Aside {
    pub(super) fn new(owner: Option<u128>) -> Arc<Aside> {
        Arc::new(Aside {
            owner,
            inner: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub(super) fn listen(self: &Arc<Self>, id: u64, owner: Option<u128>, lingers_ms: u64) -> Listening {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        let mut ear = Ear {
            messages: sender,
            owner,
            gone: false,
            asked: Vec::new(),
            elicitations: Vec::new(),
        };
        let mut inner = self.lock();
        for held in std::mem::take(&mut inner.held) {
            ear.give(held);
        }
        inner.calls.insert(id, ear);
        Listening {
            aside: self.clone(),
            id,
            messages,
            first: None,
            lingers_ms,
            finished: false,
        }
    }

    /// Gives a request to the call because of which it came; back, if nobody can be said to be meant.
    fn request(&self, request: Message) -> Option<Message> {
        let mut inner = self.lock();
        let latest = inner.calls.iter().rfind(|(_, ear)| !ear.gone);
        let latest = latest.map(|(id, ear)| (*id, ear.owner));
        let Some((latest, owner)) = latest else {
            if self.owner.is_none() || inner.held.len() >= limits::ASKED_MAX {
                return Some(request);
            }
            inner.held.push_back(request);
            return None;
        };
        let is_whose = |(id, ear): (&u64, &Ear)| *id == latest || (owner.is_some() && ear.owner == owner);
        if self.owner.is_none() && !inner.calls.iter().all(is_whose) {
            return Some(request);
        }
        inner.calls.get_mut(&latest)?.give(request)
    }

    /// Gives a log message to the call under way; back, if there is none. In a session that is shared one may come late, when the call
    /// because of which it was written is over and another client's has begun: there it is nobody's.
    fn log(&self, message: Message) -> Option<Message> {
        let mut inner = self.lock();
        match inner.calls.values_mut().rfind(|ear| !ear.gone) {
            Some(ear) if self.owner.is_some() => ear.give(message),
            Some(_) | None => Some(message),
        }
    }

    /// What names a call, or a request that was given to one, goes to that call.
    fn about(&self, message: Message) {
        let named = message
            .progress_of()
            .or(message.id())
            .and_then(|id| id.parse::<u64>().ok());
        let elicitation = elicitation_of(&message);
        let cancelled = message.cancelled_id();
        let is_meant = |id: &u64, ear: &Ear| match (&elicitation, cancelled) {
            (Some(elicitation), _) => ear.elicitations.contains(elicitation),
            (None, Some(cancelled)) => ear.asked.iter().any(|asked| **asked == *cancelled),
            (None, None) => named == Some(*id),
        };
        let mut inner = self.lock();
        inner.held.retain(|held| cancelled.is_none() || held.id() != cancelled);
        if let Some((_, ear)) = inner.calls.iter_mut().find(|(id, ear)| is_meant(id, ear)) {
            ear.give(message);
        }
    }
}

impl Ear {
    /// Hands a message over; back, if there is no room for it.
    fn give(&mut self, message: Message) -> Option<Message> {
        if message.kind() == Kind::Request {
            self.asked.truncate(limits::ASKED_MAX);
            self.asked.extend(message.id().map(Box::from));
            self.elicitations.truncate(limits::ASKED_MAX);
            self.elicitations.extend(elicitation_of(&message));
        }
        match self.messages.try_send(message) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => Some(back),
        }
    }
}

/// Opens the stream of a session and holds it as long as the handle is kept. Gives it back once the server has said whether there is
/// one, or after a while.
pub(super) async fn begin(wire: &Arc<Wire>, headers: &HeaderMap, aside: &Arc<Aside>) -> AbortOnDropHandle<()> {
    let (open, opened) = oneshot::channel();
    let held = hold(wire.clone(), headers.clone(), Arc::downgrade(aside), open);
    let handle = AbortOnDropHandle::new(tokio::spawn(held));
    // Too late or never, it is as if there were none yet.
    let _opened = tokio::time::timeout(Duration::from_millis(OPEN_MS), opened)
        .await
        .is_ok();
    handle
}

async fn hold(wire: Arc<Wire>, headers: HeaderMap, aside: Weak<Aside>, open: oneshot::Sender<()>) {
    let mut open = Some(open);
    let mut wait_ms = AGAIN_MS.0;
    let mut last_id: Option<String> = None;
    let limits = CallLimits {
        idle_ms: SILENCE_MS,
        ..wire.config.limits
    };
    loop {
        match get(&wire, &headers, last_id.as_deref()).await {
            Ok(Ok(mut messages)) => {
                wait_ms = AGAIN_MS.0;
                open.take().map(|open| open.send(()).is_ok());
                let error = loop {
                    match messages.next(&limits).await {
                        Ok(message) => take(&wire, &headers, &aside, message),
                        Err(error) => break error,
                    }
                };
                tracing::debug!(%error, "the stream of a session ended");
                let (id, retry_ms) = messages.resume_at();
                last_id = id.or(last_id);
                wait_ms = retry_ms.unwrap_or(wait_ms).max(wait_ms);
            }
            // There is none, or no such session any more: who calls next learns it.
            Ok(Err(StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)) => return,
            Ok(Err(_)) | Err(_) => wait_ms = (wait_ms * 2).min(AGAIN_MS.1),
        }
        open.take().map(|open| open.send(()).is_ok());
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

fn take(wire: &Arc<Wire>, headers: &HeaderMap, aside: &Weak<Aside>, message: Message) {
    let Some(aside) = aside.upgrade() else { return };
    match (message.kind(), message.method()) {
        (Kind::Notification, _) if is_list_change(&message) => wire.lists_changed(),
        (Kind::Notification, Some("notifications/message")) => {
            if let (Some(message), Some(owner)) = (aside.log(message), aside.owner) {
                wire.said.tell(owner, message.bytes().clone());
            }
        }
        (Kind::Notification, _) | (Kind::Response, _) => aside.about(message),
        (Kind::Request, Some("ping")) => wire.post_aside(headers, pong(&message)),
        (Kind::Request, method) => {
            if method == Some("roots/list") {
                wire.note_roots();
            }
            if let Some(nobodys) = aside.request(message) {
                wire.post_aside(headers, answer_to_server(&nobodys));
            }
        }
    }
}

/// What servers say in sessions of one client while no call of that client is under way, for whoever has its stream.
pub(super) struct Words(tokio::sync::broadcast::Sender<Said>);

impl Default for Words {
    fn default() -> Words {
        Words(tokio::sync::broadcast::Sender::new(WAITING_MAX))
    }
}

impl Words {
    pub(super) fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Said> {
        self.0.subscribe()
    }

    fn tell(&self, owner: u128, message: Bytes) {
        // Where nobody listens nobody is told.
        self.0.send(Said { owner, message }).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u32) -> Message {
        Message::read(Bytes::from(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{}}}}"#
        )))
        .unwrap()
    }

    fn log() -> Message {
        let text = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
        Message::read(Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn heard(listening: &mut Listening) -> Vec<String> {
        std::iter::from_fn(|| listening.messages.try_recv().ok())
            .map(|message| message.id().unwrap_or("log").to_owned())
            .collect()
    }

    #[tokio::test]
    async fn in_a_shared_session_a_request_is_given_where_no_other_client_can_be_meant() {
        let aside = Aside::new(None);
        assert!(aside.request(request(1)).is_some(), "no call");
        let mut first = aside.listen(1, Some(7), 60_000);
        assert!(aside.request(request(2)).is_none());
        let mut second = aside.listen(2, Some(7), 60_000);
        assert!(aside.request(request(3)).is_none(), "two calls of one client");
        assert!(aside.log(log()).is_some(), "a log message may be late");
        assert_eq!(
            (heard(&mut first), heard(&mut second)),
            (vec!["2".to_owned()], vec!["3".to_owned()])
        );
        let mut other = aside.listen(3, Some(8), 60_000);
        assert!(aside.request(request(4)).is_some(), "calls of two clients");
        // The server may still be at the calls that were given up.
        drop(first);
        second.finish();
        drop(second);
        assert!(aside.request(request(5)).is_some());
        assert_eq!(heard(&mut other), Vec::<String>::new());
        let nameless = Aside::new(None);
        let _one = nameless.listen(1, None, 60_000);
        let _two = nameless.listen(2, None, 60_000);
        assert!(nameless.request(request(6)).is_some(), "nobody knows whose they are");
    }

    #[tokio::test]
    async fn in_a_session_of_one_client_what_comes_between_calls_waits_for_the_next() {
        let aside = Aside::new(Some(7));
        assert!(aside.request(request(1)).is_none());
        assert!(aside.request(request(2)).is_none());
        let gone = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        aside.about(Message::read(Bytes::from_static(gone.as_bytes())).unwrap());
        assert!(
            aside.log(log()).is_some(),
            "a log message is for the client's own stream"
        );
        let mut call = aside.listen(1, Some(7), 60_000);
        assert!(aside.log(log()).is_none());
        assert_eq!(heard(&mut call), ["2", "log"]);
    }

    #[tokio::test]
    async fn what_names_a_call_goes_to_that_call() {
        let aside = Aside::new(None);
        let (mut first, mut second) = (aside.listen(1, None, 0), aside.listen(2, None, 0));
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
        ] {
            aside.about(Message::read(Bytes::from_static(text.as_bytes())).unwrap());
        }
        assert_eq!((heard(&mut first).len(), heard(&mut second).len()), (2, 0));
    }
}
