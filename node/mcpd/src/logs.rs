//! What the children of a server have written to their stderr, from all nodes.

use std::collections::BTreeMap;

use mcp_api::logs::{LogLineBody, ServerLogs};
use mcp_api::show_time;
use mcp_model::ids::NodeId;
use mcp_model::records::NodeRecord;
use mcp_model::tables;

use crate::answer::Answer;
use crate::body::Faults;
use crate::call::Admitted;
use crate::fault::Fault;
use crate::port::LogsWanted;
use crate::{servers, tools};

/// Lines of each node that are shown when the caller does not say.
const TAIL: u64 = 200;
/// Most lines of each node: more are not kept.
const TAIL_MAX: u64 = 2_000;
/// Longest look back, s: a year.
const SINCE_MAX: u64 = 366 * 86_400;

pub(crate) async fn of_server(it: Admitted) -> Result<Answer, Fault> {
    let mut faults = Faults::default();
    let tail = number(&it, "tail", TAIL_MAX, &mut faults).unwrap_or(TAIL);
    let since_s = number(&it, "sinceSeconds", SINCE_MAX, &mut faults);
    let after = it.call.query("after").map(|text| {
        read_after(text).unwrap_or_else(|| {
            faults.add("after", "not what an answer of this route gave");
            Vec::new()
        })
    });
    faults.refuse()?;
    let (name, node) = (it.name.clone(), it.call.query("node").map(str::to_owned));
    let wanted = node.clone();
    let found = it.call.api.read(move |t| {
        let server = servers::find(t, &name)?;
        let nodes = tables::list::<NodeRecord>(t, None, NODES_MAX);
        let node = nodes.into_iter().find(|n| {
            wanted
                .as_deref()
                .is_some_and(|w| n.name.as_str() == w || n.id.to_string() == w)
        });
        Some((server, node.map(|n| n.id)))
    });
    let (server, only) = found.await?.ok_or_else(|| Fault::not_found("server", &it.name))?;
    if let (Some(node), None) = (&node, only) {
        return Err(Fault::not_found("node", node));
    }
    let now_ms = it.call.api.clock.wall_ms();
    let wanted = LogsWanted {
        tail: usize::try_from(tail).unwrap_or(usize::MAX),
        since_ms: since_s.map_or(0, |seconds| now_ms.saturating_sub(seconds * 1_000)),
        node: only,
        after: after.unwrap_or_default(),
    };
    let logs = it.call.api.children.logs(server.id, &wanted).await;
    let ids: Vec<NodeId> = logs.iter().map(|one| one.node).collect();
    let names = it
        .call
        .api
        .read(move |t| {
            ids.iter()
                .map(|id| (*id, tools::node_name(t, *id)))
                .collect::<BTreeMap<_, _>>()
        })
        .await?;
    let name_of = |node: &NodeId| names.get(node).cloned().unwrap_or_default();
    let (mut lines, mut last, mut unreached) = (Vec::new(), wanted.after, Vec::new());
    for one in logs {
        let Some((some, number)) = one.lines else {
            unreached.push(name_of(&one.node));
            continue;
        };
        last.retain(|(node, _)| *node != one.node);
        last.push((one.node, number));
        lines.extend(some.into_iter().map(|line| (line.at_ms, one.node, line)));
    }
    // Of one time in the order of the nodes, and there in the order in which they were read.
    lines.sort_by_key(|(at_ms, node, line)| (*at_ms, *node, line.number));
    let shown = lines.into_iter().map(|(at_ms, node, line)| LogLineBody {
        node: name_of(&node),
        at: show_time(at_ms),
        session: line.session.map(|session| session.to_string()),
        text: line.text,
    });
    Ok(Answer::ok(&ServerLogs {
        server: server.name.to_string(),
        lines: shown.collect(),
        after: show_after(&last),
        unreached,
    }))
}

/// Nodes of one cluster that are looked through.
const NODES_MAX: usize = 1_000;

fn number(it: &Admitted, key: &str, most: u64, faults: &mut Faults) -> Option<u64> {
    let text = it.call.query(key)?;
    let value = text.parse().ok().filter(|value| *value <= most);
    if value.is_none() {
        faults.add(key, format!("a number from 0 to {most}"));
    }
    value
}

/// `NODE:LINE,NODE:LINE`: where each node's lines were read to.
fn read_after(text: &str) -> Option<Vec<(NodeId, u64)>> {
    let one = |pair: &str| {
        let (node, line) = pair.split_once(':')?;
        Some((node.parse().ok()?, line.parse().ok()?))
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(one).collect()
}

fn show_after(after: &[(NodeId, u64)]) -> String {
    let pairs: Vec<String> = after.iter().map(|(node, line)| format!("{node}:{line}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_and_read_again() {
        let after = vec![(NodeId(7), 12), (NodeId(u64::MAX), 0)];
        assert_eq!(read_after(&show_after(&after)), Some(after));
        assert_eq!(read_after(""), Some(Vec::new()));
        for bad in ["x", "7", "7:", ":1", "7:x", "7:1;8:2"] {
            assert_eq!(read_after(bad), None, "{bad}");
        }
    }
}
