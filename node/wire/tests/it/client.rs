//! The command line's client.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mcp_wire::client::{self, Client, ClientError};
use serde_json::{Value, json};

use crate::http::serve;

async fn answer(headers: HeaderMap, body: String) -> Response {
    if headers.get("authorization").map(|value| value.as_bytes()) != Some(b"Bearer good") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    let id = &request["id"];
    let message = match (request["method"].as_str().unwrap(), request["params"]["name"].as_str()) {
        ("initialize", _) => {
            json!({"result": {"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s"},"instructions":"be kind"}})
        }
        ("tools/list", _) => json!({"result": {"tools":[{"name":"echo","description":"d","inputSchema":{}}]}}),
        ("tools/call", Some("echo")) => json!({"result": {"content":[],"echo":request["params"]["arguments"]}}),
        ("tools/call", Some("fails")) => json!({"result": {"content":[],"isError":true}}),
        ("tools/call", _) => json!({"error": {"code":-32602,"message":"no such tool"}}),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let mut whole = json!({"jsonrpc":"2.0","id":id});
    whole
        .as_object_mut()
        .unwrap()
        .extend(message.as_object().unwrap().clone());
    ([("content-type", "application/json")], whole.to_string()).into_response()
}

fn client(url: &str, token: &str) -> Client {
    Client::new(mcp_wire::tls::client_config(&[]), url, token, 2_000).unwrap()
}

#[tokio::test]
async fn errors_are_sorted_by_what_the_reader_has_to_know() {
    let base = serve(
        Router::new()
            .route("/mcp", post(answer))
            .route("/healthz", get(|| async { "ok" })),
    )
    .await;
    let good = client(&format!("{base}/mcp"), "good");
    let greeting = good.initialize().await.unwrap();
    assert_eq!(
        (greeting.protocol_version, greeting.instructions.as_deref()),
        ("2025-06-18", Some("be kind"))
    );
    assert_eq!(good.tools().await.unwrap()[0].name, "echo");
    let called = good.call("echo", &json!({"a": 1})).await.unwrap();
    assert_eq!(called.result["echo"], json!({"a": 1}));
    assert!(good.call("fails", &json!({})).await.unwrap().is_error);
    assert!(matches!(
        good.call("nothing", &json!({})).await,
        Err(ClientError::Contract(_))
    ));
    let bad = client(&format!("{base}/mcp"), "bad");
    assert!(matches!(
        bad.initialize().await,
        Err(ClientError::Auth { status: 401, .. })
    ));
    let nobody = client("http://127.0.0.1:1/mcp", "good");
    assert!(matches!(nobody.initialize().await, Err(ClientError::Transport(_))));
    let tls = mcp_wire::tls::client_config(&[]);
    assert!(matches!(
        Client::new(tls.clone(), "ftp://x/", "t", 1),
        Err(ClientError::Transport(_))
    ));
    let (status, body) = client::get(tls, &format!("{base}/healthz"), 1000).await.unwrap();
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"ok"[..]));
}
