//! Every route of both listeners of a running node. Who may come to one without saying who they are is a list, and so are all endpoints
//! of the gateway; a route that is made anywhere else is noticed, and none of those that are open says anything about whom or what
//! the cluster knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cluster::{demo, founded};
use super::machines::{ADMIN, ask};

/// Routes of the API's listener that are open to everybody: the path, and the file that makes it. Each answers to GET alone.
const OPEN: [(&str, &str); 5] = [
    ("/healthz", "node/mcpd/src/router.rs"),
    ("/livez", "node/mcpd/src/router.rs"),
    ("/readyz", "node/src/ready.rs"),
    ("/metrics", "node/src/ready.rs"),
    // Of a node that has lost its log, in the place of the one above.
    ("/readyz", "node/src/stores.rs"),
];
/// Every path of the gateway's listener with the methods that it takes, and whether it is open to everybody.
const GATEWAY: [(&str, &str, bool); 10] = [
    ("/projects/{project}/mcp", "POST, GET, DELETE", false),
    ("/mcp", "POST, GET, DELETE", false),
    ("/projects/{project}/servers/{server}/mcp", "POST, GET, DELETE", false),
    ("/projects/{project}/sse", "GET", false),
    ("/projects/{project}/messages", "POST", false),
    ("/projects/{project}/servers/{server}/sse", "GET", false),
    ("/projects/{project}/servers/{server}/messages", "POST", false),
    ("/healthz", "GET, HEAD", true),
    ("/livez", "GET, HEAD", true),
    ("/readyz", "GET, HEAD", true),
];
/// Sources that look at the path of a request, and how often. Whoever adds a place decides there who may come in, so it is said here.
const LOOK_AT_PATHS: [(&str, usize); 5] = [
    // Hands it to the table of the gateway's endpoints.
    ("node/gateway/src/router.rs", 1),
    // Tells a client where to post: the path that it came by, with another end.
    ("node/gateway/src/http_sse/stream.rs", 1),
    // Says in two problems which path was meant; routes come from the table.
    ("node/mcpd/src/router.rs", 2),
    // The peers' listener: a machine that joins, and what only members may ask.
    ("raft/src/door.rs", 1),
    ("raft/src/server.rs", 3),
];
/// What the table of routes opens to everybody: the ways in.
const WAYS_IN: [&str; 2] = ["/api/v1/auth/login", "/api/v1/auth/setup"];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn status(port: u16, method: &str, path: &str, bearer: Option<&str>) -> u16 {
    let body = (method != "GET").then(|| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    let answer = ask(port, method, path, bearer, body.as_ref());
    answer.unwrap_or_else(|| panic!("{method} {path}: no answer")).0
}

/// Bearers that let nobody in.
fn strangers() -> [Option<String>; 4] {
    let of = |kind: &str| Some(format!("mcpctl_{kind}_{}", "0".repeat(43)));
    [None, Some("secret".to_owned()), of("ses"), of("pat")]
}

#[test]
fn whoever_says_nothing_of_themselves_comes_to_the_open_routes_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let (machine, session) = founded(root.path(), "node-1");
    let token = demo(&machine, &session);
    let of_gateway = GATEWAY.iter().filter(|(_, _, open)| *open);
    let of_gateway = of_gateway.map(|(path, _, _)| (machine.gateway, *path));
    for (port, path) in of_gateway.chain(OPEN.map(|(path, _)| (machine.api, path))) {
        for method in METHODS {
            let wanted = if method == "GET" { 200 } else { 405 };
            let found = status(port, method, path, None);
            assert_eq!(found, wanted, "{port}: {method} {path}");
        }
    }
    // What they say in full names nobody and nothing.
    for path in ["/readyz?verbose", "/metrics"] {
        let said = machine.text(path);
        assert!(said.len() > 200, "{path}: {said}");
        for known in [ADMIN, &session, &token, "demo"] {
            assert!(!said.contains(known), "{path} tells strangers of {known}");
        }
    }
    let described = machine.must("GET", "openapi.json", &session, &Value::Null);
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{}", paths.len());
    for path in paths.keys().filter(|path| !WAYS_IN.contains(&path.as_str())) {
        let concrete = path
            .replace("{name}", "demo")
            .replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        for (method, stranger) in METHODS.iter().flat_map(|m| strangers().map(|s| (*m, s))) {
            let found = status(machine.api, method, &concrete, stranger.as_deref());
            assert!(
                matches!(found, 401 | 405),
                "{method} {concrete} with {stranger:?}: {found}"
            );
        }
    }
}

/// The paths that a pattern stands for: with names of what is there, of what is somebody else's, and of nothing.
fn paths(pattern: &str) -> Vec<String> {
    let with = |paths: Vec<String>, place: &str, names: &[&str]| -> Vec<String> {
        let filled = paths
            .iter()
            .flat_map(|path| names.iter().map(|name| path.replace(place, name)));
        BTreeSet::from_iter(filled).into_iter().collect()
    };
    let of_projects = with(vec![pattern.to_owned()], "{project}", &["demo", "other", "nowhere"]);
    with(of_projects, "{server}", &["demo", "nowhere"])
}

#[test]
fn every_endpoint_of_the_gateway_is_on_the_list() {
    let made = mcp_gateway::ENDPOINTS.map(|(path, serves)| (path, serves.methods()));
    assert_eq!(made, GATEWAY.map(|(path, methods, _)| (path, methods)));
}

