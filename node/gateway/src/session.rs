//! Legacy session ids that any replica can take over: the session is sealed into its id under a key of the cluster.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use mcp_wire::can::ClientCan;
use mcp_wire::version::Revision;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Layout version of the sealed bytes. The first one did not say where the session was opened; such sessions go on.
const VERSION: u8 = 2;
const VERSION_WITHOUT_HOME: u8 = 1;
/// What the seal is for, so that a blob sealed for something else under the same key opens nothing here.
const PURPOSE: &[u8] = b"mcp session id 1";
/// version, uuid, token hash, project id, revision, capabilities, issued at; node and its run.
const PLAIN_BYTES: usize = PLAIN_BYTES_WITHOUT_HOME + 8 + 8;
const PLAIN_BYTES_WITHOUT_HOME: usize = 1 + 16 + 32 + 16 + 1 + 1 + 8;

/// One run of the gateway of a node: what is kept for a session is kept there, and not longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) node: NodeId,
    /// Random, for each run.
    pub(crate) run: u64,
}

/// A session, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Names it in the audit.
    pub(crate) uuid: Id,
    /// The token it belongs to.
    pub(crate) token: TokenHash,
    /// The project it was opened in.
    pub(crate) project: Id,
    /// The revision that was agreed on.
    pub(crate) revision: Revision,
    /// What the client can do.
    pub(crate) can: ClientCan,
    /// When it was opened, ms since 1970.
    pub(crate) issued_ms: u64,
    /// Where it was opened.
    pub(crate) home: Option<Home>,
}

/// The session id names no session of this token: unknown, tampered with, another's, expired or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoSession;

/// Seals and opens sessions.
pub(crate) struct Sessions {
    key: LessSafeKey,
    random: SystemRandom,
    lifetime_ms: u64,
    home: Home,
    ended: Mutex<Ended>,
    /// Whether any is remembered there: most nodes never take the lock.
    any_ended: AtomicBool,
}

/// Sessions that their clients ended, here or on a replica that told this one. One that was away does not know; an ended session grants nothing that its token does
/// not grant anyway.
struct Ended {
    known: HashSet<Id>,
    order: VecDeque<Id>,
    most: usize,
}

impl Sessions {
    pub(crate) fn new(node: NodeId, cluster_key: &[u8; 32], lifetime_ms: u64, ended_max: usize) -> Sessions {
        let key = UnboundKey::new(&AES_256_GCM, cluster_key).expect("32 bytes are a key of AES-256");
        let ended = Ended {
            known: HashSet::new(),
            order: VecDeque::new(),
            most: ended_max,
        };
        let random = SystemRandom::new();
        let mut run = [0; 8];
        // Without random bytes no session is opened either.
        let _filled = random.fill(&mut run).is_ok();
        let run = u64::from_be_bytes(run);
        Sessions {
            key: LessSafeKey::new(key),
            random,
            lifetime_ms,
            home: Home { node, run },
            ended: Mutex::new(ended),
            any_ended: AtomicBool::new(false),
        }
    }

