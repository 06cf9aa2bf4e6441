//! Keeps the replicated lists true: one prober per upstream for the whole cluster, on the path that calls take. A list is
//! replicated only when it, or the health of its server, changes; no client ever waits for this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::Id;
use mcp_model::records::{Health, Offer, Server, ToolList};
use mcp_store::Replica;
use mcp_store::view::Policy;
use mcp_wire::upstream::{Upstream, UpstreamError};
use ring::digest::{Context, SHA256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::upstreams::Upstreams;

/// How often the prober looks for what is due, in milliseconds.
const TICK_MS: u64 = 250;
/// First wait after a probe without an answer, in milliseconds; doubled each time up to the limit.
const FIRST_RETRY_MS: u64 = 1_000;

pub(crate) struct Prober {
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
}

/// What the prober remembers of a server.
#[derive(Default)]
struct Memory {
    /// What the server and its secrets were at the last probe.
    stamp: u64,
    /// The last probe.
    at: Option<Reading>,
    /// Probes without an answer since the last one with.
    failures: u32,
    /// Change notices of the upstream that were taken into account.
    changes: u64,
    /// When an unseen change notice was first noticed.
    changed_at: Option<Reading>,
}

impl Prober {
    /// Probes until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut memories: HashMap<Id, Memory> = HashMap::new();
        let room = Arc::new(Semaphore::new(self.limits.probes_max));
        let mut probes: JoinSet<(Id, bool)> = JoinSet::new();
        let mut busy: Vec<Id> = Vec::new();
        let mut was_prober = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(TICK_MS)) => {}
                Some(done) = probes.join_next() => {
                    if let Ok((server, answered)) = done {
                        busy.retain(|id| *id != server);
                        let memory = memories.entry(server).or_default();
                        memory.failures = if answered { 0 } else { memory.failures.saturating_add(1) };
                    } else {
                        busy.clear();
                    }
                    continue;
                }
            }
            let is_prober = self.cluster.is_prober() && self.replica.gate().holds(self.clock.reading());
            let policy = self.replica.view().policy();
            memories.retain(|id, _| policy.server(*id).is_some());
            if is_prober && !was_prober {
                memories.values_mut().for_each(|memory| memory.at = None);
            }
            was_prober = is_prober;
            for server in policy
                .servers()
                .filter(|server| !busy.contains(&server.id))
                .cloned()
                .collect::<Vec<_>>()
            {
                let memory = memories.entry(server.id).or_default();
                if !self.is_due(&server, &policy, memory, is_prober) {
                    continue;
                }
                let Ok(room) = room.clone().try_acquire_owned() else {
                    break;
                };
                memory.stamp = Upstreams::stamp(&server, &policy);
                memory.at = Some(self.clock.reading());
                memory.changed_at = None;
                busy.push(server.id);
                let prober = self.clone();
                probes.spawn(async move {
                    let answered = prober.probe(&server).await;
                    drop(room);
                    (server.id, answered)
                });
            }
        }
    }

    /// Whether a server is to be probed now. The cluster's prober probes in turn; a change notice is acted on by whoever
    /// received it, once the notices have calmed down.
    fn is_due(&self, server: &Arc<Server>, policy: &Policy, memory: &mut Memory, is_prober: bool) -> bool {
        let now = self.clock.reading();
        if let Ok(upstream) = self.upstreams.get(server)
            && *upstream.changes().borrow() != memory.changes
        {
            let since = *memory.changed_at.get_or_insert(now);
            if now.ms_since(since) >= self.limits.debounce_ms {
                memory.changes = *upstream.changes().borrow();
                return self.replica.gate().holds(now);
            }
        }
        let Some(at) = memory.at.filter(|_| memory.stamp == Upstreams::stamp(server, policy)) else {
            return is_prober;
        };
        let every_ms = match memory.failures {
            0 => self.limits.list_ms,
            // A server that is only starting is asked again soon, a dead one ever less often.
            failures => self.limits.list_retry_ms.min(FIRST_RETRY_MS << (failures - 1).min(16)),
        };
        is_prober && now.ms_since(at) >= every_ms
    }

    /// Probes one server and replicates what changed. Whether it answered.
    async fn probe(&self, server: &Arc<Server>) -> bool {
        Metrics::add(&self.metrics.probes);
        let limit = Duration::from_millis(self.limits.probe_ms);
        let fetched = match self.upstreams.get(server) {
            Ok(upstream) => tokio::time::timeout(limit, self.fetch(&upstream)).await,
            Err(error) => Ok(Err(error.to_string())),
        };
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.limits.probe_ms)));
        let answered = fetched.is_ok();
        let fetched = fetched.map_err(|reason| self.upstreams.scrubbed(server.id, reason));
        if let Err(reason) = &fetched {
            Metrics::add(&self.metrics.probes_failed);
            tracing::info!(server = %server.name, %reason, "upstream probe failed");
        }
        if let Some(list) = self.changed(server, fetched) {
            match self.cluster.publish_tools(list).await {
                Ok(()) => {
                    Metrics::add(&self.metrics.lists_published);
                    tracing::info!(server = %server.name, "list of tools replicated");
                }
                // It is still different at the next probe, which comes soon.
                Err(error) => {
                    tracing::info!(server = %server.name, %error, "list of tools not replicated");
                    return false;
                }
            }
        }
        answered
    }

    async fn fetch(&self, upstream: &Upstream) -> Result<Offer, String> {
        let said = |error: UpstreamError| error.to_string();
        let opened = upstream.open().await.map_err(said)?;
        let lists = upstream.lists().await.map_err(said)?;
        let offer = Offer {
            tools: lists.tools,
            prompts: lists.prompts,
            resources: lists.resources,
            templates: lists.templates,
            capabilities: opened.capabilities.to_string(),
            instructions: lists.instructions,
        };
        let bytes = offer.tools.len() + offer.prompts.len() + offer.resources.len() + offer.templates.len();
        match bytes > self.limits.list_bytes_max {
            true => Err(format!(
                "its lists are larger than {} bytes",
                self.limits.list_bytes_max
            )),
            false => Ok(offer),
        }
    }

    /// The list to replicate, if anything about it is new. A server that stopped answering keeps its last good offer.
    fn changed(&self, server: &Arc<Server>, fetched: Result<Offer, String>) -> Option<ToolList> {
        let lists = self.replica.view().lists();
        let known = lists.get(&server.id);
        let now_ms = self.clock.wall_ms();
        let list = match fetched {
            Ok(offer) => ToolList {
                server: server.id,
                digest: digest(&offer),
                offer: Some(offer),
                health: Health::Healthy,
                fetched_ms: now_ms,
                version: 0,
            },
            Err(reason) => {
                let reason = reason.chars().take(300).collect();
                let offer = known.and_then(|list| list.offer.clone());
                ToolList {
                    server: server.id,
                    digest: known.map_or([0; 32], |list| list.digest),
                    offer,
                    health: Health::Unhealthy { reason },
                    fetched_ms: known.map_or(0, |list| list.fetched_ms),
                    version: 0,
                }
            }
        };
        // Two failures with different words are one failure: words alone are not worth a log entry.
        let same_health = |known: &ToolList| (known.health == Health::Healthy) == (list.health == Health::Healthy);
        let same = known.is_some_and(|known| known.digest == list.digest && same_health(known));
        (!same).then_some(list)
    }
}

/// SHA-256 over an offer, each part with its length in front.
fn digest(offer: &Offer) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let instructions = offer.instructions.as_deref().unwrap_or_default();
    let parts = [
        &offer.tools,
        &offer.prompts,
        &offer.resources,
        &offer.templates,
        &offer.capabilities,
        instructions,
    ];
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
