//! Which nodes a command is for, and on whose behalf: flag over environment over context.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::args::{Global, ProjectArg};
use crate::config::{Config, Context};
use crate::failure::Failure;

/// The context that `login` makes when none is named.
pub(crate) const FIRST_CONTEXT: &str = "default";

/// The certificates to trust that stand in the context, for commands that need no context otherwise.
pub(crate) fn context_cacert(global: &Global) -> Option<PathBuf> {
    let config = Config::load().ok()?;
    let name = global.context.as_ref().or(config.current_context.as_ref())?;
    config.context(name)?.cacert.clone()
}

/// What a command needs to talk to a cluster.
pub(crate) struct Settings {
    /// API URLs, in the order in which they are tried, without a slash at the end.
    pub(crate) servers: Vec<String>,
    pub(crate) session: Option<Zeroizing<String>>,
    pub(crate) cacert: Option<PathBuf>,
    /// Name of the context, for `login` and `logout`.
    pub(crate) context: String,
}

impl Settings {
    /// Puts flags, environment and context together. `servers` come from the command itself, before all others.
    pub(crate) fn of(global: &Global, servers: &[String]) -> Result<Settings, Failure> {
        let config = Config::load()?;
        let named = global.context.clone().or_else(|| config.current_context.clone());
        let context = named.clone().unwrap_or_else(|| FIRST_CONTEXT.to_owned());
        let known = config.context(&context);
        // A context that is named on the command line goes before what the environment says.
        let api: &[String] = if global.context_rules { &[] } else { &global.api };
        if known.is_none() && global.context.is_some() && servers.is_empty() && api.is_empty() {
            return Err(
                Failure::usage("cannot choose the cluster", format!("there is no context {context:?}"))
                    .next("mcpctl config get-contexts"),
            );
        }
        let given = [servers, api].into_iter().find(|list| !list.is_empty());
        let from_context = || known.map(|c| c.servers.clone()).unwrap_or_default();
        let servers = given.map_or_else(from_context, <[String]>::to_vec);
        let servers = servers.iter().filter(|s| !s.trim().is_empty()).map(|s| normal(s));
        let servers: Vec<String> = servers.collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(Failure::usage(
                "cannot choose the cluster",
                "no node is known: there is no context, no --api and no MCPCTL_SERVER",
            )
            .next("mcpctl login --server http://127.0.0.1:3100 --email EMAIL"));
        }
        let said = std::env::var("MCPCTL_SESSION").ok().filter(|s| !s.is_empty());
        let own = own_session(known, &servers);
        let session = if global.context_rules {
            own.or(said)
        } else {
            said.or(own)
        };
        let session = session.map(Zeroizing::new);
        let cacert = global.cacert.clone().or_else(|| known.and_then(|c| c.cacert.clone()));
        Ok(Settings {
            servers,
            session,
            cacert,
            context,
        })
    }
}

/// The context's session, for the context's nodes only: it is nobody else's business.
fn own_session(context: Option<&Context>, servers: &[String]) -> Option<String> {
    let context = context?;
    let known: Vec<String> = context.servers.iter().filter_map(|s| normal(s).ok()).collect();
    servers
        .iter()
        .all(|s| known.contains(s))
        .then(|| context.session.clone())?
}

/// A node's URL in one form.
pub(crate) fn normal(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("cannot use {:?} as the URL of a node", without_login(url)), why)
            .next("write it as http://HOST:3100 or https://HOST:3100")
    };
    let url = url.trim().trim_end_matches('/');
    let parsed: reqwest::Url = url.parse().map_err(|_| wrong("it is no URL"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("it begins with neither http:// nor https://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("it holds a user name or password, which would end up in logs"));
    }
    Ok(url.to_owned())
}

/// The URL without what stands before an `@`: it may be a password, and what is said may be kept.
fn without_login(url: &str) -> String {
    let Some((before, after)) = url.rsplit_once('@') else {
        return url.to_owned();
    };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    let end = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{end}…@{after}")
}

impl ProjectArg {
    /// The project, from the flag, the environment or the context.
    pub(crate) fn known(&self, global: &Global) -> Result<Option<String>, Failure> {
        if self.project.is_some() {
            return Ok(self.project.clone());
        }
        let config = Config::load()?;
        let context = global.context.as_ref().or(config.current_context.as_ref());
        Ok(context.and_then(|name| config.context(name)?.project.clone()))
    }

    /// The same for a command that cannot do without.
    pub(crate) fn needed(&self, global: &Global, what: &str) -> Result<String, Failure> {
        self.known(global)?.ok_or_else(|| {
            Failure::usage(
                format!("cannot {what}"),
                "names of tokens are unique within a project only, and none is given",
            )
            .next(
                format!("mcpctl {what} -p PROJECT")
                    .replace('"', "")
                    .replace("wait for", "wait"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_url_leaves_a_password_out() {
        let rows = [
            ("http://user:hunter2@host:3100", "http://…@host:3100"),
            ("http://user:hunter2@host:nowhere", "http://…@host:nowhere"),
            ("user:hunter2@host", "…@host"),
            ("http://a@b:hunter2@host", "http://…@host"),
            ("ftp://host", "ftp://host"),
        ];
        for (url, shown) in rows {
            assert_eq!(without_login(url), shown);
            let said = format!("{:?}", normal(url).unwrap_err());
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
