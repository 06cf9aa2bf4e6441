//! `mcpnode.toml`: what an operator decides about one node. The environment wins over the file, and flags over both.

mod layers;
mod template;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use mcp_model::limits::ProjectLimits;
use mcp_model::names::Name;
use mcp_model::timers::Timers;
use mcp_raft::DiskLimits;

use self::layers::Layers;
use crate::args::{NodeArgs, ServeArgs};

/// Ports of the three listeners where nothing else is said.
pub(crate) const GATEWAY_PORT: u16 = 3200;
pub(crate) const API_PORT: u16 = 3100;
pub(crate) const PEER_PORT: u16 = 3300;
/// What `connections_max` may be.
const CONNECTIONS_MAX: RangeInclusive<u64> = 16..=1_000_000;

/// What one node is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What people call this node.
    pub(crate) name: Name,
    /// Where it keeps its data; made by `mcpnode init`, `join` or `dev`.
    pub(crate) data_dir: PathBuf,
    /// The MCP listener.
    pub(crate) gateway: Listener,
    /// The API's listener.
    pub(crate) api: Listener,
    /// The peers' listener.
    pub(crate) peers: Peers,
    /// Leases and elections. The same on every node.
    pub(crate) timers: Timers,
    /// When the disk is no longer good enough to lead and to be ready.
    pub(crate) disk: DiskLimits,
    /// How much of the raft log is kept.
    pub(crate) log: LogLimits,
    /// Where MCP servers over HTTP may be.
    pub(crate) upstreams: UpstreamAddresses,
    /// What each token and each project may use of this node, where the project says nothing else.
    pub(crate) quotas: ProjectLimits,
}

/// Which addresses MCP servers over HTTP may have. Too wide is dangerous: whoever may write a server reaches with it whatever this
/// machine reaches. Link-local addresses and the metadata services of clouds are refused whatever stands here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UpstreamAddresses {
    /// Whether private addresses are allowed, loopback among them.
    pub(crate) allow_private: bool,
    /// Private networks that are allowed all the same.
    pub(crate) allowed_networks: Vec<IpNet>,
}

/// How much of the raft log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// Entries after which a snapshot is packed. Too many, and a restart carries out more of them again.
    pub(crate) snapshot_entries: u64,
    /// Entries that stay behind a snapshot. Too few, and a node that was away for a moment needs a whole snapshot.
    pub(crate) kept_entries: u64,
    /// How often replicas compare their states, s. More often costs reading the whole state; more rarely finds a difference later.
    pub(crate) compare_every_s: u64,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        LogLimits {
            snapshot_entries: mcp_raft::SNAPSHOT_ENTRIES,
            kept_entries: mcp_raft::KEPT_ENTRIES,
            compare_every_s: mcp_raft::COMPARE_EVERY.as_secs(),
        }
    }
}

/// A listener that clients reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it binds. Loopback unless told otherwise.
    pub(crate) listen: SocketAddr,
    /// What others call it, if not by its address.
    pub(crate) url: Option<String>,
    /// How it is encrypted.
    pub(crate) tls: Tls,
    /// Host names that are answered beside loopback names, its own address and its URL's. One too few is refused; one too
    /// many lets a web page reach it under a name of its own (DNS rebinding).
    pub(crate) allowed_hosts: Vec<String>,
    /// Origins whose pages may call. None is the safe value.
    pub(crate) allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed. None is the safe value: one too many lets clients choose their address.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Connections at most. `None`: what the limit on open files allows. Too many, and descriptors or memory run out first.
    pub(crate) connections_max: Option<usize>,
}

/// How a listener is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    /// With a certificate of the cluster's own authority, renewed by the node.
    Auto,
    /// With a certificate from these files, read again when they change.
    Files {
        /// PEM: the certificate and its chain.
        cert: PathBuf,
        /// PEM: its private key.
        key: PathBuf,
    },
    /// Not at all: behind something that terminates TLS.
    Off,
}

/// The peers' listener: always mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peers {
    /// Where it binds.
    pub(crate) listen: SocketAddr,
    /// What peers connect to, if not `listen`.
    pub(crate) advertise: Option<String>,
}

impl Listener {
    /// A listener on this address with everything else as it is unless told otherwise.
    pub(crate) fn on(listen: SocketAddr, tls: Tls) -> Listener {
        Listener {
            listen,
            url: None,
            tls,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            connections_max: None,
        }
    }

