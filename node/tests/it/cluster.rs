//! From one machine to three, and what a machine refuses: separate processes, real sockets, real files.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::machines::{ADMIN, Machine, PASSWORD, ask, ask_tls, done, failed, is_private};
use super::{mcpnode, until};

/// The first machine of a cluster, running, and the administrator's session.
pub(crate) fn founded(root: &Path, name: &str) -> (Machine, String) {
    let mut machine = Machine::new(root, name);
    done(&machine.init(&["--tls", "off"]));
    machine.start();
    machine.ready();
    let session = machine.set_up();
    (machine, session)
}

/// Three machines that vote, the founding one first, and the administrator's session.
pub(crate) fn three_voters(root: &Path) -> ([Machine; 3], String) {
    let (one, session) = founded(root, "node-1");
    let token_file = root.join("join.token");
    let [mut two, mut three] = ["node-2", "node-3"].map(|name| Machine::new(root, name));
    for machine in [&mut two, &mut three] {
        one.join_token(&session, &json!({}), &token_file);
        machine.join_and_run(&one.peers_at(), &token_file);
        machine.ready();
    }
    voters(&one, &session, &["node-1", "node-2", "node-3"]);
    ([one, two, three], session)
}

/// Something to call, and a token that may.
pub(crate) fn demo(machine: &Machine, session: &str) -> String {
    let server = json!({"name": "demo", "transport": "stdio", "command": mcpnode(), "args": ["demo-server"]});
    machine.must("POST", "servers", session, &server);
    let project = json!({"name": "demo", "servers": ["demo"], "toolNaming": "plain"});
    machine.must("POST", "projects", session, &project);
    mint(machine, session, "demo")
}

pub(crate) fn mint(machine: &Machine, session: &str, name: &str) -> String {
    let run = json!([{"role": "run", "resource": "servers"}]);
    let token = json!({"name": name, "project": "demo", "roleBindings": run});
    let minted = machine.must("POST", "mcptokens", session, &token);
    minted["token"].as_str().unwrap().to_owned()
}

pub(crate) fn voters(machine: &Machine, session: &str, names: &[&str]) {
    until(&format!("{names:?} vote"), || {
        let members = machine.members(session);
        let votes = |name: &&str| members.contains(&((*name).to_owned(), "voter".to_owned()));
        members.len() == names.len() && names.iter().all(votes)
    });
}

#[test]
fn one_machine_becomes_three_and_one_of_them_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let ([mut one, mut two, mut three], session) = three_voters(root.path());
    for file in ["node.json", "data.key", "peer.pem", "listener.pem", "mcpnode.toml"] {
        assert!(is_private(&two.dir.join(file)), "{file}");
    }
    assert!(!one.dir.join("founding.json").exists(), "the cluster has begun");

    // Minted through one, used through another.
    let token = demo(&one, &session);
    for machine in [&one, &two, &three] {
        until("the call goes through", || machine.echo(&token) == 200);
    }

    // Removed through another: from the answer on it admits nobody, and then it goes and stays away.
    let removed = three.must("DELETE", "cluster/nodes/node-2", &session, &Value::Null);
    assert_eq!(removed["receipt"]["effective"], true, "{removed}");
    assert!(matches!(two.echo(&token), 503 | 0), "it admits nobody");
    assert!(!two.ends());
    assert!(
        two.logged().contains("was removed from its cluster"),
        "{}",
        two.logged()
    );
    let said = two.fails_to_start();
    assert!(said.contains("mcpnode join") && said.contains("join-token"), "{said}");
    voters(&one, &session, &["node-1", "node-3"]);

    // The machine is wiped, and comes back as another node.
    std::fs::remove_dir_all(&two.dir).unwrap();
    let token_file = root.path().join("join.token");
    three.join_token(&session, &json!({"ttl": "10m"}), &token_file);
    two.join_and_run(&three.peers_at(), &token_file);
    two.ready();
    voters(&three, &session, &["node-1", "node-2", "node-3"]);

    // Each of them may be killed, and comes back.
    for at in 0..3 {
        let all = [&mut one, &mut two, &mut three];
        let [killed, other, _] = match at {
            0 => all,
            1 => {
                let [a, b, c] = all;
                [b, c, a]
            }
            _ => {
                let [a, b, c] = all;
                [c, a, b]
            }
        };
        killed.kill();
        let minted = mint(other, &session, &format!("after-{at}"));
        killed.start();
        killed.ready();
        until("the token works where it was not minted", || {
            killed.echo(&minted) == 200
        });
    }
}

