//! The side of the cluster: any node lets machines in that prove a join token's secret.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use mcp_model::clock::Clock;
use mcp_model::command::{Command, JoinRefusal, Refusal, Reply};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::Name;
use mcp_model::records::{AUTHORITY_KEY, Authority as Kept, JoinToken};
use mcp_model::tables;
use mcp_model::token::TokenHash;
use mcp_raft::{Answering, Doorkeeper, Node, Strangers, WaitFor};
use mcp_store::Replica;
use zeroize::Zeroizing;

use super::{Answer, Code, No, Question, VERSION};
use crate::certs::{self, Authority};
use crate::ports::own;

/// How long letting somebody in may take: longer than a failover.
const ENROL_WAIT: Duration = Duration::from_secs(10);
/// Hosts that a certificate names at most.
const HOSTS_MAX: usize = 100;

/// Lets machines in.
pub(crate) struct Host {
    pub(crate) node: Arc<Node>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cluster: Id,
    pub(crate) data_key: Zeroizing<[u8; 32]>,
    pub(crate) strangers: Strangers,
}

impl Doorkeeper for Host {
    fn answer(&self, from: SocketAddr, question: Bytes) -> Answering<'_> {
        Box::pin(async move {
            match Box::pin(self.let_in(from, &question)).await {
                Ok(answer) => (StatusCode::OK, json(&answer)),
                Err(no) => {
                    let why = format!("it asked to join and was not let in: {}", no.detail);
                    self.strangers.turned_away(&*self.clock, from.ip(), &why);
                    (status(no.code), json(&no))
                }
            }
        })
    }
}

/// A question that could be understood.
struct Guest {
    node: NodeId,
    name: Name,
    peer_address: String,
    secret: TokenHash,
    request: [u8; 32],
    peer_key: rcgen::PublicKey,
    listener_key: rcgen::PublicKey,
    hosts: Vec<String>,
}

impl Host {
    async fn let_in(&self, from: SocketAddr, question: &[u8]) -> Result<Answer, No> {
        let guest = Guest::read(from, question)?;
        self.refuse_strangers(&guest).await?;
        let authority = self.authority()?;
        // Signed before the token is used up: what cannot be signed must not cost a token.
        let now_ms = self.clock.wall_ms();
        let peer_certificate = authority
            .sign_peer(&guest.peer_key, guest.node, now_ms)
            .map_err(bad_question)?;
        let listener_certificate = authority.sign_listeners(&guest.listener_key, &guest.hosts, now_ms);
        let listener_certificate = listener_certificate.map_err(bad_question)?;
        let voter = self.enrol(&guest).await?;
        tracing::info!(node = %guest.node, name = %guest.name, %from, voter, "a machine was let in");
        Ok(Answer {
            cluster: self.cluster.to_string(),
            voter,
            authority: authority.pem().to_owned(),
            peer_certificate,
            listener_certificate,
            data_key: STANDARD.encode(*self.data_key),
        })
    }

    /// Refuses who has no token before anything is signed or proposed: what strangers ask must not become entries of the log. Whether
    /// the token is still good is decided in the log.
    async fn refuse_strangers(&self, guest: &Guest) -> Result<(), No> {
        let known = || {
            let found = self.replica.read(|t| tables::load::<JoinToken>(t, &guest.secret.0));
            found.map_err(|error| unavailable(&error))
        };
        if known()?.is_some() {
            return Ok(());
        }
        // It may have been made through another node a moment ago.
        self.node.freshen().await.map_err(|error| unavailable(&error))?;
        match known()? {
            Some(_) => Ok(()),
            None => Err(refused(&Refusal::Join(JoinRefusal::Unknown))),
        }
    }

    fn authority(&self) -> Result<Authority, No> {
        let kept = self.replica.read(|t| tables::load::<Kept>(t, &AUTHORITY_KEY));
        let kept = kept.map_err(|error| unavailable(&error))?;
        let kept = kept.ok_or_else(|| unavailable(&"this node does not know the cluster's authority yet"))?;
        Authority::open(&kept, &self.data_key).map_err(|error| unavailable(&format!("{error:#}")))
    }

    async fn enrol(&self, guest: &Guest) -> Result<bool, No> {
        let command = Command::EnrolNode {
            secret: guest.secret,
            request: guest.request,
            node: guest.node,
            name: guest.name.clone(),
            peer_address: guest.peer_address.clone(),
        };
        let envelope = own(&*self.clock, command);
        let written = self.node.write(&envelope, WaitFor::Committed, ENROL_WAIT).await;
        match written.map_err(|error| unavailable(&error))?.outcome.reply {
            Reply::NodeEnrolled { voter } => Ok(voter),
            Reply::Refused(why) => Err(refused(&why)),
            other => Err(unavailable(&format!("an unexpected answer: {other:?}"))),
        }
    }
}

