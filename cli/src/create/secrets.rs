//! `mcpctl create secret`: values come from files, standard input or the terminal, never from arguments.

use std::collections::BTreeMap;
use std::io::Read;

use mcp_api::secrets::{SecretBody, SecretChange, SecretSpec};
use reqwest::Method;

use super::{Otherwise, made};
use crate::api::Api;
use crate::args::{CreateSecret, Global};
use crate::failure::{Exit, Failure};
use crate::password;

/// Longest value that is read, in bytes.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;

pub(super) async fn create(global: &Global, args: &CreateSecret) -> Result<Exit, Failure> {
    refuse_literals(args)?;
    let data = values(args)?;
    let change = SecretChange {
        description: args.description.clone(),
        data: data
            .iter()
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .collect(),
    };
    let spec = SecretSpec {
        name: args.name.clone(),
        description: args.description.clone().unwrap_or_default(),
        data,
    };
    let otherwise = Otherwise::if_forced(args.force, Method::PATCH, &change);
    made::<SecretBody, _>(
        &Api::of(global)?.waiting(&args.waiting),
        args.output.output,
        &args.name,
        &spec,
        otherwise,
    )
    .await
}

/// An argument can be read by every user of the machine, and stays in the shell's history.
fn refuse_literals(args: &CreateSecret) -> Result<(), Failure> {
    let Some(literal) = args.from_literal.first() else {
        return Ok(());
    };
    let key = literal.split('=').next().unwrap_or("KEY");
    let why = "--from-literal would show the value to every user of this machine and keep it in the shell's history";
    Err(
        Failure::usage(format!("cannot create secret {:?}", args.name), why).next(format!(
            "mcpctl create secret {} --key {key} (asks for the value), or --from-file {key}=FILE",
            args.name
        )),
    )
}

fn values(args: &CreateSecret) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for text in &args.from_file {
        let (key, file) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("cannot read --from-file {text:?}"), "it is not KEY=FILE")
                .next("--from-file token=token.txt")
        })?;
        add(&mut all, key, value_of(file)?)?;
    }
    if let Some(file) = &args.from_env_file {
        for (at, line) in value_of(file)?.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| {
                // The line itself may be a secret.
                Failure::usage(
                    format!("cannot read {file}"),
                    format!("line {} is not KEY=VALUE", at + 1),
                )
                .next(format!("sed -n {}p {file}", at + 1))
            })?;
            add(&mut all, key.trim(), value.to_owned())?;
        }
    }
    for key in &args.key {
        add(&mut all, key, asked(&args.name, key)?)?;
    }
    Ok(all)
}

fn asked(name: &str, key: &str) -> Result<String, Failure> {
    let otherwise = format!("mcpctl create secret {name} --from-file {key}=FILE");
    Ok(password::ask(&format!("{name}/{key}: "), &otherwise)?.to_string())
}

fn add(all: &mut BTreeMap<String, String>, key: &str, value: String) -> Result<(), Failure> {
    match all.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(
            Failure::usage(format!("cannot read the value of {key:?}"), "it is given twice")
                .next("mcpctl create secret --help"),
        ),
    }
}

/// What a file holds, without a line break at its end. `-` is standard input.
pub(crate) fn value_of(file: &str) -> Result<String, Failure> {
    let failed = |why: String| Failure::usage(format!("cannot read {file}"), why).next(format!("ls -l {file}"));
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin()
            .lock()
            .take(VALUE_BYTES_MAX + 1)
            .read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|f| f.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(failed(format!("it is longer than {VALUE_BYTES_MAX} bytes")));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
