//! Who is in the cluster: join tokens, the part of each node, removal.
//!
//! What is decided here stands in the replicated state; the leader makes the membership say the same. What would leave the
//! cluster unable to decide is refused before that.

use http::StatusCode;
use mcp_api::cluster::{JoinTokenBody, JoinTokenEntry, NewJoinToken, NodeChanged};
use mcp_api::problem::Code;
use mcp_api::write::Removed;
use mcp_api::{show_time, ttl};
use mcp_model::command::Command;
use mcp_model::ids::{Id, NodeId};
use mcp_model::records::{AUTHORITY_KEY, Authority, Enrolment, JoinToken, NodeRecord};
use mcp_model::tables::{self, Tables};
use mcp_model::token::PlainJoin;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::limits;
use crate::page;
use crate::port::{ClusterStatus, MemberRole, Standing};
use crate::projects::id_of;

const ROLES: &str = "the values are voter and learner";

pub(crate) async fn join_token(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<NewJoinToken>(&it.call.body)?;
    let api = &it.call.api;
    let now_ms = api.clock.wall_ms();
    let life = value.ttl.as_deref().unwrap_or(limits::JOIN_TTL);
    let expires_ms = match ttl::expiry(life, now_ms) {
        Ok(Some(at)) if at > now_ms && at - now_ms <= limits::JOIN_TTL_MS_MAX => Some(at),
        Ok(_) => {
            faults.add("ttl", "a join token ends: write a time of at most 7d, such as 1h");
            None
        }
        Err(error) => {
            faults.add("ttl", error);
            None
        }
    };
    let voter = match value.role.as_deref() {
        None | Some("voter") => true,
        Some("learner") => false,
        Some(_) => {
            faults.add("role", ROLES);
            false
        }
    };
    faults.refuse()?;
    let expires_ms = expires_ms.expect(READ);
    let (authority, peers) = api
        .read(|t| (tables::load::<Authority>(t, &AUTHORITY_KEY), peers(t)))
        .await?;
    let authority: [u8; 32] = Sha256::digest(authority.ok_or_else(no_authority)?.certificate).into();
    let token = PlainJoin::new(authority, &Zeroizing::new(api.random()));
    let id = api.new_id();
    let command = Command::OfferJoin {
        id,
        hash: token.hash(),
        voter,
        expires_ms,
    };
    let written = it.propose(command).await?;
    let given = id_of(&written)?;
    let body = JoinTokenBody {
        id: given.to_string(),
        // A repeated request made another secret than the one that counts.
        token: (given == id).then(|| token.expose().to_string()),
        role: if voter { "voter" } else { "learner" }.to_owned(),
        expires_at: show_time(expires_ms),
        authority: authority.iter().map(|byte| format!("{byte:02x}")).collect(),
        peers,
    };
    it.answer(&written, StatusCode::CREATED, body).await
}

pub(crate) async fn join_tokens(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let (version, now_ms) = (it.call.api.replica.auth_index(), it.call.api.clock.wall_ms());
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |token: JoinToken| {
            Some(show_join_token(&token, now_ms))
        })
    });
    Ok(Answer::ok(&list.await?))
}

fn show_join_token(token: &JoinToken, now_ms: u64) -> JoinTokenEntry {
    let status = match &token.used {
        Some(_) => "used",
        None if now_ms >= token.expires_ms => "expired",
        None => "open",
    };
    JoinTokenEntry {
        id: token.id.to_string(),
        role: if token.voter { "voter" } else { "learner" }.to_owned(),
        status: status.to_owned(),
        node: token.used.as_ref().map(|used| used.node.to_string()),
        expires_at: show_time(token.expires_ms),
        created_at: show_time(token.origin.created_ms),
        created_by: token.origin.created_by.clone(),
        resource_version: token.origin.version.to_string(),
    }
}

/// Ends a token that is lost, or not wanted any more. Who has come in by it stays.
pub(crate) async fn withdraw_join(it: Admitted) -> Result<Answer, Fault> {
    let given = it.call.param("id");
    let unknown = || Fault::not_found("join token", given);
    let id: Id = given.parse().map_err(|_| unknown())?;
    let written = it.propose(Command::WithdrawJoin { id }).await?;
    let removed = Removed {
        kind: "join token".to_owned(),
        name: id_of(&written)?.to_string(),
        id: id.to_string(),
        already: false,
    };
    it.answer(&written, StatusCode::OK, removed).await
}

fn peers(tables: &dyn Tables) -> Vec<String> {
    let nodes: Vec<NodeRecord> = tables::list(tables, None, limits::NODES_MAX);
    nodes.into_iter().map(|node| node.peer_address).collect()
}

fn no_authority() -> Fault {
    Fault::new(
        Code::NotProposed,
        "the cluster's certificate authority is not in its state",
    )
    .hint("the cluster is still beginning, or was made by a version that kept none: see the node's log")
}

pub(crate) async fn promote(it: Admitted) -> Result<Answer, Fault> {
    let node = it.named_node().await?;
    set_role(it, node, true).await
}

pub(crate) async fn demote(it: Admitted) -> Result<Answer, Fault> {
    let node = it.named_node().await?;
    it.refuse_lost_quorum(&node, "demoting").await?;
    set_role(it, node, false).await
}

async fn set_role(it: Admitted, node: Enrolment, voter: bool) -> Result<Answer, Fault> {
    let written = it.propose(Command::SetNodeRole { node: node.node, voter }).await?;
    let (role, standing) = if voter {
        ("voter", Standing::Voter)
    } else {
        ("learner", Standing::Learner)
    };
    answer(&it, &written, node, role, standing).await
}

