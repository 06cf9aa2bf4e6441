//! Metrics of one node in the OpenMetrics format. Each scrape builds its own registry: nothing is global, so that several nodes
//! live in one process without mixing their figures.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::certificates;
use crate::places::Refused;
use crate::ready::Vitals;

/// A registry with what one scrape shows.
pub(crate) struct Exported(Registry);

impl Exported {
    /// Looks at everything once.
    pub(crate) fn of(vitals: &Vitals) -> Exported {
        let mut registry = Registry::with_prefix("mcpnode");
        let status = vitals.node.status();
        let health = vitals.node.log_health();
        let mut gauge = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        gauge(
            "ready",
            "Whether this node admits requests",
            u64::from(vitals.is_ready()),
        );
        gauge(
            "lease_left_milliseconds",
            "How long the lease still holds",
            vitals.lease_left_ms(),
        );
        gauge("leader", "Whether this node leads", u64::from(vitals.node.leads()));
        gauge("term", "Term of the consensus", status.term);
        gauge("log_index", "Index of the last log entry", status.last_log);
        gauge(
            "auth_index",
            "Index up to which the auth view is complete",
            status.auth_index,
        );
        gauge(
            "durable_index",
            "Index up to which the state survives a power cut",
            vitals.replica.durable_index(),
        );
        if let Some(ends_ms) = certificates::ends(&vitals.data_dir)
            .iter()
            .filter_map(|(_, ends)| *ends)
            .min()
        {
            gauge(
                "certificates_end_seconds",
                "When the first of this node's certificates ends, seconds since 1970",
                ends_ms / 1_000,
            );
        }
        gauge(
            "tokens_active",
            "Active tokens in the auth view",
            count(vitals.replica.view().tokens()),
        );
        gauge(
            "open_streams_and_calls",
            "Streams and calls that a revoke would cut",
            count(vitals.replica.cuts().len()),
        );
        gauge(
            "log_flush_last_microseconds",
            "How long the last flush of the log took",
            health.last_flush_us,
        );
        gauge(
            "log_flush_average_microseconds",
            "How long a flush of the log takes",
            health.average_flush_us,
        );
        gauge(
            "store_failed",
            "Whether a store error has shut this node",
            u64::from(vitals.replica.gate().why_shut().is_some()),
        );
        gauge(
            "state_doubted",
            "Whether this node admits nobody because its state is not what the other replicas have, or nobody can say",
            u64::from(vitals.replica.gate().why_doubted().is_some()),
        );
        if let Some(compared) = vitals.node.compared() {
            gauge(
                "state_compared_index",
                "Log index at which the replicas' states were compared last",
                compared.index,
            );
            let differ = compared.members.values().filter(|alike| !**alike).count();
            gauge(
                "state_differing_nodes",
                "Nodes whose state was not what most replicas have when they were compared last",
                count(differ),
            );
        }
        if let Some(free) = vitals.free_bytes() {
            gauge("disk_free_bytes", "Free space where the data is", free);
        }
        registry.register("log_flushes", "Flushes of the log", ConstCounter::new(health.flushes));
        doors(&mut registry, vitals);
        gateway(&mut registry, vitals);
        Exported(registry)
    }

    /// The text of the scrape.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The listeners that clients reach.
fn doors(registry: &mut Registry, vitals: &Vitals) {
    for (name, places) in &vitals.doors {
        let registry = registry.sub_registry_with_label(("listener".into(), (*name).into()));
        let open = ConstGauge::new(i64::try_from(places.open()).unwrap_or(i64::MAX));
        registry.register("connections_open", "Connections of clients", open);
        let max = ConstGauge::new(i64::try_from(places.max()).unwrap_or(i64::MAX));
        registry.register("connections_max", "Connections that clients may have", max);
        for (reason, why) in [("full", Refused::Full), ("share", Refused::Share)] {
            let registry = registry.sub_registry_with_label(("reason".into(), reason.into()));
            registry.register(
                "connections_refused",
                "Connections that were closed at once: no place was free, or none of their address's share",
                ConstCounter::new(places.refused(why)),
            );
        }
    }
}

fn gateway(registry: &mut Registry, vitals: &Vitals) {
    let metrics = vitals.gateway.metrics();
    for sample in metrics.samples() {
        let labels = sample
            .label
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()));
        let registry = registry.sub_registry_with_labels(labels.into_iter());
        let value = u64::try_from(sample.value).unwrap_or(0);
        if sample.is_counter {
            registry.register(sample.name, sample.help, ConstCounter::new(value));
        } else {
            registry.register(sample.name, sample.help, ConstGauge::new(sample.value));
        }
    }
    let durations = metrics.durations();
    for (bound, calls) in durations.buckets {
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |ms| ms.to_string());
        let labelled = registry.sub_registry_with_label(("le_milliseconds".into(), bound.into()));
        labelled.register(
            "gateway_calls_within",
            "Calls to upstreams that took up to so long",
            ConstCounter::new(calls),
        );
    }
    let summed = ConstCounter::new(durations.sum_us);
    registry.register("gateway_call_microseconds", "Time spent in calls to upstreams", summed);
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
