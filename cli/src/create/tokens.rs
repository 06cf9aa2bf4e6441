//! `mcpctl create mcptoken`, and the making of tokens for other verbs.

use mcp_api::tokens::{MintedToken, NewMcpToken};
use mcp_api::write::Written;
use reqwest::Method;

use super::bindings;
use crate::api::{Answer, Api};
use crate::args::{CreateToken, Format, Global};
use crate::failure::{Exit, Failure};
use crate::{out, show};

pub(crate) async fn create(global: &Global, args: &CreateToken) -> Result<Exit, Failure> {
    let what = format!("create mcptoken {:?}", args.name);
    let project = args.project.known(global)?.ok_or_else(|| {
        Failure::usage(
            format!("cannot {what}"),
            "a token belongs to a project, and none is given",
        )
        .next(format!("mcpctl create mcptoken {} -p PROJECT", args.name))
    })?;
    let body = NewMcpToken {
        name: args.name.clone(),
        project: project.clone(),
        description: args.description.clone().unwrap_or_default(),
        rbac: args.rbac.clone(),
        role_bindings: bindings(&format!("mcptoken {} -p {project}", args.name), "--bind", &args.bind)?,
        ttl: args.ttl.clone(),
        expires_at: None,
        force: args.force,
    };
    mint(&Api::of(global)?.waiting(&args.waiting), args.output.output, &body).await
}

/// Makes a token and shows it, alone on its line.
pub(crate) async fn mint(api: &Api, format: Format, body: &NewMcpToken) -> Result<Exit, Failure> {
    let (name, project) = (&body.name, &body.project);
    let what = format!("create mcptoken {name:?}");
    let answer: Answer<Written<MintedToken>> =
        api.write(&what, Method::POST, "mcptokens", body)
            .await
            .map_err(|failure| {
                // The hint of the API is about the flag alone.
                match failure.why().contains("exists already") {
                    true => failure.next(format!(
                        "mcpctl create mcptoken {name} -p {project} --force (revokes it and makes a new one)"
                    )),
                    false => failure,
                }
            })?;
    let minted = &answer.body.object;
    let Some(token) = &minted.token else {
        let why = "it was made, but the answer that showed it got lost on the way, and it is not shown twice";
        return Err(Failure::new(format!("cannot show mcptoken {name:?}"), why)
            .next(format!(
                "mcpctl create mcptoken {name} -p {project} --force (revokes it and makes a new one)"
            ))
            .with_exit(Exit::Uncertain));
    };
    eprintln!("mcptoken {name:?} created in project {project:?}: copy it now, it is not shown again");
    match format {
        Format::Json | Format::JsonPath(_) => show::other(format, &answer.body)?,
        Format::Table | Format::Wide | Format::Yaml | Format::Name => out::line(token),
    }
    if let Some(hint) = &minted.hint {
        eprintln!("hint: {hint}");
    }
    match (&minted.replaced, &answer.body.receipt) {
        (None, _) => Ok(Exit::Done),
        (Some(_), Some(receipt)) if receipt.effective => {
            let (on, of, ms) = (receipt.refusing, receipt.replicas.len(), receipt.took_ms);
            eprintln!("the token of that name before it is revoked: refused on {on} of {of} replicas ({ms} ms)");
            Ok(Exit::Done)
        }
        (Some(_), None) if !api.waits() => {
            eprintln!("the token of that name before it is revoked: committed, and not waited for");
            Ok(Exit::Done)
        }
        (Some(old), _) => Err(Failure::new(
            "the token of that name before it is revoked, but not yet effective everywhere",
            "not every replica has confirmed",
        )
        .next(format!("mcpctl revoke mcptoken {old} (safe to repeat)"))
        .with_exit(Exit::Uncertain)),
    }
}