/// Removes a node for ever. If it leads, another one does first: whoever goes is not to say when it is gone.
pub(crate) async fn remove(it: Admitted) -> Result<Answer, Fault> {
    let node = it.named_node().await?;
    it.refuse_lost_quorum(&node, "removing").await?;
    it.call.api.writer.step_down(node.node).await?;
    let written = it.propose(Command::RetireNode { node: node.node }).await?;
    answer(&it, &written, node, "removed", Standing::Gone).await
}

async fn answer(
    it: &Admitted,
    written: &crate::port::Written,
    node: Enrolment,
    role: &str,
    standing: Standing,
) -> Result<Answer, Fault> {
    let writer = &it.call.api.writer;
    // A node that removed itself is told nothing more.
    let itself = standing == Standing::Gone && writer.cluster_status().node == node.node;
    let settled = !itself && writer.stands(node.node, standing, limits::SETTLE_WAIT).await;
    let body = NodeChanged {
        id: node.node.to_string(),
        name: node.name.to_string(),
        role: role.to_owned(),
        settled,
    };
    let names = [(node.node, node.name.to_string())];
    it.answer_naming(written, StatusCode::OK, body, &names).await
}

impl Admitted {
    /// Before it says no, it asks once more: what this node knows of the others is a second old, or was never asked.
    async fn refuse_lost_quorum(&self, node: &Enrolment, doing: &str) -> Result<(), Fault> {
        let writer = &self.call.api.writer;
        if refuse_lost_quorum(&writer.cluster_status(), node, doing).is_ok() {
            return Ok(());
        }
        writer.look_around().await;
        refuse_lost_quorum(&writer.cluster_status(), node, doing)
    }

    /// The node in the path, by name or id.
    async fn named_node(&self) -> Result<Enrolment, Fault> {
        let given = self.call.param("name").to_owned();
        let id: Option<NodeId> = given.parse().ok();
        let found = self.call.api.read(move |t| {
            let mut all = tables::list::<Enrolment>(t, None, limits::NODES_MAX).into_iter();
            all.find(|e| Some(e.node) == id || e.name.as_str() == given)
        });
        found
            .await?
            .ok_or_else(|| Fault::not_found("node", self.call.param("name")))
    }
}

/// Refuses to take a voter away whom the others need to decide.
fn refuse_lost_quorum(status: &ClusterStatus, node: &Enrolment, doing: &str) -> Result<(), Fault> {
    let voters = status.members.iter().filter(|m| m.role == MemberRole::Voter);
    let (it, rest): (Vec<_>, Vec<_>) = voters.partition(|m| m.id == node.node);
    let answering = |m: &&&crate::port::Member| m.id == status.node || m.reachable == Some(true);
    let answer = rest.iter().filter(answering).count();
    if it.is_empty() || answer > rest.len() / 2 {
        return Ok(());
    }
    let name = node.name.as_str();
    let lost = |why: String| Fault::new(Code::WouldLoseQuorum, why);
    if rest.is_empty() {
        return Err(
            lost(format!("{doing} {name:?} would leave no voter: it is the only one"))
                .hint("let another machine in first: mcpctl cluster join-token"),
        );
    }
    let silent = rest.iter().filter(|m| !answering(m)).map(|m| m.id.to_string());
    let silent: Vec<String> = silent.collect();
    Err(lost(format!(
        "{doing} {name:?} would leave {} voters of which {answer} answer: too few to decide anything (silent: {})",
        rest.len(),
        silent.join(", ")
    ))
    .hint("bring those back, or remove them first: mcpctl cluster status"))
}

#[cfg(test)]
mod tests {
    use mcp_model::names::Name;
    use mcp_model::records::Origin;

    use super::*;
    use crate::port::Member;

    fn enrolment(id: u64) -> Enrolment {
        let origin = Origin {
            created_ms: 0,
            created_by: String::new(),
            version: 0,
        };
        Enrolment {
            node: NodeId(id),
            name: Name::parse(&format!("n{id}")).unwrap(),
            peer_address: String::new(),
            voter: true,
            origin,
        }
    }

    /// Voters by id, and whether each of them answers; this node is 1.
    fn refused(voters: &[(u64, bool)], node: u64) -> bool {
        let member = |(id, answers): &(u64, bool)| Member {
            id: NodeId(*id),
            role: MemberRole::Voter,
            reachable: Some(*answers),
            matched_index: None,
            alike: None,
        };
        let status = ClusterStatus {
            node: NodeId(1),
            leader: None,
            term: 1,
            compared: None,
            members: voters.iter().map(member).collect(),
        };
        refuse_lost_quorum(&status, &enrolment(node), "removing").is_err()
    }

    #[test]
    fn a_voter_goes_only_if_those_who_stay_can_decide() {
        for (voters, node, expected) in [
            (&[(1, true)][..], 1, true),
            (&[(1, true), (2, true)], 2, false),
            (&[(1, true), (2, false)], 2, false),
            (&[(1, true), (2, false)], 1, true),
            (&[(1, true), (2, true), (3, true)], 1, false),
            (&[(1, true), (2, true), (3, false)], 3, false),
            (&[(1, true), (2, true), (3, false)], 2, true),
            (&[(1, true), (2, true), (3, false), (4, true)], 2, false),
            (&[(1, true)], 9, false),
        ] {
            assert_eq!(refused(voters, node), expected, "{voters:?} without {node}");
        }
    }
}
