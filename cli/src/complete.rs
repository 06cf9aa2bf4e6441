//! Completion: the shell asks this program, so it knows every command there is, and the names that live in the cluster.
//! A shell that waits is worse than one that knows no names: the cluster has a moment to answer, and errors stay unsaid.

use std::ffi::OsStr;
use std::io::Write;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use serde_json::Value;

use crate::api::{Api, encoded};
use crate::args::{Cli, FORMATS, Global};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::kinds::{KINDS, Kind};
use crate::out;

/// The variable that a completion script sets to the shell's name.
pub(crate) const VARIABLE: &str = "_MCPCTL_COMPLETE";
/// Longest wait for names.
const WAIT: Duration = Duration::from_millis(1_500);
/// Most names that are offered.
const NAMES_MAX: usize = 500;

/// Answers a shell that wants completions, if it is one that asks.
pub(crate) fn answer() {
    clap_complete::CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .bin("mcpctl")
        .completer("mcpctl")
        .complete();
}

/// Prints the script that makes a shell ask.
pub(crate) fn script(shell: &str) -> Result<Exit, Failure> {
    let failed =
        |why: String| Failure::new(format!("cannot print the {shell} script"), why).next("mcpctl completion --help");
    let shells = Shells::builtins();
    let writer = shells
        .completer(shell)
        .ok_or_else(|| failed("unknown shell".to_owned()))?;
    let mut script = Vec::new();
    writer
        .write_registration(VARIABLE, "mcpctl", "mcpctl", "mcpctl", &mut script)
        .and_then(|()| script.flush())
        .map_err(|error| failed(error.to_string()))?;
    out::bytes(&script);
    Ok(Exit::Done)
}

/// Kinds, by their singular and plural names.
pub(crate) fn kinds() -> Vec<CompletionCandidate> {
    let names = KINDS.iter().flat_map(|about| [about.singular, about.plural]);
    let mut names: Vec<&str> = names.collect();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

pub(crate) fn formats() -> Vec<CompletionCandidate> {
    FORMATS.into_iter().map(CompletionCandidate::new).collect()
}

/// What can be asked of `auth can-i`.
pub(crate) fn verbs() -> Vec<CompletionCandidate> {
    let verbs = [
        "get", "run", "create", "update", "delete", "grant", "logs", "backup", "restore", "cluster", "exec",
    ];
    verbs.into_iter().map(CompletionCandidate::new).collect()
}

/// Contexts of the configuration.
pub(crate) fn contexts() -> Vec<CompletionCandidate> {
    let config = Config::load().unwrap_or_default();
    config
        .contexts
        .into_iter()
        .map(|c| CompletionCandidate::new(c.name))
        .collect()
}

pub(crate) fn projects() -> Vec<CompletionCandidate> {
    live(Kind::Projects)
}

pub(crate) fn servers() -> Vec<CompletionCandidate> {
    live(Kind::Servers)
}

pub(crate) fn users() -> Vec<CompletionCandidate> {
    live(Kind::Users)
}

pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    live(Kind::Nodes)
}

pub(crate) fn service_accounts() -> Vec<CompletionCandidate> {
    live(Kind::ServiceAccounts)
}

/// Names of the kind that stands on the command line before the word that is completed.
pub(crate) fn names(begun: &OsStr) -> Vec<CompletionCandidate> {
    // The shell hands the whole line over behind `--`: mcpctl VERB KIND …
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(2).collect();
    let kind = words
        .iter()
        .filter(|word| !word.starts_with('-'))
        .find_map(|word| word.parse::<Kind>().ok());
    let begun = begun.to_string_lossy();
    let fits = |candidate: &CompletionCandidate| candidate.get_value().to_string_lossy().starts_with(begun.as_ref());
    kind.map(live).unwrap_or_default().into_iter().filter(fits).collect()
}

fn live(kind: Kind) -> Vec<CompletionCandidate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let asked = async { tokio::time::timeout(WAIT, ask(kind)).await };
    match runtime.block_on(asked) {
        Ok(Ok(names)) => names.into_iter().map(CompletionCandidate::new).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn ask(kind: Kind) -> Result<Vec<String>, Failure> {
    let (global, project) = said();
    let api = Api::of(&global)?;
    // Tools are found by their servers.
    let of = if kind == Kind::Tools { Kind::Servers } else { kind };
    let mut path = format!("{}?limit={NAMES_MAX}", of.plural());
    if let (Kind::McpTokens, Some(project)) = (kind, &project) {
        path.push_str(&format!("&project={}&status=active", encoded(project)));
    }
    let list: Value = api.get("complete", &path).await?;
    let key = match kind {
        Kind::Users => "email",
        Kind::Sessions => "id",
        _ => "name",
    };
    let name = |item: &Value| {
        let name = item[key].as_str()?;
        match (kind, &project, item["project"].as_str()) {
            (Kind::McpTokens, None, Some(project)) => Some(format!("{project}/{name}")),
            _ => Some(name.to_owned()),
        }
    };
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(name).collect())
}

/// What the line that is being written says about the cluster and the project: as much as can be read of it.
fn said() -> (Global, Option<String>) {
    #[derive(Parser)]
    struct Nothing {
        #[command(flatten)]
        global: Global,
    }
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let after = |flags: [&str; 2]| {
        let at = words.iter().position(|word| flags.contains(&word.as_str()))?;
        words.get(at + 1).filter(|word| !word.is_empty()).cloned()
    };
    let mut line = vec!["mcpctl".to_owned()];
    for flag in ["--api", "--context", "--cacert"] {
        line.extend(
            after([flag, flag])
                .into_iter()
                .flat_map(|value| [flag.to_owned(), value]),
        );
    }
    let line_names_context = after(["--context", "--context"]).is_some() && after(["--api", "--api"]).is_none();
    let global = Nothing::try_parse_from(line).map_or_else(
        |_| Global {
            api: Vec::new(),
            context: None,
            cacert: None,
            context_rules: false,
        },
        |nothing| Global {
            context_rules: line_names_context,
            ..nothing.global
        },
    );
    let project = after(["-p", "--project"]).or_else(|| std::env::var("MCPCTL_PROJECT").ok().filter(|p| !p.is_empty()));
    (global, project)
}
