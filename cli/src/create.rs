//! `mcpctl create`.

use mcp_api::problem::Code;
use mcp_api::projects::{ProjectBody, ProjectChange, ProjectSpecBody};
use mcp_api::rbac::{RbacBody, RbacSpec, RoleBindingBody, SubjectBody};
use mcp_api::servers::{ServerBody, ServerSpecBody};
use mcp_api::tokens::{MintedToken, NewMcpToken};
use mcp_api::users::{NewUser, UserBody};
use mcp_api::write::Written;
use reqwest::Method;
use serde::Serialize;

use crate::api::{Answer, Api, encoded};
use crate::args::{Create, CreateProject, CreateRbac, CreateServer, CreateToken, CreateUser, Format, Global};
use crate::failure::{Exit, Failure};
use crate::receipts::Report;
use crate::show::{self, Object};
use crate::{out, password};

pub(crate) async fn create(global: &Global, what: &Create) -> Result<Exit, Failure> {
    match what {
        Create::Project(args) => project(global, args).await,
        Create::Server(args) => server(global, args).await,
        Create::Mcptoken(args) => token(global, args).await,
        Create::Rbac(args) => rbac(global, args).await,
        Create::User(args) => user(global, args).await,
    }
}

/// What to do when the name is taken.
enum Otherwise<'a, B: Serialize> {
    Fail,
    Send(Method, &'a B),
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
        (Err(problem), _) => return Err(Failure::of_problem(&what, &problem)),
    };
    finish(format, &answer, verb)
}

fn finish<T: Object>(format: Format, answer: &Answer<Written<T>>, verb: &str) -> Result<Exit, Failure> {
    let object = &answer.body.object;
    let table = matches!(format, Format::Table | Format::Wide);
    let what = format!("{} {:?} {verb}", T::KIND.singular(), object.name());
    let receipt = answer.body.receipt.as_ref();
    if table && receipt.is_some() {
        let again = format!("mcpctl describe {} {}", T::KIND.singular(), object.name());
        return Report {
            what,
            word: "effective",
            again,
            receipt,
            waited: true,
        }
        .print();
    }
    show::done(format, object, &answer.body, verb)?;
    if answer.status == 202 {
        let why = "not every replica has confirmed";
        return Err(Failure::new(format!("{what}, but not yet effective everywhere"), why).with_exit(Exit::Uncertain));
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
    };
    let otherwise = if args.force {
        Otherwise::Send(Method::PATCH, &change)
    } else {
        Otherwise::Fail
    };
    made::<ProjectBody, _>(&Api::of(global)?, args.output.output, &args.name, &spec, otherwise).await
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
    let otherwise = if args.force {
        Otherwise::Send(Method::PUT, &spec)
    } else {
        Otherwise::Fail
    };
    made::<ServerBody, _>(&Api::of(global)?, args.output.output, &args.name, &spec, otherwise).await
}

/// `KEY=VALUE` or `NAME: VALUE`. `@FILE` stands for what is in the file, so that a secret need not be an argument.
fn pair(flag: &str, text: &str, between: char) -> Result<(String, String), Failure> {
    let (key, value) = text.split_once(between).ok_or_else(|| {
        let form = if between == '=' { "KEY=VALUE" } else { "NAME: VALUE" };
        Failure::usage(format!("cannot read {flag}"), format!("write it as {flag} '{form}'"))
    })?;
    let value = if between == ':' { value.trim() } else { value };
    let value = match value.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| Failure::usage(format!("cannot read {flag}"), format!("{file}: {error}")))?,
        None => value.to_owned(),
    };
    Ok((key.trim().to_owned(), value))
}

