//! `mcpctl wait`: until an object is in a state, asking again and again.

use std::time::Duration;

use mcp_api::nodes::NodeBody;
use mcp_api::problem::Code;
use mcp_api::servers::ServerTools;
use mcp_api::tokens::McpTokenBody;
use mcp_api::write::{Removed, Written};
use reqwest::Method;
use serde_json::Value;

use crate::api::{Answer, Api, encoded};
use crate::args::{Global, WaitArgs};
use crate::failure::{Exit, Failure};
use crate::jsonpath::Template;
use crate::kinds::Kind;
use crate::{clock, get, out};

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(300);

/// What is waited for.
enum State {
    Create,
    Delete,
    Revoked,
    Healthy,
    Ready,
    /// What the template picks is this.
    Is(Template, String),
}

impl State {
    fn parse(kind: Kind, text: &str) -> Result<State, String> {
        let word = text.strip_prefix("condition=").unwrap_or(text);
        match (word.to_ascii_lowercase().as_str(), kind) {
            ("create", _) => Ok(State::Create),
            ("delete", _) => Ok(State::Delete),
            ("revoked", Kind::McpTokens) => Ok(State::Revoked),
            ("healthy", Kind::Servers) => Ok(State::Healthy),
            ("ready", Kind::Nodes) => Ok(State::Ready),
            _ => match text.strip_prefix("jsonpath=") {
                Some(rest) => {
                    let (template, value) = split(rest).ok_or("write it as jsonpath={.field}=value")?;
                    Ok(State::Is(Template::parse(template)?, value.to_owned()))
                }
                None => Err(format!(
                    "{} can be waited for in the states create, delete{} or jsonpath={{.field}}=value",
                    kind.plural(),
                    match kind {
                        Kind::McpTokens => ", revoked",
                        Kind::Servers => ", healthy",
                        Kind::Nodes => ", ready",
                        _ => "",
                    }
                )),
            },
        }
    }
}

/// `{.a=="b"}=c`: the last `=` behind the braces parts the two.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.rfind('}').map_or(0, |at| at + 1);
    let (before, value) = text[end..].split_once('=')?;
    Some((&text[..end + before.len()], value))
}

/// For the fuzzer: a text as what is waited for.
pub(crate) fn decode(text: &str) {
    for kind in [Kind::McpTokens, Kind::Servers, Kind::Nodes, Kind::Projects] {
        let _state = State::parse(kind, text).is_ok();
    }
}

