//! What the user is told when something fails: what, why, and what to do next; and the exit code for their script.

use std::fmt::Write as _;

use mcp_api::Problem;
use mcp_api::problem::Code;

use crate::kinds::Kind;

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
    /// Waited long enough.
    TimedOut,
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
            Exit::TimedOut => 124,
        }
    }
}

/// A command that failed: three lines. There is none without the third.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: String,
    next: String,
    exit: Exit,
}

/// Two of the three lines.
pub(crate) struct Unfinished {
    what: String,
    why: String,
    exit: Exit,
}

impl Unfinished {
    /// What to do next: a command that can be pasted, wherever there is one.
    pub(crate) fn next(self, next: impl Into<String>) -> Failure {
        Failure {
            what: self.what,
            why: self.why,
            next: next.into(),
            exit: self.exit,
        }
    }
}

impl Failure {
    // Not a `Failure` yet: the third line is missing.
    #[allow(clippy::new_ret_no_self, reason = "a failure begins here and ends with `next`")]
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Unfinished {
        Unfinished {
            what: what.into(),
            why: why.into(),
            exit: Exit::Error,
        }
    }

    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Unfinished {
        Unfinished {
            exit: Exit::Usage,
            ..Failure::new(what, why)
        }
    }

    /// The same with another way out.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = next.into();
        self
    }

    pub(crate) fn with_exit(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    /// Why it failed.
    pub(crate) fn why(&self) -> &str {
        &self.why
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
        let waits = matches!(
            Code::parse(&problem.code),
            Some(Code::NoLeader | Code::NoLease | Code::NotProposed | Code::IndexNotReached)
        );
        let next = match &problem.hint {
            _ if waits => "mcpctl cluster status (or run the command again in a moment)".to_owned(),
            Some(hint) => hint.strip_prefix("run: ").unwrap_or(hint).to_owned(),
            None => way_out(what, problem),
        };
        Failure::new(format!("cannot {what}"), why)
            .next(next)
            .with_exit(exit_of(problem))
    }

    /// Prints the three lines to stderr.
    pub(crate) fn print(&self) {
        eprintln!("error: {}", self.what);
        eprintln!("cause: {}", self.why);
        eprintln!("next:  {}", self.next);
    }
}

/// What helps where the API gives no hint.
fn way_out(what: &str, problem: &Problem) -> String {
    let verb = what.split_whitespace().next().unwrap_or_default();
    let kind = what
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<Kind>().ok());
    match (Code::parse(&problem.code), kind) {
        (Some(Code::NotAuthenticated | Code::BadCredentials), _) => "mcpctl login".to_owned(),
        (Some(Code::Forbidden), _) => "mcpctl whoami".to_owned(),
        (Some(Code::Invalid), Some(kind)) if ["create", "change", "edit"].contains(&verb) => {
            format!("mcpctl explain {}", kind.singular())
        }
        (_, Some(kind)) => format!("mcpctl get {}", kind.plural()),
        _ => "mcpctl --help".to_owned(),
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