    /// The URL under which others reach it; `host` stands in where it binds to every address.
    pub(crate) fn url(&self, host: &str) -> String {
        let scheme = if self.tls == Tls::Off { "http" } else { "https" };
        let own = || match self.listen.ip().is_unspecified() {
            true => format!("{scheme}://{host}:{}", self.listen.port()),
            false => format!("{scheme}://{}", self.listen),
        };
        self.url.clone().unwrap_or_else(own)
    }

    /// Loopback names, the listener's own address, the host of its URL, and what the operator adds. `host` as in [`Listener::url`].
    pub(crate) fn hosts(&self, host: &str) -> Vec<String> {
        let own = match self.listen.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let named = host_of_url(&self.url(host));
        let loopback = mcpd::hosts::LOOPBACK.into_iter().map(str::to_owned);
        let mut hosts: Vec<String> = loopback.chain([own]).chain(named).collect();
        hosts.extend(self.allowed_hosts.iter().cloned());
        hosts
    }
}

impl Peers {
    /// Where peers connect to.
    pub(crate) fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// The host of that.
    pub(crate) fn host(&self) -> String {
        let address = self.address();
        address
            .rsplit_once(':')
            .map_or(address.clone(), |(host, _)| host.to_owned())
    }
}

impl Config {
    /// The URL of this node's API.
    pub(crate) fn api_url(&self) -> String {
        self.api.url(&self.peers.host())
    }

    /// The URL of this node's gateway.
    pub(crate) fn gateway_url(&self) -> String {
        self.gateway.url(&self.peers.host())
    }

    /// The hosts under which this node's API answers.
    pub(crate) fn api_hosts(&self) -> Vec<String> {
        self.api.hosts(&self.peers.host())
    }

    /// The hosts under which this node's gateway answers.
    pub(crate) fn gateway_hosts(&self) -> Vec<String> {
        self.gateway.hosts(&self.peers.host())
    }

    /// Every host that a client may call this node's listeners: what their certificate names.
    pub(crate) fn certified_hosts(&self) -> Vec<String> {
        let mut hosts = [self.gateway_hosts(), self.api_hosts(), vec![self.peers.host()]].concat();
        hosts.push(self.name.to_string());
        hosts
            .iter_mut()
            .for_each(|host| *host = host.trim_matches(['[', ']']).to_owned());
        hosts.retain(|host| host != "*" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()));
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// The file as `init`, `join` and `dev` write it: complete, with the meaning of every key.
    pub(crate) fn to_toml(&self) -> String {
        template::render(self)
    }

    /// Reads the file and puts environment and flags on top.
    pub(crate) fn load(args: &ServeArgs) -> anyhow::Result<Config> {
        let mut layers = Layers::of_file(&args.config)?;
        layers.environment(std::env::vars());
        let given = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        layers.flag("data_dir", "--data-dir", given(&args.data_dir));
        layers.flag("gateway.listen", "--gateway-listen", args.gateway_listen.clone());
        layers.flag("api.listen", "--api-listen", args.api_listen.clone());
        layers.flag("peers.listen", "--peer-listen", args.peer_listen.clone());
        Config::of(layers)
    }

    /// What `init` and `join` are told about the node that they make.
    pub(crate) fn of_new(args: &NodeArgs, dir: &Path, usual_name: &str) -> anyhow::Result<Config> {
        let mut layers = Layers::of_text(dir.join(crate::home::CONFIG_FILE), "")?;
        layers.flag("name", "the machine's name", Some(usual_name.to_owned()));
        layers.environment(std::env::vars());
        layers.flag("data_dir", "--data-dir", Some(dir.display().to_string()));
        layers.flag("name", "--name", args.name.clone());
        layers.flag("gateway.listen", "--gateway-listen", args.gateway_listen.clone());
        layers.flag("gateway.url", "--gateway-url", args.gateway_url.clone());
        layers.flag("gateway.tls", "--tls", args.tls.clone());
        layers.flag("api.listen", "--api-listen", args.api_listen.clone());
        layers.flag("api.url", "--api-url", args.api_url.clone());
        layers.flag("api.tls", "--tls", args.tls.clone());
        layers.flag("peers.listen", "--peer-listen", args.peer_listen.clone());
        layers.flag("peers.advertise", "--advertise", args.advertise.clone());
        Config::of(layers)
    }

