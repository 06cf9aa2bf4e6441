//! A backup of a real cluster, restored while everything goes on: whoever was refused before is refused after, on every node.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mcp_model::backup::Check;
use serde_json::{Value, json};

use super::cluster::{demo, mint, three_voters};
use super::machines::{Machine, ask};
use super::until;

/// Head and body of a backup, taken through one machine.
fn save(machine: &Machine, session: &str) -> (Vec<u8>, Vec<u8>) {
    let mut whole = Vec::new();
    until("a backup is given", || {
        whole.clear();
        let mut stream = TcpStream::connect(("127.0.0.1", machine.api)).unwrap();
        let request = format!(
            "GET /api/v1/backup HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {session}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut whole).unwrap();
        whole.starts_with(b"HTTP/1.1 200")
    });
    let begin = whole.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut check = Check::default();
    check.push(&whole[begin..]).unwrap();
    let head = check.head().unwrap().to_vec();
    check.finish().unwrap();
    let body = whole[begin + head.len()..].to_vec();
    (head, body)
}

fn restore(machine: &Machine, session: &str, id: &str, head: &[u8], body: &[u8]) -> (u16, Value) {
    for (part, bytes) in body.chunks(700).enumerate() {
        let piece = json!({"part": part, "data": BASE64.encode(bytes)});
        machine.must("POST", &format!("backup/restores/{id}/parts"), session, &piece);
    }
    let request = json!({"head": BASE64.encode(head)});
    machine.send("POST", &format!("backup/restores/{id}"), Some(session), Some(&request))
}

/// What a machine says to a call, once it can decide.
fn says(machine: &Machine, token: &str) -> u16 {
    let mut said = 0;
    until("it can decide", || {
        said = machine.echo(token);
        !matches!(said, 0 | 503)
    });
    said
}

#[test]
fn a_revoked_token_stays_refused_on_every_node_after_a_restore() {
    let root = tempfile::tempdir().unwrap();
    let ([one, two, three], session) = three_voters(root.path());
    let all = [&one, &two, &three];
    let (revoked, deleted, stays) = (
        demo(&one, &session),
        mint(&one, &session, "b"),
        mint(&one, &session, "c"),
    );
    for machine in all {
        for token in [&revoked, &deleted, &stays] {
            assert_eq!(says(machine, token), 200);
        }
    }
    let (head, body) = save(&two, &session);
    let id_of = |name: &str| {
        let list = one.must(
            "GET",
            &format!("mcptokens?project=demo&name={name}"),
            &session,
            &Value::Null,
        );
        list["items"][0]["id"].as_str().unwrap().to_owned()
    };
    one.must(
        "POST",
        &format!("mcptokens/{}/revoke", id_of("demo")),
        &session,
        &json!({}),
    );
    three.must("DELETE", &format!("mcptokens/{}", id_of("b")), &session, &json!({}));
    let later = mint(&two, &session, "later");
    two.must("POST", "projects", &session, &json!({"name": "since"}));

    // A damaged one changes nothing.
    let mut damaged = body.clone();
    damaged[1_000] ^= 0x20;
    let (status, answer) = restore(&two, &session, "01890a5d-ac96-774b-bcce-b302099a8057", &head, &damaged);
    assert_eq!((status, &answer["code"]), (422, &json!("invalid")), "{answer}");
    one.must("GET", "projects/since?consistency=linearizable", &session, &Value::Null);

    let id = "01890a5d-ac96-774b-bcce-b302099a8058";
    let (status, answer) = restore(&three, &session, id, &head, &body);
    assert_eq!(
        (status, &answer["receipt"]["effective"]),
        (200, &json!(true)),
        "{answer}"
    );
    assert_eq!(answer["refused"]["count"], 2, "{answer}");
    let logged = three.logged();
    let line = logged
        .lines()
        .find(|line| line.contains("tokens of the restored backup stay refused"));
    let line = line.expect("what a restore refuses is logged");
    assert!(line.contains("demo/demo") && line.contains("demo/b"), "{line}");
    assert_eq!(answer["revoked"]["names"], json!(["demo/later"]));
    for machine in all {
        let refused = [&revoked, &deleted, &later].map(|token| machine.echo(token));
        assert!(refused.iter().all(|said| *said != 200), "{}: {refused:?}", machine.name);
        assert_eq!([&revoked, &deleted, &later].map(|token| says(machine, token)), [401; 3]);
        assert_eq!(says(machine, &stays), 200, "{}", machine.name);
        let path = "/api/v1/projects/since";
        until("the project is gone", || {
            ask(machine.api, "GET", path, Some(&session), None).is_some_and(|(s, _)| s == 404)
        });
    }
}
