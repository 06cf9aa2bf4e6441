//! What a cluster does for itself: it is born, its nodes say how they are reached, and what has expired is taken away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mcp_model::clock::Clock;
use mcp_model::command::{Command, Refusal, Reply};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::records::{ClusterRecord, NodeRecord, Origin};
use mcp_model::tables::{self, Table};
use mcp_raft::{Member, Node, WaitFor};
use mcp_store::Replica;

use crate::config::{Bootstrap, Config};
use crate::identity::Identity;
use crate::ports::{OWN_WRITE, own};
use crate::random;

/// The pause between tries, and between looks at what is due.
const PAUSE: Duration = Duration::from_millis(500);
/// Tokens that are expired in one look.
const DUE_MAX: usize = 256;

/// What upkeep works with.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) node: Arc<Node>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Upkeep {
    /// Begins the cluster if this node is to and nobody has: the membership, then the first administrator.
    pub(crate) async fn bootstrap(&self, identity: &Identity, bootstrap: &Bootstrap) -> anyhow::Result<()> {
        let members = bootstrap.members.iter().map(|member| {
            let id: NodeId = member
                .id
                .parse()
                .with_context(|| format!("[bootstrap] member id {:?}", member.id))?;
            Ok(Member {
                id,
                name: member.name.to_string(),
                address: member.address.clone(),
            })
        });
        let members = members.collect::<anyhow::Result<Vec<Member>>>()?;
        if self.node.bootstrap(&members).await? {
            tracing::info!(members = members.len(), "a new cluster begins");
        }
        if self.is_born()? {
            return Ok(());
        }
        let secret = std::fs::read_to_string(&bootstrap.admin_secret_file)
            .with_context(|| format!("{} cannot be read", bootstrap.admin_secret_file.display()))?;
        let email = Email::parse(&bootstrap.admin_email).context("[bootstrap] admin_email")?;
        let salt = random::bytes();
        let hash = tokio::task::spawn_blocking(move || mcpd::passwords::hash_password(secret.trim(), salt)).await?;
        let command = Command::InitCluster {
            cluster_id: identity.cluster()?,
            admin: self.new_id(),
            email,
            password_hash: Some(hash),
            rbac: self.new_id(),
        };
        match self.write(command).await {
            Reply::ClusterInitialised | Reply::Refused(Refusal::AlreadyInitialised) => Ok(()),
            other => anyhow::bail!("the cluster cannot be initialised: {other:?}"),
        }
    }

    fn is_born(&self) -> anyhow::Result<bool> {
        Ok(self
            .replica
            .read(|t| tables::load::<ClusterRecord>(t, &[0]).is_some())?)
    }

    /// Says how this node is reached, once there is a cluster to tell, and again when that changed.
    pub(crate) async fn register(&self, me: NodeId, config: &Config) -> anyhow::Result<()> {
        let mut index = self.replica.auth_index_watch();
        while !self.is_born()? {
            index.changed().await?;
        }
        let name: Name = config.name.clone();
        let origin = Origin {
            created_ms: 0,
            created_by: String::new(),
            version: 0,
        };
        let (peer_address, api_url, gateway_url) = (config.peers.address(), config.api.url(), config.gateway.url());
        let record = NodeRecord {
            id: me,
            name,
            peer_address,
            api_url,
            gateway_url,
            origin,
        };
        let known = self
            .replica
            .read(|t| tables::load::<NodeRecord>(t, &me.0.to_be_bytes()))?;
        if known.is_some_and(|known| {
            NodeRecord {
                origin: record.origin.clone(),
                ..known
            } == record
        }) {
            return Ok(());
        }
        match self.write(Command::RegisterNode { node: record }).await {
            Reply::Noted => Ok(()),
            other => anyhow::bail!("this node cannot be registered: {other:?}"),
        }
    }

    /// Takes away what has expired, for as long as this node leads. Rule 9: the expiry that was seen travels along.
    pub(crate) async fn expire(self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if !self.node.leads() {
                continue;
            }
            for (id, expires_ms) in self.due() {
                let command = Command::ExpireToken { id, expires_ms };
                let envelope = own(&*self.clock, command);
                if let Err(error) = self.node.write(&envelope, WaitFor::Committed, OWN_WRITE).await {
                    tracing::warn!(%error, token = %id, "a token's expiry is late");
                    break;
                }
            }
        }
    }

    fn due(&self) -> Vec<(Id, u64)> {
        let now_ms = self.clock.wall_ms();
        // A state that cannot be read has shut the gate already.
        let rows = self
            .replica
            .read(|t| t.scan(Table::Expiries, &[], None, DUE_MAX))
            .unwrap_or_default();
        let parsed = rows.iter().filter_map(|(key, _)| {
            let (at, id) = key.split_at_checked(8)?;
            Some((Id::from_slice(id)?, u64::from_be_bytes(at.try_into().ok()?)))
        });
        parsed.take_while(|(_, expires_ms)| *expires_ms <= now_ms).collect()
    }

    /// Writes until it is written: there is a leader sooner or later.
    async fn write(&self, command: Command) -> Reply {
        let envelope = own(&*self.clock, command);
        loop {
            match self.node.write(&envelope, WaitFor::Committed, OWN_WRITE).await {
                Ok(written) => return written.outcome.reply,
                Err(error) => tracing::warn!(%error, "trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn new_id(&self) -> Id {
        Id::v7(self.clock.wall_ms(), random::bytes())
    }
}
