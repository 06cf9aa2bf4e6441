//! A node with its API on a socket, and a home directory for `mcpctl`.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use axum::Router;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::node::Node;

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) url: String,
    home: TempDir,
    session: Option<String>,
    runtime: Runtime,
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// A world in which the administrator's session stands in the environment.
    pub(crate) fn new() -> World {
        let node = Node::start();
        let runtime = Runtime::new().unwrap();
        let url = serve(&runtime, node.router());
        let session = Some(node.session.clone());
        World {
            node,
            url,
            home: tempfile::tempdir().unwrap(),
            session,
            runtime,
        }
    }

    /// The same without a session.
    pub(crate) fn without_session() -> World {
        World {
            session: None,
            ..World::new()
        }
    }

    /// Serves something else beside the API and gives its URL.
    pub(crate) fn serve(&self, router: Router) -> String {
        serve(&self.runtime, router)
    }

    /// The URL of a socket that takes connections and never answers: a frozen process.
    pub(crate) fn frozen(&self) -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    /// Runs `mcpctl` with the node's URL in the environment.
    pub(crate) fn run(&self, line: &str) -> Said {
        self.run_at(&self.url, line)
    }

    pub(crate) fn run_at(&self, servers: &str, line: &str) -> Said {
        self.run_with(&[("MCPCTL_SERVER", servers)], &words(line), "")
    }

    pub(crate) fn run_with(&self, env: &[(&str, &str)], args: &[String], input: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpctl"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("COLUMNS", "120");
        if let Some(session) = &self.session {
            command.env("MCPCTL_SESSION", session);
        }
        command.envs(env.iter().copied());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails before it needs any input is gone before it could read it.
        match child.stdin.take().unwrap().write_all(input.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
        let done = child.wait_with_output().unwrap();
        let said = Said {
            code: done.status.code().unwrap(),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        };
        said.is_well_told(args);
        said
    }

    /// The administrator's session.
    pub(crate) fn session(&self) -> &str {
        &self.node.session
    }

    /// The home directory.
    pub(crate) fn home(&self) -> &str {
        self.home.path().to_str().unwrap()
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.home.path().join(".config/mcpctl/config.yaml")
    }
}

impl Said {
    /// Whatever any test runs: it did what was asked, or it says what failed, why, and what to do next, as [`assert_told`] has it. Two
    /// commands answer by their exit code: `auth can-i` says no, and `diff` that there are differences.
    #[track_caller]
    fn is_well_told(&self, args: &[String]) {
        let said = self.err.lines().any(|line| line.starts_with("error:"));
        if self.code == 0 {
            assert!(!said, "an error, and yet it is done: {args:?}: {self:?}");
            return;
        }
        let asks = |word: &str| args.iter().any(|arg| arg == word);
        if self.code == 1 && !said && (asks("can-i") || asks("diff")) {
            return;
        }
        assert_told(&self.err);
    }

    /// Checks the exit code and that nothing was complained about.
    #[track_caller]
    pub(crate) fn done(self) -> Said {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Checks the exit code and the three lines of a failure.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, what: &str, why: &str, next: &str) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self.err.lines().collect();
        let has = |start: &str, part: &str| lines.iter().any(|l| l.starts_with(start) && l.contains(part));
        assert!(has("error: ", what) && has("cause: ", why), "{self:?}");
        assert!(next.is_empty() || has("next:  ", next), "{self:?}");
        assert_eq!(self.out, "", "a failure says nothing on stdout");
        self
    }
}

/// The form of every error, line by line: `error:`, `cause:`, `next:`; between the last two a line for each fault, where several are
/// reported at once and the cause says how many. It is the end of what is said, and said once.
#[track_caller]
pub(crate) fn assert_told(err: &str) {
    let lines: Vec<&str> = err.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("error:"));
    let block = &lines[at.unwrap_or_else(|| panic!("failed without an error: {err:?}"))..];
    let tells = |line: &str, start: &str| line.strip_prefix(start).is_some_and(|rest| !rest.trim().is_empty());
    let [what, why, faults @ .., next] = block else {
        panic!("fewer than three lines: {err}");
    };
    assert!(tells(what, "error: "), "what failed? {err}");
    assert!(tells(why, "cause: "), "why? {err}");
    assert!(tells(next, "next:  "), "what to do next, and nothing after it? {err}");
    for fault in faults {
        let text = fault.strip_prefix("  ").unwrap_or_default();
        assert!(
            !text.is_empty() && !text.starts_with(' '),
            "{fault:?} is no fault: {err}"
        );
    }
    if !faults.is_empty() {
        let counted = why.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        assert_eq!(counted, Some(faults.len()), "as many faults as the cause says: {err}");
        assert!(faults.len() > 1, "a single fault is three lines: {err}");
    }
}

/// Splits a line at spaces, except within single quotes.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn serve(runtime: &Runtime, router: Router) -> String {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    runtime.spawn(async move { axum::serve(listener, service).await.unwrap() });
    url
}
