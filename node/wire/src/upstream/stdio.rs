//! An upstream that is a child process: one line of its stdin or stdout is one message.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::HeaderValue;
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frames::{Frames, Source};
use super::handshake::{self, Exchange, Opened};
use super::live::{Caller, Live, Pipes};
use super::watching::{Updates, Watched};
use super::{CallLimits, Cause, Effect, Outgoing, State, UpstreamError};
use crate::can::ClientCan;
use crate::message::{Kind, Message};
use crate::splice::Forward;
use crate::version::Era;
use crate::{hidden, limits};

/// Is told lines.
pub type Ear = Arc<dyn Fn(&str) + Send + Sync>;

/// How a child process is started.
#[derive(Clone)]
pub struct StdioConfig {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment; nothing else is inherited. May hold secrets, never shown.
    pub env: BTreeMap<String, String>,
    /// Texts in arguments and environment that nobody may see: taken out of what the child says on its stderr, and of the
    /// reasons for which it ended.
    pub hidden: Arc<[String]>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// Limits of its calls.
    pub limits: CallLimits,
    /// Told every line of the child's stderr, without what is hidden.
    pub hears: Option<Ear>,
    /// How long nobody may have used it before it is stopped, in milliseconds; `None`: it is never stopped for that.
    pub idle_stop_ms: Option<u64>,
    /// Whether it is started once and never again: what it remembered would be gone.
    pub once: bool,
}

impl std::fmt::Debug for StdioConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioConfig")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .finish_non_exhaustive()
    }
}

/// The part of our own environment that a child may see: where programs are, and the language and time zone.
pub fn inherited_env() -> BTreeMap<String, String> {
    const NAMES: [&str; 9] = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
    ];
    NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect()
}

/// The link to one child process, over all its lives.
pub(super) struct StdioLink {
    shared: Arc<Shared>,
    _ends_the_child: DropGuard,
}

struct Shared {
    config: StdioConfig,
    ids: AtomicU64,
    life: watch::Sender<Life>,
    wanted: Notify,
    changes: watch::Sender<u64>,
    updates: Updates,
    watched: Watched,
    stderr: Mutex<VecDeque<String>>,
    /// Whether a child has been opened once.
    has_run: AtomicBool,
    stop: CancellationToken,
}

#[derive(Clone)]
enum Life {
    Idle,
    Starting,
    Running(Arc<Live>),
    BackingOff(String),
    Stopped,
}