#[test]
fn a_learner_follows_until_it_is_promoted_and_the_last_voter_stays() {
    let root = tempfile::tempdir().unwrap();
    let (one, session) = founded(root.path(), "node-1");
    let (status, answer) = one.send("DELETE", "cluster/nodes/node-1", Some(&session), None);
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("would_lose_quorum")),
        "{answer}"
    );
    let token_file = root.path().join("join.token");
    one.join_token(&session, &json!({"role": "learner"}), &token_file);
    let mut two = Machine::new(root.path(), "node-2");
    two.join_and_run(&one.peers_at(), &token_file);
    two.ready();
    let learner = ("node-2".to_owned(), "learner".to_owned());
    until("it follows", || one.members(&session).contains(&learner));
    let promoted = two.must("POST", "cluster/nodes/node-2/promote", &session, &json!({}));
    assert_eq!(promoted["settled"], true, "{promoted}");
    voters(&one, &session, &["node-1", "node-2"]);
    let demoted = one.must("POST", "cluster/nodes/node-2/demote", &session, &json!({}));
    assert_eq!(
        (&demoted["role"], &demoted["settled"]),
        (&json!("learner"), &json!(true))
    );
    two.stop();
    // A learner that is gone is in nobody's way.
    let removed = one.must("DELETE", "cluster/nodes/node-2", &session, &Value::Null);
    assert_eq!(removed["receipt"]["effective"], true, "{removed}");
    voters(&one, &session, &["node-1"]);
}

#[test]
fn init_makes_a_node_once_and_its_setup_secret_works_once() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(root.path(), "node-1");
    let said = done(&machine.init(&["--tls", "off"]));
    for line in [
        "mcpnode serve --config",
        "mcpctl login --server",
        "--setup-secret-file",
        "mcpctl cluster join-token",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for file in [
        "setup.secret",
        "founding.json",
        "data.key",
        "peer.pem",
        "listener.pem",
        "node.json",
    ] {
        assert!(is_private(&machine.dir.join(file)), "{file}");
    }
    let said = failed(&machine.init(&[]));
    assert!(said.contains("holds node") && said.contains("mcpnode serve"), "{said}");

    machine.start();
    machine.ready();
    let secret = std::fs::read_to_string(machine.dir.join("setup.secret")).unwrap();
    let setup = |email: &str, secret: &str, password: &str| {
        let body = json!({"email": email, "setupSecret": secret.trim(), "password": password});
        machine.send("POST", "auth/setup", None, Some(&body))
    };
    let other = format!("mcpctl_setup_{}", "0".repeat(43));
    assert_eq!(setup(ADMIN, &other, PASSWORD).0, 401);
    assert_eq!(setup("other@example.com", &secret, PASSWORD).0, 401);
    let (status, answer) = setup(ADMIN, "what", "short");
    assert_eq!(
        (status, answer["errors"].as_array().unwrap().len()),
        (422, 2),
        "{answer}"
    );
    assert_eq!(setup(ADMIN, &secret, PASSWORD).0, 200);
    assert_eq!(setup(ADMIN, &secret, "another password").0, 401, "it is dead");
    let login = json!({"email": ADMIN, "password": PASSWORD});
    assert_eq!(machine.send("POST", "auth/login", None, Some(&login)).0, 200);
    // Neither the secret nor its hash's preimage is anywhere but in the operator's file.
    machine.stop();
    let needle = secret.trim().as_bytes();
    for entry in std::fs::read_dir(&machine.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("setup.secret") {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{}", path.display());
        }
    }
    assert!(!machine.logged().contains(secret.trim()));
}

