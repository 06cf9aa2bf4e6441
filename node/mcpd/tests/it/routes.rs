//! The walk over the table of routes.

use mcpd::routes::ROUTES;

use crate::client::{Client, user};
use crate::node::Node;

fn concrete(path: &str) -> String {
    let name = if path.contains("/users/") {
        "demo@test.com"
    } else {
        "demo"
    };
    path.replace("{name}", name)
        .replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057")
}

const OPEN: [&str; 2] = ["POST /api/v1/auth/login", "POST /api/v1/auth/setup"];
/// What every caller may ask, because the answer is about the caller or holds only what the caller may see.
const FOR_EVERY_CALLER: [&str; 11] = [
    "POST /api/v1/auth/logout",
    "POST /api/v1/auth/password",
    "GET /api/v1/sessions",
    "GET /api/v1/auth/whoami",
    "GET /api/v1/auth/can-i",
    "GET /api/v1/version",
    "GET /api/v1/openapi.json",
    "GET /api/v1/mcptokens",
    "GET /api/v1/mcptokens/introspect",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/setup",
];

#[tokio::test]
async fn every_route_refuses_a_caller_without_credentials() {
    let node = Node::start();
    for route in ROUTES {
        let line = format!("{} {}", route.method(), route.path());
        assert_eq!(route.right().is_none(), OPEN.contains(&line.as_str()), "{line}");
        if route.right().is_none() {
            continue;
        }
        let strangers = [
            Client::anybody(&node),
            Client::anybody(&node).bearer("secret"),
            Client::anybody(&node).bearer(&format!("mcpctl_ses_{}", "0".repeat(43))),
            Client::anybody(&node).bearer(&format!("mcpctl_pat_{}", "0".repeat(43))),
            Client::anybody(&node).header("authorization", "Basic YTpi"),
            Client::admin(&node).header("authorization", format!("Bearer {}", node.session)),
        ];
        for stranger in strangers {
            let reply = stranger
                .send(route.method().as_str(), &concrete(route.path()), Some("{}".into()))
                .await;
            reply.refuses(401, "not_authenticated");
        }
    }
}

#[tokio::test]
async fn every_route_refuses_a_caller_without_the_right_it_takes() {
    let node = Node::start();
    let nobody = user(&node, "nobody@test.com", &[]).await;
    for route in ROUTES {
        let line = format!("{} {}", route.method(), route.path());
        if FOR_EVERY_CALLER.contains(&line.as_str()) {
            continue;
        }
        let reply = nobody
            .send(route.method().as_str(), &concrete(route.path()), Some("{}".into()))
            .await;
        // Join tokens are told apart by nothing but the action.
        let hidden = route.path().contains("{id}") && !route.path().contains("/join-tokens/");
        let (status, code) = if hidden { (404, "not_found") } else { (403, "forbidden") };
        reply.refuses(status, code);
    }
}

#[tokio::test]
async fn no_route_answers_without_a_lease() {
    let node = Node::start();
    node.replica.hand_back_lease();
    for route in ROUTES {
        let secret = format!("mcpctl_setup_{}", "0".repeat(43));
        let body = match route.path().ends_with("/setup") {
            true => format!(r#"{{"email":"admin@test.com","password":"correct horse","setupSecret":"{secret}"}}"#),
            false => r#"{"email":"admin@test.com","password":"correct horse battery"}"#.to_owned(),
        };
        let reply = Client::admin(&node)
            .send(route.method().as_str(), &concrete(route.path()), Some(body))
            .await
            .refuses(503, "no_lease");
        assert_eq!(reply.header("retry-after"), "1");
    }
    Client::anybody(&node).get("/healthz").await.is(200);
}

#[tokio::test]
async fn what_is_not_in_the_table_is_a_problem_too() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for path in [
        "/",
        "/api/v1",
        "/api/v2/projects",
        "/api/v1/projects/a/b/c",
        "/api/v1/projects/",
    ] {
        admin.get(path).await.refuses(404, "no_such_route");
    }
    let reply = admin
        .send("PUT", "mcptokens/01890a5d-ac96-774b-bcce-b302099a8057", None)
        .await;
    let reply = reply.refuses(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), "GET, DELETE");
    for path in [
        "projects/..%2Fusers",
        "projects/a%00",
        "projects/A",
        "projects/a%252Fb",
        "projects/%ff",
    ] {
        let reply = admin.get(path).await;
        assert_eq!(reply.status.as_u16(), 404, "{path}: {}", reply.raw);
    }
    for path in ["/healthz", "/livez"] {
        Client::anybody(&node).get(path).await.is(200);
    }
}
