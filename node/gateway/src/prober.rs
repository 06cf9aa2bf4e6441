//! Keeps the replicated lists true, on the path that calls take. One node asks each server for the whole cluster: the one that saw it
//! last goes on. A server that it does not reach any more, or that nobody has reached yet, is everybody's until somebody does: so
//! one that only one node can reach is listed by all. A list is replicated only when it, or the health of its server, changes;
//! no client ever waits for this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::{Id, NodeId};
use mcp_model::records::{Health, Offer, Server, ToolList};
use mcp_model::watch::Print;
use mcp_store::Replica;
use mcp_store::view::{Known, Policy};
use mcp_wire::upstream::UpstreamError;
use ring::digest::{Context, SHA256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Report};
use crate::limits::Limits;
use crate::listening::Listening;
use crate::metrics::Metrics;
use crate::prints;
use crate::upstreams::{Lane, Upstreams};

/// How often the prober looks for what is due, in milliseconds.
const TICK_MS: u64 = 250;
/// First wait after a probe without an answer, in milliseconds; doubled each time up to the limit.
const FIRST_RETRY_MS: u64 = 1_000;

pub(crate) struct Prober {
    pub(crate) node: NodeId,
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
    /// The same by the wall clock, ms since 1970.
    at_wall_ms: u64,
    /// Probes without an answer since the last one with.
    failures: u32,
    /// Change notices of the upstream that were taken into account.
    changes: u64,
    /// When an unseen change notice was first noticed.
    changed_at: Option<Reading>,
    /// Waits for change notices, where this node is the one that asks.
    listening: Listening,
}