#[test]
fn a_join_that_cannot_be_says_why_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (one, session) = founded(root.path(), "node-1");
    let (other, other_session) = founded(root.path(), "other");
    let token_file = root.path().join("join.token");
    let guest = Machine::new(root.path(), "guest");
    let at = one.peers_at();
    let refused_as = |guest: &Machine, at: &str, more: &[&str], parts: &[&str]| {
        let said = failed(&guest.join(at, &token_file, more));
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
        let left: Vec<_> = std::fs::read_dir(&guest.dir)
            .map(|all| all.map(|e| e.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    };
    let refused = |at: &str, more: &[&str], parts: &[&str]| refused_as(&guest, at, more, parts);

    std::fs::write(&token_file, "mcpctl_join_nonsense").unwrap();
    refused(&at, &[], &["holds no join token", "mcpctl cluster join-token"]);

    // The wrong cluster: it learns nothing, not even that somebody asked for something.
    other.join_token(&other_session, &json!({}), &token_file);
    refused(
        &at,
        &[],
        &["does not belong to the cluster of the join token", "Nothing was sent"],
    );
    assert!(!one.logged().contains("was not let in"));
    refused(&format!("127.0.0.1:{}", one.api), &[], &["peers' listener"]);
    refused("127.0.0.1:1", &[], &["cannot be reached", "3300"]);

    // A token of this cluster's shape that nobody made: the right authority, another secret.
    one.join_token(&session, &json!({}), &token_file);
    let good = std::fs::read_to_string(&token_file).unwrap();
    let (head, _) = good.split_at(good.len() - 43);
    std::fs::write(&token_file, format!("{head}{}", "1".repeat(43))).unwrap();
    refused(&at, &[], &["not known to this cluster", "mcpctl cluster join-token"]);

    // A name and an address that are somebody's.
    std::fs::write(&token_file, &good).unwrap();
    let mut twin = Machine::new(root.path(), "twin");
    twin.name = "node-1".to_owned();
    refused_as(
        &twin,
        &at,
        &[],
        &["\"node-1\" exists already", "mcpctl cluster remove node-1"],
    );
    refused(&at, &["--advertise", &at], &["has the address"]);
    assert!(one.logged().contains("was not let in"));

    // None of that used the token up; this does.
    let said = done(&guest.join(&at, &token_file, &["--no-start"]));
    assert!(said.contains("mcpnode serve --config"), "{said}");
    let late = Machine::new(root.path(), "late");
    let said = failed(&late.join(&at, &token_file, &[]));
    assert!(
        said.contains("used already") && said.contains("mcpctl cluster join-token"),
        "{said}"
    );

    one.join_token(&session, &json!({"ttl": "1s"}), &token_file);
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let made = clock();
    until("the token has expired", || clock() > made + 2);
    let said = failed(&late.join(&at, &token_file, &[]));
    assert!(
        said.contains("has expired") && said.contains("mcpctl cluster join-token"),
        "{said}"
    );

    // One that was revoked, though its time is not over.
    one.join_token(&session, &json!({}), &token_file);
    let listed = one.must("GET", "cluster/join-tokens", &session, &Value::Null);
    let listed = listed["items"].as_array().unwrap().iter();
    let open: Vec<&Value> = listed.filter(|token| token["status"] == "open").collect();
    for token in open {
        let path = format!("cluster/join-tokens/{}", token["id"].as_str().unwrap());
        one.must("DELETE", &path, &session, &Value::Null);
    }
    let said = failed(&late.join(&at, &token_file, &[]));
    assert!(
        said.contains("not known to this cluster") && said.contains("mcpctl cluster join-token"),
        "{said}"
    );

    // No secret of a join stands in a log.
    assert!(!one.logged().contains(&good[good.len() - 43..]));
}

#[test]
fn a_directory_that_is_not_what_it_was_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, _) = founded(root.path(), "node-1");
    let (mut other, _) = founded(root.path(), "other");
    one.stop();
    other.stop();

    // The state of another cluster.
    let (mine, theirs) = (one.dir.join("state.redb"), other.dir.join("state.redb"));
    let kept = root.path().join("kept");
    std::fs::rename(&mine, &kept).unwrap();
    std::fs::copy(&theirs, &mine).unwrap();
    let said = one.fails_to_start();
    assert!(
        said.contains("is that of cluster") && said.contains("node.json"),
        "{said}"
    );

    // No stores where there were some.
    std::fs::remove_file(&mine).unwrap();
    let (log, kept_log) = (one.dir.join("raft-log.redb"), root.path().join("kept-log"));
    std::fs::rename(&log, &kept_log).unwrap();
    let said = one.fails_to_start();
    assert!(said.contains("raft-log.redb") && said.contains("gone"), "{said}");
    assert!(!log.exists(), "nothing is made in its place");
    std::fs::rename(&kept, &mine).unwrap();
    std::fs::rename(&kept_log, &log).unwrap();

    // A newer format.
    let badge = one.dir.join("node.json");
    let text = std::fs::read_to_string(&badge).unwrap();
    std::fs::write(&badge, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let said = one.fails_to_start();
    assert!(said.contains("newer mcpnode"), "{said}");
    std::fs::write(&badge, text).unwrap();
    one.start();
    one.ready();
}

