//! `mcpnode.toml`: what an operator decides about one node. Environment and flags win over it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mcp_model::names::Name;
use mcp_model::timers::Timers;
use serde::{Deserialize, Serialize};

use crate::args::ServeArgs;

/// The whole file. Unknown keys are refused: a misspelt limit must not be a missing one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What people call this node.
    pub(crate) name: Name,
    /// Where it keeps its data; made by `mcpnode dev`.
    pub(crate) data_dir: PathBuf,
    /// The MCP listener.
    #[serde(default = "Listener::gateway")]
    pub(crate) gateway: Listener,
    /// The API's listener.
    #[serde(default = "Listener::api")]
    pub(crate) api: Listener,
    /// The peers' listener.
    #[serde(default)]
    pub(crate) peers: Peers,
    /// Leases and elections. The same on every node.
    #[serde(default)]
    pub(crate) timers: TimersConfig,
    /// How a new cluster begins. Ignored once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap: Option<Bootstrap>,
}

/// A listener that clients reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// `address:port`. Loopback unless told otherwise.
    pub(crate) listen: SocketAddr,
    /// What others call it, if not `http://<listen>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Host names that are answered. Loopback names always are; anything else is a rebinding attack until it is named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_hosts: Vec<String>,
    /// Origins whose pages may call. None is the safe value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_origins: Vec<String>,
}

impl Listener {
    fn on(port: u16) -> Listener {
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        Listener {
            listen,
            url: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }

    fn gateway() -> Listener {
        Listener::on(3200)
    }

    fn api() -> Listener {
        Listener::on(3100)
    }

    /// The URL under which others reach it.
    pub(crate) fn url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }
}

/// The peers' listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peers {
    /// `address:port`.
    pub(crate) listen: SocketAddr,
    /// What peers connect to, if not `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
}

impl Default for Peers {
    fn default() -> Peers {
        Peers {
            listen: SocketAddr::from(([127, 0, 0, 1], 3300)),
            advertise: None,
        }
    }
}

impl Peers {
    /// Where peers connect to.
    pub(crate) fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }
}

/// Every timer may be left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimersConfig {
    lease_ms: Option<u64>,
    renew_every_ms: Option<u64>,
    margin_ms: Option<u64>,
    rho_ppm: Option<u64>,
    heartbeat_ms: Option<u64>,
    leader_silence_ms: Option<u64>,
    jitter_ms: Option<u64>,
    round_ms: Option<u64>,
}

impl TimersConfig {
    /// The timers, if they can work together.
    pub(crate) fn resolve(&self) -> anyhow::Result<Timers> {
        let usual = Timers::default();
        let timers = Timers {
            lease_ms: self.lease_ms.unwrap_or(usual.lease_ms),
            renew_every_ms: self.renew_every_ms.unwrap_or(usual.renew_every_ms),
            margin_ms: self.margin_ms.unwrap_or(usual.margin_ms),
            rho_ppm: self.rho_ppm.unwrap_or(usual.rho_ppm),
            heartbeat_ms: self.heartbeat_ms.unwrap_or(usual.heartbeat_ms),
            leader_silence_ms: self.leader_silence_ms.unwrap_or(usual.leader_silence_ms),
            jitter_ms: self.jitter_ms.unwrap_or(usual.jitter_ms),
            round_ms: self.round_ms.unwrap_or(usual.round_ms),
        };
        timers.check().context("[timers] cannot work")?;
        Ok(timers)
    }
}

/// How a new cluster begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bootstrap {
    /// Every first voter, this node included.
    pub(crate) members: Vec<Member>,
    /// The first administrator.
    pub(crate) admin_email: String,
    /// The file that holds their first password.
    pub(crate) admin_secret_file: PathBuf,
}

/// A first voter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its id, 16 hexadecimal digits.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: Name,
    /// Where its peers connect to.
    pub(crate) address: String,
}

