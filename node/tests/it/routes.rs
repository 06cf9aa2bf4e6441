//! Every route of both listeners of a running node. Who may come to one without saying who they are is a list; a route that is made
//! anywhere else is noticed, and none of those that are open says anything about whom or what the cluster knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cluster::{demo, founded};
use super::machines::{ADMIN, Machine, ask};

/// Routes that are open to everybody: the listener, the path, and the file that makes it. Each answers to GET alone.
const OPEN: [(&str, &str, &str); 8] = [
    ("gateway", "/healthz", "node/gateway/src/router.rs"),
    ("gateway", "/livez", "node/gateway/src/router.rs"),
    ("gateway", "/readyz", "node/gateway/src/router.rs"),
    ("API", "/healthz", "node/mcpd/src/router.rs"),
    ("API", "/livez", "node/mcpd/src/router.rs"),
    ("API", "/readyz", "node/src/ready.rs"),
    ("API", "/metrics", "node/src/ready.rs"),
    // Of a node that has lost its log, in the place of the one above.
    ("API", "/readyz", "node/src/stores.rs"),
];
/// What the table of routes opens to everybody: the ways in.
const WAYS_IN: [&str; 2] = ["/api/v1/auth/login", "/api/v1/auth/setup"];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn port(machine: &Machine, listener: &str) -> u16 {
    if listener == "gateway" {
        machine.gateway
    } else {
        machine.api
    }
}

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
    for (listener, path, _) in OPEN {
        let port = port(&machine, listener);
        for method in METHODS {
            let wanted = if method == "GET" { 200 } else { 405 };
            let found = status(port, method, path, None);
            assert_eq!(found, wanted, "{listener}: {method} {path}");
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
    for path in [
        "/mcp",
        "/projects/demo/mcp",
        "/projects/demo/servers/demo/mcp",
        "/projects/other/mcp",
        "/projects/nowhere/mcp",
        "/projects/demo/servers/nowhere/mcp",
        "/projects/demo/sse",
        "/projects/demo/messages",
        "/projects/demo/servers/demo/sse",
        "/projects/demo/servers/demo/messages",
        "/projects/nowhere/sse",
        "/projects/nowhere/messages",
    ] {
        let served: &[&str] = match path.rsplit('/').next() {
            Some("sse") => &["GET"],
            Some("messages") => &["POST"],
            _ => &["GET", "POST", "DELETE"],
        };
        for (method, stranger) in METHODS.iter().flat_map(|m| strange.iter().map(move |s| (*m, s))) {
            let found = status(gateway, method, path, stranger.as_deref());
            assert!(
                found == 401 || found == 405 && !served.contains(&method),
                "{method} {path}: {found}"
            );
        }
        // A session of the API is no token.
        assert_eq!(status(gateway, "POST", path, Some(&session)), 401, "{path}");
    }
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

/// The paths that sources give to a router by name, or look for themselves, with their file.
fn routes_in(dir: &Path, root: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") && !path.ends_with("target") {
            routes_in(&path, root, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let file = path.strip_prefix(root).unwrap().display().to_string();
            for made in ["route", "route_service", "nest", "nest_service"] {
                for after in code.split(&format!(".{made}(")).skip(1) {
                    let name = after
                        .trim_start()
                        .strip_prefix('"')
                        .and_then(|rest| rest.split('"').next());
                    // Without a name it comes from a table, which has a walk of its own.
                    found.extend(name.map(|name| (name.to_owned(), file.clone())));
                }
            }
            for after in code.split("\"/").skip(1) {
                let Some((name, arm)) = after.split_once('"') else {
                    continue;
                };
                // Behind a bar the next name begins, where this piece ends.
                let arm = arm.trim();
                if arm.starts_with("=>") || arm == "|" {
                    found.insert((format!("/{name}"), file.clone()));
                }
            }
        }
    }
}

#[test]
fn a_route_beside_the_table_is_on_the_list() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let mut found = BTreeSet::new();
    for folder in ["node", "raft"] {
        routes_in(&root.join(folder), &root, &mut found);
    }
    let listed = OPEN.map(|(_, path, file)| (path.to_owned(), file.to_owned()));
    assert_eq!(found, BTreeSet::from(listed));
}
