//! Sessions with upstreams over HTTP: in which era, whose, and what a server says on their streams beside the answers to calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use mcp_wire::can::ClientCan;
use mcp_wire::level::{Level, Logs};
use mcp_wire::message::Message;
use mcp_wire::reach::Reach;
use mcp_wire::refusal::result_body;
use mcp_wire::upstream::{CallLimits, Frame, Frames, HttpConfig, HttpPool, Outgoing, Upstream};
use mcp_wire::version::Era;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::http::serve;
use crate::{call_of, drain, until};

/// A server that says what it has to say on the streams of its sessions.
#[derive(Default)]
struct Server {
    eras: Vec<&'static str>,
    /// Whether it is silent when it is asked in an era that it does not speak.
    silent: bool,
    streams: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    /// Sessions, and what was asked in them.
    seen: Mutex<Vec<(String, Value)>>,
    resumed: Mutex<Vec<String>>,
    answers: watch::Sender<Vec<Value>>,
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn events(text: String) -> Response {
    ([("content-type", "text/event-stream")], text).into_response()
}

fn text_of(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
}

impl Server {
    async fn start(eras: &[&'static str], silent: bool) -> (Arc<Server>, Upstream) {
        let server = Arc::new(Server {
            eras: eras.to_vec(),
            silent,
            ..Server::default()
        });
        let base = serve(Router::new().route("/mcp", any(answer)).with_state(server.clone())).await;
        let pool = HttpPool::new(mcp_wire::tls::client_config(&[]), Reach::checked(true, Vec::new()));
        let limits = CallLimits {
            handshake_ms: 4_000,
            idle_ms: 10_000,
            ..CallLimits::default()
        };
        let url = format!("{base}/mcp").parse().unwrap();
        let headers = HeaderMap::new();
        (server, Upstream::http(&pool, HttpConfig { url, headers, limits }))
    }

    fn speaks(&self, era: &str) -> bool {
        self.eras.contains(&era)
    }

    /// Says something on the stream of a session, if that is open.
    fn say(&self, session: &str, value: &Value) -> bool {
        let streams = self.streams.lock().unwrap();
        streams
            .get(session)
            .is_some_and(|stream| stream.send(event(value)).is_ok())
    }

    /// The same once it is: on a machine that stands still for a second the call comes first.
    async fn say_when_open(&self, session: &str, value: &Value) {
        until("the stream of the session is open", || async {
            self.say(session, value).then_some(())
        })
        .await;
    }

    fn asked(&self, method: &str) -> Vec<(String, Value)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, body)| body["method"] == method)
            .cloned()
            .collect()
    }

    fn methods(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let methods = seen.iter().map(|(_, body)| body["method"].as_str().unwrap_or_default());
        methods.map(str::to_owned).collect()
    }
}

fn log(level: &str, text: &str) -> Value {
    json!({"jsonrpc":"2.0","method":"notifications/message","params":{"level":level,"data":text}})
}

fn stream(server: &Server, headers: &HeaderMap, session: String) -> Response {
    let last = text_of(headers, "last-event-id");
    if !last.is_empty() {
        server.resumed.lock().unwrap().push(last.clone());
        let id = server.asked("tools/call").last().unwrap().1["id"].clone();
        return match &*last {
            // It ends once more before the response.
            "e1" => events("id: e2\nretry: 60\ndata:\n\n".to_owned()),
            _ => events(event(&json!({"jsonrpc":"2.0","id":id,"result":{"content":[]}}))),
        };
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    server.streams.lock().unwrap().insert(session, sender);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let said = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(said), receiver))
    });
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(stream.boxed()),
    )
        .into_response()
}

async fn answer(State(server): State<Arc<Server>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let session = text_of(&headers, "mcp-session-id");
    if method == Method::GET {
        return stream(&server, &headers, session);
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::OK.into_response();
    };
    server.seen.lock().unwrap().push((session.clone(), message.clone()));
    let (id, named) = (message["id"].clone(), message["method"].as_str().unwrap_or_default());
    let good = |result: Value| {
        let body = json!({"jsonrpc":"2.0","id":id,"result":result}).to_string();
        ([("content-type", "application/json")], body).into_response()
    };
    let capabilities = json!({"tools":{},"logging":{}});
    match named {
        "" => {
            server.answers.send_modify(|all| all.push(message.clone()));
            StatusCode::ACCEPTED.into_response()
        }
        "initialize" if server.speaks("legacy") => {
            let session = format!("s{}", server.asked("initialize").len());
            let result = json!({"protocolVersion":"2025-11-25","capabilities":capabilities,"serverInfo":{"name":"s"}});
            ([("mcp-session-id", session)], good(result)).into_response()
        }
        "server/discover" if server.speaks("modern") => {
            good(json!({"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":capabilities}))
        }
        "initialize" | "server/discover" if server.silent => std::future::pending().await,
        "initialize" | "server/discover" => StatusCode::BAD_REQUEST.into_response(),
        "tools/call" => match message["params"]["name"].as_str().unwrap() {
            "polled" => events("id: e1\nretry: 60\ndata:\n\n".to_owned()),
            "log" => {
                server.say_when_open(&session, &log("info", "one")).await;
                server.say_when_open(&session, &log("debug", "two")).await;
                good(json!({"content":[]}))
            }
            asks => {
                let method = if asks == "roots" {
                    "roots/list"
                } else {
                    "elicitation/create"
                };
                let asked = json!({"jsonrpc":"2.0","id":format!("q{id}"),"method":method,"params":{}});
                server.say_when_open(&session, &asked).await;
                let mut answers = server.answers.subscribe();
                let is_it = |answer: &Value| answer["id"] == asked["id"];
                let all = answers.wait_for(|all| all.iter().any(is_it)).await.unwrap();
                let answer = all.iter().find(|answer| is_it(answer)).unwrap().clone();
                good(json!({"content":[],"answer":answer}))
            }
        },
        _ if message.get("id").is_none() => StatusCode::ACCEPTED.into_response(),
        _ => good(json!({"tools":[]})),
    }
}

