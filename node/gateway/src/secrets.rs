//! Secrets on their way into a connection: opened when a server is connected to, and nowhere else. What is opened is
//! remembered only in order to be taken out of what is said about that server.

use std::collections::BTreeMap;

use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::records::Transport;
use mcp_model::secrets::{Piece, pieces, referred, seal_context};
use mcp_store::seal::Seal;
use mcp_store::view::Policy;

/// The secrets that a server refers to, each as it is now: `None` if there is none of that name.
pub(crate) type Seen = Vec<(Name, Option<(Id, u64)>)>;

/// The secrets that a server refers to, as the policy knows them.
pub(crate) fn seen(policy: &Policy, transport: &Transport) -> Seen {
    let names = referred(transport).unwrap_or_default().into_keys();
    names.map(|name| (name.clone(), now(policy, &name))).collect()
}

/// Whether all of them still are as they were.
pub(crate) fn unchanged(policy: &Policy, seen: &Seen) -> bool {
    seen.iter().all(|(name, was)| now(policy, name) == *was)
}

fn now(policy: &Policy, name: &Name) -> Option<(Id, u64)> {
    policy
        .secret(name.as_str())
        .map(|secret| (secret.id, secret.origin.version))
}

/// How a server is reached, with the values in their places.
pub(crate) struct Opened {
    pub(crate) transport: Transport,
    /// What must not be seen of it.
    pub(crate) hidden: Vec<String>,
}

/// Puts values in the place of references. The reason of a failure names secret and key and shows no value.
pub(crate) fn open(seal: &Seal, policy: &Policy, transport: &Transport) -> Result<Opened, String> {
    let mut hidden = Vec::new();
    let mut text = |text: &String| resolve(seal, policy, text, &mut hidden);
    let transport = match transport {
        Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => Transport::Stdio {
            command: command.clone(),
            args: args.iter().map(&mut text).collect::<Result<_, _>>()?,
            env: values(env, &mut text)?,
            cwd: cwd.clone(),
        },
        Transport::Http { url, headers } => Transport::Http {
            url: url.clone(),
            headers: values(headers, &mut text)?,
        },
        Transport::Sse { url, headers } => Transport::Sse {
            url: url.clone(),
            headers: values(headers, &mut text)?,
        },
    };
    Ok(Opened { transport, hidden })
}

fn values(
    map: &BTreeMap<String, String>,
    mut text: impl FnMut(&String) -> Result<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    map.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect()
}

fn resolve(seal: &Seal, policy: &Policy, text: &str, hidden: &mut Vec<String>) -> Result<String, String> {
    let mut whole = String::new();
    for piece in pieces(text).map_err(|why| why.to_string())? {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Secret { name, key } => {
                let value = value(seal, policy, &name, key)?;
                // What a program says comes line by line.
                hidden.extend(value.lines().filter(|line| !line.is_empty()).map(str::to_owned));
                whole.push_str(&value);
            }
        }
    }
    Ok(whole)
}

fn value(seal: &Seal, policy: &Policy, name: &Name, key: &str) -> Result<String, String> {
    let secret = policy
        .secret(name.as_str())
        .ok_or_else(|| format!("there is no secret \"{name}\""))?;
    let sealed = secret
        .values
        .get(key)
        .ok_or_else(|| format!("the secret \"{name}\" has no key \"{key}\""))?;
    let opened = seal
        .open(&seal_context(secret.id, key), sealed)
        .map_err(|why| format!("the key \"{key}\" of the secret \"{name}\" cannot be opened: {why}"))?;
    String::from_utf8(opened.to_vec()).map_err(|_| format!("the key \"{key}\" of the secret \"{name}\" is not text"))
}
