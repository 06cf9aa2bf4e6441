//! Machines: processes of `mcpnode` with a data directory each, and a client that talks to their APIs.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::{mcpnode, until};

pub(crate) const ADMIN: &str = "ops@example.com";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A machine: where it is, and its process while it runs.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) gateway: u16,
    pub(crate) api: u16,
    pub(crate) peers: u16,
    log: PathBuf,
    child: Option<Child>,
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

impl Machine {
    pub(crate) fn new(root: &Path, name: &str) -> Machine {
        let [gateway, api, peers] = [free_port(), free_port(), free_port()];
        Machine {
            name: name.to_owned(),
            dir: root.join(name),
            gateway,
            api,
            peers,
            log: root.join(format!("{name}.log")),
            child: None,
        }
    }

    /// The flags that say where it is.
    pub(crate) fn flags(&self) -> Vec<String> {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut flags = vec!["--data-dir".to_owned(), self.dir.display().to_string()];
        for (flag, value) in [
            ("--name", self.name.clone()),
            ("--gateway-listen", at(self.gateway)),
            ("--api-listen", at(self.api)),
            ("--peer-listen", at(self.peers)),
        ] {
            flags.extend([flag.to_owned(), value]);
        }
        flags
    }

    pub(crate) fn init(&self, more: &[&str]) -> Output {
        run(&[&["init", "--admin-email", ADMIN], more].concat(), &self.flags())
    }

    /// Runs `mcpnode join` to its end: it fails, or was told not to start.
    pub(crate) fn join(&self, at: &str, token: &Path, more: &[&str]) -> Output {
        let token = token.display().to_string();
        run(&[&["join", at, "--token-file", &token], more].concat(), &self.flags())
    }

    /// Joins, and runs on.
    pub(crate) fn join_and_run(&mut self, at: &str, token: &Path) {
        let mut args = vec![
            "join".to_owned(),
            at.to_owned(),
            "--token-file".to_owned(),
            token.display().to_string(),
        ];
        args.extend(["--tls".to_owned(), "off".to_owned()]);
        args.extend(self.flags());
        self.spawn(&args, &[]);
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[], &[]);
    }

    /// With flags and variables beside its file. Gives how much its log holds already.
    pub(crate) fn start_with(&mut self, flags: &[&str], env: &[(&str, &str)]) -> usize {
        let before = self.logged().len();
        let config = self.config().display().to_string();
        let args = [&["serve", "--config", &config], flags].concat();
        self.spawn(&args.into_iter().map(str::to_owned).collect::<Vec<_>>(), env);
        before
    }

    fn spawn(&mut self, args: &[String], env: &[(&str, &str)]) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(mcpnode())
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("mcpnode.toml")
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn ready(&mut self) {
        let (name, api) = (self.name.clone(), self.api);
        until(&format!("{name} holds a lease"), || {
            if let Some(ended) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("{name} ended ({ended}):\n{}", self.logged());
            }
            matches!(ask(api, "GET", "/readyz", None, None), Some((200, _)))
        });
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        assert!(self.ends(), "{}", self.logged());
    }

    /// Waits until the process has ended by itself, and says whether all was well.
    pub(crate) fn ends(&mut self) -> bool {
        let mut ended = None;
        until(&format!("{} ends", self.name), || {
            ended = self.child.as_mut().unwrap().try_wait().unwrap();
            ended.is_some()
        });
        self.child = None;
        ended.unwrap().success()
    }

    /// Starts it, and gives what it says before it gives up.
    pub(crate) fn fails_to_start(&mut self) -> String {
        let before = self.logged().len();
        self.start();
        assert!(!self.ends(), "it starts:\n{}", self.logged());
        self.logged()[before..].to_owned()
    }

    pub(crate) fn peers_at(&self) -> String {
        format!("127.0.0.1:{}", self.peers)
    }

    /// Sets the first password, and gives the session.
    pub(crate) fn set_up(&self) -> String {
        let secret = std::fs::read_to_string(self.dir.join("setup.secret")).unwrap();
        let body = json!({"email": ADMIN, "setupSecret": secret.trim(), "password": PASSWORD});
        let (status, answer) = self.send("POST", "auth/setup", None, Some(&body));
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn send(&self, method: &str, path: &str, session: Option<&str>, body: Option<&Value>) -> Answer {
        let mut answer = None;
        until(&format!("{} answers {method} {path}", self.name), || {
            answer = ask(self.api, method, &format!("/api/v1/{path}"), session, body);
            // Without a leader or a lease it says to come back.
            answer.as_ref().is_some_and(|(status, _)| *status != 503)
        });
        answer.unwrap()
    }

    /// What a path outside of the API says to everybody, as it stands on the wire.
    pub(crate) fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).unwrap();
        stream
            .write_all(request("GET", path, None, None, None).as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn must(&self, method: &str, path: &str, session: &str, body: &Value) -> Value {
        let body = (method != "GET").then_some(body);
        let (status, answer) = self.send(method, path, Some(session), body);
        assert!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        answer
    }

    /// The same under an idempotency key.
    pub(crate) fn keyed(&self, method: &str, path: &str, session: &str, key: &str, body: &Value) -> Value {
        let request = request(method, &format!("/api/v1/{path}"), Some(session), Some(key), Some(body));
        let mut answer = None;
        until(&format!("{} answers {method} {path}", self.name), || {
            answer = exchange(self.api, &request);
            answer.as_ref().is_some_and(|(status, _)| *status != 503)
        });
        let (status, answer) = answer.unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        answer
    }

    /// Writes a join token into a file.
    pub(crate) fn join_token(&self, session: &str, body: &Value, file: &Path) {
        let answer = self.must("POST", "cluster/join-tokens", session, body);
        std::fs::write(file, answer["token"].as_str().unwrap()).unwrap();
    }

    /// Members as this machine sees them: name and role.
    pub(crate) fn members(&self, session: &str) -> Vec<(String, String)> {
        let status = self.must("GET", "cluster/status", session, &Value::Null);
        let members = status["members"].as_array().unwrap().iter();
        let text = |m: &Value, key: &str| m[key].as_str().unwrap_or_default().to_owned();
        members.map(|m| (text(m, "name"), text(m, "role"))).collect()
    }

    /// One call of the demo's `echo`; the HTTP status.
    pub(crate) fn echo(&self, token: &str) -> u16 {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "echo", "arguments": {"message": "hi"}}});
        ask(self.gateway, "POST", "/projects/demo/mcp", Some(token), Some(&body)).map_or(0, |(status, _)| status)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap_or(());
            if let Err(error) = child.wait() {
                eprintln!("waiting for {}: {error}", self.name);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.logged());
        }
    }
}