impl Guest {
    fn read(from: SocketAddr, question: &[u8]) -> Result<Guest, No> {
        let question: Question = serde_json::from_slice(question).map_err(bad_question)?;
        if question.version != VERSION {
            return Err(bad_question(format!(
                "it speaks version {}, this node {VERSION}",
                question.version
            )));
        }
        let peer = certs::read_request(&question.peer_request).map_err(bad_question)?;
        let listener = certs::read_request(&question.listener_request).map_err(bad_question)?;
        if question.hosts.len() > HOSTS_MAX {
            return Err(bad_question(format!("more than {HOSTS_MAX} hosts")));
        }
        let node: NodeId = question.node.parse().map_err(bad_question)?;
        let name = Name::parse(&question.name).map_err(bad_question)?;
        refuse_unreachable(from, &question.peer_address)?;
        let asked = format!("{}\n{}", question.peer_request, question.listener_request);
        Ok(Guest {
            node,
            name,
            peer_address: question.peer_address,
            secret: TokenHash::of(&question.secret),
            request: certs::fingerprint(asked.as_bytes()),
            peer_key: peer.public_key,
            listener_key: listener.public_key,
            hosts: question.hosts,
        })
    }
}

/// For the fuzzer: bytes as the question of a machine that comes from elsewhere. Whoever is let on has a name and a secret, and is not said to
/// be on this machine.
pub(crate) fn decode_question(bytes: &[u8]) {
    let from = SocketAddr::from(([10, 0, 0, 2], 9));
    if let Ok(guest) = Guest::read(from, bytes) {
        assert!(guest.hosts.len() <= HOSTS_MAX);
        assert!(!guest.peer_address.starts_with("127.0.0.1:"));
    }
}

/// A machine that says that it is on loopback, and comes from elsewhere, would never be reached.
fn refuse_unreachable(from: SocketAddr, address: &str) -> Result<(), No> {
    let Some((host, _)) = address.rsplit_once(':') else {
        return Err(bad_question(format!("{address:?} is not HOST:PORT")));
    };
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let loopback = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
    if ip.is_some_and(|ip| ip.is_unspecified()) || loopback && !from.ip().is_loopback() {
        return Err(No {
            code: Code::BadNode,
            detail: format!(
                "peers would connect to {address}, where they would not find it: it comes from {}",
                from.ip()
            ),
            hint: format!(
                "say where they reach it: --peer-listen 0.0.0.0:3300 --advertise {}:3300",
                from.ip()
            ),
        });
    }
    Ok(())
}

fn refused(why: &Refusal) -> No {
    let another = "make another on any node: mcpctl cluster join-token";
    let (code, hint) = match why {
        Refusal::Join(JoinRefusal::Unknown | JoinRefusal::Used | JoinRefusal::Expired) => {
            (Code::BadToken, another.to_owned())
        }
        Refusal::Join(JoinRefusal::Removed) => (Code::BadNode, "run mcpnode join again: it draws a new id".to_owned()),
        Refusal::NameTaken { name, .. } => (
            Code::BadNode,
            format!("give another --name, or, if that machine is gone for good: mcpctl cluster remove {name}"),
        ),
        Refusal::Invalid { .. } => (
            Code::BadNode,
            "if that machine is gone for good, remove it first: mcpctl cluster remove NAME".to_owned(),
        ),
        _ => (Code::Unavailable, "try again in a moment".to_owned()),
    };
    No {
        code,
        detail: why.to_string(),
        hint,
    }
}

fn bad_question(why: impl std::fmt::Display) -> No {
    No {
        code: Code::BadQuestion,
        detail: format!("{why:#}"),
        hint: "run the same version of mcpnode on both machines".to_owned(),
    }
}

fn unavailable(why: &dyn std::fmt::Display) -> No {
    No {
        code: Code::Unavailable,
        detail: why.to_string(),
        hint: "try again in a moment, or through another node".to_owned(),
    }
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::BadQuestion => StatusCode::BAD_REQUEST,
        Code::BadToken => StatusCode::FORBIDDEN,
        Code::BadNode => StatusCode::CONFLICT,
        Code::Unavailable | Code::Other => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_peers_would_not_find_is_told_where_it_comes_from() {
        for (from, address, fine) in [
            ("127.0.0.1:9", "127.0.0.1:3300", true),
            ("10.0.0.2:9", "10.0.0.2:3300", true),
            ("10.0.0.2:9", "node-2.example:3300", true),
            ("10.0.0.2:9", "127.0.0.1:3300", false),
            ("10.0.0.2:9", "localhost:3300", false),
            ("10.0.0.2:9", "[::1]:3300", false),
            ("127.0.0.1:9", "0.0.0.0:3300", false),
            ("10.0.0.2:9", "nowhere", false),
        ] {
            let answer = refuse_unreachable(from.parse().unwrap(), address);
            assert_eq!(answer.is_ok(), fine, "{from} {address}: {answer:?}");
        }
        let no = refuse_unreachable("10.0.0.2:9".parse().unwrap(), "127.0.0.1:3300").unwrap_err();
        assert!(no.hint.contains("--advertise 10.0.0.2:3300"), "{no:?}");
    }
}
