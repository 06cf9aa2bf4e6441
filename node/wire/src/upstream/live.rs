//! One life of a child process: its pipes, the calls that wait for it, and the routing of what it writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::task::AbortOnDropHandle;

use super::handshake::Opened;
use super::http::{cancelled, is_list_change, pong};
use super::stdio::{lock, one_line};
use super::watching::{Updates, updated_uri};
use super::{Cause, UpstreamError};
use crate::fields::read_fields;
use crate::limits;
use crate::lines::LineReader;
use crate::message::{Kind, Message};
use crate::refusal::{INVALID_REQUEST, Refusal};

/// The pipes of a child.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// One life of the child.
pub(super) struct Live {
    stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
    waiting: Mutex<HashMap<u64, Lane>>,
    opened: OnceLock<Arc<Opened>>,
    /// Calls so far that are a use of the child.
    uses: AtomicU64,
    /// It was stopped because nobody used it.
    retired: AtomicBool,
    writing: AbortHandle,
}

/// Where the messages of one call go.
struct Lane {
    messages: mpsc::UnboundedSender<Message>,
    backlog: Arc<Backlog>,
    caller: Caller,
    /// Nobody waits for it any more, but the child may still be at it.
    gone: bool,
    /// Requests of the child that were given to this call, and the ids of its elicitations: what names them comes here too.
    asked: Vec<Box<str>>,
    elicitations: Vec<Box<str>>,
}

/// What is known of who makes a call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Caller {
    /// Whether the server may ask the client something because of this call.
    pub(super) can_be_asked: bool,
    /// Whose call it is.
    pub(super) owner: Option<u128>,
    /// How long a call that was given up may go on at the child, in milliseconds.
    pub(super) lingers_ms: u64,
    /// Whether it keeps the child from being stopped for want of use: a probe does not.
    pub(super) is_use: bool,
}

#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    overflowed: AtomicBool,
}

impl Live {
    /// Takes the pipes of a child that was just started, and begins to read them. The handle ends with the reason when the
    /// child's output does, the other one when its stderr is at its end. `stderr` is told every line.
    pub(super) fn begin(
        pipes: Pipes,
        stderr: impl Fn(String) + Send + 'static,
        changes: watch::Sender<u64>,
        updates: Updates,
        line_bytes_max: usize,
    ) -> (Arc<Live>, JoinHandle<String>, AbortOnDropHandle<()>) {
        let (stdin, queue) = mpsc::channel(limits::STDIN_QUEUE_MAX);
        let writing = tokio::spawn(write_lines(pipes.stdin, queue));
        let keeping = AbortOnDropHandle::new(tokio::spawn(keep_stderr(pipes.stderr, stderr)));
        let live = Arc::new(Live {
            stdin: Mutex::new(Some(stdin)),
            waiting: Mutex::default(),
            opened: OnceLock::new(),
            uses: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            writing: writing.abort_handle(),
        });
        let lines = LineReader::new(pipes.stdout, line_bytes_max);
        let reading = tokio::spawn(live.clone().read_lines(lines, changes, updates));
        (live, reading, keeping)
    }

    /// Notes what the opening exchange said.
    pub(super) fn open(&self, opened: Opened) {
        self.opened.get_or_init(|| Arc::new(opened));
    }

    /// What the opening exchange said. There is one before anybody else sees this life.
    pub(super) fn opened(&self) -> Arc<Opened> {
        self.opened.get().cloned().expect("a running child has been opened")
    }

    /// Writes a request and waits for nothing; its messages come out of the frames.
    pub(super) async fn send(
        self: &Arc<Self>,
        id: u64,
        line: Bytes,
        caller: Caller,
    ) -> Result<StdioFrames, UpstreamError> {
        let closed = || UpstreamError::before(Cause::Closed("the process has ended".into()));
        let (sender, messages) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let lane = Lane {
            messages: sender,
            backlog: backlog.clone(),
            caller,
            gone: false,
            asked: Vec::new(),
            elicitations: Vec::new(),
        };
        let stdin = {
            // Both under one lock: a child is not taken out of use between them.
            let mut waiting = lock(&self.waiting);
            let stdin = lock(&self.stdin).clone().ok_or_else(closed)?;
            waiting.insert(id, lane);
            stdin
        };
        if caller.is_use {
            self.uses.fetch_add(1, Ordering::Relaxed);
        }
        let mut frames = StdioFrames {
            id,
            messages,
            backlog,
            live: self.clone(),
            lingers_ms: caller.can_be_asked.then_some(caller.lingers_ms),
            finished: true,
        };
        stdin.send(line).await.map_err(|_| closed())?;
        frames.finished = false;
        Ok(frames)
    }

