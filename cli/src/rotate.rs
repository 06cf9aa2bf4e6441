//! `mcpctl rotate`: something new in the place of what was given out.

use std::collections::BTreeMap;

use mcp_api::secrets::{SecretBody, SecretChange};
use mcp_api::tokens::NewMcpToken;
use mcp_api::write::Written;
use reqwest::Method;

use crate::api::{Answer, Api, encoded};
use crate::args::{Global, RotateArgs};
use crate::create::{self, secrets, tokens};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::{get, password};

pub(crate) async fn rotate(global: &Global, args: &RotateArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, args.name.as_slice())?;
    let [name] = target.names.as_slice() else {
        let why = format!("name one {}", target.kind.singular());
        return Err(Failure::usage("cannot rotate", why).next(format!("mcpctl get {}", target.kind.plural())));
    };
    match target.kind {
        Kind::McpTokens => token(global, args, name).await,
        Kind::Secrets => secret(global, args, name).await,
        other => {
            let why = format!("only tokens and secrets are rotated, not {}", other.plural());
            Err(Failure::usage("cannot rotate", why).next("mcpctl rotate --help"))
        }
    }
}

/// The same token with another bearer: the one before it is refused everywhere when this returns. It ends when that one
/// would have ended, and whoever rotates it becomes its owner.
async fn token(global: &Global, args: &RotateArgs, name: &str) -> Result<Exit, Failure> {
    let api = Api::of(global)?.waiting(&args.waiting);
    let old = get::token(global, &api, &args.project, name, "rotate").await?;
    let (Some(project), "active") = (&old.project, old.status.as_str()) else {
        return Err(Failure::new(
            format!("cannot rotate mcptoken {name:?}"),
            format!("it is {}", old.status),
        )
        .next(format!("mcpctl create mcptoken {} -p PROJECT", old.name)));
    };
    let body = NewMcpToken {
        name: old.name.clone(),
        project: project.clone(),
        description: old.description.clone(),
        role_bindings: old.role_bindings.clone(),
        expires_at: old.expires_at.clone(),
        force: true,
        ..NewMcpToken::default()
    };
    tokens::mint(&api, args.output.output, &body).await
}

async fn secret(global: &Global, args: &RotateArgs, name: &str) -> Result<Exit, Failure> {
    let Some(key) = &args.key else {
        let why = "which of its values?";
        return Err(Failure::usage(format!("cannot rotate secret {name:?}"), why)
            .next(format!("mcpctl rotate secret {name} --key KEY")));
    };
    let value = match &args.from_file {
        Some(file) => secrets::value_of(file)?,
        None => {
            let otherwise = format!("mcpctl rotate secret {name} --key {key} --from-file FILE");
            password::ask(&format!("{name}/{key}: "), &otherwise)?.to_string()
        }
    };
    let change = SecretChange {
        description: None,
        data: BTreeMap::from([(key.clone(), Some(value))]),
    };
    let (what, path) = (format!("rotate secret {name:?}"), format!("secrets/{}", encoded(name)));
    let api = Api::of(global)?.waiting(&args.waiting);
    let answer: Answer<Written<SecretBody>> = api.write(&what, Method::PATCH, &path, &change).await?;
    create::finish(args.output.output, &answer, "rotated", api.waits())
}
