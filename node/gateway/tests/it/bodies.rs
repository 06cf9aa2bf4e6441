//! What clients can make a node hold: bodies that are announced and do not come.

use mcp_gateway::limits::Limits;
use mcp_model::records::ToolNaming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Token, World, request, until};

const LARGE: usize = 4 << 20;
/// That many of them fill the room of 64 MiB.
const FILL: usize = 16;

/// Announces a body and sends its beginning.
async fn begin(world: &World, bearer: &str, length: usize, sent: &[u8]) -> TcpStream {
    let host = world.nodes[0].base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /projects/demo/mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A node that refuses a body does not wait for its end.
    stream.write_all(sent).await.unwrap_or_default();
    stream
}

/// The status of the answer; empty if it was lost with the body that was refused.
async fn status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    match stream.read_exact(&mut answer).await {
        Ok(_) => String::from_utf8_lossy(&answer[9..]).into_owned(),
        Err(_) => String::new(),
    }
}

/// A ping that is `length` bytes long.
fn ping(length: usize) -> Vec<u8> {
    let mut body = request(1, "ping", json!({})).to_string().into_bytes();
    body.resize(length, b' ');
    body
}

async fn asked(world: &World, token: &Token, length: usize) -> String {
    let mut stream = begin(world, &token.bearer, length, &ping(length)).await;
    status(&mut stream).await
}

#[tokio::test]
async fn stalled_bodies_fill_their_room_and_no_more_and_give_it_back() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let mut stalled = Vec::new();
    for _ in 0..FILL {
        stalled.push(begin(&world, &token.bearer, LARGE, b"{").await);
    }
    let answered = async |length: usize, wanted: &'static str| {
        until(&format!("{wanted} for a body of {length} bytes"), || async {
            (asked(&world, &token, length).await == wanted).then_some(())
        })
        .await;
    };
    // The stalled ones arrive in their own time.
    answered(LARGE, "503").await;
    answered(200, "200").await;
    drop(stalled.pop());
    answered(LARGE, "200").await;
}

#[tokio::test]
async fn a_stranger_is_refused_a_large_body_before_it_comes() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let unknown = format!("mcpctl_pat_{}", "0".repeat(43));
    let mut announced = begin(&world, &unknown, LARGE, b"").await;
    assert_eq!(status(&mut announced).await, "401");
    // Without the end of a body: what is announced decides.
    let mut small = begin(&world, &unknown, 200, &ping(200)).await;
    assert_eq!(status(&mut small).await, "401");
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let body = ping(100_000);
    let (head, tail) = body.split_at(20);
    let mut stream = begin(&world, &token.bearer, body.len(), head).await;
    stream.flush().await.unwrap();
    stream.write_all(tail).await.unwrap();
    assert_eq!(status(&mut stream).await, "200");
    let mut large = begin(&world, &token.bearer, LARGE + 1, b"").await;
    assert_eq!(status(&mut large).await, "413");
}

/// A small body needs no room, but a place among the requests: who does not finish it is admitted before they may keep one.
#[tokio::test]
async fn who_lets_a_node_wait_for_a_small_body_is_admitted_first_and_within_its_quota() {
    let limits = Limits {
        body_soon_ms: 50,
        requests_max: 4,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let stranger = format!("mcpctl_pat_{}", "5".repeat(43));
    for _ in 0..8 {
        let mut stream = begin(&world, &stranger, 100, b"{").await;
        assert_eq!(status(&mut stream).await, "401");
    }
    assert_eq!(asked(&world, &token, 100).await, "200");
    // Its own token waits, and gets its answer.
    let mut stream = begin(&world, &token.bearer, 100, &ping(100)[..50]).await;
    let mut begun = [0; 1];
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), stream.read(&mut begun));
    assert!(early.await.is_err(), "answered before the body was there");
    stream.write_all(&ping(100)[50..]).await.unwrap();
    assert_eq!(status(&mut stream).await, "200");
}
