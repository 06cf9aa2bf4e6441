//! The data directory of a dev cluster: one folder per replica, made once and started again as often as one likes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mcp_model::clock::Clock;
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::token::{PlainSetup, PlainToken, TOKEN_PREFIX};

use crate::certs::Authority;
use crate::clock::SystemClock;
use crate::config::{Config, Listener, Peers, Tls, UpstreamAddresses};
use crate::founding::{Founder, Founding};
use crate::home::{CONFIG_FILE, FOUNDING_FILE, SETUP_FILE};
use crate::identity::{Identity, write_private};
use crate::init::common_files;
use crate::random;

/// The administrator of a dev cluster.
pub(super) const ADMIN_EMAIL: &str = "admin@dev.local";
const ADMIN_SECRET_FILE: &str = "admin.secret";
const TOKEN_FILE: &str = "demo.token";
/// First port of each kind, when all that are needed are free.
const USUAL_PORTS: [u16; 3] = [3200, 3100, 3300];
/// Where other ports are looked for, and how often.
const OTHER_PORTS: std::ops::Range<u16> = 10_000..30_000;
const PORTS_TRIED_MAX: usize = 1_000;

/// A dev cluster on disk.
pub(super) struct Layout {
    /// Held as long as the cluster runs, so that a second one on this machine keeps off the usual ports.
    _usual_ports: Option<File>,
    pub(super) dir: PathBuf,
    pub(super) replicas: Vec<Replica>,
}

/// One of its replicas.
#[derive(Clone)]
pub(super) struct Replica {
    dir: PathBuf,
    config: Config,
}

impl Replica {
    pub(super) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    pub(super) fn api_url(&self) -> String {
        self.config.api_url()
    }

    pub(super) fn gateway_url(&self) -> String {
        self.config.gateway_url()
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.dir.join(CONFIG_FILE)
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.dir.join("mcpnode.log")
    }
}

impl Layout {
    /// The cluster that is in `dir`, or a new one.
    pub(super) fn open_or_create(dir: &Path, replicas: u16) -> anyhow::Result<Layout> {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let usual_ports = claim_usual_ports();
        let there = (1..)
            .map(|n| replica_dir(dir, n))
            .take_while(|d| d.join(CONFIG_FILE).exists())
            .count();
        if there == 0 {
            return Layout::create(dir, replicas, usual_ports);
        }
        if there != usize::from(replicas) {
            bail!(
                "{} holds a cluster of {there} replicas, not {replicas}: start it with --replicas {there}, \
                 or name another --data-dir",
                dir.display()
            );
        }
        let replicas = (1..=replicas).map(|n| {
            let dir = replica_dir(dir, n);
            Ok(Replica {
                config: Config::read(&dir.join(CONFIG_FILE))?,
                dir,
            })
        });
        Ok(Layout {
            dir: dir.to_owned(),
            replicas: replicas.collect::<anyhow::Result<_>>()?,
            _usual_ports: usual_ports,
        })
    }