#[test]
fn listeners_are_encrypted_and_take_new_certificates_without_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(root.path(), "node-1");
    done(&machine.init(&[]));
    machine.start();
    let ca = machine.dir.join("ca.crt");
    until("it is ready", || {
        matches!(ask_tls(machine.api, &ca, "/readyz"), Ok(((200, _), _)))
    });
    assert!(
        !matches!(ask(machine.api, "GET", "/readyz", None, None), Some((200, _))),
        "not in the clear"
    );
    let ((status, _), _) = ask_tls(machine.gateway, &ca, "/healthz").unwrap();
    assert_eq!(status, 200);

    // Another host: the node signs a certificate that names it.
    machine.stop();
    let text = std::fs::read_to_string(machine.config()).unwrap();
    let named = text.replace("# allowed_hosts = []", "allowed_hosts = [\"gate.example\"]");
    std::fs::write(machine.config(), named).unwrap();
    let before = std::fs::read(machine.dir.join("listener.pem")).unwrap();
    machine.start();
    until("another certificate is in use", || {
        let Ok((_, shown)) = ask_tls(machine.api, &ca, "/healthz") else {
            return false;
        };
        std::fs::read(machine.dir.join("listener.pem")).unwrap() != before
            && shown.windows(12).any(|w| w == b"gate.example")
    });

    // The operator's own files, replaced while it runs.
    machine.stop();
    let (cert, key) = (root.path().join("own.crt"), root.path().join("own.key"));
    let files = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), name.to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
    };
    files("first.example");
    let own = format!("tls = \"files\"\ncert_file = {cert:?}\nkey_file = {key:?}");
    std::fs::write(machine.config(), text.replacen("# tls = \"auto\"", &own, 2)).unwrap();
    machine.start();
    until("the first is shown", || ask_tls(machine.api, &cert, "/healthz").is_ok());
    files("second.example");
    until("the second is shown", || {
        let shown = ask_tls(machine.gateway, &cert, "/healthz").map(|(_, shown)| shown);
        shown.is_ok_and(|shown| shown.windows(14).any(|w| w == b"second.example"))
    });
    // What cannot be used is not: the one before stays.
    std::fs::write(&key, "nonsense").unwrap();
    until("it complains", || machine.logged().contains("could not be replaced"));
    assert!(ask_tls(machine.api, &cert, "/healthz").is_ok());
}

#[test]
fn every_fault_of_a_configuration_is_told_with_its_origin() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::new(root.path(), "node-1");
    done(&machine.init(&[]));
    let out = std::process::Command::new(mcpnode())
        .args(["serve", "--api-listen", "nowhere", "--config"])
        .arg(machine.config())
        .env("MCPNODE_TIMERS_LEASE_MS", "soon")
        .env("MCPLOCAL_HTTP_PORT", "99999")
        .output()
        .unwrap();
    let said = failed(&out);
    for part in [
        "has 3 faults",
        "\"nowhere\" from --api-listen",
        "\"soon\" from MCPNODE_TIMERS_LEASE_MS: must be 1 to",
        "MCPLOCAL_HTTP_PORT",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_paused_node_that_is_removed_admits_nobody_when_it_wakes() {
    let root = tempfile::tempdir().unwrap();
    let ([one, mut two, _three], session) = three_voters(root.path());
    let token = demo(&one, &session);
    until("the call goes through", || two.echo(&token) == 200);
    kill(two.pid(), Signal::SIGSTOP).unwrap();
    let removed = one.must("DELETE", "cluster/nodes/node-2", &session, &Value::Null);
    assert_eq!(removed["receipt"]["effective"], true, "{removed}");
    kill(two.pid(), Signal::SIGCONT).unwrap();
    assert!(matches!(two.echo(&token), 503 | 0), "it admits nobody");
    assert!(!two.ends());
    assert!(
        two.logged().contains("was removed from its cluster"),
        "{}",
        two.logged()
    );
}

#[test]
fn a_node_whose_log_was_damaged_is_let_go_and_taken_back_as_what_it_was() {
    let root = tempfile::tempdir().unwrap();
    let ([one, mut two, three], session) = three_voters(root.path());
    let token = demo(&one, &session);
    two.stop();
    let log = two.dir.join("raft-log.redb");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[..].fill(0xa5);
    std::fs::write(&log, bytes).unwrap();
    two.start();
    two.ready();
    assert!(two.logged().contains("has lost its log"), "{}", two.logged());
    voters(&three, &session, &["node-1", "node-2", "node-3"]);
    until("it serves again", || two.echo(&token) == 200);
}

#[test]
fn a_leader_is_removed_through_itself_and_another_one_has_led_before() {
    let root = tempfile::tempdir().unwrap();
    let ([mut one, two, three], session) = three_voters(root.path());
    let token = demo(&one, &session);
    let status = one.must("GET", "cluster/status", &session, &Value::Null);
    assert_eq!(status["leader"], status["node"], "the first one leads");
    let removed = one.must("DELETE", "cluster/nodes/node-1", &session, &Value::Null);
    assert_eq!(removed["receipt"]["effective"], true, "{removed}");
    assert!(matches!(one.echo(&token), 503 | 0), "it admits nobody");
    assert!(!one.ends());
    assert!(
        one.logged().contains("was removed from its cluster"),
        "{}",
        one.logged()
    );
    voters(&two, &session, &["node-2", "node-3"]);
    until("the others go on", || {
        two.echo(&token) == 200 && three.echo(&token) == 200
    });
    mint(&three, &session, "after");
}
