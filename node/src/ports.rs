//! The ports that gateway and control plane define, connected to consensus. Neither knows the other, nor what is behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_gateway::cluster::{Cluster, PortFuture, Report, Unavailable};
use mcp_gateway::{Gateway, LogLine, LogsWanted};
use mcp_model::clock::Clock;
use mcp_model::command::{Actor, Command, Envelope};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_raft::{Hearing, Likeness, Listener, Node, Standing, WaitFor, WriteFailed};
use mcpd::{Children, ClusterStatus, MemberRole, Pending, Writer};
use tokio::sync::Semaphore;

use crate::random;

/// How long the cluster's own bookkeeping may take.
pub(crate) const OWN_WRITE: Duration = Duration::from_secs(5);
/// Unknown tokens that may ask for newer state at once. They share rounds; this bounds what waits.
const FRESHEN_MAX: usize = 64;
/// Messages of gateways to other nodes that wait for an answer at once: fewer than one peer takes.
const TELL_MAX: usize = 512;

/// A command of the cluster itself.
pub(crate) fn own(clock: &dyn Clock, command: Command) -> Envelope {
    let id = CommandId(u128::from_ne_bytes(random::bytes()));
    Envelope {
        id,
        now_ms: clock.wall_ms(),
        actor: Actor::System,
        command,
    }
}

/// What the gateway wants from the cluster.
pub(crate) struct GatewayPort {
    pub(crate) node: Arc<Node>,
    pub(crate) clock: Arc<dyn Clock>,
    freshening: Semaphore,
    telling: Semaphore,
}

/// Hands the gateway what other nodes tell it.
pub(crate) struct GatewayEars(pub(crate) Gateway);

impl Listener for GatewayEars {
    fn hear(&self, _: NodeId, message: Bytes) -> Hearing<'_> {
        Box::pin(async move { self.0.hear(&message).await })
    }
}

impl GatewayPort {
    pub(crate) fn new(node: Arc<Node>, clock: Arc<dyn Clock>) -> GatewayPort {
        GatewayPort {
            node,
            clock,
            freshening: Semaphore::new(FRESHEN_MAX),
            telling: Semaphore::new(TELL_MAX),
        }
    }

    async fn write(&self, command: Command) -> Result<(), Unavailable> {
        let envelope = own(&*self.clock, command);
        let written = self.node.write(&envelope, WaitFor::Committed, OWN_WRITE).await;
        written.map(|_| ()).map_err(|_| Unavailable::NoLeader)
    }
}

impl Cluster for GatewayPort {
    fn freshen(&self) -> PortFuture<'_, Result<(), Unavailable>> {
        Box::pin(async {
            let _place = self.freshening.try_acquire().map_err(|_| Unavailable::TooMany)?;
            self.node.freshen().await.map_err(|_| Unavailable::NoLeader)
        })
    }

    fn report_tools(&self, report: Report) -> PortFuture<'_, Result<(), Unavailable>> {
        let Report { list, node, prints } = report;
        Box::pin(self.write(Command::ReportTools { list, node, prints }))
    }

    fn record_token_use(&self, uses: Vec<(Id, u64)>) -> PortFuture<'_, Result<(), Unavailable>> {
        Box::pin(self.write(Command::RecordTokenUse { uses }))
    }

    fn others(&self) -> Vec<NodeId> {
        self.node.others()
    }

    fn tell(&self, to: NodeId, message: Vec<u8>, wait: Duration) -> PortFuture<'_, Result<Vec<u8>, Unavailable>> {
        Box::pin(async move {
            let _place = self.telling.try_acquire().map_err(|_| Unavailable::TooMany)?;
            let told = self.node.tell(to, message, wait).await;
            told.map_err(|_| Unavailable::NotReached)
        })
    }

    fn is_prober(&self) -> bool {
        self.node.leads()
    }

    /// A node that was not asked yet is given the benefit of the doubt, as long as it is a member.
    fn answers(&self, node: NodeId) -> bool {
        let is_member = || self.node.status().members.iter().any(|member| member.id == node);
        self.node.is_reachable(node).unwrap_or_else(is_member)
    }
}

/// What the control plane asks about children.
pub(crate) struct ChildrenPort(pub(crate) Gateway);

