//! What is secret is found nowhere: not in the log at trace level, not in the store's files, not in an answer but the one that
//! shows it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use mcpd::routes::ROUTES;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::client::Client;
use crate::node::Node;

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Logged;

    fn make_writer(&'a self) -> Logged {
        self.clone()
    }
}

#[tokio::test]
async fn passwords_bearers_and_values_are_in_no_log_file_or_later_answer() {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(logged.clone())
        .finish();
    // For all threads: what a node logs beside this one counts too.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let node = Node::start();
    let admin = Client::admin(&node);
    let mut secrets = vec![
        "canary-password-1",
        "canary-password-2",
        "canary-password-3",
        "canary-value",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    admin
        .post("users", json!({"email": "bob@test.com", "password": secrets[0]}))
        .await
        .is(201);
    let login = |password: &str| json!({"email": "bob@test.com", "password": password});
    let opened = Client::anybody(&node)
        .post("auth/login", login(&secrets[0]))
        .await
        .is(200);
    Client::anybody(&node)
        .post("auth/login", login(&secrets[1]))
        .await
        .refuses(401, "bad_credentials");
    let bob = Client::anybody(&node).bearer(&opened.text("token"));
    let change = json!({"oldPassword": secrets[0], "newPassword": secrets[1]});
    bob.header("idempotency-key", "k")
        .post("auth/password", change)
        .await
        .is(200);
    admin
        .post("users/bob@test.com/password", json!({"password": secrets[2]}))
        .await
        .is(200);
    admin
        .post("secrets", json!({"name": "git", "data": {"k": secrets[3]}}))
        .await
        .is(201);
    admin.post("projects", json!({"name": "demo"})).await.is(201);
    admin.post("serviceaccounts", json!({"name": "robot"})).await.is(201);
    let minted = admin
        .post("mcptokens", json!({"name": "ci", "project": "demo"}))
        .await
        .is(201);
    let session = admin.post("serviceaccounts/robot/sessions", json!({})).await.is(201);
    secrets.extend([
        opened.text("token"),
        minted.text("token"),
        session.text("token"),
        node.session.clone(),
    ]);

    // Every route is given all of it, in places where it belongs and where it does not.
    let mut answers = Vec::new();
    let all = secrets.join("-");
    let body = json!({"email": "bob@test.com", "name": "x", "password": [all], "oldPassword": all,
        "newPassword": {"x": all}, "data": all, "setupSecret": all, "token": all, "ttl": 5});
    let stranger = Client::anybody(&node).bearer(&format!("{}x", secrets[4]));
    for route in ROUTES.iter().filter(|route| !route.path().ends_with("/logout")) {
        let path = route.path().replace("{name}", "demo");
        let path = path.replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        for (client, path) in [
            (&admin, path.clone()),
            (&admin, format!("{path}?token={all}")),
            (&stranger, path.clone()),
        ] {
            let answer = client
                .send(route.method().as_str(), &path, Some(body.to_string()))
                .await;
            answers.push(answer.raw);
        }
    }
    for path in [
        "users",
        "sessions",
        "secrets",
        "mcptokens",
        "serviceaccounts",
        "auth/whoami",
        "secrets/git",
    ] {
        answers.push(admin.get(path).await.raw);
    }
    node.replica.flush().unwrap();
    let log = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("session opened") && log.contains("request refused"),
        "little was logged"
    );
    for secret in &secrets {
        assert!(!log.contains(secret), "the log holds {secret}");
        let told = answers.iter().find(|answer| answer.contains(secret));
        assert!(told.is_none(), "an answer holds {secret}: {told:?}");
        for file in std::fs::read_dir(node.replica.dir()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{} holds {secret}", path.display());
        }
    }
}
