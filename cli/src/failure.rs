//! What the user is told when something fails: what, why, and what to do next; and the exit code for their script.

use std::fmt::Write as _;

use mcp_api::Problem;
use mcp_api::problem::Code;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// It failed; or the answer is no.
    Error,
    /// The command line makes no sense.
    Usage,
    /// There is no such object.
    NotFound,
    /// Not logged in, or not allowed.
    NotAllowed,
    /// No leader: nothing was changed.
    NoLeader,
    /// Outcome unknown, or committed and not yet effective everywhere. Safe to repeat.
    Uncertain,
    /// `test mcp`: the server broke the contract.
    Contract,
    /// `test mcp`: the command line makes no sense.
    TestUsage,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Usage | Exit::Contract => 2,
            Exit::NotFound => 3,
            Exit::NotAllowed => 4,
            Exit::NoLeader => 5,
            Exit::Uncertain => 6,
            Exit::TestUsage => 64,
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: String,
    next: Option<String>,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            why: why.into(),
            next: None,
            exit: Exit::Error,
        }
    }

    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure::new(what, why).with_exit(Exit::Usage)
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn with_exit(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What the API answered instead of what `what` says was wanted.
    pub(crate) fn of_problem(what: &str, problem: &Problem) -> Failure {
        let mut why = problem.detail.clone();
        if problem.errors.len() > 1 {
            for fault in &problem.errors {
                write!(why, "\n  {}: {}", fault.field, fault.detail).expect("a text takes text");
            }
        }
        let failure = Failure::new(format!("cannot {what}"), why).with_exit(exit_of(problem));
        match &problem.hint {
            Some(hint) => failure.next(hint.strip_prefix("run: ").unwrap_or(hint)),
            None => failure,
        }
    }

    /// Prints the three lines to stderr.
    pub(crate) fn print(&self) {
        eprintln!("error: {}", self.what);
        eprintln!("cause: {}", self.why);
        if let Some(next) = &self.next {
            eprintln!("next:  {next}");
        }
    }
}

fn exit_of(problem: &Problem) -> Exit {
    let Some(code) = Code::parse(&problem.code) else {
        return Exit::Error;
    };
    match code {
        Code::NotAuthenticated
        | Code::BadCredentials
        | Code::Forbidden
        | Code::HostNotAllowed
        | Code::OriginNotAllowed => Exit::NotAllowed,
        Code::NotFound => Exit::NotFound,
        Code::NoLeader | Code::NoLease | Code::NotProposed | Code::IndexNotReached => Exit::NoLeader,
        Code::OutcomeUnknown => Exit::Uncertain,
        Code::BadRequest
        | Code::NoSuchRoute
        | Code::MethodNotAllowed
        | Code::NameTaken
        | Code::WouldLoseQuorum
        | Code::VersionMismatch
        | Code::TooLarge
        | Code::UnsupportedMediaType
        | Code::Invalid
        | Code::TooManyRequests
        | Code::StoreFailed => Exit::Error,
    }
}