impl Children for ChildrenPort {
    fn logs(&self, server: Id, wanted: &mcpd::LogsWanted) -> Pending<'_, Vec<mcpd::NodeLogs>> {
        let wanted = LogsWanted {
            tail: wanted.tail,
            since_ms: wanted.since_ms,
            node: wanted.node,
            after: wanted.after.clone(),
        };
        let line = |line: LogLine| mcpd::LogLine {
            number: line.number,
            at_ms: line.at_ms,
            session: line.session,
            text: line.text,
        };
        Box::pin(async move {
            let logs = self.0.server_logs(server, &wanted).await.into_iter();
            logs.map(|logs| mcpd::NodeLogs {
                node: logs.node,
                lines: logs
                    .lines
                    .map(|(lines, last)| (lines.into_iter().map(line).collect(), last)),
            })
            .collect()
        })
    }

    fn running(&self) -> Pending<'_, Vec<(Id, bool)>> {
        Box::pin(self.0.running_children())
    }
}

/// The control plane's way to write.
pub(crate) struct ApiPort {
    pub(crate) node: Arc<Node>,
}

impl Writer for ApiPort {
    fn write(
        &self,
        envelope: Envelope,
        wait: mcpd::WaitFor,
        limit: Duration,
    ) -> Pending<'_, Result<mcpd::Written, mcpd::WriteFailed>> {
        Box::pin(async move {
            let wait = match wait {
                mcpd::WaitFor::Effective => WaitFor::Effective,
                mcpd::WaitFor::Committed => WaitFor::Committed,
            };
            let written = self.node.write(&envelope, wait, limit).await.map_err(failed)?;
            let outcome = written.outcome;
            let (index, restricts) = (outcome.index, outcome.restricts);
            Ok(mcpd::Written {
                index,
                reply: outcome.reply,
                restricts,
                receipt: written.receipt,
            })
        })
    }

    fn read_index(&self) -> Pending<'_, Result<u64, mcpd::WriteFailed>> {
        Box::pin(async { self.node.read_index().await.map_err(failed) })
    }

    fn look_around(&self) -> Pending<'_, ()> {
        Box::pin(self.node.look_around())
    }

    fn step_down(&self, node: NodeId) -> Pending<'_, Result<(), mcpd::WriteFailed>> {
        Box::pin(async move { self.node.step_down(node).await.map_err(failed) })
    }

    fn stands(&self, node: NodeId, standing: mcpd::Standing, limit: Duration) -> Pending<'_, bool> {
        let standing = match standing {
            mcpd::Standing::Voter => Standing::Voter,
            mcpd::Standing::Learner => Standing::Learner,
            mcpd::Standing::Gone => Standing::Gone,
        };
        Box::pin(self.node.stands(node, standing, limit))
    }

    fn cluster_status(&self) -> ClusterStatus {
        let (status, compared) = (self.node.status(), self.node.compared());
        let members = status.members.iter().map(|member| mcpd::Member {
            id: member.id,
            role: if member.voter {
                MemberRole::Voter
            } else {
                MemberRole::Learner
            },
            reachable: self.node.is_reachable(member.id),
            matched_index: member.matched,
            alike: compared.as_ref().and_then(|c| c.members.get(&member.id).copied()),
        });
        ClusterStatus {
            node: status.me,
            leader: status.leader,
            term: status.term,
            members: members.collect(),
            compared: compared.as_ref().map(|compared| mcpd::Compared {
                index: compared.index,
                rows: compared.rows,
                state: likeness(compared.likeness),
            }),
        }
    }
}

/// How a state stands to the others', in a word for people and programs.
pub(crate) fn likeness(likeness: Likeness) -> &'static str {
    match likeness {
        Likeness::Agrees => "agrees",
        Likeness::Differs => "differs",
        Likeness::Disputed => "disputed",
        Likeness::Open => "open",
    }
}

fn failed(why: WriteFailed) -> mcpd::WriteFailed {
    match why {
        WriteFailed::NoLeader => mcpd::WriteFailed::NoLeader,
        WriteFailed::Busy => mcpd::WriteFailed::NotProposed("too many writes at once".to_owned()),
        WriteFailed::TooLong => mcpd::WriteFailed::NotProposed(why.to_string()),
        WriteFailed::OutcomeUnknown => mcpd::WriteFailed::OutcomeUnknown("no answer in time".to_owned()),
    }
}
