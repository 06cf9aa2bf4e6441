//! `mcpctl apply` and `mcpctl diff`.

use std::path::{Path, PathBuf};

use mcp_api::tokens::MintedToken;
use mcp_api::write::Written;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api, encoded};
use crate::args::{ApplyArgs, DiffArgs, FilesArg, Global};
use crate::config::write_private;
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::manifest::{self, Live, Manifest};
use crate::{out, show};

pub(crate) async fn documents(global: &Global, args: &ApplyArgs) -> Result<Exit, Failure> {
    let api = Api::of(global)?;
    let planned = planned(&api, &args.from, "apply the documents").await?;
    let mints = |(m, live): &&(Manifest, Live)| m.kind == Kind::McpTokens && step(m, live, args.force) == Step::Mint;
    let store = match &args.token_out {
        Some(path) => Some(Store::at(path, planned.iter().filter(mints).count())?),
        None => None,
    };
    let mut pending = false;
    for (at, (manifest, live)) in planned.iter().enumerate() {
        let left = planned.len() - at;
        let done = carry_out(&api, args, manifest, live, store.as_ref()).await;
        pending |= done.map_err(|failure| stopped(failure, at, left))?;
    }
    if pending {
        let why = "not every replica has confirmed that it refuses what was taken away";
        return Err(Failure::new("applied, but not yet effective everywhere", why)
            .next("mcpctl get nodes")
            .with_exit(Exit::Uncertain));
    }
    Ok(Exit::Done)
}

/// What stands above a failure was applied: applying again goes on from there.
fn stopped(failure: Failure, done: usize, left: usize) -> Failure {
    if done > 0 {
        eprintln!("note: {done} objects were looked at before this, {left} remain; applying again is safe");
    }
    failure
}

async fn planned(api: &Api, from: &FilesArg, what: &str) -> Result<Vec<(Manifest, Live)>, Failure> {
    let mut faults = Vec::new();
    let documents = manifest::documents(from, &mut faults)?;
    let manifests = manifest::manifests(documents, &mut faults);
    // References are looked up only for files that make sense: otherwise what is missing may only be unreadable.
    if !faults.is_empty() {
        return Err(manifest::faulty(what, &faults));
    }
    let planned = manifest::plan(api, manifests, &mut faults).await?;
    if !faults.is_empty() {
        return Err(manifest::faulty(what, &faults));
    }
    Ok(planned)
}

/// What is to be done about an object.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Change,
    Mint,
    Leave(&'static str),
}

fn step(manifest: &Manifest, live: &Live, force: bool) -> Step {
    match live {
        Live::Missing if manifest.kind == Kind::McpTokens => Step::Mint,
        Live::Missing => Step::Create,
        Live::Active => Step::Leave("already active - skipped"),
        Live::Revoked if force => Step::Mint,
        Live::Revoked => Step::Leave("revoked - skipped (--force mints a new one)"),
        Live::Here { spec, .. } if same(manifest, spec) => Step::Leave("unchanged"),
        Live::Here { .. } => Step::Change,
    }
}

/// Whether an object is as the file says. Values of a secret cannot be compared, so a file that has some says something new.
fn same(manifest: &Manifest, live: &Value) -> bool {
    let mut want = manifest.spec.clone();
    if manifest.kind == Kind::Users {
        // It counts when the user is made.
        want.as_object_mut().map(|fields| fields.remove("password"));
    }
    want == *live
}

/// Does it, says so, and tells whether some replica still has to confirm.
async fn carry_out(
    api: &Api,
    args: &ApplyArgs,
    manifest: &Manifest,
    live: &Live,
    store: Option<&Store>,
) -> Result<bool, Failure> {
    let name = manifest.full_name();
    let step = step(manifest, live, args.force);
    let word = match step {
        Step::Leave(word) => {
            out::line(&format!("{name} {word}"));
            return Ok(false);
        }
        Step::Create | Step::Mint => "created",
        Step::Change => "configured",
    };
    if args.dry_run {
        out::line(&format!("{name} {word} (dry run)"));
        return Ok(false);
    }
    if step == Step::Mint {
        return mint(api, manifest, store).await;
    }
    let answer = send(api, args, manifest, live, &step).await?;
    let receipt = answer.body.receipt.as_ref();
    let proof = receipt.filter(|r| r.effective).map_or_else(String::new, |r| {
        format!(
            ": effective on {} of {} replicas ({} ms)",
            r.refusing,
            r.replicas.len(),
            r.took_ms
        )
    });
    out::line(&format!("{name} {word}{proof}"));
    Ok(answer.status == 202)
}