pub(crate) async fn wait(global: &Global, args: &WaitArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, args.name.as_slice())?;
    let kind = target.kind;
    let [name] = target.names.as_slice() else {
        let why = format!("name one {}", kind.singular());
        return Err(Failure::usage("cannot wait", why).next(format!("mcpctl get {}", kind.plural())));
    };
    let what = format!("wait for {} {name:?}", kind.singular());
    let state = State::parse(kind, &args.state);
    let state = state.map_err(|why| Failure::usage(format!("cannot {what}"), why).next("mcpctl wait --help"))?;
    let api = Api::of(global)?;
    let of = match (kind, args.project.known(global)?) {
        (Kind::McpTokens, Some(project)) => format!(" -p {project}"),
        _ => String::new(),
    };
    let until_ms = clock::steady_ms() + args.timeout * 1_000;
    let mut seen = "no answer came".to_owned();
    loop {
        let left = Duration::from_millis(until_ms.saturating_sub(clock::steady_ms()));
        let asked = tokio::time::timeout(left, look(global, args, &api, kind, name, &state)).await;
        match asked {
            Ok(Ok(None)) => {
                out::line(&format!("{}/{name} {}", kind.singular(), args.state));
                return Ok(Exit::Done);
            }
            Ok(Ok(Some(now))) => seen = now,
            // A cluster without a leader may have one in a moment.
            Ok(Err(failure)) if failure.exit() == Exit::NoLeader => failure.why().clone_into(&mut seen),
            Ok(Err(failure)) => return Err(failure),
            // Time is over; what was seen last is what there is to say.
            Err(_) => {}
        }
        if clock::steady_ms() + u64::try_from(PAUSE.as_millis()).unwrap_or(0) >= until_ms {
            return Err(Failure::new(
                format!("cannot {what} any longer"),
                format!("after {} s: {seen}", args.timeout),
            )
            .next(format!("mcpctl describe {} {name}{of}", kind.singular()))
            .with_exit(Exit::TimedOut));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Nothing when the state is reached, or else what is there instead.
async fn look(
    global: &Global,
    args: &WaitArgs,
    api: &Api,
    kind: Kind,
    name: &str,
    state: &State,
) -> Result<Option<String>, Failure> {
    if let State::Revoked = state {
        return revoked(global, args, api, name).await;
    }
    let found = match kind {
        Kind::McpTokens => token(global, args, api, name)
            .await?
            .map(|token| serde_json::json!(token)),
        _ => {
            let path = format!("{}/{}?consistency=linearizable", kind.plural(), encoded(name));
            api.find::<Value>(&format!("wait for {} {name:?}", kind.singular()), &path)
                .await?
        }
    };
    let there = |yes: &str| yes.to_owned();
    match (state, found) {
        (State::Delete, None) | (State::Create, Some(_)) => Ok(None),
        (State::Delete, Some(_)) => Ok(Some(there("it is still there"))),
        (_, None) => Ok(Some(there("it does not exist"))),
        (State::Healthy, Some(_)) => healthy(api, name).await,
        (State::Ready, Some(body)) => {
            let node: Result<NodeBody, _> = serde_json::from_value(body);
            let state = node.map_or_else(|_| "unknown".to_owned(), |node| node.state);
            let up = ["leader", "follower", "learner"].contains(&state.as_str());
            Ok((!up).then(|| format!("it is {state}")))
        }
        (State::Is(template, value), Some(body)) => {
            let now = template.render(&body);
            Ok((now != *value).then(|| format!("it is {now:?}, not {value:?}")))
        }
        (State::Revoked, Some(_)) => Ok(Some(there("it is not revoked"))),
    }
}

async fn healthy(api: &Api, name: &str) -> Result<Option<String>, Failure> {
    let path = format!("servers/{}/tools", encoded(name));
    let tools: ServerTools = api.get(&format!("wait for server {name:?}"), &path).await?;
    Ok(match (tools.healthy, tools.reason) {
        (Some(true), _) => None,
        (Some(false), reason) => Some(format!("it is not healthy: {}", reason.unwrap_or_default())),
        (None, _) => Some("it was not asked yet".to_owned()),
    })
}

/// The token, if there is one.
async fn token(global: &Global, args: &WaitArgs, api: &Api, name: &str) -> Result<Option<McpTokenBody>, Failure> {
    match get::token(global, api, &args.project, name, "wait for").await {
        Ok(token) => Ok(Some(token)),
        Err(failure) if failure.exit() == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Revoked means refused everywhere. One node's record does not say that; the receipt of a repeated revoke does, and repeating
/// changes nothing.
async fn revoked(global: &Global, args: &WaitArgs, api: &Api, name: &str) -> Result<Option<String>, Failure> {
    let token = match token(global, args, api, name).await? {
        None => return Ok(Some("it does not exist".to_owned())),
        Some(token) if token.status == "revoked" => token,
        Some(token) => return Ok(Some(format!("it is {}", token.status))),
    };
    let (what, path) = (
        format!("wait for mcptoken {name:?}"),
        format!("mcptokens/{}/revoke", token.id),
    );
    let asked = api
        .try_write::<Written<Removed>>(&what, Method::POST, &path, &serde_json::json!({}))
        .await?;
    match asked {
        Ok(Answer { status: 202, .. }) => Ok(Some("it is revoked, and not every replica has confirmed".to_owned())),
        Ok(_) => Ok(None),
        Err(problem) if problem.code == Code::Forbidden.as_str() => {
            let why = "one node's record says that it is revoked; whether every replica refuses it is told to whoever may revoke it";
            Err(Failure::new(format!("cannot {what}"), why)
                .next(
                    problem
                        .hint
                        .clone()
                        .unwrap_or_else(|| "mcpctl auth can-i --list".to_owned()),
                )
                .with_exit(Exit::NotAllowed))
        }
        Err(problem) => Err(Failure::of_problem(&what, &problem)),
    }
}
