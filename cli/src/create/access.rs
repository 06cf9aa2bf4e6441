//! `mcpctl create` for those who may do things, and for what they may do.

use mcp_api::groups::{GroupBody, GroupChange, GroupSpec};
use mcp_api::rbac::{RbacBody, RbacSpec, SubjectBody};
use mcp_api::serviceaccounts::{NewSession, OpenedSession, ServiceAccountBody, ServiceAccountSpec};
use mcp_api::users::{NewUser, UserBody};
use mcp_api::write::Written;
use reqwest::Method;

use super::{Otherwise, bindings, made};
use crate::api::{Answer, Api, encoded};
use crate::args::{CreateGroup, CreateRbac, CreateServiceAccount, CreateSession, CreateUser, Format, Global};
use crate::failure::{Exit, Failure};
use crate::{out, password, show};

pub(super) async fn rbac(global: &Global, args: &CreateRbac) -> Result<Exit, Failure> {
    refuse_old_flags(args)?;
    let subject = |text: &String| {
        SubjectBody::parse(text).map_err(|error| {
            Failure::usage(format!("cannot read --subject {text:?}"), error.to_string()).next(format!(
                "mcpctl create rbac {} --subject User:alice@example.com --roleBindings action:logs",
                args.name
            ))
        })
    };
    let spec = RbacSpec {
        name: args.name.clone(),
        subjects: args.subject.iter().map(subject).collect::<Result<_, _>>()?,
        role_bindings: bindings(
            &format!("rbac {} --subject User:EMAIL", args.name),
            "--roleBindings",
            &args.role_bindings,
        )?,
    };
    let otherwise = Otherwise::if_forced(args.force, Method::PUT, &spec);
    made::<RbacBody, _>(
        &Api::of(global)?.waiting(&args.waiting),
        args.output.output,
        &args.name,
        &spec,
        otherwise,
    )
    .await
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
    let subjects: Vec<String> = args.subject.iter().map(|s| format!(" --subject {s}")).collect();
    Err(Failure::usage(
        format!("cannot create rbac {:?}", args.name),
        "--binding and --operation are gone: write --roleBindings instead",
    )
    .next(format!(
        "mcpctl create rbac {}{} {}",
        args.name,
        subjects.concat(),
        instead.join(" ")
    )))
}

pub(super) async fn user(global: &Global, args: &CreateUser) -> Result<Exit, Failure> {
    let password = match (args.no_password, args.password_stdin) {
        (true, _) => None,
        (false, true) => Some(password::from_stdin()?),
        (false, false) => {
            let otherwise = format!("mcpctl create user {} --no-password (or --password-stdin)", args.email);
            Some(password::ask(&format!("Password for {}: ", args.email), &otherwise)?)
        }
    };
    let body = NewUser {
        email: args.email.clone(),
        name: args.name.clone().unwrap_or_default(),
        password: password.map(|p| p.to_string()),
    };
    let otherwise: Otherwise<'_, NewUser> = Otherwise::Fail;
    made::<UserBody, _>(&Api::of(global)?, args.output.output, &args.email, &body, otherwise).await
}

pub(super) async fn group(global: &Global, args: &CreateGroup) -> Result<Exit, Failure> {
    let spec = GroupSpec {
        name: args.name.clone(),
        description: args.description.clone().unwrap_or_default(),
        members: args.member.clone(),
    };
    let change = GroupChange {
        description: args.description.clone(),
        add_members: args.member.clone(),
        ..GroupChange::default()
    };
    let otherwise = Otherwise::if_forced(args.force, Method::PATCH, &change);
    made::<GroupBody, _>(
        &Api::of(global)?.waiting(&args.waiting),
        args.output.output,
        &args.name,
        &spec,
        otherwise,
    )
    .await
}

pub(super) async fn service_account(global: &Global, args: &CreateServiceAccount) -> Result<Exit, Failure> {
    let spec = ServiceAccountSpec {
        name: args.name.clone(),
        description: args.description.clone().unwrap_or_default(),
    };
    let otherwise: Otherwise<'_, ServiceAccountSpec> = Otherwise::Fail;
    made::<ServiceAccountBody, _>(&Api::of(global)?, args.output.output, &args.name, &spec, otherwise).await
}

pub(super) async fn session(global: &Global, args: &CreateSession) -> Result<Exit, Failure> {
    let account = &args.serviceaccount;
    let what = format!("create a session for serviceaccount {account:?}");
    let path = format!("serviceaccounts/{}/sessions", encoded(account));
    let body = NewSession { ttl: args.ttl.clone() };
    let answer: Answer<Written<OpenedSession>> = Api::of(global)?.write(&what, Method::POST, &path, &body).await?;
    let opened = &answer.body.object;
    let Some(token) = &opened.token else {
        let why = "it was opened, but the answer that showed it got lost on the way, and it is not shown twice";
        return Err(Failure::new(format!("cannot show the session {}", opened.id), why)
            .next(format!(
                "mcpctl delete session {} && mcpctl create session --serviceaccount {account}",
                opened.id
            ))
            .with_exit(Exit::Uncertain));
    };
    eprintln!(
        "session of serviceaccount {account:?} opened, until {}; copy it now, it is not shown again",
        opened.expires_at
    );
    match args.output.output {
        Format::Json | Format::JsonPath(_) => show::other(args.output.output, &answer.body)?,
        Format::Table | Format::Wide | Format::Yaml | Format::Name => out::line(token),
    }
    Ok(Exit::Done)
}
