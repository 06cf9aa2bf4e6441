//! What the user is told when something fails: what, why, and what to do next; and the exit code for their script.
//!
//! The form is fixed, so that people find their way in it and scripts can rely on it:
//!
//! ```text
//! error: what failed
//! cause: why
//!   field: what is wrong with it       (only where several faults are reported at once, one line each)
//! next:  what to do, a command that can be pasted wherever there is one
//! ```
//!
//! A single fault is exactly three lines. Whatever a text from elsewhere holds, it adds no line and moves no cursor. It is the last that
//! the program writes, and nothing on stdout belongs to it.

use std::fmt::Write as _;

use mcp_api::Problem;
use mcp_api::problem::Code;

use crate::kinds::Kind;
use crate::show::printable;

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
    faults: Vec<String>,
    next: String,
    exit: Exit,
}

/// Two of the three lines.
pub(crate) struct Unfinished {
    what: String,
    why: String,
    faults: Vec<String>,
    exit: Exit,
}

impl Unfinished {
    /// Several faults that are reported at once, a line for each below the cause. A single one is told by the cause alone.
    pub(crate) fn faults(mut self, faults: Vec<String>) -> Unfinished {
        debug_assert!(faults.len() > 1, "one fault is a cause: {faults:?}");
        self.faults = faults;
        self
    }

    /// What to do next: a command that can be pasted, wherever there is one.
    pub(crate) fn next(self, next: impl Into<String>) -> Failure {
        Failure {
            what: self.what,
            why: self.why,
            faults: self.faults,
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
            faults: Vec::new(),
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
        let mut failure = Failure::new(format!("cannot {what}"), problem.detail.clone());
        if problem.errors.len() > 1 {
            let faults = problem.errors.iter();
            failure = failure.faults(
                faults
                    .map(|fault| format!("{}: {}", fault.field, fault.detail))
                    .collect(),
            );
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
        failure.next(next).with_exit(exit_of(problem))
    }

    /// Prints the three lines to stderr.
    pub(crate) fn print(&self) {
        eprint!("{}", self.lines());
    }

    fn lines(&self) -> String {
        let mut text = format!("error: {}\ncause: {}\n", one_line(&self.what), one_line(&self.why));
        for fault in &self.faults {
            writeln!(text, "  {}", one_line(fault)).expect("a text takes text");
        }
        writeln!(text, "next:  {}", one_line(&self.next)).expect("a text takes text");
        text
    }
}

/// What comes from libraries, servers and users may have lines of its own.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    printable(&lines.collect::<Vec<_>>().join(" "))
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
        _ => format!("{} --help", crate::command()),
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
        | Code::HostMisdirected
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_elsewhere_adds_no_line() {
        let failure = Failure::new("cannot\nget", "one\r\n\n  two\u{1b}[2Jthree").next("a\nb");
        assert_eq!(
            failure.lines(),
            "error: cannot get\ncause: one two [2Jthree\nnext:  a b\n"
        );
        let failure = Failure::usage("cannot apply", "2 faults")
            .faults(vec!["a: x\ny".to_owned(), "b: z".to_owned()])
            .next("mcpctl explain project");
        assert_eq!(
            failure.lines(),
            "error: cannot apply\ncause: 2 faults\n  a: x y\n  b: z\nnext:  mcpctl explain project\n"
        );
    }
}
