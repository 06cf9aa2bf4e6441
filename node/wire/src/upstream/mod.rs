//! Connections to MCP servers, over HTTP or over the pipes of a child process, behind one type.
//!
//! Many clients share one connection, so every request travels under an id and a progress token of ours, and what comes
//! back is put under the caller's own again. What cannot be attributed to one call goes to nobody.

mod answer;
mod frames;
mod handshake;
mod http;
mod listen;
mod lists;
mod live;
mod stdio;
mod watching;

use std::sync::Arc;

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

pub use self::frames::{Frame, Frames};
pub use self::handshake::Opened;
pub(crate) use self::handshake::decode as decode_handshake;
pub use self::http::{HttpConfig, HttpPool};
pub use self::listen::Heard;
pub use self::lists::Lists;
pub use self::stdio::{Ear, StdioConfig, inherited_env};
pub use self::watching::Watch;

use crate::can::ClientCan;
use crate::level::Logs;
use crate::limits;
use crate::message::Message;
use crate::refusal::Refusal;
use crate::splice::Supply;
use crate::version::Era;

/// Limits of the calls of one upstream. Zero means nothing here: every field is a real bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Longest silence between frames, in milliseconds; to the first one as well, unless `first_byte_ms` says otherwise.
    pub idle_ms: u64,
    /// Longest wait for the head of an answer over HTTP, in milliseconds.
    pub first_byte_ms: Option<u64>,
    /// Longest call, in milliseconds.
    pub total_ms: u64,
    /// Longest opening exchange, in milliseconds.
    pub handshake_ms: u64,
    /// Largest message from the upstream, in bytes.
    pub answer_bytes_max: usize,
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits {
            idle_ms: limits::IDLE_MS,
            first_byte_ms: None,
            total_ms: limits::TOTAL_MS,
            handshake_ms: limits::HANDSHAKE_MS,
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
        }
    }
}

/// One MCP server as we reach it. Cheap to clone; the last clone that is dropped ends a child process.
#[derive(Clone)]
pub struct Upstream {
    link: Link,
    /// What it declares on our own account.
    own: ClientCan,
}

#[derive(Clone)]
enum Link {
    Http(Arc<http::HttpLink>),
    Stdio(Arc<stdio::StdioLink>),
}

/// A request on its way to an upstream.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// The client's request.
    pub message: &'a Message,
    /// The upstream's own name for the tool or prompt, where it differs from the client's.
    pub name: Option<&'a str>,
    /// The upstream's own URI for the resource, where it differs.
    pub uri: Option<&'a str>,
    /// `Mcp-Param-*` headers, for a modern HTTP upstream.
    pub params: &'a [(HeaderName, HeaderValue)],
    /// What the client needs supplied in the result.
    pub supply: Supply,
    /// Which log messages the client wants on the stream of this call.
    pub logs: Logs,
    /// What the client can do for the server.
    pub can: ClientCan,
    /// Whose call it is: a client session, for instance. On a connection that calls share, a request of the server belongs to the
    /// one call that is under way, or to one of several of the same owner.
    pub owner: Option<u128>,
    /// Whether it is asked to learn how the server is: then a child process that nobody uses is stopped all the same.
    pub is_probe: bool,
    /// How often that client has said that its roots have changed.
    pub roots_changes: u32,
    /// Whether it is a request of our own, which goes in the newer era where the server speaks both.
    pub own: bool,
}

impl<'a> Outgoing<'a> {
    /// The request as the client sent it.
    pub fn new(message: &'a Message) -> Outgoing<'a> {
        Outgoing {
            message,
            name: None,
            uri: None,
            params: &[],
            supply: Supply::Nothing,
            logs: Logs::All,
            can: ClientCan::NOTHING,
            owner: None,
            is_probe: false,
            roots_changes: 0,
            own: false,
        }
    }

    /// The same to an upstream of this era: a legacy client does not get what only a modern one knows.
    fn to_era(self, era: Era) -> Outgoing<'a> {
        let supply = match (era, self.supply) {
            (Era::Modern, Supply::Nothing) => Supply::Legacy,
            (_, supply) => supply,
        };
        Outgoing { supply, ..self }
    }
}

