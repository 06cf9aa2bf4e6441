//! `mcpnode dev`: one command, three replicas, and the same three again.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{mcpnode, until};

struct Dev {
    child: Child,
    env: HashMap<String, String>,
}

impl Dev {
    fn start(dir: &Path, flags: &[&str]) -> Dev {
        let (env_file, ready) = (dir.join("dev.env"), dir.join("ready"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("dev.log"))
            .unwrap();
        let child = Command::new(mcpnode())
            .arg("dev")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--env-file")
            .arg(&env_file)
            .arg("--ready-file")
            .arg(&ready)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dev = Dev {
            child,
            env: HashMap::new(),
        };
        until("the cluster is ready", || {
            let ended = dev.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{}",
                std::fs::read_to_string(dir.join("dev.log")).unwrap()
            );
            ready.exists()
        });
        let text = std::fs::read_to_string(&env_file).unwrap();
        for line in text.lines() {
            let (name, value) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
            dev.env.insert(name.to_owned(), value.trim_matches('\'').to_owned());
        }
        dev
    }

    fn urls(&self) -> Vec<String> {
        self.env["MCP_URLS"].split(' ').map(str::to_owned).collect()
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let mut ended = None;
        until("dev has stopped", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(ended.unwrap().success());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Stopped already, or a test failed.
        self.child.kill().unwrap_or(());
        if let Err(error) = self.child.wait() {
            eprintln!("waiting for dev: {error}");
        }
    }
}

/// One call of `echo`; the status line and the body.
fn echo(url: &str, token: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hi there"}}}"#;
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn three_replicas_answer_and_the_same_token_works_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--replicas", "3"]);
    assert_eq!(dev.urls().len(), 3);
    let token = dev.env["MCP_TOKEN"].clone();
    for url in dev.urls() {
        let (status, body) = echo(&url, &token);
        assert!(status.contains("200") && body.contains("hi there"), "{status} {body}");
        let (status, _) = echo(&url, &token.replace("pat_", "ses_"));
        assert!(status.contains("401"), "{status}");
    }
    dev.stop();
    assert!(!dir.path().join("ready").exists(), "a stopped cluster is not ready");
    let dev = Dev::start(dir.path(), &["--replicas", "3"]);
    assert_eq!(dev.env["MCP_TOKEN"], token);
    for url in dev.urls() {
        assert!(echo(&url, &token).0.contains("200"));
    }
    dev.stop();
}

#[test]
fn a_replica_in_its_own_process_can_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--replicas", "3", "--processes"]);
    let pids: Vec<i32> = dev.env["MCPNODE_PIDS"].split(',').map(|p| p.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    let (urls, token) = (dev.urls(), dev.env["MCP_TOKEN"].clone());
    for url in &urls[1..] {
        until("a survivor answers", || echo(url, &token).0.contains("200"));
    }
    dev.stop();
    for pid in pids {
        until("no replica is left", || kill(Pid::from_raw(pid), None).is_err());
    }
}

#[test]
fn another_number_of_replicas_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Dev::start(dir.path(), &["--replicas", "1"]).stop();
    let out = Command::new(mcpnode())
        .args(["dev", "--replicas", "3", "--data-dir"])
        .arg(dir.path().join("data"))
        .output();
    let out = out.unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("--replicas 1"), "{said}");
}

#[test]
fn a_missing_configuration_says_what_to_do() {
    let out = Command::new(mcpnode())
        .args(["serve", "--config", "/nowhere/mcpnode.toml"])
        .output()
        .unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        said.contains("/nowhere/mcpnode.toml") && said.contains("--config"),
        "{said}"
    );
}