    /// Reads the file alone.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
        Config::of(Layers::of_file(path)?)
    }

    /// The same of a text; `file` is where it would stand.
    pub(crate) fn of_text(file: std::path::PathBuf, text: &str) -> anyhow::Result<Config> {
        Config::of(Layers::of_text(file, text)?)
    }

    fn of(mut layers: Layers) -> anyhow::Result<Config> {
        let name = layers.required(
            "name",
            "a name such as node-1: a-z, 0-9 and -, at most 63 characters",
            |text| Name::parse(text).ok(),
        );
        let data_dir = layers.path("data_dir");
        if data_dir.is_none() {
            layers.missing("data_dir", "a directory");
        }
        let gateway = listener(&mut layers, "gateway", GATEWAY_PORT);
        let api = listener(&mut layers, "api", API_PORT);
        let peers = peers(&mut layers);
        let timers = timers(&mut layers);
        let disk = disk(&mut layers);
        let log = log(&mut layers);
        let upstreams = upstreams(&mut layers);
        let quotas = quotas(&mut layers);
        layers.refuse()?;
        Ok(Config {
            name: name.expect("a missing name is a fault"),
            data_dir: data_dir.expect("a missing directory is a fault"),
            gateway,
            api,
            peers,
            timers,
            disk,
            log,
            upstreams,
            quotas,
        })
    }
}

fn listener(layers: &mut Layers, section: &str, port: u16) -> Listener {
    let key = |name: &str| format!("{section}.{name}");
    let listen = layers.address(&key("listen"), port);
    let url = layers.parsed(
        &key("url"),
        "http://HOST[:PORT] or https://HOST[:PORT], without a path",
        url,
    );
    let mode = layers.parsed(&key("tls"), "auto, files or off", |mode| match mode {
        "auto" | "files" | "off" => Some(mode.to_owned()),
        _ => None,
    });
    let (cert, key_file) = (layers.path(&key("cert_file")), layers.path(&key("key_file")));
    let tls = match (mode.as_deref(), cert, key_file) {
        (Some("files"), Some(cert), Some(key)) => Tls::Files { cert, key },
        (Some("files"), cert, _) => {
            let lacking = if cert.is_none() { "cert_file" } else { "key_file" };
            layers.missing(&key(lacking), "a PEM file, because tls is \"files\"");
            Tls::Off
        }
        (Some("off"), None, None) => Tls::Off,
        (_, None, None) => Tls::Auto,
        (_, cert, _) => {
            let idle = if cert.is_some() { "cert_file" } else { "key_file" };
            layers.fault(&key(idle), "has a meaning only with tls = \"files\"");
            Tls::Off
        }
    };
    Listener {
        listen,
        url,
        tls,
        allowed_hosts: layers.list(&key("allowed_hosts"), "host names without scheme and port", host),
        allowed_origins: layers.list(&key("allowed_origins"), "origins such as https://app.example", origin),
        trusted_proxies: layers.list(
            &key("trusted_proxies"),
            "IP addresses or networks such as 10.0.0.0/8",
            network,
        ),
        connections_max: layers
            .number(&key("connections_max"), CONNECTIONS_MAX)
            .and_then(|number| usize::try_from(number).ok()),
    }
}

fn peers(layers: &mut Layers) -> Peers {
    let listen = layers.address("peers.listen", PEER_PORT);
    let advertise = layers.parsed(
        "peers.advertise",
        "HOST:PORT, as the other nodes reach this one",
        host_and_port,
    );
    if advertise.is_none() && listen.ip().is_unspecified() {
        layers.missing(
            "peers.advertise",
            &format!("HOST:PORT, because peers.listen {listen} is no address to connect to"),
        );
    }
    Peers { listen, advertise }
}

fn disk(layers: &mut Layers) -> DiskLimits {
    let usual = DiskLimits::default();
    DiskLimits {
        flush_ms_max: layers
            .number("disk.flush_ms_max", 10..=30_000)
            .unwrap_or(usual.flush_ms_max),
        // At most 1 TiB.
        free_bytes_min: layers
            .number("disk.free_bytes_min", 0..=1 << 40)
            .unwrap_or(usual.free_bytes_min),
    }
}

