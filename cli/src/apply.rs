//! `mcpctl apply`.

mod rights;
mod store;

use mcp_api::problem::Code;
use mcp_api::tokens::MintedToken;
use mcp_api::write::Written;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api, encoded};
use crate::args::{ApplyArgs, FilesArg, Global};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::manifest::{self, Live, Manifest};
use crate::out;
use store::Store;

pub(crate) async fn documents(global: &Global, args: &ApplyArgs) -> Result<Exit, Failure> {
    let api = Api::of(global)?.waiting(&args.waiting);
    let what = "apply the documents";
    let planned = planned(&api, &args.from, what).await?;
    let lacking = rights::lacking(&api, &planned, args.force).await?;
    if !lacking.is_empty() {
        let failure = manifest::faulty(what, &lacking).next("mcpctl auth can-i --list");
        return Err(failure.with_exit(Exit::NotAllowed));
    }
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

/// What the files say, beside what there is.
pub(crate) async fn planned(api: &Api, from: &FilesArg, what: &str) -> Result<Vec<(Manifest, Live)>, Failure> {
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
pub(crate) fn same(manifest: &Manifest, live: &Value) -> bool {
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
    let answer = send(api, manifest, live, &step).await?;
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

async fn send(api: &Api, manifest: &Manifest, live: &Live, step: &Step) -> Result<Answer<Written<Value>>, Failure> {
    let (kind, name) = (manifest.kind, &manifest.name);
    let (singular, plural) = (kind.singular(), kind.plural());
    let mut body = manifest.spec.clone();
    if *step == Step::Create {
        let what = format!("create {singular} {name:?}");
        if kind == Kind::Users {
            body["email"] = name.as_str().into();
            return create_user(api, name, body).await;
        }
        body["name"] = name.as_str().into();
        return api.write(&what, Method::POST, plural, &body).await;
    }
    let what = format!("change {singular} {name:?}");
    let (method, body) = change_of(kind, body);
    let path = format!("{plural}/{}", encoded(name));
    match live {
        // What was compared is what is written over.
        Live::Here { version, .. } => {
            let answer = api.write_over(&what, method, &path, &body, version).await?;
            answer.map_err(|problem| {
                let failure = Failure::of_problem(&what, &problem);
                match Code::parse(&problem.code) {
                    Some(Code::VersionMismatch) => {
                        failure.next("mcpctl diff -f FILE (somebody changed it a moment ago)")
                    }
                    _ => failure,
                }
            })
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
async fn create_user(api: &Api, email: &str, mut body: Value) -> Result<Answer<Written<Value>>, Failure> {
    let disabled = body["disabled"] == true;
    body.as_object_mut().map(|fields| fields.remove("disabled"));
    let made = api
        .write(&format!("create user {email:?}"), Method::POST, "users", &body)
        .await?;
    if !disabled {
        return Ok(made);
    }
    let path = format!("users/{}", encoded(email));
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