/// For whom a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// For what we ask on our own account.
    Us(ClientCan),
    /// For clients that can do this.
    Client(ClientCan),
}

impl For {
    /// How many kinds there are.
    const SLOTS: usize = 2 * ClientCan::SETS;

    fn can(self) -> ClientCan {
        match self {
            For::Us(can) | For::Client(can) => can,
        }
    }

    /// Its number, below [`For::SLOTS`]. Where nobody can be asked anything, one session serves both.
    fn slot(self) -> usize {
        match self {
            For::Us(can) if can != ClientCan::NOTHING => ClientCan::SETS + can.index(),
            For::Us(can) | For::Client(can) => can.index(),
        }
    }
}

/// What a server has said in the session of one client while no call of that client was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose session it is.
    pub owner: u128,
    /// A log message.
    pub message: Bytes,
}

/// How an upstream is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not needed yet, or no longer: it starts with the next call.
    Idle,
    /// Starting, or in its opening exchange.
    Starting,
    /// In use.
    Running,
    /// Failed; a new attempt follows.
    BackingOff {
        /// What happened.
        reason: String,
    },
    /// Closed on our side.
    Stopped,
}

/// A call that an upstream did not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{cause}")]
pub struct UpstreamError {
    /// What went wrong.
    pub cause: Cause,
    /// Whether the upstream may have acted on the request all the same.
    pub effect: Effect,
}

/// Whether a failed request may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It was not sent.
    None,
    /// It was sent, at least in part.
    Possible,
}

/// What went wrong with an upstream.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Cause {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The child process is not running.
    #[error("not running: {0}")]
    Down(String),
    /// Silence for too long.
    #[error("no answer within {0} ms")]
    Deadline(u64),
    /// The connection ended before the answer.
    #[error("connection closed before the answer: {0}")]
    Closed(String),
    /// An answer that is not MCP.
    #[error("unusable answer: {0}")]
    Rubbish(String),
    /// An answer beyond the limit.
    #[error("answer larger than {0} bytes")]
    TooMuch(usize),
    /// An HTTP status that carries no answer.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The upstream does not know our session. Seen by callers only if a new session did not help.
    #[error("session refused")]
    SessionGone,
    /// The server does not offer it.
    #[error("it does not offer {0}")]
    Unsupported(&'static str),
    /// The opening exchange failed.
    #[error("cannot open a session: {0}")]
    Handshake(String),
    /// So many calls are under way that this one finds no place.
    #[error("busy: {0}")]
    Busy(String),
    /// It failed so often that it is not asked for a while.
    #[error("not asked: {0}")]
    Resting(String),
    /// A call that was held for its client came to an end.
    #[error("{0}")]
    Held(String),
    /// The upstream answered a request of ours with an error.
    #[error("refused: {0}")]
    Refused(String),
}

impl UpstreamError {
    /// A failure before anything was sent.
    pub(crate) fn before(cause: Cause) -> UpstreamError {
        UpstreamError {
            cause,
            effect: Effect::None,
        }
    }

    /// A failure after the request was sent.
    pub(crate) fn after(cause: Cause) -> UpstreamError {
        UpstreamError {
            cause,
            effect: Effect::Possible,
        }
    }

    pub(crate) fn rubbish(refusal: &Refusal) -> UpstreamError {
        UpstreamError::after(Cause::Rubbish(refusal.message.clone()))
    }
}

impl Upstream {
    /// An upstream over HTTP. Nothing is sent before it is needed.
    pub fn http(pool: &HttpPool, config: HttpConfig) -> Upstream {
        Upstream {
            link: Link::Http(Arc::new(http::HttpLink::new(pool, config))),
            own: ClientCan::ALL,
        }
    }