fn log(layers: &mut Layers) -> LogLimits {
    let usual = LogLimits::default();
    let entries = 10..=1_000_000;
    LogLimits {
        snapshot_entries: layers
            .number("log.snapshot_entries", entries.clone())
            .unwrap_or(usual.snapshot_entries),
        kept_entries: layers.number("log.kept_entries", entries).unwrap_or(usual.kept_entries),
        compare_every_s: layers
            .number("log.compare_every_s", 10..=86_400)
            .unwrap_or(usual.compare_every_s),
    }
}

fn upstreams(layers: &mut Layers) -> UpstreamAddresses {
    UpstreamAddresses {
        allow_private: layers.truth("upstreams.allow_private").unwrap_or(false),
        allowed_networks: layers.list(
            "upstreams.allowed_networks",
            "IP addresses or networks such as 10.1.0.0/16",
            network,
        ),
    }
}

/// What a token, or a project, may use: the keys of `[quotas]` begin with its name.
pub(crate) const QUOTA_KEYS: [&str; 4] = ["requests_per_second", "concurrent_requests", "streams", "sessions"];

fn quotas(layers: &mut Layers) -> ProjectLimits {
    let mut quotas = mcp_gateway::limits::Limits::default().quotas;
    for (of, quota) in [("token", &mut quotas.token), ("project", &mut quotas.project)] {
        let slots = [
            &mut quota.rate,
            &mut quota.requests,
            &mut quota.streams,
            &mut quota.sessions,
        ];
        for (key, slot) in QUOTA_KEYS.iter().zip(slots) {
            let number = layers.number(&format!("quotas.{of}_{key}"), 1..=1_000_000);
            *slot = number.and_then(|number| u32::try_from(number).ok()).or(*slot);
        }
    }
    if let Some(seconds) = layers.number("quotas.session_idle_s", 60..=7 * 86_400) {
        quotas.session_idle_ms = Some(seconds * 1_000);
    }
    quotas
}

fn timers(layers: &mut Layers) -> Timers {
    let mut timers = Timers::default();
    for (name, most, slot) in [
        ("lease_ms", 60_000, &mut timers.lease_ms),
        ("renew_every_ms", 30_000, &mut timers.renew_every_ms),
        ("margin_ms", 10_000, &mut timers.margin_ms),
        ("rho_ppm", 200_000, &mut timers.rho_ppm),
        ("heartbeat_ms", 10_000, &mut timers.heartbeat_ms),
        ("leader_silence_ms", 30_000, &mut timers.leader_silence_ms),
        ("jitter_ms", 10_000, &mut timers.jitter_ms),
        ("round_ms", 10_000, &mut timers.round_ms),
    ] {
        let least = if name == "rho_ppm" { 0 } else { 1 };
        if let Some(number) = layers.number(&format!("timers.{name}"), least..=most) {
            *slot = number;
        }
    }
    if let Err(unfit) = timers.check() {
        layers.fault("timers", &format!("cannot work together: {unfit}"));
    }
    timers
}

fn url(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let uri: hyper::Uri = text.parse().ok()?;
    let whole = uri.authority()?.as_str() == rest && !rest.contains('@');
    whole.then(|| text.to_owned())
}

/// The host of a URL, in brackets if it is an IPv6 address.
pub(crate) fn host_of_url(url: &str) -> Option<String> {
    let uri: hyper::Uri = url.parse().ok()?;
    uri.host().map(str::to_owned)
}

fn host(text: &str) -> Option<String> {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let with_port = text.split(':').count() == 2;
    let right = text == "*" || (!text.is_empty() && text.chars().all(right) && !with_port);
    right.then(|| text.to_ascii_lowercase())
}

fn origin(text: &str) -> Option<String> {
    (text == "*").then(|| text.to_owned()).or_else(|| url(text))
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn host_and_port(text: &str) -> Option<String> {
    let (host_part, port) = text.rsplit_once(':')?;
    let bare = host_part.trim_matches(['[', ']']);
    let somewhere = bare
        .parse::<IpAddr>()
        .map_or(!bare.is_empty(), |ip| !ip.is_unspecified());
    let right = somewhere && host(host_part).is_some() && host_part != "*" && port.parse::<u16>().is_ok_and(|p| p > 0);
    right.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
