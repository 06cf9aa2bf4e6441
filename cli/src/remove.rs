//! `mcpctl delete` and `mcpctl revoke`: what is taken away, and the receipt for it.

use mcp_api::tokens::McpTokenBody;
use mcp_api::write::{Removed, Written};
use reqwest::Method;

use crate::api::{Answer, Api, encoded};
use crate::args::{Format, Global, RemoveArgs};
use crate::failure::{Exit, Failure};
use crate::kinds::{Kind, Target};
use crate::receipts::Report;
use crate::show;
use crate::{get, out};

pub(crate) async fn delete(global: &Global, args: &RemoveArgs) -> Result<Exit, Failure> {
    let target = some_target(args, "delete")?;
    if !target.kind.takes("delete") {
        let why = format!("{} are not deleted this way", target.kind.plural());
        let next = match (target.kind, target.names.first()) {
            (Kind::Nodes, Some(name)) => format!("mcpctl cluster remove {name}"),
            _ => "mcpctl api-resources".to_owned(),
        };
        return Err(Failure::usage("cannot delete", why).next(next));
    }
    let api = Api::of(global)?.waiting(&args.waiting);
    for name in &target.names {
        if target.kind == Kind::McpTokens {
            let token = get::token(global, &api, &args.project, name, "delete").await?;
            take_away(&api, args, &token, Way::Delete).await?;
        } else {
            delete_named(&api, args, target.kind, name).await?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn revoke(global: &Global, args: &RemoveArgs) -> Result<Exit, Failure> {
    let target = some_target(args, "revoke")?;
    if target.kind != Kind::McpTokens {
        let why = format!("only tokens are revoked, not {}", target.kind.plural());
        return Err(Failure::usage("cannot revoke", why).next("mcpctl revoke mcptoken NAME -p PROJECT"));
    }
    let api = Api::of(global)?.waiting(&args.waiting);
    for name in &target.names {
        let token = get::token(global, &api, &args.project, name, "revoke").await?;
        take_away(&api, args, &token, Way::Revoke).await?;
    }
    Ok(Exit::Done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Revoke,
    Delete,
}

fn some_target(args: &RemoveArgs, verb: &str) -> Result<Target, Failure> {
    let target = get::target(&args.kind, &args.names)?;
    if target.names.is_empty() {
        return Err(Failure::usage(
            format!("cannot {verb}"),
            format!("name at least one {}", target.kind.singular()),
        )
        .next(format!("mcpctl get {}", target.kind.plural())));
    }
    Ok(target)
}

async fn take_away(api: &Api, args: &RemoveArgs, token: &McpTokenBody, way: Way) -> Result<(), Failure> {
    let name = &token.name;
    let (verb, method, path) = match way {
        Way::Revoke => ("revoke", Method::POST, format!("mcptokens/{}/revoke", token.id)),
        Way::Delete => ("delete", Method::DELETE, format!("mcptokens/{}", token.id)),
    };
    let what = format!("{verb} mcptoken {name:?}");
    let answer: Answer<Written<Removed>> = api.write(&what, method, &path, &serde_json::json!({})).await?;
    let again = match &token.project {
        Some(project) => format!("mcpctl {verb} mcptoken {name} -p {project}"),
        None => format!("mcpctl {verb} mcptoken {}", token.id),
    };
    let said = if answer.body.object.already {
        "was revoked before"
    } else {
        "revoked"
    };
    report(args, &answer, format!("mcptoken {name:?} {said}"), "refused", again)?;
    if way == Way::Delete && args.output.output == Format::Table {
        out::line(&format!("mcptoken {name:?} deleted"));
    }
    Ok(())
}

async fn delete_named(api: &Api, args: &RemoveArgs, kind: Kind, name: &str) -> Result<(), Failure> {
    let what = format!("delete {} {name:?}", kind.singular());
    let path = format!("{}/{}", kind.plural(), encoded(name));
    let answer: Answer<Written<Removed>> = api.write(&what, Method::DELETE, &path, &serde_json::json!({})).await?;
    let said = format!("{} {:?} deleted", kind.singular(), answer.body.object.name);
    report(
        args,
        &answer,
        said,
        "effective",
        format!("mcpctl delete {} {name}", kind.singular()),
    )
}

fn report(
    args: &RemoveArgs,
    answer: &Answer<Written<Removed>>,
    what: String,
    word: &'static str,
    again: String,
) -> Result<(), Failure> {
    let Removed { kind, name, .. } = &answer.body.object;
    match args.output.output {
        Format::Table | Format::Wide => {
            let receipt = answer.body.receipt.as_ref();
            Report {
                what,
                word,
                again,
                receipt,
                waited: !args.waiting.no_wait,
            }
            .print()?;
            return Ok(());
        }
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output.output, &answer.body)?,
        Format::Name => out::line(&format!("{kind}/{name}")),
    }
    if answer.status == 202 {
        let why = "not every replica has confirmed";
        return Err(Failure::new(format!("{what}, but not yet effective everywhere"), why)
            .next(format!("{again} (safe to repeat)"))
            .with_exit(Exit::Uncertain));
    }
    Ok(())
}
