//! Upstreams over HTTP, against an axum server that knows nothing of this crate.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, post};
use mcp_wire::reach::Reach;
use mcp_wire::upstream::{CallLimits, Cause, Effect, HttpConfig, HttpPool, Outgoing, Upstream};
use serde_json::{Value, json};

use crate::{call_of, drain, message, until};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Legacy,
    Modern,
}

pub(crate) struct Fake {
    mode: Mode,
    sessions: AtomicUsize,
    forget: AtomicUsize,
    seen: Mutex<Vec<(HeaderMap, Value)>>,
}

fn json_answer(value: &Value) -> Response {
    ([("content-type", "application/json; charset=utf-8")], value.to_string()).into_response()
}

fn event_stream(body: Body) -> Response {
    ([("content-type", "text/event-stream")], body).into_response()
}

/// Events for ever, as fast as they are taken.
fn flood(event: &'static str) -> Response {
    event_stream(Body::new(Flood(Bytes::from(event.repeat(100)))))
}

struct Flood(Bytes);

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(self.0.clone()))))
    }
}

async fn answer(State(fake): State<Arc<Fake>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    fake.seen.lock().unwrap().push((headers.clone(), request.clone()));
    let id = &request["id"];
    let good = |result: Value| json_answer(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    if request["method"] == "initialize" {
        if fake.mode == Mode::Modern {
            let error = json!({"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"_meta is missing"}});
            return (StatusCode::BAD_REQUEST, json_answer(&error)).into_response();
        }
        let session = fake.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let result = json!({"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fake"}});
        return ([("mcp-session-id", session.to_string())], good(result)).into_response();
    }
    if request["method"] == "server/discover" && fake.mode == Mode::Legacy {
        let error = json!({"jsonrpc":"2.0","id":id,"error":{"code":-32601,"message":"no"}});
        return (StatusCode::BAD_REQUEST, json_answer(&error)).into_response();
    }
    if request["method"] == "server/discover" {
        return good(json!({"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}));
    }
    let session = headers
        .get("mcp-session-id")
        .and_then(|id| id.to_str().ok())
        .and_then(|id| id.parse().ok());
    if fake.mode == Mode::Legacy && session.unwrap_or(0) <= fake.forget.load(Ordering::Relaxed) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if id.is_null() || request["method"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let token = &request["params"]["_meta"]["progressToken"];
    match request["params"]["name"].as_str() {
        Some("echo") => good(json!({"params": request["params"]})),
        Some("progress") => {
            let mut stream = String::from("id: 1\ndata: \n\n: comment\n\n");
            for step in 0..20 {
                let progress = json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":token,"progress":step}});
                let foreign = json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":999_999,"progress":step}});
                stream.push_str(&format!(
                    "event: message\ndata: {progress}\n\nevent: message\ndata: {foreign}\n\n"
                ));
            }
            stream.push_str(&format!("data: {}\n\n", json!({"jsonrpc":"2.0","id":id,"result":{}})));
            event_stream(Body::from(stream))
        }
        Some("hang") => {
            std::future::pending::<()>().await;
            unreachable!()
        }
        Some("comments") => flood(": here\n\n"),
        Some("foreign") => flood(
            "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":999999,\"progress\":1}}\n\n",
        ),
        Some("lists") => flood("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n"),
        Some("pings") => flood("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n"),
        Some("questions") => flood("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n\n"),
        Some("cut") => event_stream(Body::from("data: {\"jsonrpc\":\"2.0\"")),
        Some("html") => ([("content-type", "text/html")], "<p>hello</p>").into_response(),
        Some("broken") => ([("content-type", "application/json")], "{]").into_response(),
        Some("other") => json_answer(&json!({"jsonrpc":"2.0","id":123_456,"result":{}})),
        Some("big") => good(json!({"text": "x".repeat(100_000)})),
        Some("status") => StatusCode::BAD_GATEWAY.into_response(),
        Some("denied") => {
            let error = json!({"jsonrpc":"2.0","id":id,"error":{"code":-32602,"message":"no"}});
            (StatusCode::BAD_REQUEST, json_answer(&error)).into_response()
        }
        _ => good(json!({"tools": []})),
    }
}

pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

async fn fake(mode: Mode) -> (Arc<Fake>, Upstream) {
    let fake = Arc::new(Fake {
        mode,
        sessions: 0.into(),
        forget: 0.into(),
        seen: Mutex::default(),
    });
    let base = serve(Router::new().route("/mcp", any(answer)).with_state(fake.clone())).await;
    (fake, upstream(&format!("{base}/mcp"), 5_000))
}

fn upstream(url: &str, idle_ms: u64) -> Upstream {
    let limits = CallLimits {
        idle_ms,
        answer_bytes_max: 50_000,
        ..CallLimits::default()
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-key", "k".parse().unwrap());
    let pool = HttpPool::new(mcp_wire::tls::client_config(&[]), Reach::checked(true, Vec::new()));
    Upstream::http(
        &pool,
        HttpConfig {
            url: url.parse().unwrap(),
            headers,
            limits,
        },
    )
}

#[tokio::test]
async fn a_call_goes_out_under_our_id_and_comes_back_under_the_callers() {
    let (fake, upstream) = fake(Mode::Legacy).await;
    let call = call_of("\"mine\"", "srv__echo", Some("\"tok\""));
    let outgoing = Outgoing {
        name: Some("echo"),
        ..Outgoing::new(&call)
    };
    let frames = drain(upstream.call(outgoing).await.unwrap()).await.unwrap();
    assert_eq!(frames[0]["id"], "mine");
    assert_eq!(frames[0]["result"]["params"]["name"], "echo");
    assert_eq!(frames[0]["result"]["params"]["arguments"], json!({"id": "mine"}));
    let seen = fake.seen.lock().unwrap();
    let (headers, body) = seen.last().unwrap();
    assert!(body["id"].is_u64() && body["params"]["_meta"]["progressToken"] == body["id"]);
    assert_eq!(headers["mcp-session-id"], "1");
    assert_eq!(headers["mcp-protocol-version"], "2025-11-25");
    assert_eq!(headers["x-key"], "k");
    assert_eq!(seen[1].1["method"], "notifications/initialized");
}

#[tokio::test]
async fn progress_comes_in_order_before_the_response_and_foreign_progress_never() {
    let (_, upstream) = fake(Mode::Legacy).await;
    for _ in 0..20 {
        let call = call_of("1", "progress", Some("\"tok\""));
        let frames = drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
        assert_eq!(frames.len(), 21);
        for (step, frame) in frames[..20].iter().enumerate() {
            assert_eq!(frame["params"], json!({"progressToken": "tok", "progress": step}));
        }
        assert_eq!(frames[20], json!({"jsonrpc":"2.0","id":1,"result":{}}));
    }
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again_once() {
    let (fake, upstream) = fake(Mode::Legacy).await;
    let call = call_of("1", "echo", None);
    drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
    fake.forget.store(1, Ordering::Relaxed);
    drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
    assert_eq!(fake.sessions.load(Ordering::Relaxed), 2);
    fake.forget.store(1000, Ordering::Relaxed);
    let error = upstream.call(Outgoing::new(&call)).await.map(drop).unwrap_err();
    assert_eq!(error.effect, Effect::None);
    assert_eq!(fake.sessions.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn bad_answers_are_named() {
    let (_, upstream) = fake(Mode::Legacy).await;
    type Expected = fn(&Cause) -> bool;
    let rows: [(&str, Expected); 6] = [
        ("cut", |cause| matches!(cause, Cause::Closed(_))),
        ("html", |cause| matches!(cause, Cause::Rubbish(_))),
        ("broken", |cause| matches!(cause, Cause::Rubbish(_))),
        ("other", |cause| matches!(cause, Cause::Rubbish(_))),
        ("big", |cause| *cause == Cause::TooMuch(50_000)),
        ("status", |cause| *cause == Cause::Status(502)),
    ];
    for (tool, expected) in rows {
        let call = call_of("1", tool, None);
        let error = match upstream.call(Outgoing::new(&call)).await {
            Ok(frames) => drain(frames).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(
            expected(&error.cause) && error.effect == Effect::Possible,
            "{tool}: {error:?}"
        );
    }
    let denied = call_of("1", "denied", None);
    let frames = drain(upstream.call(Outgoing::new(&denied)).await.unwrap())
        .await
        .unwrap();
    assert_eq!(frames[0]["error"]["code"], -32602);
}

/// What always has something to say, and nothing that belongs to the call, is as silent as what says nothing. On several threads: a
/// flood is to hold up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_what_belongs_to_no_call_runs_into_the_deadline() {
    let (fake, _) = fake(Mode::Legacy).await;
    let base = serve(Router::new().route("/mcp", any(answer)).with_state(fake.clone())).await;
    let upstream = upstream(&format!("{base}/mcp"), 300);
    for tool in ["comments", "foreign", "lists", "pings"] {
        let call = call_of("1", tool, Some("\"tok\""));
        let frames = upstream.call(Outgoing::new(&call)).await.unwrap();
        let error = drain(frames).await.unwrap_err();
        assert_eq!(
            (error.cause, error.effect),
            (Cause::Deadline(300), Effect::Possible),
            "{tool}"
        );
    }
    let call = call_of("1", "questions", None);
    let error = drain(upstream.call(Outgoing::new(&call)).await.unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Rubbish(why) if why.contains("asked more than")),
        "{error:?}"
    );
}

/// A server that asks faster than it takes answers gets as many as it has earned.
#[tokio::test]
async fn no_more_answers_are_under_way_than_there_are_places() {
    let answers = Arc::<AtomicUsize>::default();
    let counted = answers.clone();
    let slow = post(async move |body: Bytes| {
        let message: Value = serde_json::from_slice(&body).unwrap();
        match message["method"].as_str() {
            Some("tools/call") => flood("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n"),
            Some("initialize") => {
                let result = json!({"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"fake"}});
                json_answer(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
            }
            Some(_) => StatusCode::ACCEPTED.into_response(),
            None => {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Response>().await
            }
        }
    });
    let base = serve(Router::new().route("/mcp", slow)).await;
    let upstream = upstream(&format!("{base}/mcp"), 1_000);
    let call = call_of("1", "pings", None);
    let error = drain(upstream.call(Outgoing::new(&call)).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::Deadline(1_000));
    let places = mcp_wire::limits::ANSWERS_ASIDE_MAX;
    assert!((1..=places).contains(&answers.load(Ordering::SeqCst)), "{answers:?}");
}

#[tokio::test]
async fn a_silent_upstream_runs_into_the_deadline_and_a_dead_one_is_noticed() {
    let (fake, _) = fake(Mode::Legacy).await;
    let base = serve(Router::new().route("/mcp", any(answer)).with_state(fake)).await;
    let quick = upstream(&format!("{base}/mcp"), 200);
    let call = call_of("1", "hang", None);
    let error = quick.call(Outgoing::new(&call)).await.map(drop).unwrap_err();
    assert_eq!((error.cause, error.effect), (Cause::Deadline(200), Effect::Possible));
    let dead = upstream("http://127.0.0.1:1/mcp", 200);
    let error = dead.open().await.map(drop).unwrap_err();
    assert!(
        matches!(error.cause, Cause::Connect(_)) && error.effect == Effect::None,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_a_legacy_upstream() {
    let (fake, upstream) = fake(Mode::Legacy).await;
    let call = call_of("1", "progress", None);
    let frames = upstream.call(Outgoing::new(&call)).await.unwrap();
    drop(frames);
    until("the upstream heard of it", || async {
        let seen = fake.seen.lock().unwrap();
        let call = seen.iter().find(|(_, body)| body["method"] == "tools/call")?;
        let note = seen
            .iter()
            .find(|(_, body)| body["method"] == "notifications/cancelled")?;
        (note.1["params"]["requestId"] == call.1["id"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_modern_upstream_is_discovered_and_gets_headers_and_meta() {
    let (fake, upstream) = fake(Mode::Modern).await;
    let call = message(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a__echo","arguments":{}}}"#);
    let params = [("mcp-param-region".parse().unwrap(), "eu".parse().unwrap())];
    let outgoing = Outgoing {
        name: Some("echo"),
        params: &params,
        ..Outgoing::new(&call)
    };
    let frames = drain(upstream.call(outgoing).await.unwrap()).await.unwrap();
    assert_eq!(frames[0]["id"], 5);
    let seen = fake.seen.lock().unwrap();
    let (headers, body) = seen.last().unwrap();
    assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
    assert_eq!(headers["mcp-method"], "tools/call");
    assert_eq!(headers["mcp-name"], "echo");
    assert_eq!(headers["mcp-param-region"], "eu");
    assert!(!headers.contains_key("mcp-session-id"));
    assert_eq!(
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_only() {
    let (fake, _) = fake(Mode::Legacy).await;
    let router = Router::new()
        .route("/mcp", any(answer))
        .route("/near", post(|| async { Redirect::permanent("/mcp") }))
        .route("/far", post(|| async { Redirect::permanent("http://127.0.0.1:9/mcp") }))
        .route("/loop", post(|| async { Redirect::temporary("/loop") }))
        .route("/see", post(|| async { Redirect::to("/mcp") }))
        .with_state(fake);
    let base = serve(router).await;
    upstream(&format!("{base}/near"), 1000).open().await.unwrap();
    for path in ["far", "loop", "see"] {
        let error = upstream(&format!("{base}/{path}"), 1000)
            .open()
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(error.cause, Cause::Rubbish(_)), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn tls_works_with_a_certificate_we_were_told_to_trust_and_not_without() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], secret)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (fake, _) = fake(Mode::Legacy).await;
    let router = Router::new().route("/mcp", any(answer)).with_state(fake);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let io = hyper_util::rt::TokioIo::new(tls);
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await,
                );
            });
        }
    });
    let open = |extra: Vec<rustls::pki_types::CertificateDer<'static>>| {
        let pool = HttpPool::new(mcp_wire::tls::client_config(&extra), Reach::checked(true, Vec::new()));
        let url = format!("https://localhost:{port}/mcp").parse().unwrap();
        let config = HttpConfig {
            url,
            headers: HeaderMap::new(),
            limits: CallLimits::default(),
        };
        async move {
            tokio::time::timeout(Duration::from_secs(10), Upstream::http(&pool, config).open())
                .await
                .unwrap()
        }
    };
    open(vec![certificate]).await.unwrap();
    assert!(matches!(open(vec![]).await.unwrap_err().cause, Cause::Connect(_)));
}
