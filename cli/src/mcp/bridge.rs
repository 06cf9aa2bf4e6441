//! The bridge between a client on stdio and a cluster: each line is a message that is posted to a node, and whatever a node says
//! becomes a line. Both eras pass through. A legacy session is opened by the client's own `initialize`, which is kept: sessions are
//! good on every node, and where one is not known any more the client's words open another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mcp_wire::headers::{PROTOCOL_VERSION, SESSION_ID};
use mcp_wire::message::{Kind, Message};
use mcp_wire::mirrored::MirroredParams;
use mcp_wire::refusal::{HEADER_MISMATCH, NOT_ALLOWED, Refusal, SESSION_NOT_FOUND};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::failure::{Exit, Failure};
use crate::mcp::exchange::{Came, Exchange, Failed, LISTEN};
use crate::mcp::link::{Answer, Ask, Link};
use crate::mcp::say;

/// First pause before the session's stream is opened again; doubled up to [`STREAM_PAUSE_MAX`].
const STREAM_PAUSE: Duration = Duration::from_millis(250);
const STREAM_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the end of a session may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Tools whose mirrored parameters are remembered.
const TOOLS_MAX: usize = 10_000;

/// The bridge ends because of this.
pub(crate) struct End(pub(crate) Failure);

/// One client, one cluster.
pub(crate) struct Bridge {
    link: Link,
    out: tokio::sync::Mutex<tokio::io::Stdout>,
    legacy: Mutex<Legacy>,
    /// Held by whoever opens the session anew, so that one does.
    renewing: tokio::sync::Mutex<()>,
    running: Mutex<HashMap<String, Running>>,
    /// What modern calls of a tool repeat in headers, as far as lists that passed through here say.
    mirrored: Mutex<HashMap<String, MirroredParams>>,
    ended: mpsc::Sender<End>,
}

/// The session of a legacy client.
#[derive(Default)]
struct Legacy {
    /// Its id and revision as headers; empty as long as there is none.
    headers: HeaderMap,
    /// Counts the sessions.
    number: u64,
    initialize: Option<Message>,
    initialized: Option<Message>,
    /// Lists whose changes the server said it would report.
    lists: Vec<&'static str>,
    stream: Option<AbortHandle>,
}

/// A request of the client that is not answered yet.
struct Running {
    task: AbortHandle,
    modern: bool,
    lasting: bool,
    cancelled: bool,
}

impl Bridge {
    pub(crate) fn new(link: Link, ended: mpsc::Sender<End>) -> Bridge {
        Bridge {
            link,
            out: tokio::sync::Mutex::new(tokio::io::stdout()),
            legacy: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            mirrored: Mutex::default(),
            ended,
        }
    }

