//! What was acknowledged, and whether every node still knows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::api::{host_of, request};
use crate::cluster::Cluster;
use crate::connection::Connection;

const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Tokens of each kind whose bearers are tried at the gateway of every node after a round: the newest.
const BEARERS: usize = 5;

/// How often, and after which pauses, a node is looked at until it shows everything.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is known of one token whose minting was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Token {
    bearer: String,
    fate: Fate,
}

impl Token {
    /// Whether a node may show it so.
    fn fits(&self, status: Option<&String>) -> bool {
        let status = status.map(String::as_str);
        match self.fate {
            Fate::Active => status == Some("active"),
            Fate::Revoked => status == Some("revoked"),
            Fate::Unknown => matches!(status, Some("active" | "revoked")),
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody has tried to revoke it.
    Active,
    /// Somebody has tried, and was not told what came of it.
    Unknown,
    /// The revoke was acknowledged as effective.
    Revoked,
}

/// Everything that was acknowledged, by token id. Clones are one history.
#[derive(Clone, Default)]
pub(super) struct History(Arc<Mutex<BTreeMap<String, Token>>>);

impl History {
    pub(super) fn minted(&self, id: String, bearer: String) {
        let fate = Fate::Active;
        self.tokens().insert(id, Token { bearer, fate });
    }

    /// Before a revoke is sent: from here on nobody knows, until it is acknowledged.
    pub(super) fn is_being_revoked(&self, id: &str) {
        self.set(id, Fate::Unknown);
    }

    pub(super) fn revoked(&self, id: &str) {
        self.set(id, Fate::Revoked);
    }

    /// How many tokens and how many revokes were acknowledged.
    pub(super) fn acknowledged(&self) -> (usize, usize) {
        let tokens = self.tokens();
        let revoked = tokens.values().filter(|token| token.fate == Fate::Revoked).count();
        (tokens.len(), revoked)
    }

    /// Looks for all of it on every node: in its state, and at its gateway.
    pub(super) async fn check(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let expected = self.tokens().clone();
        for node in 0..cluster.nodes.len() {
            let name = &cluster.nodes[node].name;
            self.wait_until_shown(cluster, node, &expected).await?;
            try_bearers(&cluster.nodes[node].gateway_url, &expected)
                .await
                .with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// A node may still be carrying out the last of it: what it shows is its own replica.
    async fn wait_until_shown(
        &self,
        cluster: &Cluster,
        node: usize,
        expected: &BTreeMap<String, Token>,
    ) -> anyhow::Result<()> {
        let name = &cluster.nodes[node].name;
        for left in (0..LOOKS).rev() {
            let listed = match list(cluster, node).await {
                Ok(listed) => listed,
                // A node that lost its lease for a moment says so, and one closes connections on which nothing comes, as when this
                // program was stopped: they are asked again, like one that is late.
                Err(_) if left > 0 => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(error) => return Err(error).with_context(|| name.clone()),
            };
            let wrong = expected.iter().find(|(id, token)| !token.fits(listed.get(*id)));
            let Some((id, token)) = wrong else { break };
            if left == 0 {
                let shown = listed.get(id);
                bail!(
                    "{name} shows token {id} as {shown:?}, acknowledged was {:?}",
                    token.fate
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn set(&self, id: &str, fate: Fate) {
        if let Some(token) = self.tokens().get_mut(id) {
            token.fate = fate;
        }
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Status by id, of every token that a node shows.
async fn list(cluster: &Cluster, node: usize) -> anyhow::Result<BTreeMap<String, String>> {
    let mut api = cluster.api(node).await?;
    let mut all = BTreeMap::new();
    let mut path = "mcptokens?limit=500".to_owned();
    loop {
        let listed = api.must("GET", &path, &Value::Null).await?;
        for item in listed["items"].as_array().context("no list")? {
            let text = |field: &str| item[field].as_str().context("a token without a field");
            all.insert(text("id")?.to_owned(), text("status")?.to_owned());
        }
        match listed["continue"].as_str() {
            Some(more) => path = format!("mcptokens?limit=500&continue={more}"),
            None => return Ok(all),
        }
    }
}

/// The newest acknowledged bearers are admitted, and the newest revoked ones are not.
async fn try_bearers(gateway_url: &str, tokens: &BTreeMap<String, Token>) -> anyhow::Result<()> {
    for (fate, admitted) in [(Fate::Active, true), (Fate::Revoked, false)] {
        let of_fate = tokens.iter().rev().filter(|(_, token)| token.fate == fate);
        for (id, token) in of_fate.take(BEARERS) {
            let status = answer_to(gateway_url, &token.bearer).await?;
            if status != if admitted { 200 } else { 401 } {
                bail!("the gateway answers {status} to token {id}, acknowledged was {fate:?}");
            }
        }
    }
    Ok(())
}

/// What the gateway says of a bearer, once it can say something: 503 is no answer, nor is none.
async fn answer_to(gateway_url: &str, bearer: &str) -> anyhow::Result<u16> {
    let mut last = Ok(503);
    // A machine that is overloaded keeps a node from its lease for longer than from an answer.
    for _ in 0..LOOKS * 10 {
        last = knock(gateway_url, bearer).await;
        match last {
            Ok(503) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(status) => return Ok(status),
        }
    }
    last
}

async fn knock(gateway_url: &str, bearer: &str) -> anyhow::Result<u16> {
    let host = host_of(gateway_url)?;
    let bearer = format!("Bearer {bearer}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let request = request("POST", host, "/projects/demo/mcp", &headers, ping.as_bytes());
    let mut connection = Connection::open(host).await?;
    let answer = tokio::time::timeout(ANSWER_WAIT, connection.ask(&request)).await;
    Ok(answer.context("no answer in time")??.status)
}
