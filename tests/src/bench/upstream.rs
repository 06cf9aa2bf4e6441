//! The upstream: an MCP server that does nothing but answer, as small and fast as hyper allows, on one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Tools that it lists at `/mcp`; at `/mcp/N` it lists N. `work` is the one that is called.
const TOOLS: usize = 20;
/// Bytes of the answer to a call, as a JSON-RPC message.
const ANSWER_BYTES: usize = 200;

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
}

/// Serves until it is killed. Says on standard output where.
pub(super) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(serve));
            // A connection that breaks is the client's to report.
            served.await.unwrap_or(());
        });
    }
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let tools = match last {
        "changing" => TOOLS + CHANGES.get(),
        last => last.parse().unwrap_or(TOOLS),
    };
    let Ok(body) = request.into_body().collect().await else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let body = body.to_bytes();
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let Some(id) = message.id else {
        return Ok(empty(StatusCode::ACCEPTED));
    };
    if message.method == "tools/call" && memchr::memmem::find(&body, b"\"change\"").is_some() {
        return Ok(changed(id.get()));
    }
    let text = match message.method {
        "tools/call" => called(id.get()),
        "initialize" => result(id.get(), &hello()),
        "tools/list" => format!(r#"{{"jsonrpc":"2.0","id":{},"result":{}}}"#, id.get(), listed(tools)),
        "ping" => result(id.get(), &json!({})),
        _ => format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"not known here"}}}}"#,
            id.get()
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The answer to a call after which the list at `/mcp/changing` has one tool more, which it says first.
fn changed(id: &str) -> Response<Full<Bytes>> {
    CHANGES.set(CHANGES.get() + 1);
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let mut response = Response::new(Full::new(Bytes::from(format!(
        "data: {notice}\n\ndata: {}\n\n",
        called(id)
    ))));
    let events = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, events);
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn called(id: &str) -> String {
    let (head, tail) = (
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#),
        r#""}]}}"#,
    );
    let filling = ANSWER_BYTES.saturating_sub(head.len() + tail.len());
    format!("{head}{:x<filling$}{tail}", "")
}

fn result(id: &str, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn hello() -> Value {
    json!({
        "protocolVersion": "2025-11-25",
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "bench", "version": "1" }
    })
}

thread_local! {
    /// How often the list at `/mcp/changing` has changed.
    static CHANGES: Cell<usize> = const { Cell::new(0) };
    /// Lists by length, made once: what is measured is the sending.
    static LISTS: RefCell<HashMap<usize, Rc<str>>> = RefCell::default();
}

fn listed(tools: usize) -> Rc<str> {
    LISTS.with_borrow_mut(|lists| {
        lists
            .entry(tools)
            .or_insert_with(|| list(tools).to_string().into())
            .clone()
    })
}

fn list(tools: usize) -> Value {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "number", "description": "a number" } } });
    let tool = |name: String| json!({ "name": name, "description": "does nothing, at once", "inputSchema": schema });
    let names = (0..tools).map(|n| if n == 0 { "work".to_owned() } else { format!("idle-{n}") });
    json!({ "tools": names.map(tool).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_call_is_json_of_the_stated_size() {
        for id in ["1", "63", "\"abc\""] {
            let text = called(id);
            assert_eq!(text.len(), ANSWER_BYTES);
            assert!(serde_json::from_str::<Value>(&text).unwrap()["result"]["content"][0]["text"].is_string());
        }
    }
}
