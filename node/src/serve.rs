//! One node, from its configuration to its last breath.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use mcp_gateway::limits::Limits;
use mcp_gateway::{Gateway, GatewayConfig};
use mcp_model::clock::Clock;
use mcp_model::ids::NodeId;
use mcp_raft::{Member, Node, NodeOptions, PeerTls, Strangers};
use mcp_store::Replica;
use mcp_store::seal::Seal;
use mcp_wire::reach::Reach;
use mcpd::hosts::AllowedHosts;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::certificates::{Keeper, Listeners};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::founding::Founding;
use crate::identity::{self, Identity};
use crate::join::host::Host;
use crate::listen::Door;
use crate::ports::{ApiPort, ChildrenPort, GatewayEars, GatewayPort};
use crate::ready::Vitals;
use crate::upkeep::Upkeep;
use crate::{certs, limits, listen, random, ready, stores};

/// What the key that seals the values of secrets is derived for.
const SECRETS_PURPOSE: &[u8] = b"secrets";
/// How long load balancers have to notice that this node is not ready before its listeners close.
const DRAIN_NOTICE: Duration = Duration::from_millis(200);
/// How long calls under way may take to finish before this node gives its lease back.
const CALLS_WAIT: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs a node until `stop` turns true.
pub(crate) async fn run(config: Config, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let name = config.name.clone();
    let data_dir = config.data_dir.clone();
    let (started, failures) = Started::start(config)
        .await
        .with_context(|| format!("node {name} cannot start"))?;
    let ended = tokio::select! {
        // Where nobody is left to ask for it, it stops as well.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        why = failure(failures) => Err(why),
        // Until then the others need its voice, though it admits nobody any more.
        () = started.node.out() => Err(remember_removal(&data_dir)),
    };
    started.stop().await;
    tracing::info!(node = %name, "stopped");
    ended
}

/// A node that was removed says so, and so does its directory from now on.
fn remember_removal(data_dir: &Path) -> anyhow::Error {
    let noted = Identity::load(data_dir).and_then(|mut identity| {
        identity.removed = true;
        identity.save(data_dir)
    });
    if let Err(error) = noted {
        tracing::warn!(error = format!("{error:#}"), "the removal could not be noted");
    }
    was_removed(data_dir)
}

fn was_removed(data_dir: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "this node was removed from its cluster, and its id never comes back. To use the machine again: move {} away, make a \
         token on any node with `mcpctl cluster join-token`, and run `mcpnode join`",
        data_dir.display()
    )
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
    async fn start(config: Config) -> anyhow::Result<(Started, mpsc::Receiver<anyhow::Error>)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let timers = config.timers;
        let mut identity = Identity::load(&config.data_dir)?;
        if identity.removed {
            return Err(was_removed(&config.data_dir));
        }
        let (me, cluster) = (identity.node()?, identity.cluster()?);
        let data_key = Zeroizing::new(identity::load_data_key(&config.data_dir)?);
        let tls = peer_tls(&config)?;
        let certificates = Listeners::open(&config)?;

        let stores = stores::open(&config, &identity, &clock, &tls, &certificates).await?;
        let replica = stores.replica;
        identity.had_data = true;
        identity.save(&config.data_dir)?;

        let gateway_listener = listen::bind("gateway", config.gateway.listen).await?;
        let api_listener = listen::bind("API", config.api.listen).await?;
        let peer_listener = listen::bind("peer", config.peers.listen).await?;

        let options = NodeOptions {
            cluster: cluster.to_string(),
            me,
            timers,
            snapshot_entries: config.log.snapshot_entries,
            kept_entries: config.log.kept_entries,
            compare_every: Duration::from_secs(config.log.compare_every_s),
            snapshots: config.data_dir.join(mcp_raft::recover::SNAPSHOTS),
            disk: config.disk,
            free_bytes: {
                let dir = config.data_dir.clone();
                Arc::new(move || ready::free_bytes(&dir))
            },
            random: Arc::new(random::number),
        };
        let node = Node::start(
            options,
            Arc::clone(&replica),
            stores.log,
            Arc::clone(&clock),
            tls,
            peer_listener,
        )
        .await?;
        let node = Arc::new(node);
        if let Some(returning) = stores.returning {
            let (name, address) = (config.name.to_string(), config.peers.address());
            node.come_back(returning, Member { id: me, name, address });
        }
        node.open_door(Arc::new(Host {
            node: Arc::clone(&node),
            replica: Arc::clone(&replica),
            clock: Arc::clone(&clock),
            cluster,
            data_key: data_key.clone(),
            strangers: Strangers::default(),
        }));
        let gateway = open_gateway(&config, me, &data_key, &node, &replica, &clock)?;
        let (gateway_places, api_places) = limits::places(&config);
        let vitals = Arc::new(Vitals {
            doors: [
                ("gateway", Arc::clone(&gateway_places)),
                ("api", Arc::clone(&api_places)),
            ],
            node: Arc::clone(&node),
            replica: Arc::clone(&replica),
            clock: Arc::clone(&clock),
            gateway: gateway.clone(),
            data_dir: config.data_dir.clone(),
            draining: AtomicBool::new(false),
            begun: AtomicBool::new(Founding::pending(&config.data_dir)?.is_none()),
        });
        let api = mcpd::router(mcpd::Parts {
            replica: Arc::clone(&replica),
            writer: Arc::new(ApiPort {
                node: Arc::clone(&node),
            }),
            children: Arc::new(ChildrenPort(gateway.clone())),
            clock: Arc::clone(&clock),
            random: random::fill,
            seal: Seal::new(&identity::derive_key(&data_key, SECRETS_PURPOSE)),
            idempotency_key: identity::derive_key(&data_key, b"idempotency").into(),
            options: mcpd::Options {
                allowed_hosts: AllowedHosts::new(config.api_hosts()),
                allowed_origins: config.api.allowed_origins.clone(),
            },
        });
        let api = api.merge(ready::router(Arc::clone(&vitals)));

        let listeners = watch::Sender::new(false);
        let background = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let gateway_door = Door::new(gateway_listener, &certificates.gateway, gateway_places, &clock).with_crew()?;
        let api_door = Door::new(api_listener, &certificates.api, api_places, &clock);
        tasks.spawn(listen::serve(gateway_door, gateway.clone(), listeners.subscribe()));
        tasks.spawn(listen::serve(api_door, api, listeners.subscribe()));
        let running = (gateway.clone(), background.clone());
        tasks.spawn(async move { running.0.run(running.1).await });
        let keeper = Keeper {
            node: Arc::clone(&node),
            replica: Arc::clone(&replica),
            clock: Arc::clone(&clock),
            me,
            data_key,
            data_dir: config.data_dir.clone(),
            hosts: config.certified_hosts(),
        };
        let upkeep = Upkeep {
            node: Arc::clone(&node),
            replica,
            clock,
        };
        let own = (background.clone(), Arc::clone(&node), config.data_dir.clone());
        tasks.spawn(async move {
            let (background, node, dir) = own;
            background
                .run_until_cancelled(stores::keep_noted(node, dir))
                .await
                .unwrap_or(());
        });
        let own = background.clone();
        tasks.spawn(async move { own.run_until_cancelled(keeper.run(certificates)).await.unwrap_or(()) });
        let (failed, failures) = mpsc::channel(1);
        let beginning = Arc::clone(&vitals);
        let own = background.clone();
        tasks.spawn(async move {
            let kept = Box::pin(keep_up(upkeep, identity, config, beginning, failed));
            own.run_until_cancelled(kept).await.unwrap_or(());
        });
        let started = Started {
            node,
            gateway,
            vitals,
            background,
            tasks,
            listeners,
        };
        Ok((started, failures))
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

