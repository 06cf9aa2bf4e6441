//! `mcpctl create`.

mod access;
pub(crate) mod secrets;
pub(crate) mod tokens;

use mcp_api::problem::Code;
use mcp_api::projects::{ProjectBody, ProjectChange, ProjectSpecBody};
use mcp_api::rbac::RoleBindingBody;
use mcp_api::servers::{ServerBody, ServerSpecBody};
use mcp_api::write::Written;
use reqwest::Method;
use serde::Serialize;

use crate::api::{Answer, Api, encoded};
use crate::args::{Create, CreateProject, CreateServer, Format, Global};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::receipts::Report;
use crate::show::{self, Object};

pub(crate) async fn create(global: &Global, what: &Create) -> Result<Exit, Failure> {
    match what {
        Create::Project(args) => project(global, args).await,
        Create::Server(args) => server(global, args).await,
        Create::Mcptoken(args) => tokens::create(global, args).await,
        Create::Rbac(args) => access::rbac(global, args).await,
        Create::User(args) => access::user(global, args).await,
        Create::Group(args) => access::group(global, args).await,
        Create::Serviceaccount(args) => access::service_account(global, args).await,
        Create::Session(args) => access::session(global, args).await,
        Create::Secret(args) => secrets::create(global, args).await,
    }
}

/// What to do when the name is taken.
enum Otherwise<'a, B: Serialize> {
    Fail,
    Send(Method, &'a B),
}

impl<'a, B: Serialize> Otherwise<'a, B> {
    /// With `--force` this is sent to the object that is there.
    fn if_forced(force: bool, method: Method, body: &'a B) -> Self {
        if force {
            Otherwise::Send(method, body)
        } else {
            Otherwise::Fail
        }
    }
}

/// Makes an object, or changes the one that is there, and says so.
async fn made<T: Object, B: Serialize>(
    api: &Api,
    format: Format,
    name: &str,
    body: &impl Serialize,
    otherwise: Otherwise<'_, B>,
) -> Result<Exit, Failure> {
    let (singular, plural) = (T::KIND.singular(), T::KIND.plural());
    let what = format!("create {singular} {name:?}");
    let answer = api.try_write::<Written<T>>(&what, Method::POST, plural, body).await?;
    let (answer, verb) = match (answer, otherwise) {
        (Ok(answer), _) => (answer, "created"),
        (Err(problem), Otherwise::Send(method, change)) if problem.code == Code::NameTaken.as_str() => {
            let what = format!("change {singular} {name:?}");
            (
                api.write(&what, method, &format!("{plural}/{}", encoded(name)), change)
                    .await?,
                "updated",
            )
        }
        (Err(problem), _) => {
            let failure = Failure::of_problem(&what, &problem);
            let taken = problem.code == Code::NameTaken.as_str() && can_force(T::KIND);
            return Err(if taken {
                failure.next(format!(
                    "mcpctl create {singular} {name} --force (changes the one that is there)"
                ))
            } else {
                failure
            });
        }
    };
    finish(format, &answer, verb, verb == "created" || api.waits())
}

/// Whether `create` takes `--force` for this kind.
fn can_force(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Projects | Kind::Servers | Kind::Rbac | Kind::Groups | Kind::Secrets
    )
}

/// Says what became of a change, with the receipt where there is one.
pub(crate) fn finish<T: Object>(
    format: Format,
    answer: &Answer<Written<T>>,
    verb: &str,
    waited: bool,
) -> Result<Exit, Failure> {
    let object = &answer.body.object;
    let table = matches!(format, Format::Table | Format::Wide);
    let what = format!("{} {:?} {verb}", T::KIND.singular(), object.name());
    let receipt = answer.body.receipt.as_ref();
    if table && (receipt.is_some() || !waited) {
        let again = format!("mcpctl describe {} {}", T::KIND.singular(), object.name());
        return Report {
            what,
            word: "effective",
            again,
            receipt,
            waited,
        }
        .print();
    }
    show::done(format, object, &answer.body, verb)?;
    if answer.status == 202 {
        let why = "not every replica has confirmed";
        let next = format!("mcpctl describe {} {}", T::KIND.singular(), object.name());
        return Err(Failure::new(format!("{what}, but not yet effective everywhere"), why)
            .next(next)
            .with_exit(Exit::Uncertain));
    }
    Ok(Exit::Done)
}

