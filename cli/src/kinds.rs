//! Kinds of objects, under all the names that people use for them.

use std::str::FromStr;

/// A kind of object that the API serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Projects,
    Servers,
    Tools,
    McpTokens,
    Nodes,
    Rbac,
    Users,
    Groups,
    ServiceAccounts,
    Secrets,
    Sessions,
}

/// What is known of a kind.
pub(crate) struct About {
    pub(crate) kind: Kind,
    /// Also its path.
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) others: &'static [&'static str],
    pub(crate) verbs: &'static [&'static str],
}

const ALL: &[&str] = &["get", "describe", "create", "apply", "diff", "edit", "wait", "delete"];

/// All kinds, in the order in which they are listed.
pub(crate) static KINDS: [About; 11] = [
    about(Kind::Projects, "projects", "project", &["proj"], ALL),
    about(
        Kind::Servers,
        "servers",
        "server",
        &["srv"],
        &[
            "get", "describe", "create", "apply", "diff", "edit", "wait", "delete", "approve",
        ],
    ),
    about(Kind::Tools, "tools", "tool", &[], &["get", "describe", "approve"]),
    about(
        Kind::McpTokens,
        "mcptokens",
        "mcptoken",
        &["token", "tokens"],
        &[
            "get", "describe", "create", "apply", "diff", "revoke", "rotate", "wait", "delete",
        ],
    ),
    about(Kind::Rbac, "rbac", "rbac", &["rbacs"], ALL),
    about(Kind::Users, "users", "user", &[], ALL),
    about(Kind::Groups, "groups", "group", &[], ALL),
    about(Kind::ServiceAccounts, "serviceaccounts", "serviceaccount", &["sa"], ALL),
    about(
        Kind::Secrets,
        "secrets",
        "secret",
        &[],
        &["get", "describe", "create", "apply", "diff", "rotate", "wait", "delete"],
    ),
    about(
        Kind::Sessions,
        "sessions",
        "session",
        &[],
        &["get", "describe", "create", "delete"],
    ),
    about(Kind::Nodes, "nodes", "node", &[], &["get", "describe", "wait"]),
];

const fn about(
    kind: Kind,
    plural: &'static str,
    singular: &'static str,
    others: &'static [&'static str],
    verbs: &'static [&'static str],
) -> About {
    About {
        kind,
        plural,
        singular,
        others,
        verbs,
    }
}

impl Kind {
    pub(crate) fn about(self) -> &'static About {
        let row = KINDS.iter().find(|about| about.kind == self);
        row.expect("every kind stands in the table")
    }

    /// As in paths: `projects`.
    pub(crate) fn plural(self) -> &'static str {
        self.about().plural
    }

    /// As in messages: `project`.
    pub(crate) fn singular(self) -> &'static str {
        self.about().singular
    }

    /// Whether this verb works on it.
    pub(crate) fn takes(self, verb: &str) -> bool {
        self.about().verbs.contains(&verb)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let text = text.to_ascii_lowercase();
        let names =
            |about: &&About| about.plural == text || about.singular == text || about.others.contains(&text.as_str());
        let found = KINDS.iter().find(names).map(|about| about.kind);
        let plurals = || KINDS.iter().map(|about| about.plural).collect::<Vec<_>>();
        found.ok_or_else(|| format!("the kinds are {}", plurals().join(", ")))
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
            ("McpToken", Kind::McpTokens),
            ("rbacs", Kind::Rbac),
            ("node", Kind::Nodes),
            ("sa", Kind::ServiceAccounts),
        ] {
            assert_eq!(text.parse(), Ok(kind));
        }
        assert!("pods".parse::<Kind>().is_err());
        let one = Target::parse("project/demo", &[]).unwrap();
        assert_eq!(one, Target::parse("project", &["demo".to_owned()]).unwrap());
        assert!(Target::parse("project/demo", &["x".to_owned()]).is_err());
        assert!(Target::parse("project/", &[]).is_err());
    }

    #[test]
    fn every_kind_and_every_name_is_there_once() {
        let mut names: Vec<&str> = KINDS
            .iter()
            .flat_map(|a| [a.plural, a.singular].into_iter().chain(a.others.iter().copied()))
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len() + 1, all, "rbac alone is its own plural");
    }
}