async fn send(
    api: &Api,
    args: &ApplyArgs,
    manifest: &Manifest,
    live: &Live,
    step: &Step,
) -> Result<Answer<Written<Value>>, Failure> {
    let (kind, name) = (manifest.kind, &manifest.name);
    let (singular, plural) = (kind.singular(), kind.plural());
    let wait = if args.no_wait { "?wait=committed" } else { "" };
    let mut body = manifest.spec.clone();
    if *step == Step::Create {
        let what = format!("create {singular} {name:?}");
        if kind == Kind::Users {
            body["email"] = name.as_str().into();
            return create_user(api, name, body, wait).await;
        }
        body["name"] = name.as_str().into();
        return api.write(&what, Method::POST, &format!("{plural}{wait}"), &body).await;
    }
    let what = format!("change {singular} {name:?}");
    let (method, body) = change_of(kind, body);
    let path = format!("{plural}/{}{wait}", encoded(name));
    match live {
        // What was compared is what is written over.
        Live::Here { version, .. } => {
            let answer = api.write_over(&what, method, &path, &body, version).await?;
            answer.map_err(|problem| Failure::of_problem(&what, &problem))
        }
        Live::Missing | Live::Active | Live::Revoked => api.write(&what, method, &path, &body).await,
    }
}

/// How an object is put into the state that its fields describe.
pub(crate) fn change_of(kind: Kind, mut spec: Value) -> (Method, Value) {
    match kind {
        Kind::Users => {
            let name = spec["name"].as_str().unwrap_or_default();
            (Method::PUT, json!({"name": name, "disabled": spec["disabled"]}))
        }
        // A file without values keeps those that are there.
        Kind::Secrets if spec["data"].is_null() => (
            Method::PATCH,
            json!({"description": spec["description"].as_str().unwrap_or_default()}),
        ),
        _ => (Method::PUT, spec.take()),
    }
}

/// A user is made enabled; one that is to be disabled is disabled right after.
async fn create_user(api: &Api, email: &str, mut body: Value, wait: &str) -> Result<Answer<Written<Value>>, Failure> {
    let disabled = body["disabled"] == true;
    body.as_object_mut().map(|fields| fields.remove("disabled"));
    let made = api
        .write(
            &format!("create user {email:?}"),
            Method::POST,
            &format!("users{wait}"),
            &body,
        )
        .await?;
    if !disabled {
        return Ok(made);
    }
    let path = format!("users/{}{wait}", encoded(email));
    api.write(
        &format!("disable user {email:?}"),
        Method::PATCH,
        &path,
        &json!({"disabled": true}),
    )
    .await
}

async fn mint(api: &Api, manifest: &Manifest, store: Option<&Store>) -> Result<bool, Failure> {
    let mut body = manifest.spec.clone();
    body["name"] = manifest.name.as_str().into();
    let what = format!("create mcptoken {:?}", manifest.name);
    let answer: Answer<Written<MintedToken>> = api.write(&what, Method::POST, "mcptokens", &body).await?;
    let minted = &answer.body.object;
    let Some(token) = &minted.token else {
        let why = "it was made, but the answer that showed it got lost on the way, and it is not shown twice";
        let project = manifest.project().unwrap_or_default();
        return Err(Failure::new(format!("cannot show mcptoken {:?}", manifest.name), why)
            .next(format!("mcpctl rotate mcptoken {} -p {project}", manifest.name))
            .with_exit(Exit::Uncertain));
    };
    out::line(&format!("{} created", manifest.full_name()));
    match store {
        Some(store) => store.keep(manifest, token)?,
        None => {
            eprintln!("copy the token now, it is not shown again");
            out::line(token);
        }
    }
    if let Some(hint) = &minted.hint {
        eprintln!("hint: {hint}");
    }
    Ok(answer.status == 202)
}