    /// Takes a line of the client. Requests are answered beside each other; what they need to have happened before them is
    /// waited for.
    pub(crate) async fn take(self: &Arc<Self>, line: Bytes, running: &mut JoinSet<()>) {
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(refusal) => return self.write(&refusal.body(None)).await,
        };
        match (message.kind(), message.method().unwrap_or_default()) {
            (Kind::Notification, "notifications/cancelled") => self.cancel(message).await,
            (Kind::Notification, "notifications/initialized") => self.initialized(message).await,
            (Kind::Notification | Kind::Response, _) => self.pass(message).await,
            (Kind::Request, "initialize") => {
                self.legacy().initialize = Some(message.clone());
                self.answer(message).await;
            }
            (Kind::Request, _) => {
                let id = message.id().unwrap_or("null").to_owned();
                let (modern, lasting) = (message.names_protocol_version(), message.method() == Some(LISTEN));
                // The task cannot run before this is noted: there is one thread, and nothing is waited for between.
                let bridge = self.clone();
                let task = running.spawn(async move { bridge.answer(message).await });
                let noted = Running {
                    task,
                    modern,
                    lasting,
                    cancelled: false,
                };
                lock(&self.running).insert(id, noted);
            }
        }
    }

    /// The client asks nothing more: what would last for ever ends.
    pub(crate) fn no_more_questions(&self) {
        let lasting = |running: &&Running| running.lasting;
        lock(&self.running)
            .values()
            .filter(lasting)
            .for_each(|r| r.task.abort());
    }

    /// Ends the session, if the token is still good for that.
    pub(crate) async fn close(&self, politely: bool) {
        let (headers, stream) = {
            let mut legacy = self.legacy();
            (std::mem::take(&mut legacy.headers), legacy.stream.take())
        };
        if let Some(stream) = stream {
            stream.abort();
        }
        if politely && !headers.is_empty() {
            let ending = Ask::end(headers);
            let _ended = tokio::time::timeout(CLOSE_WAIT, self.link.send(&ending)).await.is_ok();
        }
        if !politely {
            self.answer_the_rest().await;
        }
        let _flushed = self.out.lock().await.flush().await.is_ok();
    }

    /// Whoever waits for an answer gets one, if only that there will be none.
    async fn answer_the_rest(&self) {
        let waiting: Vec<(String, Running)> = lock(&self.running).drain().collect();
        for (id, _) in waiting.into_iter().filter(|(_, running)| !running.cancelled) {
            let refusal = Refusal::inside(
                NOT_ALLOWED,
                "the bridge ended before the answer came; the request may have had an effect",
            );
            self.write(&refusal.body(Some(&id))).await;
        }
    }

    /// Carries out a request and writes what comes.
    async fn answer(self: &Arc<Self>, message: Message) {
        let id = message.id().unwrap_or("null").to_owned();
        let mut failed = self.exchange(&message).await;
        // A session that no node knows any more did nothing, and neither did a call whose headers lacked something.
        let number = self.legacy().number;
        if failed.as_ref().err().is_some_and(is_no_session) && !message.names_protocol_version() {
            if self.renew(number, true).await {
                failed = self.exchange(&message).await;
            }
        } else if failed.as_ref().err().is_some_and(is_mismatch) && self.learn_headers(&message).await {
            failed = self.exchange(&message).await;
        }
        let running = lock(&self.running).remove(&id);
        let cancelled = running.is_some_and(|running| running.cancelled);
        if let Err(failed) = failed
            && !cancelled
        {
            let refusal = failed.refusal(message.method().unwrap_or_default());
            self.write(&refusal.body(Some(&id))).await;
            self.look_at(&failed);
        }
    }

    async fn exchange(self: &Arc<Self>, message: &Message) -> Result<(), Failed> {
        let (headers, before) = {
            let legacy = self.legacy();
            let opening = message.method() == Some("initialize");
            let headers = if opening {
                HeaderMap::new()
            } else {
                legacy.headers.clone()
            };
            (headers, legacy.number)
        };
        let mirrored = message.name().and_then(|tool| lock(&self.mirrored).get(tool).cloned());
        let mut exchange = Exchange::new(&self.link, Ask::post(message, headers, mirrored.as_ref()), message);
        loop {
            match exchange.next().await? {
                Came::Said(said) if exchange.resumed > 0 && is_acknowledgement(&said) => {
                    self.report_all(&said, exchange.resumed).await;
                }
                Came::Said(said) => self.write(said.bytes()).await,
                Came::Answered(response) => {
                    match exchange.method() {
                        "initialize" => self.opened(&response, exchange.session.as_deref(), before),
                        "tools/list" if message.names_protocol_version() => self.note_headers(&response),
                        _ => {}
                    }
                    self.write(response.bytes()).await;
                    return Ok(());
                }
                // Only what was cancelled is left without an answer.
                Came::Accepted | Came::Ended => {
                    let cancelled = lock(&self.running)
                        .get(message.id().unwrap_or_default())
                        .is_some_and(|r| r.cancelled);
                    return match cancelled {
                        true => Ok(()),
                        false => Err(Failed::Lost("its stream ended without a response".to_owned())),
                    };
                }
            }
        }
    }

    /// Passes on what wants no answer.
    async fn pass(self: &Arc<Self>, message: Message) {
        for again in [true, false] {
            let (headers, number) = {
                let legacy = self.legacy();
                (legacy.headers.clone(), legacy.number)
            };
            let mut exchange = Exchange::new(&self.link, Ask::post(&message, headers, None), &message);
            let Err(failed) = exchange.next().await else { return };
            // The session that it was about is gone, and so is who waited for a response.
            let about_session = is_no_session(&failed) && message.kind() == Kind::Notification;
            if !(again && about_session && self.renew(number, true).await) {
                let what = message.method().unwrap_or("a response");
                say(&format!("could not pass on {what}: {}", failed.refusal(what)));
                return self.look_at(&failed);
            }
        }
    }

    /// Legacy cancellations are passed on; a modern request is cancelled by leaving it.
    async fn cancel(self: &Arc<Self>, message: Message) {
        let Some(id) = message.cancelled_id() else {
            return self.pass(message).await;
        };
        let modern = {
            let mut running = lock(&self.running);
            let Some(running) = running.get_mut(id) else { return };
            running.cancelled = true;
            if running.modern {
                running.task.abort();
            }
            running.modern
        };
        match modern {
            true => drop(lock(&self.running).remove(id)),
            false => self.pass(message).await,
        }
    }

    async fn initialized(self: &Arc<Self>, message: Message) {
        self.legacy().initialized = Some(message.clone());
        self.pass(message).await;
        self.listen();
    }

    /// A session was opened.
    fn opened(&self, response: &Message, session: Option<&str>, before: u64) {
        let Some((revision, lists)) = greeting(response) else {
            return;
        };
        let mut headers = HeaderMap::new();
        let mut note = |name, text: Option<&str>| {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
                headers.insert(name, value);
            }
        };
        note(SESSION_ID, session);
        note(PROTOCOL_VERSION, revision.as_deref());
        let mut legacy = self.legacy();
        legacy.headers = headers;
        legacy.number = before + 1;
        legacy.lists = lists;
    }

    /// Opens a session in the place of the one of this number, in the words in which the client opened it. False if that cannot
    /// be done.
    async fn renew(self: &Arc<Self>, number: u64, stream_too: bool) -> bool {
        let _one = self.renewing.lock().await;
        let (initialize, initialized) = {
            let legacy = self.legacy();
            if legacy.number != number {
                return true;
            }
            (legacy.initialize.clone(), legacy.initialized.clone())
        };
        let Some(initialize) = initialize else { return false };
        say("the session is not known any more: opening another");
        let mut exchange = Exchange::new(&self.link, Ask::post(&initialize, HeaderMap::new(), None), &initialize);
        let response = loop {
            match exchange.next().await {
                Ok(Came::Said(_)) => {}
                Ok(Came::Answered(response)) if response.error().is_none() => break response,
                Ok(_) | Err(_) => return false,
            }
        };
        self.opened(&response, exchange.session.as_deref(), number);
        if let Some(initialized) = initialized {
            let headers = self.legacy().headers.clone();
            let ask = Ask::post(&initialized, headers, None);
            let _told = self.link.send(&ask).await.is_ok();
            if stream_too {
                self.listen();
            }
        }
        true
    }

    /// Opens the stream of the session, in the place of the one before.
    fn listen(self: &Arc<Self>) {
        if !self.legacy().headers.contains_key(SESSION_ID) {
            return;
        }
        let task = tokio::spawn(self.clone().keep_listening()).abort_handle();
        if let Some(before) = self.legacy().stream.replace(task) {
            before.abort();
        }
    }

    /// Holds the session's stream open, on whichever node.
    async fn keep_listening(self: Arc<Self>) {
        let (mut pause, mut resumed) = (STREAM_PAUSE, false);
        loop {
            let (headers, number) = {
                let legacy = self.legacy();
                (legacy.headers.clone(), legacy.number)
            };
            match self.link.send(&Ask::listen(headers)).await {
                Ok(Answer::Events(mut events, _)) => {
                    pause = STREAM_PAUSE;
                    if resumed {
                        self.report_lists().await;
                    }
                    loop {
                        match events.next().await {
                            Ok(Some(message)) => self.write(message.bytes()).await,
                            Ok(None) => break,
                            Err(_) => {
                                events.doubt();
                                break;
                            }
                        }
                    }
                }
                Ok(Answer::Refused(refused)) => {
                    let failed = Failed::Refused(refused);
                    if is_no_session(&failed) {
                        self.renew(number, false).await;
                    } else if failed.is_about_the_token() {
                        return self.look_at(&failed);
                    } else if matches!(&failed, Failed::Refused(r) if r.status == StatusCode::METHOD_NOT_ALLOWED) {
                        return;
                    }
                }
                Ok(Answer::Message(..) | Answer::Accepted) | Err(_) => {}
            }
            resumed = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STREAM_PAUSE_MAX);
        }
    }

    /// While nobody listened, lists may have changed: the client is told so.
    async fn report_lists(&self) {
        let lists = self.legacy().lists.clone();
        for list in lists {
            let notice = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
            self.write(notice.as_bytes()).await;
        }
    }

    /// The same for a modern subscription that was taken up again: its second acknowledgement is not the client's business.
    async fn report_all(&self, acknowledgement: &Message, resumed: u32) {
        let params = acknowledgement
            .params()
            .and_then(|raw| serde_json::from_str::<Value>(raw).ok());
        let params = params.unwrap_or_default();
        for (filter, list) in [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ] {
            if resumed > 0 && params["notifications"][filter] == true {
                let method = format!("notifications/{list}/list_changed");
                let notice =
                    serde_json::json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": params["_meta"]}});
                self.write(notice.to_string().as_bytes()).await;
            }
        }
    }

    /// Remembers what the calls of these tools repeat in headers.
    fn note_headers(&self, response: &Message) {
        let mut mirrored = lock(&self.mirrored);
        for (tool, params) in mirrored_params(response) {
            match params {
                Some(params) if mirrored.len() < TOOLS_MAX => drop(mirrored.insert(tool, params)),
                Some(_) | None => drop(mirrored.remove(&tool)),
            }
        }
    }

    /// Lists the tools on the client's behalf, because a call lacked headers that only the list could have told.
    async fn learn_headers(&self, call: &Message) -> bool {
        let Some(meta) = call.params().and_then(|raw| serde_json::from_str::<Value>(raw).ok()) else {
            return false;
        };
        let mut meta = meta["_meta"].clone();
        if let Some(meta) = meta.as_object_mut() {
            meta.remove("progressToken");
        }
        let params = serde_json::json!({"_meta": meta}).to_string();
        let list = Message::request(0, "tools/list", &params);
        let mut exchange = Exchange::new(&self.link, Ask::post(&list, HeaderMap::new(), None), &list);
        loop {
            match exchange.next().await {
                Ok(Came::Said(_)) => {}
                Ok(Came::Answered(response)) => {
                    self.note_headers(&response);
                    return call.name().is_some_and(|tool| lock(&self.mirrored).contains_key(tool));
                }
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// A token that is not taken ends the bridge: nothing that comes later would be.
    fn look_at(&self, failed: &Failed) {
        let Failed::Refused(refused) = failed else { return };
        if !failed.is_about_the_token() {
            return;
        }
        let why = format!("{}: {}", refused.url, refused.shown());
        let failure = Failure::new("cannot go on: the gateway does not take the token", why)
            .next("mcpctl get mcptokens (is it revoked or expired?), and then set MCPCTL_TOKEN to a new one")
            .with_exit(Exit::NotAllowed);
        let _ending_already = self.ended.try_send(End(failure)).is_err();
    }

    /// Writes a message as one line.
    async fn write(&self, message: &[u8]) {
        let mut line = Vec::with_capacity(message.len() + 1);
        // A line break in JSON can only be white space between tokens.
        line.extend(
            message
                .iter()
                .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
        );
        line.push(b'\n');
        let mut out = self.out.lock().await;
        if out.write_all(&line).await.is_err() || out.flush().await.is_err() {
            // Nobody reads any more.
            std::process::exit(0);
        }
    }

    fn legacy(&self) -> std::sync::MutexGuard<'_, Legacy> {
        lock(&self.legacy)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an answer to `initialize` says that matters here: the revision, and the lists whose changes are reported.
fn greeting(response: &Message) -> Option<(Option<String>, Vec<&'static str>)> {
    let result: Value = serde_json::from_str(response.result()?).ok()?;
    let reported = |list: &&str| result["capabilities"][*list]["listChanged"] == true;
    let lists = ["tools", "prompts", "resources"].into_iter().filter(reported).collect();
    Some((result["protocolVersion"].as_str().map(str::to_owned), lists))
}

/// The tools of a list, each with what its calls repeat in headers, if they do.
fn mirrored_params(response: &Message) -> Vec<(String, Option<MirroredParams>)> {
    let result = response
        .result()
        .and_then(|raw| serde_json::from_str::<Value>(raw).ok());
    let tools = result.as_ref().and_then(|result| result["tools"].as_array());
    let params = |tool: &Value| {
        let params = MirroredParams::compile(&tool["inputSchema"]).ok();
        Some((
            tool["name"].as_str()?.to_owned(),
            params.filter(|params| !params.is_empty()),
        ))
    };
    tools.into_iter().flatten().filter_map(params).collect()
}

/// For the fuzzer: a message as what a gateway answers to `initialize` and to `tools/list`.
pub(crate) fn decode(message: &Message) {
    let _greeting = greeting(message);
    for (tool, params) in mirrored_params(message) {
        assert!(params.is_none_or(|params| !params.is_empty()), "{tool}");
    }
}

fn is_no_session(failed: &Failed) -> bool {
    matches!(failed, Failed::Refused(refused) if refused.status == StatusCode::NOT_FOUND
        && refused.error.as_ref().is_some_and(|(code, ..)| *code == SESSION_NOT_FOUND))
}

fn is_mismatch(failed: &Failed) -> bool {
    matches!(failed, Failed::Refused(refused)
        if refused.error.as_ref().is_some_and(|(code, ..)| *code == HEADER_MISMATCH))
}

fn is_acknowledgement(message: &Message) -> bool {
    message.method() == Some("notifications/subscriptions/acknowledged")
}
