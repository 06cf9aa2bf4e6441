//! Whether this node is ready, and why not: for load balancers, and in full for people.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use mcp_model::clock::Clock;
use mcp_raft::{Node, Removal};
use mcp_store::Replica;
use serde_json::json;

use crate::certificates;
use crate::metrics::Exported;
use crate::places::Places;
use crate::ports::likeness;

/// What `/readyz` and `/metrics` look at.
pub(crate) struct Vitals {
    pub(crate) node: Arc<Node>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gateway: mcp_gateway::Gateway,
    pub(crate) data_dir: PathBuf,
    pub(crate) draining: AtomicBool,
    /// The listeners that clients reach, by name.
    pub(crate) doors: [(&'static str, Arc<Places>); 2],
    /// Whether the cluster has begun as it was decided, the first administrator's way in included.
    pub(crate) begun: AtomicBool,
}

impl Vitals {
    /// Whether a request sent here now would be admitted.
    pub(crate) fn is_ready(&self) -> bool {
        // Before the first administrator there is nobody to admit.
        let born = self.has_begun();
        born && !self.draining.load(Ordering::Acquire)
            && self.replica.gate().holds(self.clock.reading())
            && self.node.what_is_wrong().is_empty()
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire) && self.replica.view().policy_ref().has_users()
    }

    /// Why it is not ready, in words for people.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = self.node.what_is_wrong();
        let doubted = self.replica.gate().why_doubted();
        reasons.extend(doubted.filter(|why| !reasons.contains(why)));
        if self.draining.load(Ordering::Acquire) {
            reasons.push("this node is stopping".to_owned());
        }
        if self.node.removal() != Removal::No {
            reasons.push(
                "this node was removed from the cluster: it admits nobody, and answers the others until they have gone on \
                 without it; then it ends by itself"
                    .to_owned(),
            );
        } else if !self.has_begun() {
            reasons.push("the cluster has no administrator yet".to_owned());
        } else if !self.replica.gate().holds(self.clock.reading()) {
            reasons.push("this node holds no lease: no leader answers, or it has not caught up".to_owned());
        }
        reasons
    }

    /// Milliseconds that the lease has left.
    pub(crate) fn lease_left_ms(&self) -> u64 {
        let now = self.clock.reading();
        let deadline = self.replica.gate().deadline();
        deadline
            .filter(|d| !now.either_passed(*d))
            .map_or(0, |d| d.ms_since(now))
    }

    /// Free bytes where the data is.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.data_dir)
    }

    fn verbose(&self) -> String {
        let status = self.node.status();
        let health = self.node.log_health();
        let shut = self.replica.gate().why_shut();
        let report = json!({
            "ready": self.is_ready(),
            "reasons": self.reasons(),
            "draining": self.draining.load(Ordering::Acquire),
            "lease": { "leftMs": self.lease_left_ms() },
            "store": { "ok": shut.is_none(), "reason": shut, "durableIndex": self.replica.durable_index() },
            "state": self.node.compared().map(|compared| json!({
                "comparedIndex": compared.index,
                "rows": compared.rows,
                "verdict": likeness(compared.likeness),
            })),
            "leader": { "node": status.leader.map(|id| id.to_string()), "term": status.term, "self": self.node.leads() },
            "apply": { "index": status.auth_index, "lastLog": status.last_log, "lag": status.last_log.saturating_sub(status.auth_index) },
            "disk": {
                "fit": self.node.is_fit(),
                "freeBytes": self.free_bytes(),
                "lastFlushUs": health.last_flush_us,
                "averageFlushUs": health.average_flush_us,
                "failed": health.failed,
            },
            "certificates": certificates::ends(&self.data_dir)
                .into_iter()
                .map(|(file, ends_ms)| (file.to_owned(), json!({ "ends": ends_ms.map(mcp_api::show_time) })))
                .collect::<serde_json::Map<_, _>>(),
            "removed": self.replica.gate().is_removed(),
            "servers": self.gateway.server_states().len(),
        });
        format!("{report:#}\n")
    }
}

/// Free bytes where `dir` is.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// What everybody may ask for and nobody can afford to make for everybody: whoever asks while it is being made gets the next one,
/// together with all others who wait. It is never older than the question.
#[derive(Default)]
struct Told {
    asked: AtomicU64,
    /// The last text, and which questions it answers: those up to this number.
    last: tokio::sync::Mutex<(u64, Bytes)>,
}

impl Told {
    async fn tell(&self, make: impl FnOnce() -> String) -> Bytes {
        let question = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut last = self.last.lock().await;
        if last.0 < question {
            let answers = self.asked.load(Ordering::Acquire);
            *last = (answers, make().into());
        }
        last.1.clone()
    }
}

/// What the routes share.
#[derive(Clone)]
struct Shown {
    vitals: Arc<Vitals>,
    verbose: Arc<Told>,
    metrics: Arc<Told>,
}

/// `/readyz` and `/metrics` of the API's listener.
pub(crate) fn router(vitals: Arc<Vitals>) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Shown {
            vitals,
            verbose: Arc::default(),
            metrics: Arc::default(),
        })
}

async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let vitals = &shown.vitals;
    let ready = vitals.is_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if query
        .as_deref()
        .is_some_and(|q| q.split('&').any(|p| p == "verbose" || p == "verbose=true"))
    {
        let text = shown.verbose.tell(|| vitals.verbose()).await;
        return (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    }
    (status, if ready { "ready\n" } else { "not ready\n" }).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    // A text takes text.
    let text = shown
        .metrics
        .tell(|| Exported::of(&shown.vitals).text().unwrap_or_default());
    (kind, text.await).into_response()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_crowd_is_told_once_and_nobody_something_old() {
        let (told, made) = (Told::default(), AtomicU64::new(0));
        let ask = || told.tell(|| made.fetch_add(1, Ordering::SeqCst).to_string());
        let held = told.last.lock().await;
        let crowd = join_all((0..1_000).map(|_| ask()));
        let (texts, ()) = tokio::join!(crowd, async { drop(held) });
        assert!(texts.iter().all(|text| text == "0") && made.load(Ordering::SeqCst) == 1);
        assert_eq!((ask().await, ask().await), ("1".into(), "2".into()));
    }
}