/// Where minted tokens are kept.
struct Store {
    path: PathBuf,
    directory: bool,
}

impl Store {
    /// Finds out whether tokens can be kept there, before any is made.
    fn at(path: &Path, tokens: usize) -> Result<Store, Failure> {
        let directory = path.is_dir();
        let failed = |why: &str| Failure::usage(format!("cannot keep tokens in {}", path.display()), why);
        if tokens > 1 && !directory {
            return Err(
                failed(&format!("{tokens} tokens are to be made, and a file holds one")).next(format!(
                    "mkdir -p {0} && mcpctl apply … --token-out {0}",
                    path.with_extension("d").display()
                )),
            );
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(missing) = parent.filter(|p| !p.is_dir()) {
            return Err(failed("there is no such directory").next(format!("mkdir -p {}", missing.display())));
        }
        let store = Store {
            path: path.to_owned(),
            directory,
        };
        let probe = store.path_of(".probe");
        write_private(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|error| failed(&error.to_string()).next(format!("ls -ld {}", path.display())))?;
        Ok(store)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        if self.directory {
            return self.path.join(name);
        }
        match name {
            ".probe" => self.path.with_extension("probe"),
            _ => self.path.clone(),
        }
    }

    /// Keeps a token, readable by its owner alone.
    fn keep(&self, manifest: &Manifest, token: &str) -> Result<(), Failure> {
        let path = self.path_of(&format!("{}.{}", manifest.project().unwrap_or_default(), manifest.name));
        let kept = write_private(&path, format!("{token}\n").as_bytes());
        // It is not shown twice: better here than lost.
        if let Err(error) = kept {
            out::line(token);
            let what = format!("cannot keep the token in {}: it stands above", path.display());
            return Err(Failure::new(what, error.to_string()).next(format!("ls -ld {}", path.display())));
        }
        eprintln!("the token is in {}", path.display());
        Ok(())
    }
}

pub(crate) async fn diff(global: &Global, args: &DiffArgs) -> Result<Exit, Failure> {
    // 1 says that there are differences: what goes wrong says 2.
    let failed = |failure: Failure| match failure.exit() {
        Exit::Error => failure.with_exit(Exit::Usage),
        _ => failure,
    };
    let api = Api::of(global).map_err(failed)?;
    let planned = planned(&api, &args.from, "compare the documents")
        .await
        .map_err(failed)?;
    let mut differ = false;
    for (manifest, live) in &planned {
        let before = match live {
            Live::Missing => None,
            // What is there stays as it is, whatever the file says.
            Live::Active | Live::Revoked => continue,
            Live::Here { spec, .. } if same(manifest, spec) => continue,
            Live::Here { spec, .. } => Some(spec),
        };
        differ = true;
        print_diff(manifest, before).map_err(failed)?;
    }
    Ok(if differ { Exit::Error } else { Exit::Done })
}

fn print_diff(manifest: &Manifest, before: Option<&Value>) -> Result<(), Failure> {
    let text = |spec: &Value| show::manifest(manifest.kind, &manifest.name, &covered(spec));
    let before = before.map(text).transpose()?.unwrap_or_default();
    let after = text(&manifest.spec)?;
    let name = manifest.full_name();
    let diff = similar::TextDiff::from_lines(&before, &after);
    let mut unified = diff.unified_diff();
    let unified = unified
        .context_radius(3)
        .header(&format!("live/{name}"), &format!("{}: {name}", manifest.origin))
        .to_string();
    out::bytes(unified.as_bytes());
    Ok(())
}

/// The same without secret values.
fn covered(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(password) = spec.get_mut("password") {
        *password = "(given)".into();
    }
    for value in spec
        .get_mut("data")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|data| data.values_mut())
    {
        *value = "(given)".into();
    }
    spec
}
