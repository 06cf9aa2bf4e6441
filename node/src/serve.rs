//! One node, from its configuration to its last breath.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use mcp_gateway::{Gateway, GatewayConfig};
use mcp_model::clock::Clock;
use mcp_model::ids::NodeId;
use mcp_raft::{Node, NodeOptions, PeerTls};
use mcp_store::log::{RaftLog, Ticks};
use mcp_store::{Replica, ReplicaOptions};
use mcpd::hosts::{AllowedHosts, LOOPBACK};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::{Config, Listener};
use crate::identity::{self, Identity};
use crate::ports::{ApiPort, GatewayPort};
use crate::ready::Vitals;
use crate::upkeep::Upkeep;
use crate::{certs, listen, random, ready};

const LOG_FILE: &str = "raft-log.redb";
/// How long load balancers have to notice that this node is not ready before its listeners close.
const DRAIN_NOTICE: Duration = Duration::from_millis(200);
/// How long calls under way may take to finish before this node gives its lease back.
const CALLS_WAIT: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs a node until `stop` turns true.
pub(crate) async fn run(config: Config, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let name = config.name.clone();
    let started = Started::start(config)
        .await
        .with_context(|| format!("node {name} cannot start"))?;
    while !*stop.borrow_and_update() {
        // Nobody is left to ask for it: stop as well.
        if stop.changed().await.is_err() {
            break;
        }
    }
    started.stop().await;
    tracing::info!(node = %name, "stopped");
    Ok(())
}

struct Started {
    node: Arc<Node>,
    gateway: Gateway,
    vitals: Arc<Vitals>,
    background: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    listeners: watch::Sender<bool>,
}

impl Started {
    async fn start(config: Config) -> anyhow::Result<Started> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let timers = config.timers.resolve()?;
        let mut identity = Identity::load(&config.data_dir)?;
        let (me, cluster) = (identity.node()?, identity.cluster()?);
        let data_key = identity::load_data_key(&config.data_dir)?;

        let gateway_listener = listen::bind("gateway", config.gateway.listen).await?;
        let api_listener = listen::bind("API", config.api.listen).await?;
        let peer_listener = listen::bind("peer", config.peers.listen).await?;

        let opening = (
            config.data_dir.clone(),
            identity.had_data,
            timers.lease_ms,
            Arc::clone(&clock),
        );
        let (replica, log) = tokio::task::spawn_blocking(move || open(opening)).await??;
        identity.had_data = true;
        identity.save(&config.data_dir)?;

        let options = NodeOptions {
            cluster: cluster.to_string(),
            me,
            timers,
            snapshot_entries: mcp_raft::SNAPSHOT_ENTRIES,
            kept_entries: mcp_raft::KEPT_ENTRIES,
            snapshots: config.data_dir.join("snapshots"),
            random: Arc::new(random::number),
        };
        let tls = peer_tls(&config)?;
        let node = Node::start(
            options,
            Arc::clone(&replica),
            log,
            Arc::clone(&clock),
            tls,
            peer_listener,
        )
        .await?;
        let node = Arc::new(node);
        let gateway = open_gateway(&config, me, &data_key, &node, &replica, &clock)?;
        let vitals = Arc::new(Vitals {
            node: Arc::clone(&node),
            replica: Arc::clone(&replica),
            clock: Arc::clone(&clock),
            gateway: gateway.clone(),
            data_dir: config.data_dir.clone(),
            draining: AtomicBool::new(false),
        });
        let api = mcpd::router(mcpd::Parts {
            replica: Arc::clone(&replica),
            writer: Arc::new(ApiPort {
                node: Arc::clone(&node),
            }),
            clock: Arc::clone(&clock),
            random: random::fill,
            options: mcpd::Options {
                allowed_hosts: AllowedHosts::new(hosts(&config.api)),
            },
        });
        let api = api.merge(ready::router(Arc::clone(&vitals)));