async fn project(global: &Global, args: &CreateProject) -> Result<Exit, Failure> {
    let mut spec = ProjectSpecBody {
        name: args.name.clone(),
        description: args.description.clone().unwrap_or_default(),
        servers: args.server.clone(),
        gated: args.gated.unwrap_or(true),
        proxy_model: args.proxy_model.clone(),
        instructions: args.instructions.clone(),
        allow_sse: args.allow_sse.unwrap_or(false),
        ..ProjectSpecBody::default()
    };
    if let Some(naming) = &args.tool_naming {
        spec.tool_naming.clone_from(naming);
    }
    let change = ProjectChange {
        description: args.description.clone(),
        servers: Some(args.server.clone()).filter(|s| !s.is_empty()),
        gated: args.gated,
        proxy_model: args.proxy_model.clone(),
        tool_naming: args.tool_naming.clone(),
        instructions: args.instructions.clone(),
        limits: None,
        allow_sse: args.allow_sse,
    };
    let otherwise = Otherwise::if_forced(args.force, Method::PATCH, &change);
    made::<ProjectBody, _>(
        &Api::of(global)?.waiting(&args.waiting),
        args.output.output,
        &args.name,
        &spec,
        otherwise,
    )
    .await
}

async fn server(global: &Global, args: &CreateServer) -> Result<Exit, Failure> {
    let defaults = ServerSpecBody::default();
    let guess = || match (&args.command, &args.url) {
        (Some(_), None) => Ok("stdio"),
        (None, Some(_)) => Ok("http"),
        (Some(_), Some(_)) | (None, None) => Err(Failure::usage(
            format!("cannot create server {:?}", args.name),
            "give --command for a program, or --url for a server over HTTP",
        )
        .next(format!(
            "mcpctl create server {} --transport stdio --command PROGRAM",
            args.name
        ))),
    };
    let transport = match &args.transport {
        Some(transport) => transport.as_str(),
        None => guess()?,
    };
    let spec = ServerSpecBody {
        name: args.name.clone(),
        description: args.description.clone().unwrap_or_default(),
        transport: transport.to_owned(),
        command: args.command.clone(),
        args: args.args.clone(),
        env: args
            .env
            .iter()
            .map(|e| pair("--env", e, '='))
            .collect::<Result<_, _>>()?,
        cwd: args.cwd.clone(),
        url: args.url.clone(),
        headers: args
            .header
            .iter()
            .map(|h| pair("--header", h, ':'))
            .collect::<Result<_, _>>()?,
        connect_ms: args.connect_ms.unwrap_or(defaults.connect_ms),
        response_ms: args.response_ms.unwrap_or(defaults.response_ms),
        ..defaults
    };
    let otherwise = Otherwise::if_forced(args.force, Method::PUT, &spec);
    made::<ServerBody, _>(
        &Api::of(global)?.waiting(&args.waiting),
        args.output.output,
        &args.name,
        &spec,
        otherwise,
    )
    .await
}

/// `KEY=VALUE` or `NAME: VALUE`. `@FILE` stands for what is in the file, so that a secret need not be an argument.
fn pair(flag: &str, text: &str, between: char) -> Result<(String, String), Failure> {
    let (key, value) = text.split_once(between).ok_or_else(|| {
        let form = if between == '=' { "KEY=VALUE" } else { "NAME: VALUE" };
        Failure::usage(format!("cannot read {flag}"), format!("it is not {form}")).next(format!("{flag} '{form}'"))
    })?;
    let value = if between == ':' { value.trim() } else { value };
    let value = match value.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| {
                Failure::usage(format!("cannot read {flag}"), format!("{file}: {error}")).next(format!("ls -l {file}"))
            })?,
        None => value.to_owned(),
    };
    Ok((key.trim().to_owned(), value))
}

fn bindings(what: &str, flag: &str, texts: &[String]) -> Result<Vec<RoleBindingBody>, Failure> {
    let read = |text: &String| {
        RoleBindingBody::parse(text).map_err(|error| {
            Failure::usage(format!("cannot read {flag} {text:?}"), error.to_string()).next(format!(
                "mcpctl create {what} {flag} role:view,resource:servers,name:my-ha"
            ))
        })
    };
    texts.iter().map(read).collect()
}