async fn token(global: &Global, args: &CreateToken) -> Result<Exit, Failure> {
    let what = format!("create mcptoken {:?}", args.name);
    let project = args.project.known(global)?.ok_or_else(|| {
        Failure::usage(
            format!("cannot {what}"),
            "a token belongs to a project, and none is given",
        )
        .next("add -p PROJECT")
    })?;
    let body = NewMcpToken {
        name: args.name.clone(),
        project: project.clone(),
        description: args.description.clone().unwrap_or_default(),
        rbac: args.rbac.clone(),
        role_bindings: bindings("--bind", &args.bind)?,
        ttl: args.ttl.clone(),
        expires_at: None,
        force: args.force,
    };
    let api = Api::of(global)?;
    let answer: Answer<Written<MintedToken>> = api.write(&what, Method::POST, "mcptokens", &body).await?;
    let minted = &answer.body.object;
    let Some(token) = &minted.token else {
        let why = "it was made, but the answer that showed it got lost on the way, and it is not shown twice";
        return Err(Failure::new(format!("cannot show mcptoken {:?}", args.name), why)
            .next(format!(
                "mcpctl create mcptoken {} -p {project} --force (revokes it and makes a new one)",
                args.name
            ))
            .with_exit(Exit::Uncertain));
    };
    eprintln!(
        "mcptoken {:?} created in project {project:?}: copy it now, it is not shown again",
        args.name
    );
    match args.output.output {
        Format::Json => show::json(&answer.body)?,
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
        (Some(old), _) => Err(Failure::new(
            "the token of that name before it is revoked, but not yet effective everywhere",
            "not every replica has confirmed",
        )
        .next(format!("mcpctl revoke mcptoken {old} (safe to repeat)"))
        .with_exit(Exit::Uncertain)),
    }
}

fn bindings(flag: &str, texts: &[String]) -> Result<Vec<RoleBindingBody>, Failure> {
    let read = |text: &String| {
        RoleBindingBody::parse(text).map_err(|error| {
            Failure::usage(format!("cannot read {flag} {text:?}"), error.to_string())
                .next(format!("{flag} role:view,resource:servers,name:my-ha"))
        })
    };
    texts.iter().map(read).collect()
}

async fn rbac(global: &Global, args: &CreateRbac) -> Result<Exit, Failure> {
    refuse_old_flags(args)?;
    let subject = |text: &String| {
        SubjectBody::parse(text)
            .map_err(|error| Failure::usage(format!("cannot read --subject {text:?}"), error.to_string()))
    };
    let spec = RbacSpec {
        name: args.name.clone(),
        subjects: args.subject.iter().map(subject).collect::<Result<_, _>>()?,
        role_bindings: bindings("--roleBindings", &args.role_bindings)?,
    };
    let otherwise = if args.force {
        Otherwise::Send(Method::PUT, &spec)
    } else {
        Otherwise::Fail
    };
    made::<RbacBody, _>(&Api::of(global)?, args.output.output, &args.name, &spec, otherwise).await
}

/// `--binding edit:servers` and `--operation logs` are gone: says what to write instead.
fn refuse_old_flags(args: &CreateRbac) -> Result<(), Failure> {
    let binding = |text: &String| {
        let mut parts = text.splitn(3, ':');
        let (role, resource) = (parts.next().unwrap_or("ROLE"), parts.next().unwrap_or("RESOURCE"));
        let name = parts.next().map_or_else(String::new, |name| format!(",name:{name}"));
        format!("--roleBindings role:{role},resource:{resource}{name}")
    };
    let operation = |text: &String| format!("--roleBindings action:{text}");
    let instead: Vec<String> = args
        .binding
        .iter()
        .map(binding)
        .chain(args.operation.iter().map(operation))
        .collect();
    if instead.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(
        format!("cannot create rbac {:?}", args.name),
        "--binding and --operation are gone",
    )
    .next(format!("write instead: {}", instead.join(" "))))
}

async fn user(global: &Global, args: &CreateUser) -> Result<Exit, Failure> {
    let password = match (args.no_password, args.password_stdin) {
        (true, _) => None,
        (false, true) => Some(password::from_stdin()?),
        (false, false) => Some(password::ask(&format!("Password for {}: ", args.email))?),
    };
    let body = NewUser {
        email: args.email.clone(),
        name: args.name.clone().unwrap_or_default(),
        password: password.map(|p| p.to_string()),
    };
    let otherwise: Otherwise<'_, NewUser> = Otherwise::Fail;
    made::<UserBody, _>(&Api::of(global)?, args.output.output, &args.email, &body, otherwise).await
}