    /// Reads until the child closes its stdout or writes something unusable; says which.
    async fn read_lines(
        self: Arc<Self>,
        mut lines: LineReader<ChildStdout>,
        changes: watch::Sender<u64>,
        updates: Updates,
    ) -> String {
        let reason = loop {
            match lines.next_line().await {
                Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(line)) => match Message::read(line) {
                    Ok(message) => self.route(message, &changes, &updates),
                    // A stray line of text is a fault of the server, yet common: it belongs to nobody.
                    Err(refusal) => tracing::debug!(why = %refusal.message, "line of a stdio upstream dropped"),
                },
                Ok(None) => break "the process closed its output".to_owned(),
                Err(fault) => break fault.to_string(),
            }
        };
        self.end();
        reason
    }

    fn route(&self, message: Message, changes: &watch::Sender<u64>, updates: &Updates) {
        let number = |raw: Option<&str>| raw.and_then(|raw| raw.parse::<u64>().ok());
        match (message.kind(), message.method()) {
            (Kind::Response, _) => {
                let lane = number(message.id()).and_then(|id| lock(&self.waiting).remove(&id));
                if let Some(lane) = lane {
                    lane.give(message);
                }
            }
            (Kind::Notification, Some("notifications/progress")) => {
                let Some(id) = number(message.progress_of()) else {
                    return;
                };
                let mut waiting = lock(&self.waiting);
                if waiting.get(&id).is_some_and(|lane| !lane.gone && !lane.give(message)) {
                    waiting.remove(&id);
                }
            }
            (Kind::Notification, _) if is_list_change(&message) => changes.send_modify(|count| *count += 1),
            (Kind::Notification, Some("notifications/cancelled" | "notifications/elicitation/complete")) => {
                self.route_about_asked(message);
            }
            (Kind::Notification, _) => {
                // Log messages and the like name no call.
                if let Some(uri) = updated_uri(&message) {
                    updates.tell(uri);
                }
            }
            (Kind::Request, Some("ping")) => self.write_now(pong(&message)),
            (Kind::Request, _) => self.route_request(message),
        }
    }

    /// A request goes to the call because of which it came. It does not say which that is: so either there is one only, or all are
    /// of one owner. Whoever else got it would be shown what is meant for another.
    fn route_request(&self, message: Message) {
        let mut waiting = lock(&self.waiting);
        let lanes = || waiting.iter().filter(|(_, lane)| lane.caller.can_be_asked);
        let latest = lanes().filter(|(_, lane)| !lane.gone).max_by_key(|(id, _)| **id);
        let whose = latest.filter(|(latest, lane)| {
            let same = |other: &Lane| lane.caller.owner.is_some() && lane.caller.owner == other.caller.owner;
            lanes().all(|(id, other)| id == *latest || same(other))
        });
        let Some(lane) = whose.map(|(id, _)| *id).and_then(|id| waiting.get_mut(&id)) else {
            drop(waiting);
            let id = message.id().unwrap_or("null");
            let why =
                "calls of several clients are under way, or none, and this request does not say to whom it belongs";
            return self.write_now(Refusal::bad(INVALID_REQUEST, why).body(Some(id)));
        };
        if lane.asked.len() < limits::ASKED_MAX {
            lane.asked.extend(message.id().map(Box::from));
        }
        if lane.elicitations.len() < limits::ASKED_MAX {
            lane.elicitations.extend(elicitation_of(&message));
        }
        lane.give(message);
    }

    /// What names a request that was given to a call goes to that call.
    fn route_about_asked(&self, message: Message) {
        let elicitation = elicitation_of(&message);
        let mut waiting = lock(&self.waiting);
        let lane = waiting.values_mut().find(|lane| match &elicitation {
            Some(elicitation) => lane.elicitations.contains(elicitation),
            None => message
                .cancelled_id()
                .is_some_and(|id| lane.asked.iter().any(|asked| **asked == *id)),
        });
        if let Some(lane) = lane {
            lane.give(message);
        }
    }

    /// Writes a line as soon as there is room for it.
    pub(super) fn write_soon(&self, line: Bytes) {
        let Some(stdin) = lock(&self.stdin).clone() else {
            return;
        };
        if let (Err(TrySendError::Full(line)), Ok(runtime)) = (stdin.try_send(line), Handle::try_current()) {
            // It ends with the child, which takes the queue away.
            runtime.spawn(async move { stdin.send(line).await.unwrap_or(()) });
        }
    }

    /// Writes a line if there is room for it; what we owe a server that does not read is nothing.
    pub(super) fn write_now(&self, line: Bytes) {
        if let Some(stdin) = &*lock(&self.stdin)
            && let Err(error) = stdin.try_send(line)
        {
            tracing::debug!(%error, "message to a stdio upstream dropped");
        }
    }

    /// Calls so far that are a use of the child.
    pub(super) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Whether anybody waits for something of it.
    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.waiting).is_empty()
    }

    /// Closes its stdin, if nobody waits for anything and there were no more uses than these. Whether it did.
    pub(super) fn retire(&self, uses: u64) -> bool {
        let waiting = lock(&self.waiting);
        if !waiting.is_empty() || self.uses() != uses {
            return false;
        }
        self.retired.store(true, Ordering::Release);
        lock(&self.stdin).take();
        true
    }

    /// Whether it was stopped because nobody used it: a call that it did not take may go to the next one.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// No more messages in either direction: the callers learn it, and the child by its closed stdin.
    pub(super) fn end(&self) {
        lock(&self.stdin).take();
        lock(&self.waiting).clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Lane {
    /// Of a call that is asked about no more.
    fn silent(backlog: &Arc<Backlog>) -> Lane {
        Lane {
            messages: mpsc::unbounded_channel().0,
            backlog: Arc::clone(backlog),
            caller: Caller {
                can_be_asked: true,
                ..Caller::default()
            },
            gone: true,
            asked: Vec::new(),
            elicitations: Vec::new(),
        }
    }

    /// Hands a message over; false if the call is gone or has fallen too far behind.
    fn give(&self, message: Message) -> bool {
        let bytes = message.bytes().len() + 256;
        if self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limits::BACKLOG_BYTES_MAX + 256
            && message.kind() != Kind::Response
        {
            self.backlog.overflowed.store(true, Ordering::Relaxed);
            return false;
        }
        self.messages.send(message).is_ok()
    }
}

async fn write_lines(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::new();
    while let Some(line) = queue.recv().await {
        batch.extend_from_slice(&line);
        batch.push(b'\n');
        while batch.len() < 64 << 10
            && let Ok(line) = queue.try_recv()
        {
            batch.extend_from_slice(&line);
            batch.push(b'\n');
        }
        let written = async {
            stdin.write_all(&batch).await?;
            stdin.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "stdio upstream no longer reads");
            return;
        }
        batch.clear();
    }
}