        let listeners = watch::Sender::new(false);
        let background = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(listen::serve(gateway_listener, gateway.router(), listeners.subscribe()));
        tasks.spawn(listen::serve(api_listener, api, listeners.subscribe()));
        let running = (gateway.clone(), background.clone());
        tasks.spawn(async move { running.0.run(running.1).await });
        let upkeep = Upkeep {
            node: Arc::clone(&node),
            replica,
            clock,
        };
        let own = background.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = keep_up(upkeep, identity, config) => {}
                () = own.cancelled() => {}
            }
        });
        Ok(Started {
            node,
            gateway,
            vitals,
            background,
            tasks,
            listeners,
        })
    }

    /// Not ready, nothing new, no lease, no leadership, no upstreams, no connections: in this order.
    async fn stop(mut self) {
        self.vitals.draining.store(true, Ordering::Release);
        self.gateway.drain();
        // Calls under way need the lease to the end of their answers.
        let finished = async {
            while self.gateway.open_requests() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(CALLS_WAIT, finished).await.is_err() {
            tracing::info!(open = self.gateway.open_requests(), "calls are cut short");
        }
        self.node.shutdown().await;
        self.background.cancel();
        tokio::time::sleep(DRAIN_NOTICE).await;
        self.listeners.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

type Opening = (std::path::PathBuf, bool, u64, Arc<dyn Clock>);

fn open((dir, had_data, lease_ms, clock): Opening) -> anyhow::Result<(Arc<Replica>, RaftLog)> {
    let options = ReplicaOptions {
        lease_ms,
        had_data,
        random: Arc::new(random::number),
    };
    let replica = Replica::open(&dir, options).context("the state cannot be opened")?;
    let ticks: Ticks = Arc::new(move || clock.reading().boot_ns);
    let path = dir.join(LOG_FILE);
    let log = if had_data {
        RaftLog::open_existing(&path, ticks)
    } else {
        RaftLog::open_or_create(&path, ticks)
    };
    Ok((replica, log.context("the log cannot be opened")?))
}

fn peer_tls(config: &Config) -> anyhow::Result<PeerTls> {
    let read = |file: &str| {
        let path = config.data_dir.join(file);
        std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    Ok(PeerTls::from_pem(
        &read(certs::CA_FILE)?,
        &read(certs::CERT_FILE)?,
        &read(certs::KEY_FILE)?,
    )?)
}

fn open_gateway(
    config: &Config,
    me: NodeId,
    data_key: &[u8; 32],
    node: &Arc<Node>,
    replica: &Arc<Replica>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Gateway> {
    let program = std::env::current_exe().context("where is this program?")?;
    let program = program
        .to_str()
        .context("the path of this program is not UTF-8")?
        .to_owned();
    let gateway = GatewayConfig {
        node: me,
        cluster_key: identity::derive_key(data_key, b"mcp session ids"),
        audit_dir: config.data_dir.join("audit"),
        allowed_hosts: hosts(&config.gateway),
        allowed_origins: config.gateway.allowed_origins.clone(),
        child_command: vec![program, "child".to_owned(), "--".to_owned()],
        tls: mcp_wire::tls::client_config(&[]),
        limits: Default::default(),
    };
    let port = Arc::new(GatewayPort::new(Arc::clone(node), Arc::clone(clock)));
    Ok(Gateway::open(gateway, Arc::clone(replica), Arc::clone(clock), port)?)
}

/// Loopback names, the listener's own address, and what the operator adds.
fn hosts(listener: &Listener) -> Vec<String> {
    let own = match listener.listen.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let added = listener.allowed_hosts.iter().cloned();
    LOOPBACK
        .into_iter()
        .map(str::to_owned)
        .chain([own])
        .chain(added)
        .collect()
}

async fn keep_up(upkeep: Upkeep, identity: Identity, config: Config) {
    let begun = async {
        if let Some(bootstrap) = &config.bootstrap {
            upkeep.bootstrap(&identity, bootstrap).await?;
        }
        upkeep.register(identity.node()?, &config).await
    };
    if let Err(error) = begun.await {
        tracing::error!(error = format!("{error:#}"), "this node is not part of a cluster");
    }
    upkeep.clone().expire().await;
}
