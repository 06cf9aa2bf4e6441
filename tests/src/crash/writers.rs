//! Writers that go on whatever happens to the nodes, and note what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::history::History;
use crate::api::Api;
use crate::cluster::{Cluster, Node};
use crate::random::Random;

/// Writers at a time.
const WRITERS: u64 = 3;
/// How long one request may take: it may hang on a node that was killed.
const TRY_WAIT: Duration = Duration::from_secs(5);
/// The pause after one that failed.
const PAUSE: Duration = Duration::from_millis(20);

/// Those at work.
pub(super) struct Writers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    pub(super) fn start(cluster: &Cluster, history: &History, seed: u64) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer {
                nodes: cluster.nodes.clone(),
                session: cluster.session.clone(),
                history: history.clone(),
                random: Random::from_seed(seed ^ number),
                run: format!("{seed:016x}-{number}"),
                stop: Arc::clone(&stop),
            };
            tasks.spawn(writer.write());
        }
        Writers { tasks, stop }
    }

    /// Lets each finish what it is at.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

struct Writer {
    nodes: Vec<Node>,
    session: String,
    history: History,
    random: Random,
    run: String,
    stop: Arc<AtomicBool>,
}

impl Writer {
    async fn write(mut self) {
        let mut own: Vec<String> = Vec::new();
        for n in 0_u64.. {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let node = self.random.below(self.nodes.len());
            let url = self.nodes[node].api_url.clone();
            // Of three writes one takes away again what an earlier one made.
            let revoke = !own.is_empty() && self.random.below(3) == 0;
            let done = if revoke {
                let id = own.swap_remove(self.random.below(own.len()));
                tokio::time::timeout(TRY_WAIT, self.revoke(&url, &id)).await
            } else {
                let name = format!("c-{}-{n}", self.run);
                let minted = tokio::time::timeout(TRY_WAIT, self.mint(&url, &name)).await;
                minted.map(|minted| minted.map(|id| own.push(id)))
            };
            // Refusals and lost connections are what a killed node gives.
            if !matches!(done, Ok(Ok(()))) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn mint(&self, url: &str, name: &str) -> anyhow::Result<String> {
        let mut api = Api::open(url, &self.session).await?;
        let (id, bearer) = api.mint(name, "demo").await?;
        self.history.minted(id.clone(), bearer);
        Ok(id)
    }

    async fn revoke(&self, url: &str, id: &str) -> anyhow::Result<()> {
        let mut api = Api::open(url, &self.session).await?;
        self.history.is_being_revoked(id);
        let (status, answer) = api.send("POST", &format!("mcptokens/{id}/revoke"), &json!({})).await?;
        anyhow::ensure!(
            status == 200 && answer["receipt"]["effective"] == true,
            "HTTP {status}: {answer}"
        );
        self.history.revoked(id);
        Ok(())
    }
}