/// Resolves when this node cannot be what it was made for.
async fn failure(mut failures: mpsc::Receiver<anyhow::Error>) -> anyhow::Error {
    match failures.recv().await {
        Some(error) => error,
        // It is what it was made for.
        None => std::future::pending().await,
    }
}

fn peer_tls(config: &Config) -> anyhow::Result<PeerTls> {
    let read = |file: &str| {
        let path = config.data_dir.join(file);
        std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let own = Zeroizing::new(read(certs::PEER_FILE)?);
    Ok(PeerTls::from_pem(&read(certs::CA_FILE)?, &own, &own)?)
}

/// What stands in front of the command of a server that is a child: it gets the limit on open files that this program was given.
fn child_command(program: String) -> Vec<String> {
    let open_files = limits::at_start().map(|soft| format!("--open-files={soft}"));
    let words = [
        Some(program),
        Some("child".to_owned()),
        open_files,
        Some("--".to_owned()),
    ];
    words.into_iter().flatten().collect()
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
        seal: Seal::new(&identity::derive_key(data_key, SECRETS_PURPOSE)),
        cluster_key: identity::derive_key(data_key, b"mcp session ids"),
        audit_dir: config.data_dir.join("audit"),
        allowed_hosts: config.gateway_hosts(),
        allowed_origins: config.gateway.allowed_origins.clone(),
        child_command: child_command(program),
        tls: mcp_wire::tls::client_config(&[]),
        reach: Reach::checked(
            config.upstreams.allow_private,
            config.upstreams.allowed_networks.clone(),
        ),
        limits: Limits {
            quotas: config.quotas,
            ..Limits::default()
        },
    };
    let port = Arc::new(GatewayPort::new(Arc::clone(node), Arc::clone(clock)));
    let gateway = Gateway::open(gateway, Arc::clone(replica), Arc::clone(clock), port)?;
    node.listen(Arc::new(GatewayEars(gateway.clone())));
    Ok(gateway)
}

/// Begins the cluster, if that is still to be done, and says how this node is reached. Only the first can fail for good.
async fn keep_up(
    upkeep: Upkeep,
    identity: Identity,
    config: Config,
    vitals: Arc<Vitals>,
    failed: mpsc::Sender<anyhow::Error>,
) {
    if let Err(error) = begin(&upkeep, &identity, &config.data_dir).await {
        // Whoever waits for it is gone only when the node stops.
        failed.send(error).await.unwrap_or(());
        return;
    }
    vitals.begun.store(true, Ordering::Release);
    let registered = match identity.node() {
        Ok(me) => upkeep.register(me, &config).await,
        Err(error) => Err(error),
    };
    if let Err(error) = registered {
        tracing::error!(error = format!("{error:#}"), "this node is not part of a cluster");
    }
    upkeep.clone().expire().await;
}

async fn begin(upkeep: &Upkeep, identity: &Identity, data_dir: &Path) -> anyhow::Result<()> {
    let Some(founding) = Founding::pending(data_dir)? else {
        return Ok(());
    };
    upkeep
        .begin(identity, &founding, data_dir)
        .await
        .context("the cluster cannot begin")?;
    Founding::done(data_dir)
}
