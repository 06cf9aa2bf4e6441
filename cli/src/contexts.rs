//! `mcpctl config`: contexts.

use serde_json::json;

use crate::args::{Config as Verb, Format, Global};
use crate::config::{Config, Context};
use crate::failure::{Exit, Failure};
use crate::{out, settings, show};

pub(crate) fn config(global: &Global, verb: &Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::GetContexts(args) => get_contexts(&Config::load()?, args.output),
        Verb::UseContext { name } => use_context(name),
        Verb::SetContext { name, server, project } => set_context(global, name, server, project.as_ref()),
        Verb::DeleteContext { name } => delete_context(name),
        Verb::View => view(&Config::load()?),
    }
}

fn get_contexts(config: &Config, format: Format) -> Result<Exit, Failure> {
    let current = |c: &Context| config.current_context.as_ref() == Some(&c.name);
    match format {
        Format::Name => config.contexts.iter().for_each(|c| out::line(&c.name)),
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(format, &shown(config))?,
        Format::Table | Format::Wide if config.contexts.is_empty() => {
            eprintln!("no contexts; make one: mcpctl login --server http://127.0.0.1:3100 --email EMAIL");
        }
        Format::Table | Format::Wide => {
            let row = |c: &Context| {
                vec![
                    if current(c) { "*" } else { "" }.to_owned(),
                    c.name.clone(),
                    c.servers.join(","),
                    c.user.clone().unwrap_or_default(),
                    c.project.clone().unwrap_or_default(),
                ]
            };
            let rows: Vec<_> = config.contexts.iter().map(row).collect();
            show::rows(&["CURRENT", "NAME", "SERVERS", "USER", "PROJECT"], &rows);
        }
    }
    Ok(Exit::Done)
}

fn no_such_context(what: &str, name: &str) -> Failure {
    Failure::new(format!("cannot {what} context {name:?}"), "there is no such context")
        .next("mcpctl config get-contexts")
        .with_exit(Exit::NotFound)
}

fn delete_context(name: &str) -> Result<Exit, Failure> {
    let mut config = Config::load()?;
    let Some(at) = config.contexts.iter().position(|c| c.name == name) else {
        return Err(no_such_context("delete", name));
    };
    let gone = config.contexts.remove(at);
    if config.current_context.as_deref() == Some(name) {
        config.current_context = None;
    }
    config.save()?;
    eprintln!("context {name:?} is deleted");
    if gone.session.is_some() {
        let ends = gone.session_expires_at.as_deref().unwrap_or("an unknown time");
        eprintln!("note: its session was not ended by that; it ends by itself at {ends}");
    }
    Ok(Exit::Done)
}

fn use_context(name: &str) -> Result<Exit, Failure> {
    let mut config = Config::load()?;
    if config.context(name).is_none() {
        return Err(no_such_context("use", name));
    }
    config.current_context = Some(name.to_owned());
    config.save()?;
    eprintln!("context {name:?} is the current one");
    Ok(Exit::Done)
}

fn set_context(global: &Global, name: &str, servers: &[String], project: Option<&String>) -> Result<Exit, Failure> {
    let mut config = Config::load()?;
    let servers: Vec<String> = servers.iter().map(|s| settings::normal(s)).collect::<Result<_, _>>()?;
    if config.context(name).is_none() && servers.is_empty() {
        return Err(
            Failure::usage(format!("cannot make context {name:?}"), "no node is given").next(format!(
                "mcpctl config set-context {name} --server http://127.0.0.1:3100"
            )),
        );
    }
    let context = config.context_mut(name);
    // A session belongs to the nodes that opened it: it does not go to others that are put in their place.
    if !servers.is_empty() && !servers.iter().any(|s| context.servers.contains(s)) {
        (context.session, context.session_expires_at, context.user) = (None, None, None);
    }
    if !servers.is_empty() {
        context.servers = servers;
    }
    if let Some(project) = project {
        context.project = Some(project.clone()).filter(|p| !p.is_empty());
    }
    if let Some(file) = &global.cacert {
        context.cacert = Some(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    }
    config.current_context.get_or_insert_with(|| name.to_owned());
    config.save()?;
    eprintln!("context {name:?} is set");
    Ok(Exit::Done)
}

fn view(config: &Config) -> Result<Exit, Failure> {
    let text = yaml_serde::to_string(&shown(config))
        .map_err(|e| Failure::new("cannot print YAML", e.to_string()).next("mcpctl config get-contexts"))?;
    out::bytes(text.as_bytes());
    Ok(Exit::Done)
}

/// The configuration without sessions.
fn shown(config: &Config) -> serde_json::Value {
    let context = |c: &Context| {
        let session = c.session.as_ref().map(|_| "(hidden)".to_owned());
        json!(Context { session, ..c.clone() })
    };
    json!({
        "currentContext": config.current_context,
        "contexts": config.contexts.iter().map(context).collect::<Vec<_>>(),
    })
}