    fn create(dir: &Path, count: u16, usual_ports: Option<File>) -> anyhow::Result<Layout> {
        let cluster = Id::from_u128(u128::from_ne_bytes(random::bytes()));
        let now_ms = SystemClock.wall_ms();
        let authority = Authority::generate(now_ms)?;
        let data_key: [u8; 32] = random::bytes();
        let ports = free_ports(count, usual_ports.is_some())?;
        let ids: Vec<NodeId> = (0..count).map(|_| random::node_id()).collect();
        let founders = (1..=count).zip(&ids).zip(&ports).map(|((n, id), ports)| {
            Ok(Founder {
                id: id.to_string(),
                name: node_name(n)?,
                address: loopback(ports[2]).to_string(),
            })
        });
        let founders = founders.collect::<anyhow::Result<_>>()?;
        let setup = PlainSetup::from_bytes(&random::bytes());
        let founding = Founding::new(
            founders,
            &Email::parse(ADMIN_EMAIL)?,
            &setup,
            &authority.keep(&data_key),
        );
        write_private(&dir.join(SETUP_FILE), setup.expose().as_bytes())?;
        write_private(&dir.join(ADMIN_SECRET_FILE), new_secret().as_bytes())?;
        let mut replicas = Vec::new();
        for ((n, id), ports) in (1..=count).zip(ids).zip(ports) {
            let dir = replica_dir(dir, n);
            std::fs::create_dir_all(&dir)?;
            let config = Config {
                name: node_name(n)?,
                data_dir: dir.clone(),
                gateway: Listener::on(loopback(ports[0]), Tls::Off),
                api: Listener::on(loopback(ports[1]), Tls::Off),
                peers: Peers {
                    listen: loopback(ports[2]),
                    advertise: None,
                },
                timers: Default::default(),
                disk: Default::default(),
                log: Default::default(),
                upstreams: UpstreamAddresses {
                    allow_private: true,
                    allowed_networks: Vec::new(),
                },
                quotas: mcp_gateway::limits::Limits::default().quotas,
            };
            let mut files = authority.equip(id, &config.certified_hosts(), now_ms)?;
            files.append(common_files(&config, &data_key));
            if n == 1 {
                // It begins; the others wait to be spoken to.
                files.add(FOUNDING_FILE, founding.to_json()?.as_bytes());
            }
            files.write(&dir)?;
            Identity::new(cluster, id).save(&dir)?;
            replicas.push(Replica { dir, config });
        }
        Ok(Layout {
            _usual_ports: usual_ports,
            dir: dir.to_owned(),
            replicas,
        })
    }

    pub(super) fn admin_secret(&self) -> anyhow::Result<String> {
        let file = self.dir.join(ADMIN_SECRET_FILE);
        std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))
    }

    /// The secret that sets the administrator's password, until it was used.
    pub(super) fn setup_secret(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.join(SETUP_FILE)).ok()
    }

    pub(super) fn setup_done(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.dir.join(SETUP_FILE))?)
    }

    /// The demo token of an earlier run.
    pub(super) fn kept_token(&self) -> anyhow::Result<Option<String>> {
        let file = self.dir.join(TOKEN_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file)?;
        let token = PlainToken::parse(text.trim()).with_context(|| format!("{} holds no token", file.display()))?;
        Ok(Some(token.expose().to_owned()))
    }

    pub(super) fn keep_token(&self, token: &str) -> anyhow::Result<()> {
        write_private(&self.dir.join(TOKEN_FILE), token.as_bytes())
    }
}

fn replica_dir(dir: &Path, n: u16) -> PathBuf {
    dir.join(format!("node-{n}"))
}

fn node_name(n: u16) -> anyhow::Result<Name> {
    Ok(Name::parse(&format!("node-{n}"))?)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A password that nobody has to remember.
fn new_secret() -> String {
    let bytes: [u8; 32] = random::bytes();
    PlainToken::from_bytes(&bytes).expose()[TOKEN_PREFIX.len()..].to_owned()
}

/// The right to the usual ports: whoever holds the lock has it. Two clusters that start at once must not both find them free.
fn claim_usual_ports() -> Option<File> {
    let path = std::env::temp_dir().join("mcpnode-dev.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Three ports per replica: the usual ones if they may be used and are free, any others if not.
fn free_ports(count: u16, usual_may_be_used: bool) -> anyhow::Result<Vec<[u16; 3]>> {
    let usual: Vec<[u16; 3]> = (0..count).map(|n| USUAL_PORTS.map(|first| first + n)).collect();
    if usual_may_be_used && usual.iter().flatten().all(|port| is_free(*port)) {
        return Ok(usual);
    }
    // Not those that the system hands out itself: a port that is free now must still be so when the replica binds it.
    let span = OTHER_PORTS.end - OTHER_PORTS.start;
    let drawn = std::iter::repeat_with(|| OTHER_PORTS.start + u16::from_ne_bytes(random::bytes()) % span);
    let mut ports: Vec<u16> = Vec::new();
    for port in drawn.take(PORTS_TRIED_MAX) {
        if !ports.contains(&port) && is_free(port) {
            ports.push(port);
        }
        if ports.len() == usize::from(count) * 3 {
            return Ok(ports.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect());
        }
    }
    bail!("no free ports between {} and {}", OTHER_PORTS.start, OTHER_PORTS.end)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}
