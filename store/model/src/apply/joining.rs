//! Who is in the cluster: the authority behind its certificates, the first password, join tokens, the part that each node is
//! to play, and its removal.
//!
//! Consensus keeps its own membership. What stands here is what was decided; the leader changes the membership until it says
//! the same, so that a decision survives whoever was carrying it out.

use super::Step;
use crate::command::{JoinRefusal, Refusal, Reply};
use crate::ids::{Id, NodeId};
use crate::names::{Email, Name};
use crate::records::{
    AUTHORITY_KEY, Authority, Enrolment, JoinToken, JoinUse, NodeRecord, Origin, Retirement, SetupSecret, User,
};
use crate::tables::{self, Table};
use crate::token::TokenHash;

/// Nodes that a cluster can have.
pub const NODES_MAX: usize = 1_000;
/// Join tokens that are kept: to tell a used one from an unknown one. Those that ended go first.
pub const JOIN_TOKENS_MAX: usize = 1_000;

impl Step<'_> {
    pub(super) fn keep_authority(&mut self, certificate: &[u8], sealed_key: &[u8]) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        if tables::load::<Authority>(self.tables, &AUTHORITY_KEY).is_some() {
            return Err(Refusal::AlreadyInitialised);
        }
        self.about("certificate authority");
        self.save(&Authority {
            certificate: certificate.to_vec(),
            sealed_key: sealed_key.to_vec(),
        });
        Ok(Reply::Noted)
    }

    /// Only for a user without a password: a secret that was used must not come back when a node that was interrupted while
    /// it began the cluster offers it again.
    pub(super) fn offer_setup(&mut self, hash: TokenHash, email: &Email) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        let user: User = self.named(email.as_str())?;
        if user.password_hash.is_some() {
            return Err(Refusal::AlreadyInitialised);
        }
        self.about(format!("setup secret of {email}"));
        self.save(&SetupSecret { hash, user: user.id });
        Ok(Reply::Noted)
    }

    pub(super) fn use_setup(&mut self, hash: TokenHash, email: &Email, password_hash: &str) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        self.about(format!("setup secret of {email}"));
        let secret: SetupSecret = tables::load(self.tables, &hash.0).ok_or(Refusal::NotAuthenticated)?;
        let mut user: User = self.named(email.as_str()).map_err(|_| Refusal::NotAuthenticated)?;
        if !secret.hash.same_as(&hash) || secret.user != user.id || user.disabled {
            return Err(Refusal::NotAuthenticated);
        }
        self.tables.remove(Table::SetupSecrets, &hash.0);
        user.password_hash = Some(password_hash.to_owned());
        let id = self.change(user);
        self.effects.policy_changed = true;
        Ok(Reply::Updated { id })
    }

    pub(super) fn offer_join(
        &mut self,
        id: Id,
        hash: TokenHash,
        voter: bool,
        expires_ms: u64,
    ) -> Result<Reply, Refusal> {
        self.about(format!("join token {id}"));
        self.rights().need_cluster()?;
        if expires_ms <= self.now_ms {
            return Err(invalid("ttl", "the join token would have expired already"));
        }
        self.make_room_for_a_join_token()?;
        let origin = self.origin();
        self.save(&JoinToken {
            hash,
            id,
            voter,
            expires_ms,
            used: None,
            origin,
        });
        Ok(Reply::Created { id })
    }

    /// A machine that has come in by it stays, and cannot ask again.
    pub(super) fn withdraw_join(&mut self, id: Id) -> Result<Reply, Refusal> {
        self.about(format!("join token {id}"));
        self.rights().need_cluster()?;
        let all: Vec<JoinToken> = tables::list(self.tables, None, JOIN_TOKENS_MAX);
        let token = all.iter().find(|token| token.id == id);
        let token = token.ok_or_else(|| Refusal::NotFound {
            kind: "join token".to_owned(),
            name: id.to_string(),
        })?;
        self.tables.remove(Table::JoinTokens, &token.hash.0);
        Ok(Reply::Deleted { id })
    }

    fn make_room_for_a_join_token(&mut self) -> Result<(), Refusal> {
        let all: Vec<JoinToken> = tables::list(self.tables, None, JOIN_TOKENS_MAX);
        if all.len() < JOIN_TOKENS_MAX {
            return Ok(());
        }
        let ended = all.iter().filter(|t| t.expires_ms <= self.now_ms);
        let oldest = ended.min_by_key(|t| t.expires_ms);
        let why = format!("{JOIN_TOKENS_MAX} join tokens are open already: wait until one expires");
        let oldest = oldest.ok_or_else(|| invalid("ttl", &why))?;
        self.tables.remove(Table::JoinTokens, &oldest.hash.0);
        Ok(())
    }

    pub(super) fn enrol_node(
        &mut self,
        secret: TokenHash,
        request: [u8; 32],
        node: NodeId,
        name: &Name,
        peer_address: &str,
    ) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        self.about(format!("node {name}"));
        let token: Option<JoinToken> = tables::load(self.tables, &secret.0);
        let mut token = token
            .filter(|t| t.hash.same_as(&secret))
            .ok_or(Refusal::Join(JoinRefusal::Unknown))?;
        if self.is_retired(node) {
            return Err(Refusal::Join(JoinRefusal::Removed));
        }
        let using = JoinUse { node, request };
        let ended = self.now_ms >= token.expires_ms;
        match &token.used {
            Some(used) if *used != using => return Err(Refusal::Join(JoinRefusal::Used)),
            // The answer holds the data key: it is not given for longer than the token was meant to last.
            _ if ended => return Err(Refusal::Join(JoinRefusal::Expired)),
            // The answer was lost, and the machine asks again.
            Some(_) => return Ok(Reply::NodeEnrolled { voter: token.voter }),
            None => {}
        }
        // The machine that asks chooses its id: it must not be that of a member, whose part and certificate it would take over.
        if self.enrolments().iter().any(|e| e.node == node) {
            let why = format!("node {node} is a member already: begin in an empty directory, which draws another id");
            return Err(invalid("node", &why));
        }
        self.refuse_twins(node, name, peer_address)?;
        let origin = self.origin();
        self.save(&Enrolment {
            node,
            name: name.clone(),
            peer_address: peer_address.to_owned(),
            voter: token.voter,
            origin,
        });
        token.used = Some(using);
        self.save(&token);
        Ok(Reply::NodeEnrolled { voter: token.voter })
    }

    fn refuse_twins(&self, node: NodeId, name: &Name, peer_address: &str) -> Result<(), Refusal> {
        let others: Vec<Enrolment> = self.enrolments().into_iter().filter(|e| e.node != node).collect();
        if others.iter().any(|e| e.name == *name) {
            return Err(Refusal::NameTaken {
                kind: "node".to_owned(),
                name: name.to_string(),
            });
        }
        if let Some(twin) = others.iter().find(|e| e.peer_address == peer_address) {
            let why = format!("node {:?} has the address {peer_address}", twin.name.as_str());
            return Err(invalid("peerAddress", &why));
        }
        if others.len() >= NODES_MAX {
            return Err(invalid("node", &format!("a cluster has at most {NODES_MAX} nodes")));
        }
        Ok(())
    }

    /// How a node is reached. A node that nobody enrolled began the cluster, and votes.
    pub(super) fn register_node(&mut self, node: &NodeRecord) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        if self.is_retired(node.id) {
            return Err(invalid("id", &format!("node {} was removed", node.id)));
        }
        let key = node.id.0.to_be_bytes();
        let known: Option<NodeRecord> = tables::load(self.tables, &key);
        let origin = known.map_or_else(
            || self.origin(),
            |k| Origin {
                version: self.index,
                ..k.origin
            },
        );
        self.about(format!("node {}", node.name));
        self.save(&NodeRecord { origin, ..node.clone() });
        if tables::load::<Enrolment>(self.tables, &key).is_none() {
            let origin = self.origin();
            self.save(&Enrolment {
                node: node.id,
                name: node.name.clone(),
                peer_address: node.peer_address.clone(),
                voter: true,
                origin,
            });
        }
        Ok(Reply::Noted)
    }

    pub(super) fn set_node_role(&mut self, node: NodeId, voter: bool) -> Result<Reply, Refusal> {
        self.about(format!("node {node}"));
        self.rights().need_cluster()?;
        let known: Option<Enrolment> = tables::load(self.tables, &node.0.to_be_bytes());
        let mut enrolment = known.ok_or_else(|| unknown(node))?;
        self.about(format!("node {}", enrolment.name));
        if !voter {
            self.refuse_last_voter(&enrolment)?;
        }
        if enrolment.voter != voter {
            enrolment.voter = voter;
            enrolment.origin.version = self.index;
            self.save(&enrolment);
        }
        Ok(Reply::Noted)
    }

    /// Removes a node for ever. Repeating it waits for the same: until the node can hold no lease any more.
    pub(super) fn retire_node(&mut self, node: NodeId) -> Result<Reply, Refusal> {
        self.about(format!("node {node}"));
        self.rights().need_cluster()?;
        let key = node.0.to_be_bytes();
        let enrolment: Option<Enrolment> = tables::load(self.tables, &key);
        if !self.is_retired(node) {
            let by_a_person = self.rights().need_system().is_err();
            if by_a_person && enrolment.is_none() {
                return Err(unknown(node));
            }
            if let Some(enrolment) = &enrolment {
                self.about(format!("node {}", enrolment.name));
                self.refuse_last_voter(enrolment)?;
            }
            self.save(&Retirement {
                id: node,
                index: self.index,
                time_ms: self.now_ms,
            });
        }
        self.tables.remove(Table::Nodes, &key);
        self.tables.remove(Table::Enrolments, &key);
        self.restricts = true;
        self.effects.retired.push(node);
        Ok(Reply::Noted)
    }

    fn refuse_last_voter(&self, enrolment: &Enrolment) -> Result<(), Refusal> {
        let another = self.enrolments().iter().any(|e| e.voter && e.node != enrolment.node);
        if another || !enrolment.voter {
            return Ok(());
        }
        let why = format!(
            "{:?} is the last voter: without it nobody decides",
            enrolment.name.as_str()
        );
        Err(invalid("node", &why))
    }

    fn enrolments(&self) -> Vec<Enrolment> {
        tables::list(self.tables, None, NODES_MAX)
    }

    fn is_retired(&self, node: NodeId) -> bool {
        tables::load::<Retirement>(self.tables, &node.0.to_be_bytes()).is_some()
    }
}

fn unknown(node: NodeId) -> Refusal {
    Refusal::NotFound {
        kind: "node".to_owned(),
        name: node.to_string(),
    }
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why: why.to_owned(),
    }
}
