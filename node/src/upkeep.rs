//! What a cluster does for itself: it is born, its nodes say how they are reached, and what has expired is taken away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use mcp_model::apply::tokens::due;
use mcp_model::clock::Clock;
use mcp_model::command::{Command, Refusal, Reply};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::Name;
use mcp_model::records::{ClusterRecord, NodeRecord, Origin};
use mcp_model::tables;
use mcp_raft::{Begun, Member, Node, WaitFor, WriteFailed};
use mcp_store::Replica;

use crate::config::Config;
use crate::founding::Founding;
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
    /// Begins the cluster as it was decided: the membership, the first administrator, the authority, the setup secret. Each
    /// part is refused where it is there already, so an interrupted beginning is taken up again.
    pub(crate) async fn begin(&self, identity: &Identity, founding: &Founding, data_dir: &Path) -> anyhow::Result<()> {
        let members = founding.members.iter().map(|founder| {
            let id = founder.id.parse();
            Ok(Member {
                id: id.with_context(|| format!("founding member id {:?}", founder.id))?,
                name: founder.name.to_string(),
                address: founder.address.clone(),
            })
        });
        let members = members.collect::<anyhow::Result<Vec<Member>>>()?;
        self.found(&members, data_dir).await?;
        let (admin, authority) = (founding.admin()?, founding.authority()?);
        let init = Command::InitCluster {
            cluster_id: identity.cluster()?,
            admin: self.new_id(),
            email: admin.clone(),
            password_hash: None,
            rbac: self.new_id(),
        };
        let keep = Command::KeepAuthority {
            certificate: authority.certificate,
            sealed_key: authority.sealed_key,
        };
        let offer = Command::OfferSetup {
            hash: founding.setup_hash()?,
            user: admin,
        };
        for command in [init, keep, offer] {
            let kind = command.kind();
            match self.write(command).await {
                Reply::ClusterInitialised | Reply::Noted | Reply::Refused(Refusal::AlreadyInitialised) => {}
                other => anyhow::bail!("the cluster cannot be initialised: {kind}: {other:?}"),
            }
        }
        Ok(())
    }

    /// Gives the founding members their membership once each of them has said that it has none. Who does not answer may have one.
    async fn found(&self, members: &[Member], data_dir: &Path) -> anyhow::Result<()> {
        let mut told = false;
        loop {
            match self.node.bootstrap(members).await? {
                Begun::Here => {
                    tracing::info!(members = members.len(), "a new cluster begins");
                    return Ok(());
                }
                Begun::Already => return Ok(()),
                Begun::Elsewhere(member) => return Err(is_elsewhere(&member, data_dir)),
                Begun::Unknown(silent) if !told => {
                    let silent: Vec<String> = silent.iter().map(|m| format!("{} at {}", m.name, m.address)).collect();
                    tracing::warn!(
                        silent = silent.join(", "),
                        "the cluster does not begin yet: these founding members do not answer, and may be in one already. Start \
                         them; if one is gone for good, empty the data directories of all of them and begin anew"
                    );
                    told = true;
                }
                Begun::Unknown(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
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
        let (peer_address, api_url, gateway_url) = (config.peers.address(), config.api_url(), config.gateway_url());
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
            // All at once: they share entries, so many tokens that end together do not end one commit after the other.
            let ends = self.due().into_iter().map(|(id, expires_ms)| self.end(id, expires_ms));
            let late = join_all(ends).await.into_iter().flatten().next();
            if let Some((id, error)) = late {
                tracing::warn!(%error, token = %id, "a token's expiry is late");
            }
        }
    }

    async fn end(&self, id: Id, expires_ms: u64) -> Option<(Id, WriteFailed)> {
        let envelope = own(&*self.clock, Command::ExpireToken { id, expires_ms });
        let written = self.node.write(&envelope, WaitFor::Committed, OWN_WRITE).await;
        written.err().map(|error| (id, error))
    }

    /// A state that cannot be read has shut the gate already.
    fn due(&self) -> Vec<(Id, u64)> {
        let wall_ms = self.clock.wall_ms();
        self.replica.read(|t| due(t, wall_ms, DUE_MAX)).unwrap_or_default()
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

/// Why this node does not begin a cluster, and what its operator does instead.
fn is_elsewhere(member: &Member, data_dir: &Path) -> anyhow::Error {
    let Member { name, address, .. } = member;
    anyhow::anyhow!(
        "to have this machine take part in that one, move {} away, make a token there with `mcpctl cluster join-token > join.token`, \
         and run `mcpnode join {address} --token-file join.token`",
        data_dir.display()
    )
    .context(format!(
        "the founding member {name:?} at {address} is in a cluster already, and this node does not begin a second one"
    ))
}
