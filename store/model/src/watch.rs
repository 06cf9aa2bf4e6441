//! What the tools of a server look like, and what became of them: who saw which description and schema, when, and which of them
//! somebody has approved. So that a tool cannot quietly become another one behind a name that people trust.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::{Id, NodeId};
use crate::tables::{Key, Stored, Table};

/// Changes that are kept of one server; the oldest go first.
pub const CHANGES_MAX: usize = 200;
/// Tools of one server that are watched, those that are gone included.
pub const TOOLS_MAX: usize = 4_096;

/// What one tool looks like: digests over its entry with the members of every object in order, so that the order in which a server
/// happens to write them says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Print {
    /// The server's own name for it.
    pub name: String,
    /// SHA-256 over all of it.
    pub whole: [u8; 32],
    /// The beginning of a SHA-256 over its description: tells what changed, and decides nothing.
    pub description: [u8; 8],
    /// The same over its schemas.
    pub schema: [u8; 8],
}

/// A tool that was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenTool {
    /// What it looks like; what it looked like last, if it is gone.
    pub print: Print,
    /// What of it is approved. On a server whose tools are not pinned that is whatever was seen last.
    pub approved: Option<[u8; 32]>,
    /// Whether the server lists it no more.
    pub gone: bool,
    /// When it was seen first, ms since 1970.
    pub first_ms: u64,
    /// When it became what it is, ms since 1970.
    pub changed_ms: u64,
    /// Who saw that.
    pub node: NodeId,
}

/// What happened to a tool. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Happened {
    /// It was not there before.
    Added,
    /// Its description is another one.
    Description,
    /// Its schema is another one.
    Schema,
    /// Description and schema are other ones.
    Both,
    /// Something else about it: its title, its annotations.
    Other,
    /// It is listed no more.
    Removed,
    /// Somebody approved it as it is.
    Approved,
}

/// Something that happened to a tool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolChange {
    /// The server's own name for it.
    pub tool: String,
    /// What.
    pub happened: Happened,
    /// SHA-256 over what it was.
    pub from: Option<[u8; 32]>,
    /// SHA-256 over what it is.
    pub to: Option<[u8; 32]>,
    /// `node 3`, or who approved it.
    pub by: String,
    /// When, ms since 1970.
    pub time_ms: u64,
}

/// What is known of one server's tools.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolWatch {
    /// Whose.
    pub server: Id,
    /// The node that saw it last: it goes on asking for the whole cluster.
    pub node: NodeId,
    /// When something about the server was replicated last, ms since 1970.
    pub reported_ms: u64,
    /// Its tools, those that are gone included, by their own names.
    pub tools: BTreeMap<String, SeenTool>,
    /// What happened to them, the oldest first.
    pub changes: Vec<ToolChange>,
}

impl Framed for ToolWatch {
    const KIND: u8 = 40;
}

impl Stored for ToolWatch {
    const TABLE: Table = Table::ToolWatches;
    fn key(&self) -> Key {
        Key::from(self.server.to_bytes())
    }
}

/// When and by whom something was seen.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The node.
    pub node: NodeId,
    /// Wall time, ms since 1970.
    pub time_ms: u64,
    /// Whether what changed waits for approval.
    pub pinned: bool,
}

impl ToolWatch {
    /// Nothing was seen yet.
    pub fn new(server: Id, node: NodeId) -> ToolWatch {
        ToolWatch {
            server,
            node,
            reported_ms: 0,
            tools: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Whether a tool of a pinned server is kept back: it looks otherwise than what was approved.
    pub fn holds(&self, name: &str, whole: &[u8; 32]) -> bool {
        let seen = self.tools.get(name);
        seen.is_none_or(|seen| seen.approved.as_ref() != Some(whole))
    }

    /// The tools that wait for approval, if the server's tools are pinned.
    pub fn held(&self) -> impl Iterator<Item = &SeenTool> {
        let waits = |seen: &&SeenTool| !seen.gone && seen.approved != Some(seen.print.whole);
        self.tools.values().filter(waits)
    }

    /// The names of the tools that are listed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools
            .values()
            .filter(|seen| !seen.gone)
            .map(|seen| seen.print.name.as_str())
    }

    /// Takes note of all tools of the server as they look now. What is seen before anything else is taken as good. Says what
    /// happened.
    pub fn see(&mut self, prints: &[Print], sighting: Sighting) -> Vec<ToolChange> {
        let is_first = self.tools.is_empty();
        let mut happened = Vec::new();
        for print in prints {
            let approves = is_first || !sighting.pinned;
            self.see_one(print, sighting, approves, &mut happened);
        }
        let listed: std::collections::BTreeSet<&str> = prints.iter().map(|print| print.name.as_str()).collect();
        for seen in self.tools.values_mut() {
            if !seen.gone && !listed.contains(seen.print.name.as_str()) {
                seen.gone = true;
                let (tool, from) = (seen.print.name.clone(), Some(seen.print.whole));
                happened.push(sighting.change(tool, Happened::Removed, from, None));
            }
        }
        // What is forgotten of a pinned server has to be approved when it comes back.
        if self.tools.len() > TOOLS_MAX {
            self.tools.retain(|_, seen| !seen.gone);
        }
        // The first list is no change of anything.
        if !is_first {
            self.note(&happened);
        }
        if is_first { Vec::new() } else { happened }
    }

    fn see_one(&mut self, print: &Print, sighting: Sighting, approves: bool, happened: &mut Vec<ToolChange>) {
        let Some(seen) = self.tools.get_mut(&print.name) else {
            let seen = SeenTool {
                print: print.clone(),
                approved: approves.then_some(print.whole),
                gone: false,
                first_ms: sighting.time_ms,
                changed_ms: sighting.time_ms,
                node: sighting.node,
            };
            happened.push(sighting.change(print.name.clone(), Happened::Added, None, Some(print.whole)));
            self.tools.insert(print.name.clone(), seen);
            return;
        };
        let before = seen.print.clone();
        let what = match (seen.gone, before.whole == print.whole) {
            (false, true) => None,
            (true, true) => Some(Happened::Added),
            (_, false) => Some(difference(&before, print)),
        };
        if approves {
            seen.approved = Some(print.whole);
        }
        seen.gone = false;
        let Some(what) = what else { return };
        seen.print = print.clone();
        seen.changed_ms = sighting.time_ms;
        seen.node = sighting.node;
        happened.push(sighting.change(print.name.clone(), what, Some(before.whole), Some(print.whole)));
    }

    /// Keeps what happened, and forgets the oldest.
    pub fn note(&mut self, happened: &[ToolChange]) {
        self.changes.extend_from_slice(happened);
        let too_many = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..too_many);
    }
}

