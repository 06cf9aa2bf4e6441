//! `mcpctl edit`: the object in an editor, written back only over the version that was read.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use mcp_api::Problem;
use mcp_api::problem::Code;
use mcp_api::write::Written;
use reqwest::Method;
use serde_json::Value;

use crate::api::{Answer, Api, encoded};
use crate::apply::change_of;
use crate::args::{EditArgs, Global};
use crate::config::write_private;
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::manifest::{self, Manifest};
use crate::receipts::Report;
use crate::{get, out, show};

/// Begins every line that is for the reader alone.
const COMMENT: &str = "# ";

pub(crate) async fn edit(global: &Global, args: &EditArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, args.name.as_slice())?;
    let kind = target.kind;
    let [name] = target.names.as_slice() else {
        let why = format!("name one {}", kind.singular());
        return Err(Failure::usage("cannot edit", why).next(format!("mcpctl get {}", kind.plural())));
    };
    if !kind.takes("edit") {
        return Err(not_editable(kind, name));
    }
    let api = Api::of(global)?.waiting(&args.waiting);
    let mut session = Session::begin(&api, kind, name).await?;
    loop {
        match session.round(&api).await? {
            Round::Done(exit) => return Ok(exit),
            Round::Again(faults) => session.faults = faults,
        }
    }
}

fn not_editable(kind: Kind, name: &str) -> Failure {
    let (why, next) = match kind {
        Kind::McpTokens => (
            "tokens are immutable",
            format!("mcpctl create mcptoken {name} -p PROJECT --force"),
        ),
        Kind::Secrets => (
            "its values cannot be read back",
            format!("mcpctl rotate secret {name} --key KEY"),
        ),
        _ => (
            "it is not written by hand",
            format!("mcpctl describe {} {name}", kind.singular()),
        ),
    };
    Failure::usage(format!("cannot edit {} {name:?}", kind.singular()), why).next(next)
}

/// One object in one editor.
struct Session {
    kind: Kind,
    name: String,
    what: String,
    version: String,
    /// What was read.
    before: Value,
    /// What stands in the file, without comments.
    text: String,
    faults: Vec<String>,
    path: PathBuf,
}

enum Round {
    Done(Exit),
    /// The file is opened again, with what is wrong.
    Again(Vec<String>),
}

impl Session {
    async fn begin(api: &Api, kind: Kind, name: &str) -> Result<Session, Failure> {
        let what = format!("edit {} {name:?}", kind.singular());
        let (before, version) = read(api, kind, name, &what).await?;
        let text = show::manifest(kind, name, &before)?;
        let path = std::env::temp_dir().join(format!("mcpctl-{}-{}.yaml", kind.singular(), crate::api::random_key()?));
        Ok(Session {
            kind,
            name: name.to_owned(),
            what,
            version,
            before,
            text,
            faults: Vec::new(),
            path,
        })
    }

    async fn round(&mut self, api: &Api) -> Result<Round, Failure> {
        let opened = self.text.clone();
        self.open()?;
        if self.text.trim().is_empty() {
            return self.give_up("the file was emptied");
        }
        if self.text == opened {
            return match self.faults.first() {
                Some(fault) => self.give_up(&fault.clone()),
                None => self.leave("unchanged"),
            };
        }
        let manifest = match self.parse() {
            Ok(manifest) => manifest,
            Err(faults) => return Ok(Round::Again(faults)),
        };
        if manifest.spec == self.before {
            return self.leave("unchanged");
        }
        let (method, body) = change_of(self.kind, manifest.spec);
        match self.send(api, method, &body).await {
            Ok(Ok(answer)) => {
                self.leave("configured")?;
                if answer.body.receipt.is_none() && api.waits() {
                    return Ok(Round::Done(Exit::Done));
                }
                let report = Report {
                    what: format!("{} {:?} changed", self.kind.singular(), self.name),
                    word: "effective",
                    again: format!(
                        "mcpctl get {} {} -o yaml | mcpctl apply -f -",
                        self.kind.singular(),
                        self.name
                    ),
                    receipt: answer.body.receipt.as_ref(),
                    waited: api.waits(),
                };
                report.print().map(Round::Done)
            }
            Ok(Err(problem)) => self.refused(api, &problem).await,
            Err(failure) => Err(failure.next(self.kept())),
        }
    }

    async fn send(
        &self,
        api: &Api,
        method: Method,
        body: &Value,
    ) -> Result<Result<Answer<Written<Value>>, Problem>, Failure> {
        let path = format!("{}/{}", self.kind.plural(), encoded(&self.name));
        api.write_over(&self.what, method, &path, body, &self.version).await
    }

