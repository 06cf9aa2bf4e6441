//! Where the gateways are: as the command line says, or as the cluster tells the token itself.

use std::path::PathBuf;
use std::sync::Arc;

use mcp_api::auth::Introspection;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::api::{Api, SEE_CONFIG, encoded};
use crate::args::{GatewayArgs, Global};
use crate::failure::{Exit, Failure};
use crate::settings::{self, Settings};

/// An MCP endpoint of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// What is posted to.
    pub(crate) url: String,
    /// What is asked whether the node lives.
    pub(crate) life_url: String,
}

/// The endpoints of a cluster.
pub(crate) struct Endpoints {
    /// In the order in which they are tried; never empty.
    pub(crate) list: Vec<Endpoint>,
    pub(crate) tls: Arc<ClientConfig>,
    /// What the cluster is asked with, if it is asked.
    ask: Option<(Settings, Option<String>)>,
}

impl Endpoint {
    /// The endpoint at a gateway. `base` is its URL, or that of an endpoint of it.
    pub(crate) fn of(base: &str, project: Option<&str>) -> Result<Endpoint, Failure> {
        let base = settings::normal(base)?;
        let (root, named) = match (base.find("/projects/"), base.strip_suffix("/mcp")) {
            (Some(at), _) => (&base[..at], true),
            (None, Some(root)) => (root, true),
            (None, None) => (base.as_str(), false),
        };
        if named && project.is_some() {
            let why = format!("{base} names an endpoint already, and -p another one");
            return Err(
                Failure::usage("cannot choose the project", why).next(format!("leave -p out, or give --server {root}"))
            );
        }
        let url = match (named, project) {
            (true, _) => base.clone(),
            (false, Some(project)) => format!("{root}/projects/{}/mcp", encoded(project)),
            (false, None) => format!("{root}/mcp"),
        };
        Ok(Endpoint {
            url,
            life_url: format!("{root}/livez"),
        })
    }
}

impl Endpoints {
    /// What the arguments say; without `--server` the nodes of the context are asked.
    pub(crate) async fn of(global: &Global, args: &GatewayArgs, token: &str) -> Result<Endpoints, Failure> {
        let project = args.project.as_deref();
        let servers: Vec<&String> = args.server.iter().filter(|s| !s.trim().is_empty()).collect();
        if !servers.is_empty() {
            let cacert = global.cacert.clone().or_else(|| settings::context_cacert(global));
            let list = servers.into_iter().map(|base| Endpoint::of(base, project));
            return Ok(Endpoints {
                list: list.collect::<Result<_, _>>()?,
                tls: trust(cacert)?,
                ask: None,
            });
        }
        let mut settings = Settings::of(global, &[]).map_err(|failure| {
            failure.next("give a gateway: --server http://HOST:3200, or: mcpctl config set-context NAME --server http://HOST:3100")
        })?;
        settings.session = Some(Zeroizing::new(token.to_owned()));
        let told = tell(&settings).await?;
        if let Some(project) = project.filter(|project| *project != told.project) {
            let why = format!("the token {:?} is for project {:?}", told.name, told.project);
            return Err(Failure::new(format!("cannot use project {project:?}"), why)
                .next(format!("leave -p out, or: mcpctl create mcptoken NAME -p {project}"))
                .with_exit(Exit::NotAllowed));
        }
        let list = told.gateways.iter().map(|base| Endpoint::of(base, project));
        let list: Vec<Endpoint> = list.collect::<Result<_, _>>()?;
        if list.is_empty() {
            let why = "the nodes have not said yet where their gateways are";
            return Err(Failure::new("cannot find a gateway", why).next("mcpctl get nodes, and then: --server URL"));
        }
        let tls = trust(settings.cacert.clone())?;
        let ask = Some((settings, args.project.clone()));
        Ok(Endpoints { list, tls, ask })
    }

    /// What the cluster says now, if it is the cluster that says it and one of its nodes answers.
    pub(crate) async fn again(&self) -> Option<Vec<Endpoint>> {
        let (settings, project) = self.ask.as_ref()?;
        let told = tell(settings).await.ok()?;
        let list = told.gateways.iter().map(|base| Endpoint::of(base, project.as_deref()));
        list.collect::<Result<_, _>>().ok()
    }
}

/// What the cluster tells a token about itself.
async fn tell(settings: &Settings) -> Result<Introspection, Failure> {
    let told = Api::with(settings)?
        .get("find the gateways", "mcptokens/introspect")
        .await;
    told.map_err(|failure| match failure.exit() {
        Exit::NotAllowed => failure.next("check MCPCTL_TOKEN: mcpctl get mcptokens shows what there is"),
        _ => failure,
    })
}

fn trust(cacert: Option<PathBuf>) -> Result<Arc<ClientConfig>, Failure> {
    let extra = match cacert {
        Some(file) => mcp_wire::tls::read_certificates(&file)
            .map_err(|why| Failure::usage("cannot read the certificates to trust", why).next(SEE_CONFIG))?,
        None => Vec::new(),
    };
    Ok(mcp_wire::tls::client_config(&extra))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_made_of_a_gateway_or_is_one_already() {
        let rows = [
            (
                "http://h:3200",
                Some("demo"),
                "http://h:3200/projects/demo/mcp",
                "http://h:3200/livez",
            ),
            ("http://h:3200/", None, "http://h:3200/mcp", "http://h:3200/livez"),
            (
                "https://h/gate",
                Some("demo"),
                "https://h/gate/projects/demo/mcp",
                "https://h/gate/livez",
            ),
            (
                "https://h/projects/a/mcp",
                None,
                "https://h/projects/a/mcp",
                "https://h/livez",
            ),
            (
                "https://h/projects/a/servers/b/mcp",
                None,
                "https://h/projects/a/servers/b/mcp",
                "https://h/livez",
            ),
            ("https://h/mcp", None, "https://h/mcp", "https://h/livez"),
        ];
        for (base, project, url, life) in rows {
            let endpoint = Endpoint::of(base, project).unwrap();
            assert_eq!(
                (endpoint.url.as_str(), endpoint.life_url.as_str()),
                (url, life),
                "{base}"
            );
        }
        assert!(Endpoint::of("https://h/projects/a/mcp", Some("b")).is_err());
        assert!(Endpoint::of("h:3200", None).is_err());
    }
}