impl Sighting {
    fn change(&self, tool: String, happened: Happened, from: Option<[u8; 32]>, to: Option<[u8; 32]>) -> ToolChange {
        ToolChange {
            tool,
            happened,
            from,
            to,
            by: format!("node {}", self.node),
            time_ms: self.time_ms,
        }
    }
}

fn difference(before: &Print, after: &Print) -> Happened {
    match (before.description != after.description, before.schema != after.schema) {
        (true, true) => Happened::Both,
        (true, false) => Happened::Description,
        (false, true) => Happened::Schema,
        (false, false) => Happened::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(name: &str, description: u8, schema: u8) -> Print {
        Print {
            name: name.into(),
            whole: [description ^ (schema << 4); 32],
            description: [description; 8],
            schema: [schema; 8],
        }
    }

    fn at(time_ms: u64, pinned: bool) -> Sighting {
        let node = NodeId(7);
        Sighting { node, time_ms, pinned }
    }

    fn held(watch: &ToolWatch) -> Vec<&str> {
        watch.held().map(|seen| seen.print.name.as_str()).collect()
    }

    fn said(changes: &[ToolChange]) -> Vec<(&str, Happened)> {
        changes
            .iter()
            .map(|change| (change.tool.as_str(), change.happened))
            .collect()
    }

    #[test]
    fn what_is_seen_first_is_good_and_what_changes_on_a_pinned_server_waits() {
        let mut watch = ToolWatch::new(Id::from_u128(1), NodeId(7));
        assert!(watch.see(&[print("a", 1, 1), print("b", 1, 1)], at(1, true)).is_empty());
        assert_eq!(held(&watch), Vec::<&str>::new());
        let changes = watch.see(&[print("a", 2, 1), print("c", 1, 1)], at(2, true));
        let expected = [
            ("a", Happened::Description),
            ("c", Happened::Added),
            ("b", Happened::Removed),
        ];
        assert_eq!(said(&changes), expected);
        assert_eq!(held(&watch), ["a", "c"]);
        assert!(watch.holds("a", &print("a", 2, 1).whole) && watch.holds("unseen", &[0; 32]));
        // What comes back as it was needs nobody; what comes back otherwise does.
        watch.see(&[print("a", 1, 1), print("b", 1, 1)], at(3, true));
        assert_eq!(held(&watch), Vec::<&str>::new());
        watch.see(&[print("a", 1, 1)], at(4, true));
        let changes = watch.see(&[print("a", 1, 3), print("b", 2, 2)], at(5, true));
        assert_eq!(said(&changes), [("a", Happened::Schema), ("b", Happened::Both)]);
        assert_eq!(held(&watch), ["a", "b"]);
    }

    #[test]
    fn what_is_not_pinned_is_recorded_all_the_same_and_is_the_measure_once_it_is() {
        let mut watch = ToolWatch::new(Id::from_u128(1), NodeId(7));
        watch.see(&[print("a", 1, 1)], at(1, false));
        watch.see(&[print("a", 2, 2)], at(2, false));
        assert_eq!(said(&watch.changes), [("a", Happened::Both)]);
        assert_eq!(held(&watch), Vec::<&str>::new());
        watch.see(&[print("a", 1, 1)], at(3, true));
        assert_eq!(
            held(&watch),
            ["a"],
            "what was good before it was seen last is not good for ever"
        );
    }

    #[test]
    fn neither_changes_nor_tools_that_are_gone_pile_up() {
        let mut watch = ToolWatch::new(Id::from_u128(1), NodeId(7));
        for round in 0..40u32 {
            let prints: Vec<Print> = (0..200).map(|at| print(&format!("t{round}-{at}"), 1, 1)).collect();
            watch.see(&prints, at(u64::from(round), true));
        }
        assert_eq!(watch.changes.len(), CHANGES_MAX);
        assert!(watch.tools.len() <= TOOLS_MAX, "{}", watch.tools.len());
        assert_eq!(watch.names().count(), 200);
    }
}