/// A call of a client that can do everything.
fn of_client<'a>(call: &'a Message, owner: u128) -> Outgoing<'a> {
    Outgoing {
        can: ClientCan::ALL,
        owner: Some(owner),
        ..Outgoing::new(call)
    }
}

/// The same of one that has asked for log messages.
fn logging<'a>(call: &'a Message, owner: u128, level: &str) -> Outgoing<'a> {
    Outgoing {
        can: ClientCan::NOTHING,
        logs: Logs::From(Level::parse(level).unwrap()),
        ..of_client(call, owner)
    }
}

async fn prepared(upstream: &Upstream, outgoing: Outgoing<'_>) -> Frames {
    upstream.prepare(&outgoing).await;
    upstream.call(outgoing).await.unwrap()
}

#[tokio::test]
async fn on_our_own_account_the_newer_era_is_tried_first_and_a_client_of_the_older_one_is_served_in_its_own() {
    let rows: [(&[&'static str], bool, &[&str]); 4] = [
        (&["modern"], false, &["server/discover", "tools/list"]),
        (&["legacy", "modern"], false, &["server/discover", "tools/list"]),
        (
            &["legacy"],
            false,
            &[
                "server/discover",
                "initialize",
                "notifications/initialized",
                "tools/list",
            ],
        ),
        (
            &["legacy"],
            true,
            &[
                "server/discover",
                "initialize",
                "notifications/initialized",
                "tools/list",
            ],
        ),
    ];
    for (eras, silent, asked) in rows {
        let (server, upstream) = Server::start(eras, silent).await;
        upstream.request("tools/list", "{}").await.unwrap();
        assert_eq!(server.methods(), asked, "{eras:?} {silent}");
        let open = upstream.open_in(Era::Legacy, ClientCan::NOTHING).await.unwrap();
        let wanted = if eras.contains(&"legacy") {
            Era::Legacy
        } else {
            Era::Modern
        };
        assert_eq!(open, wanted, "{eras:?}");
        upstream.request("tools/list", "{}").await.unwrap();
        assert_eq!(
            server.asked("server/discover").len(),
            if wanted == Era::Modern { 2 } else { 1 },
            "{eras:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_the_server_ends_is_taken_up_again_where_it_ended() {
    let (server, upstream) = Server::start(&["legacy"], false).await;
    let call = call_of("1", "polled", None);
    let frames = drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
    assert_eq!(frames, [json!({"jsonrpc":"2.0","id":1,"result":{"content":[]}})]);
    assert_eq!(*server.resumed.lock().unwrap(), ["e1", "e2"]);
}

#[tokio::test]
async fn who_sets_a_level_for_log_messages_has_a_session_in_which_the_server_is_told() {
    let (server, upstream) = Server::start(&["legacy"], false).await;
    let call = call_of("1", "log", None);
    let texts =
        |frames: &[Value]| -> Vec<Value> { frames.iter().map(|frame| frame["params"]["data"].clone()).collect() };
    let frames = drain(prepared(&upstream, logging(&call, 7, "debug")).await)
        .await
        .unwrap();
    // Two connections are read: what arrives after the response is for the client's own stream.
    assert!(frames.len() <= 3 && frames.last().unwrap()["id"] == 1, "{frames:?}");
    let frames = drain(prepared(&upstream, logging(&call, 7, "info")).await)
        .await
        .unwrap();
    assert!(!texts(&frames).contains(&json!("two")), "{frames:?}");
    drain(prepared(&upstream, logging(&call, 7, "info")).await)
        .await
        .unwrap();
    drain(prepared(&upstream, logging(&call, 8, "info")).await)
        .await
        .unwrap();
    let told: Vec<(String, Value)> = server.asked("logging/setLevel");
    let levels: Vec<&Value> = told.iter().map(|(_, body)| &body["params"]["level"]).collect();
    assert_eq!(levels, ["debug", "info", "info"], "once for each change");
    let sessions: Vec<&str> = told.iter().map(|(session, _)| session.as_str()).collect();
    assert!(sessions[0] == sessions[1] && sessions[1] != sessions[2], "{sessions:?}");
    upstream.end_owned(|owner| owner == 7).await;
    drain(prepared(&upstream, logging(&call, 7, "info")).await)
        .await
        .unwrap();
    assert_eq!(server.asked("logging/setLevel").len(), 4);
}

#[tokio::test]
async fn a_log_message_between_calls_is_told_with_whose_it_is_and_in_a_shared_session_to_nobody() {
    let (server, upstream) = Server::start(&["legacy"], false).await;
    let mut said = upstream.said().unwrap();
    let call = call_of("1", "log", None);
    drain(prepared(&upstream, logging(&call, 7, "debug")).await)
        .await
        .unwrap();
    let session = server.asked("logging/setLevel").pop().unwrap().0;
    let open = upstream.open_in(Era::Legacy, ClientCan::ALL).await.unwrap();
    assert_eq!(open, Era::Legacy);
    let shared = format!("s{}", server.asked("initialize").len());
    until("both streams are open", || async {
        (server.say(&shared, &log("info", "shared")) && server.say(&session, &log("info", "late"))).then_some(())
    })
    .await;
    loop {
        let heard = said.recv().await.unwrap();
        let heard_text = String::from_utf8(heard.message.to_vec()).unwrap();
        assert!(heard.owner == 7 && !heard_text.contains("shared"), "{heard_text}");
        if heard_text.contains("late") {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_on_its_own_stream_asks_the_client_whose_call_is_under_way() {
    let (_server, upstream) = Server::start(&["legacy"], false).await;
    let call = call_of("1", "ask", None);
    let mut frames = upstream.call(of_client(&call, 7)).await.unwrap();
    let Some(Frame::Request(asked)) = frames.next().await.unwrap() else {
        panic!("no request");
    };
    let id = asked.id().unwrap().to_owned();
    frames.reply(&id, result_body(&id, r#"{"action":"accept"}"#));
    let all = drain(frames).await.unwrap();
    assert_eq!(all[0]["result"]["answer"]["result"]["action"], "accept", "{all:?}");
}

#[tokio::test]
async fn a_server_that_asks_on_its_own_stream_while_two_clients_call_is_told_that_it_cannot_be_said_whom() {
    let (server, upstream) = Server::start(&["legacy"], false).await;
    let (one, two) = (call_of("1", "ask", None), call_of("2", "ask", None));
    // Its question is waited for by nobody: the answer comes from us, and only once there are two.
    let mut first = upstream.call(of_client(&one, 7)).await.unwrap();
    let Some(Frame::Request(_)) = first.next().await.unwrap() else {
        panic!("no request");
    };
    let second = upstream.call(of_client(&two, 8)).await.unwrap();
    let all = drain(second).await.unwrap();
    let why = all[0]["result"]["answer"]["error"]["message"]
        .as_str()
        .unwrap_or_default();
    assert!(why.contains("calls of several clients"), "{all:?}");
    assert_eq!(server.answers.borrow().len(), 1);
}

#[tokio::test]
async fn a_client_with_roots_has_its_own_session_with_a_server_that_asks_for_them_and_changes_are_passed_on() {
    let (server, upstream) = Server::start(&["legacy"], false).await;
    let call = call_of("1", "roots", None);
    for (owner, roots_changes) in [(7, 0), (7, 0), (7, 1), (7, 1), (8, 5)] {
        let outgoing = Outgoing {
            roots_changes,
            ..of_client(&call, owner)
        };
        let mut frames = prepared(&upstream, outgoing).await;
        let Some(Frame::Request(asked)) = frames.next().await.unwrap() else {
            panic!("no request");
        };
        let id = asked.id().unwrap().to_owned();
        frames.reply(&id, result_body(&id, r#"{"roots":[]}"#));
        drain(frames).await.unwrap();
    }
    let sessions: Vec<String> = server
        .asked("tools/call")
        .into_iter()
        .map(|(session, _)| session)
        .collect();
    assert!(
        sessions[0] != sessions[1] && sessions[1] == sessions[3] && sessions[3] != sessions[4],
        "{sessions:?}"
    );
    let changes = server.asked("notifications/roots/list_changed");
    assert_eq!(
        changes.iter().map(|(session, _)| session).collect::<Vec<_>>(),
        [&sessions[1]]
    );
    let declared: Vec<Value> = server
        .asked("initialize")
        .iter()
        .map(|(_, body)| body["params"]["capabilities"]["roots"].clone())
        .collect();
    assert_eq!(
        declared,
        [json!({}), json!({"listChanged": true}), json!({"listChanged": true})]
    );
}
