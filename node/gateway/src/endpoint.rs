//! What is served at which path of the gateway's listener: one table. Nothing else in this package compares a path with anything,
//! so that a test which walks the table has seen every way in.
//!
//! By hand, not by a router: nearly all requests go to one place, and the way there cost 3 % of a call.

use mcp_model::names::Name;

use crate::admit::Wanted;

/// Every path. `{project}` and `{server}` stand for names; what matches none is a 404. The usual one is tried first.
pub const ENDPOINTS: [(&str, Serves); 10] = [
    ("/projects/{project}/mcp", Serves::Mcp),
    ("/mcp", Serves::Mcp),
    ("/projects/{project}/servers/{server}/mcp", Serves::Mcp),
    ("/projects/{project}/sse", Serves::HttpSse(Part::Stream)),
    ("/projects/{project}/messages", Serves::HttpSse(Part::Messages)),
    (
        "/projects/{project}/servers/{server}/sse",
        Serves::HttpSse(Part::Stream),
    ),
    (
        "/projects/{project}/servers/{server}/messages",
        Serves::HttpSse(Part::Messages),
    ),
    ("/healthz", Serves::Alive),
    ("/livez", Serves::Alive),
    ("/readyz", Serves::Ready),
];

/// What a path serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Says that the process runs. Open to everybody.
    Alive,
    /// Says whether this node admits anybody. Open to everybody.
    Ready,
    /// MCP over streamable HTTP.
    Mcp,
    /// MCP over HTTP+SSE of 2024-11-05.
    HttpSse(Part),
}

/// The two paths of HTTP+SSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Opens a stream.
    Stream,
    /// Takes what the client of a stream has to say.
    Messages,
}

impl Serves {
    /// The methods that it takes, as a 405 names them.
    pub const fn methods(self) -> &'static str {
        match self {
            Serves::Alive | Serves::Ready => "GET, HEAD",
            Serves::Mcp => "POST, GET, DELETE",
            Serves::HttpSse(Part::Stream) => "GET",
            Serves::HttpSse(Part::Messages) => "POST",
        }
    }
}

/// The names in a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// None: the token's own.
    pub(crate) project: Option<Name>,
    /// Of the project's servers the only one.
    pub(crate) server: Option<Name>,
}

impl Endpoint {
    /// What a path serves, and the names in it.
    pub(crate) fn of(path: &str) -> Option<(Serves, Endpoint)> {
        let matching = |(pattern, serves): &(&str, Serves)| Some((*serves, Endpoint::matched(pattern, path)?));
        ENDPOINTS.iter().find_map(matching)
    }

    fn matched(pattern: &str, path: &str) -> Option<Endpoint> {
        let mut endpoint = Endpoint::default();
        let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return Some(endpoint),
                (Some("{project}"), Some(segment)) => endpoint.project = Some(name(segment)?),
                (Some("{server}"), Some(segment)) => endpoint.server = Some(name(segment)?),
                (Some(literal), Some(segment)) if literal == segment => {}
                (_, _) => return None,
            }
        }
    }

    /// The project that its caller wants to come to.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        self.project
            .as_ref()
            .map_or(Wanted::Own, |name| Wanted::Named(name.as_str()))
    }
}

/// A name in a path: decoded once, then strict.
fn name(segment: &str) -> Option<Name> {
    if !segment.contains('%') {
        return Name::parse(segment).ok();
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        // A number may begin with a plus, a digit may not be one.
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Name::parse(&String::from_utf8(decoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_strict() {
        let mcp = |project: Option<&str>, server: Option<&str>| {
            let name = |text: &str| Name::parse(text).unwrap();
            let (project, server) = (project.map(name), server.map(name));
            Some((Serves::Mcp, Endpoint { project, server }))
        };
        let rows = [
            ("/mcp", mcp(None, None)),
            ("/projects/demo/mcp", mcp(Some("demo"), None)),
            ("/projects/%64emo/mcp", mcp(Some("demo"), None)),
            ("/projects/mcp/mcp", mcp(Some("mcp"), None)),
            ("/projects/demo/servers/git/mcp", mcp(Some("demo"), Some("git"))),
            ("/projects/demo/servers/mcp/mcp", mcp(Some("demo"), Some("mcp"))),
            ("", None),
            ("/", None),
            ("mcp", None),
            ("/mcp/", None),
            ("//mcp", None),
            ("/projects//mcp", None),
            ("/projects/../mcp", None),
            ("/projects/{project}/mcp", None),
            ("/projects/%2e%2e/mcp", None),
            ("/projects/%2564emo/mcp", None),
            ("/projects/demo%00/mcp", None),
            ("/projects/demo%2fx/mcp", None),
            ("/projects/Demo/mcp", None),
            ("/projects/d%C3%A9mo/mcp", None),
            ("/projects/%ff/mcp", None),
            ("/projects/%6/mcp", None),
            ("/projects/demo/mcp/x", None),
            ("/projects/demo/servers/mcp", None),
            ("/healthz/", None),
            ("/%68ealthz", None),
            ("/.well-known/oauth-protected-resource", None),
            ("/.well-known/oauth-authorization-server/projects/demo/mcp", None),
        ];
        for (path, expected) in rows {
            assert_eq!(Endpoint::of(path), expected, "{path}");
        }
    }

    #[test]
    fn the_older_transport_has_two_paths_of_a_project() {
        for (path, part) in [
            ("/projects/demo/sse", Some(Part::Stream)),
            ("/projects/demo/servers/git/sse", Some(Part::Stream)),
            ("/projects/demo/messages", Some(Part::Messages)),
            ("/projects/demo/servers/git/messages", Some(Part::Messages)),
            ("/sse", None),
            ("/messages", None),
            ("/projects/sse", None),
            ("/projects/Demo/sse", None),
            ("/projects/demo/sse/", None),
        ] {
            let serves = Endpoint::of(path).map(|(serves, _)| serves);
            assert_eq!(serves, part.map(Serves::HttpSse), "{path}");
        }
    }
}
