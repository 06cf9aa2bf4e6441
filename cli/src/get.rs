//! `mcpctl get`, and finding objects for other verbs.

use mcp_api::groups::GroupBody;
use mcp_api::list::List;
use mcp_api::nodes::NodeBody;
use mcp_api::projects::ProjectBody;
use mcp_api::rbac::RbacBody;
use mcp_api::secrets::SecretBody;
use mcp_api::servers::ServerBody;
use mcp_api::serviceaccounts::ServiceAccountBody;
use mcp_api::sessions::SessionBody;
use mcp_api::tokens::McpTokenBody;
use mcp_api::users::UserBody;

use crate::api::{Api, encoded};
use crate::args::{GetArgs, Global, ProjectArg};
use crate::failure::{Exit, Failure};
use crate::kinds::{Kind, Target};
use crate::show::{self, Object};
use crate::{all, tools};

pub(crate) async fn get(global: &Global, args: &GetArgs) -> Result<Exit, Failure> {
    if args.kind == all::ALL && args.names.is_empty() {
        return all::get(global, args.output.output).await;
    }
    let target = target(&args.kind, &args.names)?;
    let api = Api::of(global)?;
    match target.kind {
        Kind::McpTokens => tokens(global, args, &api, &target).await,
        Kind::Projects => named::<ProjectBody>(args, &api, &target).await,
        Kind::Servers => named::<ServerBody>(args, &api, &target).await,
        Kind::Tools => tools::list(global, args, &target.names).await,
        Kind::Nodes => named::<NodeBody>(args, &api, &target).await,
        Kind::Rbac => named::<RbacBody>(args, &api, &target).await,
        Kind::Users => named::<UserBody>(args, &api, &target).await,
        Kind::Groups => named::<GroupBody>(args, &api, &target).await,
        Kind::ServiceAccounts => named::<ServiceAccountBody>(args, &api, &target).await,
        Kind::Secrets => named::<SecretBody>(args, &api, &target).await,
        Kind::Sessions if !target.names.is_empty() => {
            let mut found = Vec::new();
            for id in &target.names {
                found.push(session(&api, id).await?);
            }
            show::some(args.output.output, found)?;
            Ok(Exit::Done)
        }
        Kind::Sessions => named::<SessionBody>(args, &api, &target).await,
    }
}

/// What a command line names.
pub(crate) fn target(kind: &str, names: &[String]) -> Result<Target, Failure> {
    Target::parse(kind, names)
        .map_err(|why| Failure::usage(format!("cannot tell what {kind:?} is"), why).next("mcpctl api-resources"))
}

async fn named<T: Object>(args: &GetArgs, api: &Api, target: &Target) -> Result<Exit, Failure> {
    let plural = T::KIND.plural();
    if target.names.is_empty() {
        let mut list: List<T> = api.list(&format!("list {plural}"), plural, "").await?;
        list.items.sort_by_key(Object::order);
        show::list(args.output.output, &list)?;
        return Ok(Exit::Done);
    }
    let mut found = Vec::new();
    for name in &target.names {
        found.push(one::<T>(api, name).await?);
    }
    show::some(args.output.output, found)?;
    Ok(Exit::Done)
}

async fn tokens(global: &Global, args: &GetArgs, api: &Api, target: &Target) -> Result<Exit, Failure> {
    if target.names.is_empty() {
        let project = args.project.known(global)?;
        let query = project.map_or_else(String::new, |p| format!("&project={}", encoded(&p)));
        let list: List<McpTokenBody> = api.list("list mcptokens", "mcptokens", &query).await?;
        show::list(args.output.output, &list)?;
        return Ok(Exit::Done);
    }
    let mut found = Vec::new();
    for name in &target.names {
        found.push(token(global, api, &args.project, name, "get").await?);
    }
    show::some(args.output.output, found)?;
    Ok(Exit::Done)
}

/// The object of that name or id.
pub(crate) async fn one<T: Object>(api: &Api, name: &str) -> Result<T, Failure> {
    let what = format!("get {} {name:?}", T::KIND.singular());
    api.get(&what, &format!("{}/{}", T::KIND.plural(), encoded(name))).await
}

/// The session of that id.
pub(crate) async fn session(api: &Api, id: &str) -> Result<SessionBody, Failure> {
    let what = format!("get session {id:?}");
    let all: List<SessionBody> = api.list(&what, "sessions", "").await?;
    all.items.into_iter().find(|session| session.id == id).ok_or_else(|| {
        let why = format!("there is no session {id:?} that you may see");
        Failure::new(format!("cannot {what}"), why)
            .next("mcpctl get sessions")
            .with_exit(Exit::NotFound)
    })
}

/// The token of that id, or of that name in the project: the active one, or else the latest that there was.
pub(crate) async fn token(
    global: &Global,
    api: &Api,
    project: &ProjectArg,
    name: &str,
    verb: &str,
) -> Result<McpTokenBody, Failure> {
    let what = format!("{verb} mcptoken {name:?}");
    if is_id(name) {
        return api.get(&what, &format!("mcptokens/{name}")).await;
    }
    let (project, name) = match name.split_once('/') {
        Some((project, name)) => (project.to_owned(), name),
        None => (project.needed(global, &what)?, name),
    };
    let query = format!("&project={}&name={}", encoded(&project), encoded(name));
    let active: List<McpTokenBody> = api.list(&what, "mcptokens", &format!("{query}&status=active")).await?;
    if let Some(token) = active.items.into_iter().next() {
        return Ok(token);
    }
    let all: List<McpTokenBody> = api.list(&what, "mcptokens", &query).await?;
    all.items.into_iter().next_back().ok_or_else(|| {
        Failure::new(
            format!("cannot {what}"),
            format!("project {project:?} has no mcptoken {name:?} that you may see"),
        )
        .next(format!("mcpctl get mcptokens -p {project}"))
        .with_exit(Exit::NotFound)
    })
}

fn is_id(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| {
            if dashes.contains(&at) {
                b == b'-'
            } else {
                b.is_ascii_hexdigit()
            }
        })
}
