//! Kinds of objects, under all the names that people use for them.

use std::str::FromStr;

/// A kind of object that the API serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Projects,
    Servers,
    McpTokens,
    Nodes,
    Rbac,
    Users,
}

/// Plural (which is also its path), singular, other names.
const KINDS: [(Kind, &str, &str, &[&str]); 6] = [
    (Kind::Projects, "projects", "project", &["proj"]),
    (Kind::Servers, "servers", "server", &["srv"]),
    (Kind::McpTokens, "mcptokens", "mcptoken", &["token", "tokens"]),
    (Kind::Nodes, "nodes", "node", &[]),
    (Kind::Rbac, "rbac", "rbac", &["rbacs"]),
    (Kind::Users, "users", "user", &[]),
];

impl Kind {
    fn row(self) -> (&'static str, &'static str) {
        let row = KINDS.iter().find(|(kind, ..)| *kind == self);
        row.map_or(("", ""), |(_, plural, singular, _)| (plural, singular))
    }

    /// As in paths: `projects`.
    pub(crate) fn plural(self) -> &'static str {
        self.row().0
    }

    /// As in messages: `project`.
    pub(crate) fn singular(self) -> &'static str {
        self.row().1
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = KINDS
            .iter()
            .find(|(_, plural, singular, others)| *plural == text || *singular == text || others.contains(&text));
        let kinds = || KINDS.map(|(_, plural, ..)| plural).join(", ");
        found
            .map(|(kind, ..)| *kind)
            .ok_or_else(|| format!("the kinds are {}", kinds()))
    }
}

/// What a command is about: `project demo`, `project/demo`, or all `projects`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) names: Vec<String>,
}

impl Target {
    /// Reads the words after a verb.
    pub(crate) fn parse(kind: &str, names: &[String]) -> Result<Target, String> {
        match kind.split_once('/') {
            None => Ok(Target {
                kind: kind.parse()?,
                names: names.to_vec(),
            }),
            Some((kind, name)) if names.is_empty() && !name.is_empty() => Ok(Target {
                kind: kind.parse()?,
                names: vec![name.to_owned()],
            }),
            Some(_) => Err("write KIND NAME or KIND/NAME".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for (text, kind) in [
            ("proj", Kind::Projects),
            ("srv", Kind::Servers),
            ("tokens", Kind::McpTokens),
            ("mcptoken", Kind::McpTokens),
            ("rbacs", Kind::Rbac),
            ("node", Kind::Nodes),
        ] {
            assert_eq!(text.parse(), Ok(kind));
        }
        assert!("pods".parse::<Kind>().is_err());
        let one = Target::parse("project/demo", &[]).unwrap();
        assert_eq!(one, Target::parse("project", &["demo".to_owned()]).unwrap());
        assert!(Target::parse("project/demo", &["x".to_owned()]).is_err());
        assert!(Target::parse("project/", &[]).is_err());
    }
}