    /// What the API refuses is shown in the file; what somebody else changed meanwhile, too.
    async fn refused(&mut self, api: &Api, problem: &Problem) -> Result<Round, Failure> {
        match Code::parse(&problem.code) {
            Some(Code::VersionMismatch) => {
                let (now, version) = read(api, self.kind, &self.name, &self.what).await?;
                self.version = version;
                let mut lines = vec![
                    "somebody changed it in the meantime; it is now as below. Save again to write over that".to_owned(),
                ];
                lines.extend(
                    show::manifest(self.kind, &self.name, &now)?
                        .lines()
                        .map(|line| format!("    {line}")),
                );
                self.before = now;
                // Saving once more is enough to go on.
                self.text.push('\n');
                Ok(Round::Again(lines))
            }
            Some(Code::Invalid | Code::BadRequest) => {
                let faults = problem
                    .errors
                    .iter()
                    .map(|fault| format!("{}: {}", fault.field, fault.detail));
                let mut faults: Vec<String> = faults.collect();
                if faults.is_empty() {
                    faults.push(problem.detail.clone());
                }
                Ok(Round::Again(faults))
            }
            _ => Err(Failure::of_problem(&self.what, problem).next(self.kept())),
        }
    }

    fn open(&mut self) -> Result<(), Failure> {
        let comments = self.faults.iter().map(|fault| format!("error: {fault}"));
        let first = "Saved and changed, this is written back; emptied or unchanged, nothing happens.".to_owned();
        let head: String = std::iter::once(first)
            .chain(comments)
            .map(|line| format!("{COMMENT}{line}\n"))
            .collect();
        let failed = |why: String| Failure::new(format!("cannot {}", self.what), why);
        let written =
            remove(&self.path).and_then(|()| write_private(&self.path, format!("{head}{}", self.text).as_bytes()));
        written.map_err(|e| failed(format!("{}: {e}", self.path.display())).next("export TMPDIR=$HOME"))?;
        let set = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
        let editor = set("VISUAL")
            .or_else(|| set("EDITOR"))
            .unwrap_or_else(|| "vi".to_owned());
        // The shell takes `code --wait` apart; the file's name is no part of what it reads.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$1\""))
            .arg("sh")
            .arg(&self.path)
            .status();
        let ended = |why: String| {
            failed(format!("the editor {editor:?} {why}"))
                .next(format!("EDITOR=nano mcpctl {}", self.what.replace('"', "")))
        };
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(ended(format!("ended with {status}"))),
            Err(error) => return Err(ended(format!("cannot be started: {error}"))),
        }
        let text = std::fs::read_to_string(&self.path).map_err(|e| failed(e.to_string()).next("try again"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        self.text = lines.map(|line| format!("{line}\n")).collect();
        Ok(())
    }

    fn parse(&self) -> Result<Manifest, Vec<String>> {
        let (mut documents, mut faults) = (Vec::new(), Vec::new());
        manifest::read_text("the file", &self.text, &mut documents, &mut faults);
        let many = documents.len() != 1 && faults.is_empty();
        let manifest = documents
            .pop()
            .and_then(|document| manifest::one(document, &mut faults));
        let mut lines: Vec<String> = faults.iter().map(manifest::Fault::short).collect();
        if many {
            lines.push("there must be exactly one document".to_owned());
        }
        match manifest {
            Some(manifest) if lines.is_empty() && (manifest.kind, &manifest.name) == (self.kind, &self.name) => {
                Ok(manifest)
            }
            Some(_) if lines.is_empty() => Err(vec![format!(
                "it must stay {}/{}: nothing is renamed",
                self.kind.singular(),
                self.name
            )]),
            _ => Err(lines),
        }
    }

    fn leave(&self, word: &str) -> Result<Round, Failure> {
        remove(&self.path)
            .map_err(|e| Failure::new("cannot remove the edited copy", e.to_string()).next(self.kept()))?;
        out::line(&format!("{}/{} {word}", self.kind.singular(), self.name));
        Ok(Round::Done(Exit::Done))
    }

    fn give_up(&self, why: &str) -> Result<Round, Failure> {
        Err(Failure::new(format!("cannot {}", self.what), format!("nothing was changed: {why}")).next(self.kept()))
    }

    /// What was written is not lost.
    fn kept(&self) -> String {
        format!("mcpctl apply -f {}", self.path.display())
    }
}

async fn read(api: &Api, kind: Kind, name: &str, what: &str) -> Result<(Value, String), Failure> {
    let body: Value = api.get(what, &format!("{}/{}", kind.plural(), encoded(name))).await?;
    let version = body["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Ok((manifest::full(kind, &body), version))
}

fn remove(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::io::stdout().flush(),
    }
}
