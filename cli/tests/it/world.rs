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
        said.has_three_lines_if_it_failed();
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
    /// What failed, why, what to do next: whatever any test runs.
    fn has_three_lines_if_it_failed(&self) {
        let starts = |start: &str| {
            self.err
                .lines()
                .any(|line| line.starts_with(start) && line.len() > start.len())
        };
        let failed = starts("error: ");
        assert!(
            !failed || starts("cause: ") && starts("next:  ") && self.code != 0,
            "{self:?}"
        );
        // Half a command gets help; can-i and diff answer with their exit code.
        let answers = self.err.contains("Usage: mcpctl") || self.code <= 2;
        assert!(failed || answers || self.err.is_empty(), "{self:?}");
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