impl StdioLink {
    pub(super) fn new(config: StdioConfig) -> StdioLink {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            config,
            ids: AtomicU64::new(1),
            life: watch::Sender::new(Life::Idle),
            wanted: Notify::new(),
            changes: watch::Sender::new(0),
            updates: Updates::default(),
            watched: Watched::default(),
            stderr: Mutex::new(VecDeque::new()),
            has_run: AtomicBool::new(false),
            stop: stop.clone(),
        });
        tokio::spawn(shared.clone().supervise());
        StdioLink {
            shared,
            _ends_the_child: stop.drop_guard(),
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn updates(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared.updates.subscribe()
    }

    pub(super) async fn watch(&self, uri: &str) -> Result<(), UpstreamError> {
        loop {
            let live = self.live().await?;
            live.opened().can_watch()?;
            if !self.shared.watched.add(uri) {
                return Ok(());
            }
            let subscribed = self.shared.ask(&live, "resources/subscribe", uri).await;
            let Err(error) = subscribed else { return Ok(()) };
            self.shared.watched.remove(uri);
            if !live.is_retired() {
                return Err(error);
            }
        }
    }

    pub(super) async fn unwatch(&self, uri: &str) -> Result<(), UpstreamError> {
        let live = match &*self.shared.life.borrow() {
            Life::Running(live) => live.clone(),
            Life::Idle | Life::Starting | Life::BackingOff(_) | Life::Stopped => {
                self.shared.watched.remove(uri);
                return Ok(());
            }
        };
        match self.shared.watched.remove(uri) {
            true => self.shared.ask(&live, "resources/unsubscribe", uri).await,
            false => Ok(()),
        }
    }

    pub(super) fn state(&self) -> State {
        match &*self.shared.life.borrow() {
            Life::Idle => State::Idle,
            Life::Starting => State::Starting,
            Life::Running(_) => State::Running,
            Life::BackingOff(reason) => State::BackingOff { reason: reason.clone() },
            Life::Stopped => State::Stopped,
        }
    }

    pub(super) fn stderr_tail(&self) -> Vec<String> {
        lock(&self.shared.stderr).iter().cloned().collect()
    }

    pub(super) async fn close(&self) {
        self.shared.stop.cancel();
        let mut life = self.shared.life.subscribe();
        let stopped = life.wait_for(|life| matches!(life, Life::Stopped));
        if tokio::time::timeout(Duration::from_millis(2 * limits::LEAVE_MS), stopped)
            .await
            .is_err()
        {
            tracing::warn!(program = %self.shared.config.program.display(), "child process did not leave in time");
        }
    }

    /// The running child, started if it has to be. While it backs off nobody waits.
    pub(super) async fn live(&self) -> Result<Arc<Live>, UpstreamError> {
        if let Life::Running(live) = &*self.shared.life.borrow() {
            return Ok(live.clone());
        }
        self.shared.wanted.notify_one();
        let mut life = self.shared.life.subscribe();
        let limit = self.shared.config.limits.handshake_ms;
        let settled = life.wait_for(|life| !matches!(life, Life::Idle | Life::Starting));
        let settled = tokio::time::timeout(Duration::from_millis(limit), settled)
            .await
            .map_err(|_| UpstreamError::before(Cause::Deadline(limit)))?
            .map(|life| life.clone());
        match settled {
            Ok(Life::Running(live)) => Ok(live),
            Ok(Life::BackingOff(reason)) => Err(UpstreamError::before(Cause::Down(reason))),
            Ok(Life::Idle | Life::Starting | Life::Stopped) | Err(_) => {
                Err(UpstreamError::before(Cause::Down("stopped".into())))
            }
        }
    }

    pub(super) async fn call(&self, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        loop {
            let live = self.live().await?;
            match self.send(&live, outgoing).await {
                // It was stopped for want of use at this very moment: the next one takes the call.
                Err(error) if error.effect == Effect::None && live.is_retired() => {}
                sent => return sent,
            }
        }
    }

    async fn send(&self, live: &Arc<Live>, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        let id = self.shared.next_id();
        let era = live.opened().revision.era();
        let outgoing = outgoing.to_era(era);
        let forward = Forward {
            id,
            name: outgoing.name,
            uri: outgoing.uri,
            era: Some(era),
            can: outgoing.can,
            level: outgoing.logs.level(),
        };
        let asked = ["tools/call", "prompts/get", "resources/read", "completion/complete"];
        let caller = Caller {
            can_be_asked: asked.contains(&outgoing.message.method().unwrap_or_default()),
            owner: outgoing.owner,
            lingers_ms: self.shared.config.limits.idle_ms,
            is_use: !outgoing.is_probe,
        };
        let line = one_line(forward.splice(outgoing.message));
        let frames = live.send(id, line, caller).await?;
        Ok(Frames::new(Source::Stdio(frames), &outgoing, self.shared.config.limits))
    }

    /// Why a child that is not started again is no more, and whether it ever ran.
    pub(super) fn ended(&self) -> Option<(String, bool)> {
        let reason = match &*self.shared.life.borrow() {
            Life::BackingOff(reason) => reason.clone(),
            Life::Stopped => "stopped".to_owned(),
            Life::Idle if self.shared.has_run.load(Ordering::Acquire) => "nobody has used it".to_owned(),
            Life::Idle | Life::Starting | Life::Running(_) => return None,
        };
        Some((reason, self.shared.has_run.load(Ordering::Acquire)))
    }

    /// Whether the child was stopped because nobody used it, and nobody has asked for it since.
    pub(super) fn sleeps(&self) -> bool {
        matches!(*self.shared.life.borrow(), Life::Idle) && self.shared.has_run.load(Ordering::Acquire)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message as one line. A line break in JSON can only be white space between tokens.
pub(super) fn one_line(bytes: Bytes) -> Bytes {
    match memchr::memchr2(b'\n', b'\r', &bytes) {
        None => bytes,
        Some(_) => bytes
            .iter()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
            .collect(),
    }
}

impl Shared {
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the child when it is first wanted, and again whenever it has died, each time after a longer wait unless
    /// it had run for a good while. One that was stopped for want of use starts when it is wanted again.
    async fn supervise(self: Arc<Self>) {
        self.wanted().await;
        let mut wait_ms = limits::RESTART_FIRST_MS;
        while !self.stop.is_cancelled() {
            self.life.send_replace(Life::Starting);
            let Ended { reason, how } = self.run().await;
            let reason = self.scrubbed(reason);
            if self.stop.is_cancelled() {
                break;
            }
            if self.config.once {
                tracing::info!(program = %self.config.program.display(), %reason, "stdio upstream of one session ended");
                self.life.send_replace(Life::BackingOff(reason));
                self.stop.cancelled().await;
                break;
            }
            if how == How::Unused {
                tracing::info!(program = %self.config.program.display(), %reason, "stdio upstream stopped");
                wait_ms = limits::RESTART_FIRST_MS;
                self.wanted().await;
                continue;
            }
            tracing::warn!(program = %self.config.program.display(), %reason, wait_ms, "stdio upstream ended");
            self.life.send_replace(Life::BackingOff(reason));
            if how == How::AfterAWhile {
                wait_ms = limits::RESTART_FIRST_MS;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = self.stop.cancelled() => {}
            }
            wait_ms = (wait_ms * 2).min(limits::RESTART_MAX_MS);
        }
        self.life.send_replace(Life::Stopped);
    }

    /// Waits until somebody wants the child, or nobody may any more.
    async fn wanted(&self) {
        tokio::select! {
            () = self.wanted.notified() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// One life of the child, from start to end.
    async fn run(self: &Arc<Self>) -> Ended {
        let (mut child, pipes) = match self.spawn() {
            Ok(started) => started,
            Err(error) => return Ended::early(format!("cannot start {}: {error}", self.config.program.display())),
        };
        let (keeper, bytes_max) = (self.clone(), self.config.limits.answer_bytes_max);
        let keep = move |line| keeper.keep_line(line);
        let (changes, updates) = (self.changes.clone(), self.updates.clone());
        let (live, mut reading, keeping) = Live::begin(pipes, keep, changes, updates, bytes_max);
        let reader = reading.abort_handle();
        let opening = Opening {
            shared: self,
            live: &live,
        };
        let limit = Duration::from_millis(self.config.limits.handshake_ms);
        let capabilities = ClientCan::ALL.json();
        let opening = tokio::time::timeout(limit, handshake::open(&opening, &capabilities));
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|_| {
                Err(UpstreamError::before(Cause::Deadline(self.config.limits.handshake_ms)))
            }),
            reason = &mut reading => Err(UpstreamError::before(Cause::Closed(reason.unwrap_or_default()))),
            () = self.stop.cancelled() => Err(UpstreamError::before(Cause::Down("stopped".into()))),
        };
        let mut ended = match opened {
            Err(error) => Ended::early(error.to_string()),
            Ok(opened) => {
                live.open(opened);
                self.has_run.store(true, Ordering::Release);
                self.life.send_replace(Life::Running(live.clone()));
                // A new process knows nothing of what was watched.
                tokio::spawn(self.clone().watch_again(live.clone()));
                self.live_on(&live, reading).await
            }
        };
        live.end();
        drop(live);
        self.life.send_if_modified(|life| {
            let was_running = matches!(life, Life::Running(_));
            if was_running {
                *life = Life::BackingOff(self.scrubbed(ended.reason.clone()));
            }
            was_running
        });
        let status = leave(&mut child).await;
        // What it said last is still in the pipe, and a grandchild may hold that open for ever.
        let _kept = tokio::time::timeout(Duration::from_millis(limits::LAST_WORDS_MS), keeping).await;
        // A grandchild may hold the pipe open for ever.
        reader.abort();
        if let Some(last) = lock(&self.stderr).back() {
            ended.reason = format!("{}; {status}; last words: {last}", ended.reason);
        } else {
            ended.reason = format!("{}; {status}", ended.reason);
        }
        ended
    }

    async fn watch_again(self: Arc<Self>, live: Arc<Live>) {
        for uri in self.watched.uris() {
            if let Err(error) = self.ask(&live, "resources/subscribe", &uri).await {
                tracing::debug!(%error, "a resource is no longer watched");
            }
        }
    }

    /// A request of our own about a resource.
    async fn ask(self: &Arc<Self>, live: &Arc<Live>, method: &str, uri: &str) -> Result<(), UpstreamError> {
        let params = serde_json::json!({ "uri": uri }).to_string();
        let asked = Opening { shared: self, live };
        let asked = asked.ask(live.opened().revision.era(), method, &params);
        let limit = self.config.limits.idle_ms;
        let (answer, _) = tokio::time::timeout(Duration::from_millis(limit), asked)
            .await
            .unwrap_or_else(|_| Err(UpstreamError::after(Cause::Deadline(limit))))?;
        match answer.error() {
            None => Ok(()),
            Some(error) => Err(UpstreamError::after(Cause::Refused(error.chars().take(500).collect()))),
        }
    }

    /// Waits until the child ends or we do.
    async fn live_on(&self, live: &Arc<Live>, mut reading: JoinHandle<String>) -> Ended {
        let mut forgiven = pin!(tokio::time::sleep(Duration::from_millis(limits::RESTART_FORGIVEN_MS)));
        let mut unused = pin!(self.unused(live));
        let mut how = How::Early;
        loop {
            tokio::select! {
                reason = &mut reading => return Ended { reason: reason.unwrap_or_default(), how },
                () = self.stop.cancelled() => return Ended::early("stopped".into()),
                () = &mut forgiven, if how == How::Early => how = How::AfterAWhile,
                () = &mut unused => {
                    return Ended { reason: "nobody has used it".into(), how: How::Unused };
                }
            }
        }
    }

    /// Waits until nobody has used the child for long enough, and takes it out of use. What is looked at is a count of uses, some times
    /// within that span: so a call sets no timer, and the child lives at most a quarter longer.
    async fn unused(&self, live: &Arc<Live>) {
        const LOOKS: u32 = 4;
        let Some(idle_ms) = self.config.idle_stop_ms else {
            return std::future::pending().await;
        };
        let step = Duration::from_millis((idle_ms / u64::from(LOOKS)).max(1));
        let (mut uses, mut quiet) = (live.uses(), 0);
        loop {
            tokio::time::sleep(step).await;
            let now = live.uses();
            if now != uses || live.is_busy() || !self.watched.is_empty() {
                (uses, quiet) = (now, 0);
                continue;
            }
            quiet += 1;
            if quiet >= LOOKS && self.retire(live, uses) {
                return;
            }
        }
    }

    /// Takes the child out of use, if nobody has begun to use it meanwhile: whoever comes now waits for the next one.
    fn retire(&self, live: &Arc<Live>, uses: u64) -> bool {
        self.life.send_if_modified(|life| {
            let retired = self.watched.is_empty() && live.retire(uses);
            if retired {
                *life = Life::Idle;
            }
            retired
        })
    }

    fn spawn(&self) -> std::io::Result<(Child, Pipes)> {
        let mut command = Command::new(&self.config.program);
        command
            .args(&self.config.args)
            .env_clear()
            .envs(&self.config.env)
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn()?;
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Ok((child, Pipes { stdin, stdout, stderr })),
            (_, _, _) => Err(std::io::Error::other("the child has no pipes")),
        }
    }

    fn scrubbed(&self, text: String) -> String {
        hidden::take_out(text, &self.config.hidden)
    }

    fn keep_line(&self, line: String) {
        let line = self.scrubbed(line);
        if let Some(hears) = &self.config.hears {
            hears(&line);
        }
        let mut kept = lock(&self.stderr);
        if kept.len() >= limits::STDERR_LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

/// The end of one life.
struct Ended {
    reason: String,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Before it had run for a good while.
    Early,
    /// Later.
    AfterAWhile,
    /// Nobody used it.
    Unused,
}

impl Ended {
    fn early(reason: String) -> Ended {
        let how = How::Early;
        Ended { reason, how }
    }
}

/// Its stdin is closed: waits for the child to leave, then makes it.
async fn leave(child: &mut Child) -> String {
    match tokio::time::timeout(Duration::from_millis(limits::LEAVE_MS), child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => made_to_leave(child).await,
    }
}

/// Told to leave first: whoever stands between us and the server has to be alive to take the server with it. Killed only if that
/// does not help.
async fn made_to_leave(child: &mut Child) -> String {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // Whoever is gone already cannot be told, which is what was wanted.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM).is_err();
        let told = tokio::time::timeout(Duration::from_millis(limits::LEAVE_MS), child.wait()).await;
        if let Ok(Ok(status)) = told {
            return status.to_string();
        }
    }
    match child.kill().await {
        Ok(()) => "killed".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The opening exchange, before anybody else may use the child.
struct Opening<'a> {
    shared: &'a Arc<Shared>,
    live: &'a Arc<Live>,
}

impl Exchange for Opening<'_> {
    async fn ask(
        &self,
        _era: Era,
        method: &str,
        params: &str,
    ) -> Result<(Message, Option<HeaderValue>), UpstreamError> {
        let id = self.shared.next_id();
        let line = Message::request(id, method, params).bytes().clone();
        let mut frames = self.live.send(id, line, Caller::default()).await?;
        loop {
            let message = frames.next().await?;
            if message.kind() == Kind::Response {
                frames.finish();
                return Ok((message, None));
            }
        }
    }

    async fn say_initialized(&self, _opened: &Opened) -> Result<(), UpstreamError> {
        self.live.write_now(Bytes::from_static(
            br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers whatever it is asked with the beginning of an MCP session.
    const ANSWERS: &str = r#"while read -r line; do
        id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
        said='{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}'
        case "$line" in *server/discover*) said= ;; esac
        if [ -n "$id" ] && [ -n "$said" ]; then echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$said}"
        elif [ -n "$id" ]; then echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32601,\"message\":\"no\"}}"; fi
    done"#;

    #[tokio::test]
    async fn what_a_child_does_not_take_because_it_is_being_stopped_was_not_sent() {
        let link = StdioLink::new(StdioConfig {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), ANSWERS.into()],
            env: inherited_env(),
            hidden: [].into(),
            cwd: None,
            limits: CallLimits::default(),
            hears: None,
            idle_stop_ms: None,
            once: false,
        });
        let message = Message::request(0, "ping", "{}");
        let outgoing = Outgoing::new(&message);
        let live = link.live().await.unwrap();
        let mut open = link.send(&live, outgoing).await.unwrap();
        assert!(!link.shared.retire(&live, live.uses()), "a call is open");
        while open.next().await.unwrap().is_some() {}
        drop(open);
        assert!(
            !link.shared.retire(&live, live.uses() - 1),
            "it was used since that was counted"
        );
        link.shared.watched.add("note://1");
        assert!(!link.shared.retire(&live, live.uses()), "something is watched");
        link.shared.watched.remove("note://1");
        assert!(link.shared.retire(&live, live.uses()));
        assert_eq!(link.state(), State::Idle, "whoever comes now waits for the next one");
        // Whoever had it in hand at that moment learns what `call` looks at before it goes on to the next one.
        let refused = link.send(&live, outgoing).await.map(drop).unwrap_err();
        assert!(refused.effect == Effect::None && live.is_retired());
        link.close().await;
    }
}