impl Config {
    /// Reads the file and puts environment and flags on top.
    pub(crate) fn load(args: &ServeArgs) -> anyhow::Result<Config> {
        let mut config = Config::read(&args.config)?;
        if let Some(dir) = &args.data_dir {
            config.data_dir.clone_from(dir);
        }
        let original = legacy_listen()?;
        for (what, value, slot) in [
            (
                "--gateway-listen",
                args.gateway_listen.as_ref().or(original.as_ref()),
                &mut config.gateway.listen,
            ),
            ("--api-listen", args.api_listen.as_ref(), &mut config.api.listen),
            ("--peer-listen", args.peer_listen.as_ref(), &mut config.peers.listen),
        ] {
            if let Some(text) = value {
                *slot = text
                    .parse()
                    .with_context(|| format!("{what} {text:?} is not ADDRESS:PORT, such as 127.0.0.1:3200"))?;
            }
        }
        warn_of_the_unneeded();
        Ok(config)
    }

    /// Reads the file alone.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{} cannot be read: name the file with --config, or try `mcpnode dev`",
                path.display()
            )
        })?;
        let mut config: Config = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        if config.data_dir.as_os_str().is_empty() {
            bail!("{}: data_dir must not be empty", path.display());
        }
        // Paths in the file are meant from the file.
        let base = std::path::absolute(path)?
            .parent()
            .map_or_else(PathBuf::new, Path::to_owned);
        config.data_dir = base.join(&config.data_dir);
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.admin_secret_file = base.join(&bootstrap.admin_secret_file);
        }
        Ok(config)
    }
}

/// `MCPLOCAL_HTTP_HOST` and `MCPLOCAL_HTTP_PORT` of the original.
fn legacy_listen() -> anyhow::Result<Option<String>> {
    let (host, port) = (
        std::env::var("MCPLOCAL_HTTP_HOST").ok(),
        std::env::var("MCPLOCAL_HTTP_PORT").ok(),
    );
    if host.is_none() && port.is_none() {
        return Ok(None);
    }
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let host = if host == "localhost" {
        "127.0.0.1".to_owned()
    } else {
        host
    };
    let port = port.unwrap_or_else(|| "3200".to_owned());
    let host: std::net::IpAddr = host
        .parse()
        .with_context(|| format!("MCPLOCAL_HTTP_HOST {host:?} is not an IP address"))?;
    let port: u16 = port
        .parse()
        .with_context(|| format!("MCPLOCAL_HTTP_PORT {port:?} is not a port"))?;
    Ok(Some(SocketAddr::new(host, port).to_string()))
}

fn warn_of_the_unneeded() {
    let unneeded = [
        "MCPLOCAL_MCPD_URL",
        "MCPLOCAL_TOKEN_POSITIVE_TTL_MS",
        "MCPLOCAL_TOKEN_NEGATIVE_TTL_MS",
    ];
    let set: Vec<&str> = unneeded
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some())
        .collect();
    if !set.is_empty() {
        tracing::warn!(
            variables = set.join(" "),
            "no longer needed: every node decides from its own replica"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("mcpnode.toml");
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn a_short_file_gets_the_defaults() {
        let config = read("name = \"one\"\ndata_dir = \"data\"\n").unwrap();
        assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:3200");
        assert_eq!(config.api.url(), "http://127.0.0.1:3100");
        assert_eq!(config.peers.address(), "127.0.0.1:3300");
        assert!(config.data_dir.is_absolute(), "paths are meant from the file");
        assert_eq!(config.timers.resolve().unwrap(), Timers::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let head = "name = \"one\"\ndata_dir = \"data\"\n";
        for (text, named) in [
            ("data_dir = \"x\"\n".to_owned(), "name"),
            ("name = \"One\"\ndata_dir = \"x\"\n".to_owned(), "begins and ends"),
            (format!("{head}colour = 1\n"), "colour"),
            (format!("{head}[gateway]\nlisten = \"localhost\"\n"), "listen"),
            (format!("{head}[timers]\nlease = 5\n"), "lease"),
        ] {
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
        let timers = read(&format!("{head}[timers]\nlease_ms = 900\nrenew_every_ms = 200\n"))
            .unwrap()
            .timers;
        let error = format!("{:#}", timers.resolve().unwrap_err());
        assert!(error.contains("lease_ms 900"), "{error}");
    }
}