    /// An upstream that is a child process. It starts when it is needed, and again after it dies. Must be called
    /// within a tokio runtime.
    pub fn stdio(config: StdioConfig) -> Upstream {
        Upstream {
            link: Link::Stdio(Arc::new(stdio::StdioLink::new(config))),
            own: ClientCan::ALL,
        }
    }

    /// The same for a client that can do nothing for the server: there is nobody behind it.
    #[must_use]
    pub fn on_its_own(self) -> Upstream {
        Upstream {
            own: ClientCan::NOTHING,
            ..self
        }
    }

    /// Opens the session in which we ask on our own account: the server is told of every capability that a client may have, so
    /// that it lists all that it has for any of them.
    pub async fn open(&self) -> Result<Arc<Opened>, UpstreamError> {
        match &self.link {
            Link::Http(link) => link.opened(For::Us(self.own)).await,
            Link::Stdio(link) => Ok(link.live().await?.opened()),
        }
    }

    /// Whether nothing has to be begun before a request of this era, of such a client, can be sent: no connection, no session, no
    /// process. A server of both eras is spoken to in the era of the client.
    pub fn is_open_in(&self, era: Era, can: ClientCan) -> bool {
        match &self.link {
            Link::Http(link) => link.is_open_in(era, can),
            Link::Stdio(_) => false,
        }
    }

    /// Opens what requests of this era, of such clients, travel in: in which era the server is spoken to.
    pub async fn open_in(&self, era: Era, can: ClientCan) -> Result<Era, UpstreamError> {
        match &self.link {
            Link::Http(link) => link.open_in(era, can).await,
            Link::Stdio(link) => Ok(link.live().await?.opened().revision.era()),
        }
    }

    /// Sends a request and gives back what comes: notifications, then the response. Dropping the frames cancels the
    /// call at the upstream.
    ///
    /// # Panics
    /// If the message is not a request.
    pub async fn call(&self, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        match &self.link {
            Link::Http(link) => link.call(outgoing).await,
            Link::Stdio(link) => link.call(outgoing).await,
        }
    }

    /// A request of our own, which is no use of the server, and the raw `result` of its response.
    pub async fn request(&self, method: &str, params: &str) -> Result<Message, UpstreamError> {
        let message = Message::request(0, method, params);
        let outgoing = Outgoing {
            can: self.own,
            is_probe: true,
            own: true,
            ..Outgoing::new(&message)
        };
        own_answer(self.call(outgoing).await?).await
    }