/// Whose it is to ask a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Duty {
    /// This node saw it last.
    Mine,
    /// Nobody asks it: whoever reaches it first goes on asking.
    Anybodys,
    /// Another node does.
    Anothers,
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
            let holds = self.replica.gate().holds(self.clock.reading());
            let is_prober = holds && self.cluster.is_prober();
            let policy = self.replica.view().policy();
            memories.retain(|id, _| policy.server(*id).is_some());
            if is_prober && !was_prober {
                memories.values_mut().for_each(|memory| memory.at = None);
            }
            was_prober = is_prober;
            let lists = self.replica.view().lists();
            for server in policy.servers() {
                if busy.contains(&server.id) {
                    continue;
                }
                let duty = self.duty(lists.get(&server.id), is_prober);
                let memory = memories.entry(server.id).or_default();
                let listens = holds && duty == Duty::Mine;
                memory
                    .listening
                    .keep(listens, self.limits.list_retry_ms, || self.upstreams.get(server).ok());
                let is_due = holds && self.is_due(server, &policy, lists.get(&server.id), memory, duty);
                if !is_due {
                    continue;
                }
                let Ok(room) = room.clone().try_acquire_owned() else {
                    break;
                };
                memory.stamp = Upstreams::stamp(server, &policy);
                memory.at = Some(self.clock.reading());
                memory.at_wall_ms = self.clock.wall_ms();
                memory.changed_at = None;
                busy.push(server.id);
                let (prober, server) = (self.clone(), server.clone());
                probes.spawn(async move {
                    let answered = prober.probe(&server, duty).await;
                    drop(room);
                    (server.id, answered)
                });
            }
        }
    }

    /// Whose it is to ask a server of which this is known. The cluster's prober begins, and takes over from a node that is gone.
    fn duty(&self, known: Option<&Arc<Known>>, is_prober: bool) -> Duty {
        let starts = if is_prober { Duty::Anybodys } else { Duty::Anothers };
        let Some(known) = known else { return starts };
        if known.list.health != Health::Healthy {
            return Duty::Anybodys;
        }
        match &known.watch {
            Some(watch) if watch.node == self.node => Duty::Mine,
            Some(watch) if is_prober && !self.cluster.answers(watch.node) => Duty::Anybodys,
            Some(_) => Duty::Anothers,
            None => starts,
        }
    }

    /// Whether a server is to be probed now. A change notice is acted on by whoever received it, once the notices have calmed
    /// down.
    fn is_due(
        &self,
        server: &Arc<Server>,
        policy: &Policy,
        known: Option<&Arc<Known>>,
        memory: &mut Memory,
        duty: Duty,
    ) -> bool {
        let now = self.clock.reading();
        if let Some(changes) = self.upstreams.changes(server)
            && changes != memory.changes
        {
            let since = *memory.changed_at.get_or_insert(now);
            if now.ms_since(since) >= self.limits.debounce_ms {
                memory.changes = changes;
                return true;
            }
        }
        if duty == Duty::Anothers {
            return false;
        }
        let is_known = memory.stamp == Upstreams::stamp(server, policy);
        // A child that was stopped because nobody used it is not started for a probe: it is asked when a call has started it.
        if is_known && memory.failures == 0 && self.upstreams.sleeps(server) {
            return false;
        }
        let Some(at) = memory.at.filter(|_| is_known) else {
            return true;
        };
        let passed_ms = now.ms_since(at);
        match memory.failures {
            0 if duty == Duty::Mine => {
                let fetched_ms = known.map_or(0, |known| known.list.fetched_ms);
                let rounds = |wall_ms: u64| wall_ms.saturating_sub(fetched_ms) / self.limits.list_ms;
                passed_ms >= self.limits.list_ms || rounds(self.clock.wall_ms()) > rounds(memory.at_wall_ms)
            }
            // It answered a moment ago, and that is on its way to being known.
            0 => passed_ms >= self.limits.list_retry_ms,
            // A server that is only starting is asked again soon, a dead one ever less often.
            failures => passed_ms >= self.limits.list_retry_ms.min(FIRST_RETRY_MS << (failures - 1).min(16)),
        }
    }

    /// Probes one server and replicates what changed. Whether it answered.
    async fn probe(&self, server: &Arc<Server>, duty: Duty) -> bool {
        Metrics::add(&self.metrics.probes);
        let limit = Duration::from_millis(self.limits.probe_ms);
        // Not a call: it goes past the places, and a server that answers it is asked by calls again.
        let fetched = match self.upstreams.first_lane(server) {
            Ok(lane) => tokio::time::timeout(limit, self.fetch(&lane)).await,
            Err(error) => Ok(Err(error.to_string())),
        };
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.limits.probe_ms)));
        let answered = fetched.is_ok();
        let fetched = fetched.map_err(|reason| self.upstreams.scrubbed(server.id, reason));
        if let Err(reason) = &fetched {
            Metrics::add(&self.metrics.probes_failed);
            tracing::info!(server = %server.name, %reason, "upstream probe failed");
        }
        if let Some(report) = self.news(server, fetched, duty) {
            match self.cluster.report_tools(report).await {
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

    async fn fetch(&self, lane: &Lane) -> Result<(Offer, Vec<Print>), String> {
        let said = |error: UpstreamError| error.to_string();
        let opened = lane.upstream.open().await.map_err(said)?;
        let lists = lane.upstream.lists().await;
        if lists.is_ok() {
            lane.guard.note(&lists, &*self.clock);
        }
        let lists = lists.map_err(said)?;
        let offer = Offer {
            tools: lists.tools,
            prompts: lists.prompts,
            resources: lists.resources,
            templates: lists.templates,
            capabilities: opened.capabilities.to_string(),
            instructions: lists.instructions,
        };
        let bytes = offer.tools.len() + offer.prompts.len() + offer.resources.len() + offer.templates.len();
        if bytes > self.limits.list_bytes_max {
            return Err(format!(
                "its lists are larger than {} bytes",
                self.limits.list_bytes_max
            ));
        }
        let prints = prints::of_tools(&offer.tools)?;
        Ok((offer, prints))
    }

    /// What to replicate, if anything is new. A server that stopped answering keeps its last good offer.
    fn news(&self, server: &Arc<Server>, fetched: Result<(Offer, Vec<Print>), String>, duty: Duty) -> Option<Report> {
        let lists = self.replica.view().lists();
        let known = lists.get(&server.id);
        let list = known.map(|known| &known.list);
        // Looked at once more: while this node asked, another one may have had an answer.
        let was_healthy = list.is_some_and(|list| list.health == Health::Healthy);
        match fetched {
            Ok((offer, prints)) => {
                let digest = digest(&offer);
                let is_mine = known
                    .and_then(|known| known.watch.as_ref())
                    .is_some_and(|watch| watch.node == self.node);
                let taken_over = duty != Duty::Anothers && !is_mine && !self.is_asked_by_another(known);
                let is_news = !was_healthy || list.is_none_or(|list| list.digest != digest) || taken_over;
                let list = ToolList {
                    server: server.id,
                    digest,
                    offer: Some(offer),
                    health: Health::Healthy,
                    fetched_ms: self.clock.wall_ms(),
                    version: 0,
                };
                is_news.then(|| Report::of(list, self.node, Some(prints)))
            }
            Err(reason) => {
                // Two failures with different words are one failure: words alone are not worth a log entry.
                let is_news = list.is_none_or(|_| was_healthy);
                if !is_news || duty == Duty::Anothers || self.is_asked_by_another(known) {
                    return None;
                }
                let list = ToolList {
                    server: server.id,
                    digest: list.map_or([0; 32], |list| list.digest),
                    offer: list.and_then(|list| list.offer.clone()),
                    health: Health::Unhealthy {
                        reason: reason.chars().take(300).collect(),
                    },
                    fetched_ms: list.map_or(0, |list| list.fetched_ms),
                    version: 0,
                };
                Some(Report::of(list, self.node, None))
            }
        }
    }

    /// Whether another node, which is there, sees the server.
    fn is_asked_by_another(&self, known: Option<&Arc<Known>>) -> bool {
        known.is_some_and(|known| {
            let other = known
                .watch
                .as_ref()
                .map(|watch| watch.node)
                .filter(|node| *node != self.node);
            known.list.health == Health::Healthy && other.is_some_and(|node| self.cluster.answers(node))
        })
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