fn run(args: &[&str], flags: &[String]) -> Output {
    Command::new(mcpnode())
        .args(args)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command said that failed.
#[track_caller]
pub(crate) fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

#[track_caller]
pub(crate) fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    format!("{}{said}", String::from_utf8_lossy(&output.stdout))
}

/// Nobody else reads it.
pub(crate) fn is_private(file: &Path) -> bool {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o077 == 0
}

/// Not one that the system hands out itself, and never the same twice in this process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + u16::try_from(std::process::id() % 15_000).unwrap();
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn request(method: &str, path: &str, bearer: Option<&str>, key: Option<&str>, body: Option<&Value>) -> String {
    let body = body.map(Value::to_string);
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    if let Some(bearer) = bearer {
        text.push_str(&format!("Authorization: Bearer {bearer}\r\n"));
    }
    if let Some(key) = key {
        text.push_str(&format!("Idempotency-Key: {key}\r\n"));
    }
    if let Some(body) = &body {
        let head = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        text.push_str(&format!("{head}Content-Length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{}", body.unwrap_or_default())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Asks once. `None`: there was no answer.
pub(crate) fn ask(port: u16, method: &str, path: &str, bearer: Option<&str>, body: Option<&Value>) -> Option<Answer> {
    exchange(port, &request(method, path, bearer, None, body))
}

fn exchange(port: u16, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    parse(&answer)
}

/// Asks once over TLS, trusting `ca` alone. Gives the answer and the certificate that was shown.
pub(crate) fn ask_tls(port: u16, ca: &Path, path: &str) -> Result<(Answer, CertificateDer<'static>), String> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = CertificateDer::from_pem_file(ca).map_err(|e| e.to_string())?;
    roots.add(pem).map_err(|e| e.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let text = request("GET", path, None, None, None);
    stream.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    // A server may leave without saying goodbye.
    let read = stream.read_to_end(&mut answer);
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).cloned();
    let answer = parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| format!("{read:?}"))?;
    Ok((answer, shown.unwrap()))
}