    /// Asks whether the upstream is alive: `ping`, or `server/discover` where there is no `ping`.
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        let method = match self.open().await?.revision.era() {
            Era::Legacy => "ping",
            Era::Modern => "server/discover",
        };
        self.request(method, "{}").await.map(drop)
    }

    /// All that the upstream lists: tools, prompts, resources, resource templates, every page.
    pub async fn lists(&self) -> Result<Lists, UpstreamError> {
        lists::fetch(self).await
    }

    /// Counts the `list_changed` notifications of the upstream, of whichever list.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match &self.link {
            Link::Http(link) => link.changes(),
            Link::Stdio(link) => link.changes(),
        }
    }

    /// Whether the other one is this one.
    pub fn is_same(&self, other: &Upstream) -> bool {
        match (&self.link, &other.link) {
            (Link::Http(one), Link::Http(other)) => Arc::ptr_eq(one, other),
            (Link::Stdio(one), Link::Stdio(other)) => Arc::ptr_eq(one, other),
            (Link::Http(_), Link::Stdio(_)) | (Link::Stdio(_), Link::Http(_)) => false,
        }
    }

    /// Opens what watching a resource takes.
    pub async fn open_to_watch(&self) -> Result<(), UpstreamError> {
        match &self.link {
            Link::Http(link) => link.open(For::Us(ClientCan::ALL)).await.map(drop),
            Link::Stdio(link) => link.live().await.map(drop),
        }
    }

    /// Watches a resource, by the server's own URI, until the watch is dropped.
    pub async fn watch(&self, uri: &str) -> Result<Watch, UpstreamError> {
        match &self.link {
            Link::Http(link) => link.watch(uri).await?,
            Link::Stdio(link) => link.watch(uri).await?,
        }
        Ok(Watch::new(self.clone(), uri))
    }

    pub(self) async fn unwatch(&self, uri: &str) {
        let ended = match &self.link {
            Link::Http(link) => link.unwatch(uri).await,
            Link::Stdio(link) => link.unwatch(uri).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a resource is watched longer than it has to be");
        }
    }

    /// The watched resources that have changed, by the server's own URIs, from now on.
    pub fn updates(&self) -> broadcast::Receiver<Arc<str>> {
        match &self.link {
            Link::Http(link) => link.updates(),
            Link::Stdio(link) => link.updates(),
        }
    }

    /// What the server says in sessions of one client while no call of that client is under way, from now on; none of a child process.
    pub fn said(&self) -> Option<broadcast::Receiver<Said>> {
        match &self.link {
            Link::Http(link) => Some(link.said()),
            Link::Stdio(_) => None,
        }
    }

    /// Does what has to be done for the client of this request before it can be sent: a client that has set a level for log messages, or
    /// has roots that the server asks for, has a session of its own, in which the server is told of changes. Nothing comes of it where
    /// that fails: the request goes in a session that clients share.
    pub async fn prepare(&self, outgoing: &Outgoing<'_>) {
        if let Link::Http(link) = &self.link {
            link.prepare(outgoing).await;
        }
    }

    /// Ends the sessions of clients that are gone.
    pub async fn end_owned(&self, is_gone: impl Fn(u128) -> bool) {
        if let Link::Http(link) = &self.link {
            link.end_owned(is_gone).await;
        }
    }

    /// How it is doing.
    pub fn state(&self) -> State {
        match &self.link {
            Link::Http(link) => link.state(),
            Link::Stdio(link) => link.state(),
        }
    }

    /// Why a child process that is started once only is no more, and whether it ever ran.
    pub fn ended(&self) -> Option<(String, bool)> {
        match &self.link {
            Link::Http(_) => None,
            Link::Stdio(link) => link.ended(),
        }
    }

    /// Whether it is a child process.
    pub fn is_child(&self) -> bool {
        matches!(self.link, Link::Stdio(_))
    }

    /// Whether it is a child process that was stopped because nobody used it. It starts with the next call.
    pub fn sleeps(&self) -> bool {
        match &self.link {
            Link::Http(_) => false,
            Link::Stdio(link) => link.sleeps(),
        }
    }

    /// The last lines a child process wrote to stderr, oldest first; none over HTTP.
    pub fn stderr_tail(&self) -> Vec<String> {
        match &self.link {
            Link::Http(_) => Vec::new(),
            Link::Stdio(link) => link.stderr_tail(),
        }
    }

    /// Ends the session: a child process is asked to leave and then made to.
    pub async fn close(&self) {
        match &self.link {
            Link::Http(link) => link.close().await,
            Link::Stdio(link) => link.close().await,
        }
    }
}

/// The response among the frames of a request of our own.
async fn own_answer(mut frames: Frames) -> Result<Message, UpstreamError> {
    while let Some(frame) = frames.next().await? {
        match frame {
            Frame::Response { bytes, .. } => return read_own(bytes),
            Frame::Request(asked) => frames.refuse(&asked),
            Frame::Notification(_) | Frame::Withdrawn(_) => {}
        }
    }
    Err(UpstreamError::after(Cause::Closed("no response".into())))
}

fn read_own(bytes: Bytes) -> Result<Message, UpstreamError> {
    let message = Message::read(bytes).map_err(|refusal| UpstreamError::rubbish(&refusal))?;
    match message.error() {
        Some(error) => Err(UpstreamError::after(Cause::Refused(error.chars().take(500).collect()))),
        None => Ok(message),
    }
}
