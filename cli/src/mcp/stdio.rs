//! `mcpctl mcp stdio`: standard input and output of a local client, connected to a cluster.

use std::sync::Arc;

use mcp_wire::lines::LineReader;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{Global, StdioArgs};
use crate::failure::{Exit, Failure};
use crate::mcp::bridge::{Bridge, End};
use crate::mcp::endpoints::Endpoints;
use crate::mcp::link::Link;
use crate::mcp::{say, token};

/// Longest line of the client: the gateway refuses much shorter ones, by their id.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Requests under way at once; the client is read no further while there are as many.
const RUNNING_MAX: usize = 1_024;

pub(crate) async fn stdio(global: &Global, args: &StdioArgs) -> Result<Exit, Failure> {
    let token = token(&args.gateway)?;
    let endpoints = Endpoints::of(global, &args.gateway, &token).await?;
    let link = Link::new(endpoints, &token)?;
    drop(token);
    say(&format!("bridging standard input and output to {}", link.shown()));
    let (ended, mut end) = mpsc::channel(1);
    let bridge = Arc::new(Bridge::new(link, ended));
    let mut done = tokio::select! {
        done = serve(&bridge) => done,
        Some(End(failure)) = end.recv() => Err(failure),
        () = told_to_leave() => Ok(Exit::Done),
    };
    // Where the client has closed its side, the last answer and the end that follows from it come at the same moment.
    if let (Ok(_), Ok(End(failure))) = (&done, end.try_recv()) {
        done = Err(failure);
    }
    bridge.close(done.is_ok()).await;
    done
}

/// Serves the client until it closes its side and everything that it asked for is answered.
async fn serve(bridge: &Arc<Bridge>) -> Result<Exit, Failure> {
    let mut lines = LineReader::new(tokio::io::stdin(), LINE_BYTES_MAX);
    let mut running = JoinSet::new();
    loop {
        let line = lines.next_line().await;
        let line = line.map_err(|error| {
            Failure::new("cannot read standard input", error.to_string()).next("mcpctl mcp stdio --help")
        })?;
        let Some(line) = line else { break };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        bridge.take(line, &mut running).await;
        while running.len() >= RUNNING_MAX || (!running.is_empty() && running.try_join_next().is_some()) {
            if running.len() >= RUNNING_MAX {
                let _one_less = running.join_next().await;
            }
        }
    }
    bridge.no_more_questions();
    while running.join_next().await.is_some() {}
    Ok(Exit::Done)
}

async fn told_to_leave() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