#[test]
fn every_endpoint_of_the_gateway_refuses_strangers_and_tokens_of_others() {
    let root = tempfile::tempdir().unwrap();
    let (machine, session) = founded(root.path(), "node-1");
    let token = demo(&machine, &session);
    machine.must(
        "POST",
        "projects",
        &session,
        &json!({"name": "other", "servers": ["demo"]}),
    );
    let threads = std::fs::read_dir(format!("/proc/{}/task", machine.pid())).unwrap();
    let mut names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    assert!(
        names.any(|name| name.starts_with("clients-")),
        "clients have threads of their own"
    );
    let (gateway, strange) = (machine.gateway, strangers());
    let mut walked = 0;
    for (pattern, takes, _) in GATEWAY.iter().filter(|(_, _, open)| !open) {
        let served: Vec<&str> = takes.split(", ").collect();
        for path in paths(pattern) {
            for (method, stranger) in METHODS.iter().flat_map(|m| strange.iter().map(move |s| (*m, s))) {
                let found = status(gateway, method, &path, stranger.as_deref());
                let wanted = found == 401 || found == 405 && !served.contains(&method);
                assert!(wanted, "{method} {path}: {found}");
            }
            // A session of the API is no token.
            assert_eq!(status(gateway, served[0], &path, Some(&session)), 401, "{path}");
            walked += 1;
        }
    }
    assert!(walked > 2 * GATEWAY.len(), "{walked}");
    // With a token: its own project, and of that only what is there.
    for (path, wanted) in [
        ("/mcp", 200),
        ("/projects/demo/mcp", 200),
        ("/projects/demo/servers/demo/mcp", 200),
        ("/projects/other/mcp", 403),
        ("/projects/other/servers/demo/mcp", 403),
        ("/projects/nowhere/mcp", 403),
        ("/projects/demo/servers/nowhere/mcp", 404),
    ] {
        assert_eq!(status(gateway, "POST", path, Some(&token)), wanted, "{path}");
        if wanted == 403 {
            for method in ["GET", "DELETE"] {
                assert_eq!(status(gateway, method, path, Some(&token)), 403, "{method} {path}");
            }
        }
    }
    for path in [
        "/",
        "/projects",
        "/projects/demo",
        "/projects//mcp",
        "/projects/demo/mcp/",
        "/api/v1/projects",
    ] {
        for bearer in [None, Some(token.as_str())] {
            assert_eq!(status(gateway, "POST", path, bearer), 404, "{path}");
        }
    }
}

/// What stands in a source for the program, without white space between its words.
struct Source {
    file: String,
    code: String,
}

/// The sources of these folders, without tests.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !is_of_tests(&path) {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                found.push(Source {
                    file: path.strip_prefix(&root).unwrap().display().to_string(),
                    code: code.split_whitespace().collect(),
                });
            }
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

/// `tests.rs`, or `something_tests.rs`.
fn is_of_tests(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"))
}

/// The texts that begin with a slash, each with what stands behind it.
fn rooted(code: &str) -> impl Iterator<Item = (String, &str)> {
    let pieces = code.split("\"/").skip(1).filter_map(|piece| piece.split_once('"'));
    pieces.map(|(name, behind)| (format!("/{name}"), behind))
}

#[test]
fn a_route_beside_the_tables_is_on_the_list() {
    let mut found = BTreeSet::new();
    for Source { file, code } in sources(&["node", "raft"]) {
        for made in ["route", "route_service", "nest", "nest_service"] {
            for after in code.split(&format!(".{made}(")).skip(1) {
                // Without a name it comes from a table, which has a walk of its own.
                let name = after.strip_prefix('"').and_then(|rest| rest.split('"').next());
                found.extend(name.map(|name| (name.to_owned(), file.clone())));
            }
        }
        // Those that are looked for by a `match`. Behind a bar the next name begins, where this piece ends.
        let arms = rooted(&code).filter(|(_, behind)| behind.starts_with("=>") || *behind == "|");
        found.extend(arms.map(|(name, _)| (name, file.clone())));
    }
    let listed = OPEN.map(|(path, file)| (path.to_owned(), file.to_owned()));
    assert_eq!(found, BTreeSet::from(listed));
}

#[test]
fn nothing_but_the_table_of_endpoints_compares_a_path_with_anything() {
    let sources = sources(&["node/gateway/src", "node/mcpd/src", "node/src", "raft/src"]);
    for Source { file, code } in &sources {
        let looks = ["uri().path()", "uri.path()", "path_and_query("].map(|how| code.matches(how).count());
        let looks: usize = looks.iter().sum();
        let known = LOOK_AT_PATHS
            .iter()
            .find(|(name, _)| name == file)
            .map_or(0, |(_, known)| *known);
        assert_eq!(looks, known, "{file}: see LOOK_AT_PATHS");
    }
    // And the gateway knows no path that is not in its table, in whatever way it might be compared.
    let known: BTreeSet<&str> = GATEWAY.iter().map(|(path, _, _)| *path).collect();
    let gateway = sources
        .iter()
        .filter(|source| source.file.starts_with("node/gateway/src"));
    for Source { file, code } in gateway.filter(|source| !source.file.ends_with("decoders.rs")) {
        for (path, _) in rooted(code) {
            assert!(known.contains(path.as_str()), "{file}: {path:?} is in no table");
        }
    }
}