    /// This run of this node.
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    /// A new session and its id; none if the system has no random bytes.
    pub(crate) fn issue(
        &self,
        token: TokenHash,
        project: Id,
        revision: Revision,
        can: ClientCan,
        now_ms: u64,
    ) -> Option<(Session, String)> {
        let mut random = [0; 10];
        self.random.fill(&mut random).ok()?;
        let uuid = Id::v7(now_ms, random);
        let session = Session {
            uuid,
            token,
            project,
            revision,
            can,
            issued_ms: now_ms,
            home: Some(self.home),
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = session.to_bytes();
        let key = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(key, Aad::from(PURPOSE), &mut sealed)
            .ok()?;
        let mut whole = nonce.to_vec();
        whole.extend_from_slice(&sealed);
        Some((session, URL_SAFE_NO_PAD.encode(whole)))
    }

    /// The session behind an id, if it is this token's, in this project, and not over.
    pub(crate) fn open(&self, id: &str, token: TokenHash, project: Id, now_ms: u64) -> Result<Session, NoSession> {
        // A little more than fits: the decoder wants room for its estimate.
        let mut sealed = [0; NONCE_LEN + PLAIN_BYTES + 16 + 8];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut sealed).map_err(|_| NoSession)?;
        let (nonce, sealed) = sealed[..length].split_at_mut_checked(NONCE_LEN).ok_or(NoSession)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NoSession)?;
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(PURPOSE), sealed)
            .map_err(|_| NoSession)?;
        let session = Session::from_bytes(plain).ok_or(NoSession)?;
        self.checked(session, token, project, now_ms)
    }

    pub(crate) fn checked(
        &self,
        session: Session,
        token: TokenHash,
        project: Id,
        now_ms: u64,
    ) -> Result<Session, NoSession> {
        let over = now_ms > session.issued_ms.saturating_add(self.lifetime_ms);
        if over
            || session.project != project
            || !session.token.same_as(&token)
            || (self.any_ended.load(Ordering::Acquire) && self.ended().known.contains(&session.uuid))
        {
            return Err(NoSession);
        }
        Ok(session)
    }

    /// For the fuzzer: bytes as what a seal held. What is read is written as the same bytes, and is the token's or refused.
    pub(crate) fn decode_sealed(&self, plain: &[u8], token: TokenHash, project: Id) {
        let Some(session) = Session::from_bytes(plain) else {
            return;
        };
        assert_eq!(Session::from_bytes(&session.to_bytes()).as_ref(), Some(&session));
        if let Ok(session) = self.checked(session, token, project, 1) {
            assert!(session.token == token && session.project == project);
        }
    }

    /// Remembers that a session was ended by its client.
    pub(crate) fn end(&self, session: Id) {
        let mut ended = self.ended();
        self.any_ended.store(true, Ordering::Release);
        if !ended.known.insert(session) {
            return;
        }
        ended.order.push_back(session);
        if ended.order.len() > ended.most
            && let Some(oldest) = ended.order.pop_front()
        {
            ended.known.remove(&oldest);
        }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; PLAIN_BYTES_WITHOUT_HOME];
        bytes[0] = if self.home.is_some() {
            VERSION
        } else {
            VERSION_WITHOUT_HOME
        };
        bytes[1..17].copy_from_slice(&self.uuid.to_bytes());
        bytes[17..49].copy_from_slice(&self.token.0);
        bytes[49..65].copy_from_slice(&self.project.to_bytes());
        let revision = Revision::ALL.iter().position(|revision| *revision == self.revision);
        bytes[65] = revision.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX);
        bytes[66] = self.can.bits();
        bytes[67..].copy_from_slice(&self.issued_ms.to_be_bytes());
        if let Some(home) = &self.home {
            bytes.extend_from_slice(&home.node.0.to_be_bytes());
            bytes.extend_from_slice(&home.run.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(whole: &[u8]) -> Option<Session> {
        let (bytes, home) = whole.split_at_checked(PLAIN_BYTES_WITHOUT_HOME)?;
        let home = match (bytes[0], home.len()) {
            (VERSION_WITHOUT_HOME, 0) => None,
            (VERSION, 16) => Some(Home {
                node: NodeId(u64::from_be_bytes(home[..8].try_into().ok()?)),
                run: u64::from_be_bytes(home[8..].try_into().ok()?),
            }),
            (_, _) => return None,
        };
        Some(Session {
            uuid: Id::from_slice(&bytes[1..17])?,
            token: TokenHash(bytes[17..49].try_into().ok()?),
            project: Id::from_slice(&bytes[49..65])?,
            revision: *Revision::ALL.get(usize::from(bytes[65]))?,
            can: ClientCan::from_bits(bytes[66]),
            issued_ms: u64::from_be_bytes(bytes[67..].try_into().ok()?),
            home,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [5; 32];

    #[test]
    fn a_session_opens_on_any_replica_for_its_own_token_only() {
        let (here, there) = (
            Sessions::new(NodeId(1), &KEY, 1_000, 2),
            Sessions::new(NodeId(1), &KEY, 1_000, 2),
        );
        let (mine, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let (project, foreign) = (Id::from_u128(1), Id::from_u128(2));
        let can = ClientCan::FORM.and(ClientCan::URL);
        let (session, id) = here.issue(mine, project, Revision::R20250618, can, 10_000).unwrap();
        assert_eq!(there.open(&id, mine, project, 11_000), Ok(session.clone()));
        assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(there.open(&id, other, project, 11_000), Err(NoSession));
        assert_eq!(there.open(&id, mine, foreign, 11_000), Err(NoSession));
        assert_eq!(there.open(&id, mine, project, 11_001), Err(NoSession), "expired");
        assert_eq!(
            Sessions::new(NodeId(1), &[6; 32], 1_000, 2).open(&id, mine, project, 10_000),
            Err(NoSession)
        );
        here.end(session.uuid);
        assert_eq!(here.open(&id, mine, project, 10_000), Err(NoSession));
    }

    #[test]
    fn a_tampered_id_opens_nothing() {
        let sessions = Sessions::new(NodeId(1), &KEY, 1_000, 2);
        let (mine, project) = (TokenHash([1; 32]), Id::from_u128(1));
        let (_, id) = sessions
            .issue(mine, project, Revision::R20251125, ClientCan::default(), 0)
            .unwrap();
        for at in 0..id.len() {
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(bytes).unwrap();
            assert_eq!(
                sessions.open(&tampered, mine, project, 0),
                Err(NoSession),
                "character {at}"
            );
        }
        for text in ["", "x", "not base64!", &"A".repeat(5000), &id[..20]] {
            assert_eq!(sessions.open(text, mine, project, 0), Err(NoSession));
        }
    }
}
