//! `mcpctl cluster join-token`: ways in for machines.

use mcp_api::List;
use mcp_api::cluster::{JoinTokenBody, JoinTokenEntry, NewJoinToken};
use mcp_api::write::{Removed, Written};
use reqwest::Method;

use crate::api::{Answer, Api, encoded};
use crate::args::{Format, Global, JoinToken, JoinTokenArgs, NewJoinTokenArgs, OutputArg, RevokeJoinTokenArgs};
use crate::failure::{Exit, Failure};
use crate::{clock, out, show};

pub(crate) async fn join_token(global: &Global, args: &JoinTokenArgs) -> Result<Exit, Failure> {
    match &args.verb {
        None => create(global, &args.new).await,
        Some(JoinToken::Create(new)) => create(global, new).await,
        Some(JoinToken::List(output)) => list(global, output).await,
        Some(JoinToken::Revoke(args)) => revoke(global, args).await,
    }
}

async fn create(global: &Global, args: &NewJoinTokenArgs) -> Result<Exit, Failure> {
    let what = "make a join token";
    let new = NewJoinToken {
        ttl: Some(args.ttl.clone()),
        role: Some(args.role.clone()),
    };
    let answer: Answer<Written<JoinTokenBody>> = Api::of(global)?
        .write(what, Method::POST, "cluster/join-tokens", &new)
        .await?;
    let body = answer.body.object;
    let Some(token) = &body.token else {
        return Err(Failure::new(
            format!("cannot {what}"),
            "it was made, but the answer that showed it was lost; it ends by itself",
        )
        .next("mcpctl cluster join-token"));
    };
    match args.output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output.output, &body)?,
        Format::Name => out::line(&format!("join-token/{}", body.id)),
        Format::Table | Format::Wide => {
            let ends = show::ago(&body.expires_at, clock::wall_ms());
            eprintln!(
                "copy it now: it is shown once. It lets in one machine, as a {}, and ends {ends}",
                body.role
            );
            out::line(token);
            let peer = body.peers.first().map_or("HOST:3300", String::as_str);
            eprintln!("there: mcpnode join {peer} --token-file FILE --data-dir DIR --peer-listen HOST:3300");
        }
    }
    Ok(Exit::Done)
}

async fn list(global: &Global, args: &OutputArg) -> Result<Exit, Failure> {
    let api = Api::of(global)?;
    let mut all: Vec<JoinTokenEntry> = Vec::new();
    let mut path = "cluster/join-tokens".to_owned();
    loop {
        let page: List<JoinTokenEntry> = api.get("list join tokens", &path).await?;
        all.extend(page.items);
        let Some(more) = page.more else { break };
        path = format!("cluster/join-tokens?continue={more}");
    }
    all.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
    match args.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output, &all)?,
        Format::Name => all.iter().for_each(|t| out::line(&format!("join-token/{}", t.id))),
        Format::Table | Format::Wide => {
            let now_ms = clock::wall_ms();
            let row = |t: &JoinTokenEntry| {
                vec![
                    t.id.clone(),
                    t.role.clone(),
                    t.status.clone(),
                    t.node.clone().unwrap_or_else(|| "-".to_owned()),
                    t.created_by.clone(),
                    show::ago(&t.created_at, now_ms),
                    show::ago(&t.expires_at, now_ms),
                ]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            show::rows(
                &["ID", "ROLE", "STATUS", "NODE", "CREATED BY", "CREATED", "EXPIRES"],
                &rows,
            );
        }
    }
    Ok(Exit::Done)
}

async fn revoke(global: &Global, args: &RevokeJoinTokenArgs) -> Result<Exit, Failure> {
    let what = format!("revoke join token {:?}", args.id);
    let path = format!("cluster/join-tokens/{}", encoded(&args.id));
    let revoked: Result<Answer<Written<Removed>>, Failure> = Api::of(global)?
        .write(&what, Method::DELETE, &path, &serde_json::json!({}))
        .await;
    let removed = revoked?.body.object;
    match args.output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output.output, &removed)?,
        Format::Name => out::line(&format!("join-token/{}", removed.id)),
        Format::Table | Format::Wide => out::line(&format!("join token {:?} revoked: it lets nobody in", removed.id)),
    }
    Ok(Exit::Done)
}