async fn keep_stderr(stderr: ChildStderr, keep: impl Fn(String)) {
    let mut lines = LineReader::new(stderr, limits::STDERR_LINE_BYTES_MAX);
    while let Ok(Some(line)) = lines.next_cut_line().await {
        keep(String::from_utf8_lossy(&line).into_owned());
    }
}

/// `params.elicitationId`, raw.
pub(super) fn elicitation_of(message: &Message) -> Option<Box<str>> {
    let [id] = read_fields(message.params()?, &["elicitationId"]).ok()?;
    id.map(Box::from)
}

/// The messages of one call.
pub(super) struct StdioFrames {
    id: u64,
    messages: mpsc::UnboundedReceiver<Message>,
    backlog: Arc<Backlog>,
    live: Arc<Live>,
    /// How long the child may go on with it after it was given up; none if that does not matter.
    lingers_ms: Option<u64>,
    finished: bool,
}

impl StdioFrames {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Writes what belongs to this call and is no request.
    pub(super) fn say(&self, body: Bytes) {
        self.live.write_soon(one_line(body));
    }

    pub(super) async fn next(&mut self) -> Result<Message, UpstreamError> {
        match self.messages.recv().await {
            Some(message) => {
                self.backlog
                    .bytes
                    .fetch_sub(message.bytes().len() + 256, Ordering::Relaxed);
                Ok(message)
            }
            None if self.backlog.overflowed.load(Ordering::Relaxed) => {
                Err(UpstreamError::after(Cause::TooMuch(limits::BACKLOG_BYTES_MAX)))
            }
            None => {
                self.finished = true;
                Err(UpstreamError::after(Cause::Closed("the process has ended".into())))
            }
        }
    }
}

impl Drop for StdioFrames {
    /// Giving up a call: the child is told by a notification, there being no stream of the call's own to close.
    fn drop(&mut self) {
        if self.finished {
            lock(&self.live.waiting).remove(&self.id);
            return;
        }
        self.live.write_now(Bytes::from(cancelled(self.id)));
        let mut waiting = lock(&self.live.waiting);
        let (Some(lingers_ms), Ok(runtime)) = (self.lingers_ms, Handle::try_current()) else {
            waiting.remove(&self.id);
            return;
        };
        // The child may not have heard yet, and what it asks because of this call is for nobody else.
        if self.backlog.overflowed.load(Ordering::Relaxed) {
            let lane = Lane::silent(&self.backlog);
            waiting.entry(self.id).or_insert(lane);
        }
        if let Some(lane) = waiting.get_mut(&self.id) {
            lane.gone = true;
            let (live, id) = (Arc::downgrade(&self.live), self.id);
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(lingers_ms)).await;
                if let Some(live) = live.upgrade() {
                    lock(&live.waiting).remove(&id);
                }
            });
        }
    }
}
