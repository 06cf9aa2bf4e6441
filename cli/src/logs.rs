//! `mcpctl logs server NAME`: what the children of a server have written to their stderr, on whichever nodes they run.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_api::logs::{LogLineBody, ServerLogs};
use mcp_api::{parse_time, ttl, visible};

use crate::api::{Api, encoded};
use crate::args::{Global, LogsArgs};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::{clock, get, out};

/// Pause between two questions while one follows.
const PAUSE: Duration = Duration::from_secs(1);
/// What a node keeps, at most.
const LINES_MAX: u32 = 2_000;

pub(crate) async fn logs(global: &Global, args: &LogsArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, args.name.as_slice())?;
    let see = "mcpctl get servers";
    let [name] = target.names.as_slice() else {
        let why = "name one server: mcpctl logs server NAME";
        return Err(Failure::usage("cannot show logs", why).next(see));
    };
    if target.kind != Kind::Servers {
        let why = format!(
            "{} have none: servers that are child processes of the nodes do",
            target.kind.plural()
        );
        return Err(Failure::usage("cannot show logs", why).next(see));
    }
    let what = format!("show the logs of server {name:?}");
    let api = Api::of(global)?;
    let path = format!("servers/{}/logs", encoded(name));
    let mut query = format!(
        "tail={}",
        args.tail.unwrap_or(if args.since.is_some() { LINES_MAX } else { 200 })
    );
    if let Some(since) = &args.since {
        query.push_str(&format!("&sinceSeconds={}", since_seconds(since)?));
    }
    let node = args.node.as_ref().map(|node| format!("&node={}", encoded(node)));
    query.push_str(node.as_deref().unwrap_or_default());
    let mut shown = Shown {
        timestamps: args.timestamps,
        ..Shown::default()
    };
    let mut logs: ServerLogs = api.get(&what, &format!("{path}?{query}")).await?;
    if logs.lines.is_empty() && !args.follow {
        eprintln!("no lines: no node has started server {name:?} lately, or it has said nothing on its stderr");
    }
    loop {
        shown.show(&logs);
        if !args.follow {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(PAUSE).await;
        let more = format!(
            "{path}?tail={LINES_MAX}&after={}{}",
            encoded(&logs.after),
            node.as_deref().unwrap_or_default()
        );
        logs = api.get(&what, &more).await?;
    }
}

/// What has been shown so far, as far as it decides how the rest is.
#[derive(Default)]
struct Shown {
    timestamps: bool,
    /// Nodes that have lines.
    nodes: BTreeSet<String>,
    unreached: BTreeSet<String>,
}

impl Shown {
    fn show(&mut self, logs: &ServerLogs) {
        self.nodes.extend(logs.lines.iter().map(|line| line.node.clone()));
        for line in &logs.lines {
            out::line(&self.line(line));
        }
        // Once for as long as it lasts.
        let unreached: BTreeSet<String> = logs.unreached.iter().cloned().collect();
        for node in unreached.difference(&self.unreached) {
            eprintln!("{} cannot be asked: its lines are not here", visible(node));
        }
        self.unreached = unreached;
    }

    /// A line, with its node in front where there are several.
    fn line(&self, line: &LogLineBody) -> String {
        let mut front = String::new();
        if self.timestamps {
            front.push_str(&format!("{} ", line.at));
        }
        let session = line
            .session
            .as_deref()
            .map(|session| session.get(session.len().saturating_sub(12)..).unwrap_or(session));
        match (self.nodes.len() > 1, session) {
            (true, Some(session)) => front.push_str(&format!("[{} {session}] ", line.node)),
            (true, None) => front.push_str(&format!("[{}] ", line.node)),
            (false, Some(session)) => front.push_str(&format!("[{session}] ")),
            (false, None) => {}
        }
        format!("{}{}", visible(&front), visible(&line.text))
    }
}

/// `10m`, or a point in time, as seconds before now.
fn since_seconds(text: &str) -> Result<u64, Failure> {
    let now_ms = clock::wall_ms();
    let ago_ms = match parse_time(text) {
        Some(at_ms) => Some(now_ms.saturating_sub(at_ms)),
        None => ttl::expiry(text, 0).ok().flatten(),
    };
    // Rounded up: what is asked for is in it.
    ago_ms.map(|ms| ms.div_ceil(1_000)).ok_or_else(|| {
        let why = format!("--since {text:?}: write 30s, 10m, 2h, 1d, or a time such as 2027-01-31T12:00:00Z");
        Failure::usage("cannot show logs", why).next("mcpctl logs --help")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str, session: Option<&str>, text: &str) -> LogLineBody {
        LogLineBody {
            node: node.to_owned(),
            at: "2027-01-31T12:00:00Z".to_owned(),
            session: session.map(str::to_owned),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_line_names_its_node_where_there_are_several_and_steers_no_terminal() {
        let mut shown = Shown::default();
        shown.nodes.insert("node-1".to_owned());
        let hostile = line("node-1", None, "red \u{1b}[31m\rback\u{202e}");
        assert_eq!(shown.line(&hostile), "red  [31m back<U+202E>");
        shown.nodes.insert("node-2".to_owned());
        assert_eq!(shown.line(&line("node-2", None, "x")), "[node-2] x");
        let session = Some("01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(shown.line(&line("node-2", session, "x")), "[node-2 b302099a8057] x");
        shown.timestamps = true;
        assert_eq!(
            shown.line(&line("node-2", None, "x")),
            "2027-01-31T12:00:00Z [node-2] x"
        );
    }

    #[test]
    fn since_is_a_time_or_a_while_ago() {
        assert_eq!(since_seconds("10m").unwrap(), 600);
        assert_eq!(since_seconds("2d").unwrap(), 172_800);
        for bad in ["", "never", "10", "10x", "-5m"] {
            assert!(since_seconds(bad).is_err(), "{bad}");
        }
    }
}
