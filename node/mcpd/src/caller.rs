//! Who asks: a session or a token, looked up in this node's replica, under a lease that is checked after the look.

use http::{HeaderMap, header};
use mcp_api::problem::Code;
use mcp_model::authority::{Principal, Rights};
use mcp_model::command::Actor;
use mcp_model::records::{McpToken, Project, Session, Tombstone};
use mcp_model::tables::{self, Table, Tables};
use mcp_model::token::{PlainSession, PlainToken, SESSION_PREFIX, TOKEN_PREFIX, TokenHash};

use crate::fault::Fault;
use crate::router::Api;

/// What a client presents. The plaintext is gone by the time this exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bearer {
    Session(TokenHash),
    Token(TokenHash),
}

/// Somebody who was let in, with what they may do.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    pub(crate) rights: Rights,
    /// The user or service account, or the owner of the token.
    pub(crate) principal: Principal,
    pub(crate) credential: Credential,
}

/// What the caller presented, as the state knows it.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Session(Session),
    Token { token: Box<McpToken>, project: String },
}

/// What a look in the state says about a bearer.
enum Found {
    Caller(Box<Caller>),
    /// Never heard of it: it may have been made a moment ago through another node.
    Unknown,
    /// Known, and no more (or not now) to be let in.
    Refused(&'static str),
}

impl Bearer {
    /// The one bearer of a request. Nothing is looked up for anything else than exactly one of the right shape.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Bearer, Fault> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = given.next() else {
            return Err(Fault::not_authenticated("the request carries no Authorization header"));
        };
        if given.next().is_some() {
            return Err(Fault::not_authenticated(
                "the request carries several Authorization headers",
            ));
        }
        let text = value.to_str().unwrap_or_default();
        let bearer = match text.split_once(' ') {
            Some((scheme, bearer)) if scheme.eq_ignore_ascii_case("bearer") => bearer.trim(),
            Some(_) | None => return Err(Fault::not_authenticated("the Authorization header is not a bearer")),
        };
        if let Some(token) = PlainToken::parse(bearer) {
            return Ok(Bearer::Token(token.hash()));
        }
        if let Some(session) = PlainSession::parse(bearer) {
            return Ok(Bearer::Session(session.hash()));
        }
        Err(Fault::not_authenticated(&format!(
            "the bearer has neither the shape of a session ({SESSION_PREFIX}…) nor that of a token ({TOKEN_PREFIX}…)"
        )))
    }
}

impl Api {
    /// Lets somebody in or says why not. The order is the guarantee's: look, then compare a fresh clock with the lease that was held
    /// before the look.
    pub(crate) async fn admit(&self, bearer: Bearer) -> Result<Caller, Fault> {
        let mut lease = self.lease();
        let mut found = self.find(bearer).await?;
        if matches!(found, Found::Unknown) {
            let Ok(_turn) = self.unknown_bearers.try_acquire() else {
                return Err(Fault::new(Code::TooManyRequests, "too many unknown bearers at once").retry_after_s(1));
            };
            self.catch_up().await?;
            lease = self.lease();
            found = self.find(bearer).await?;
        }
        self.vouch(lease)?;
        match found {
            Found::Caller(caller) => Ok(*caller),
            Found::Unknown => Err(Fault::not_authenticated("the session or token is not known")),
            Found::Refused(why) => Err(Fault::not_authenticated(why)),
        }
    }

    async fn find(&self, bearer: Bearer) -> Result<Found, Fault> {
        let now_ms = self.clock.wall_ms();
        self.read(move |tables| match bearer {
            Bearer::Session(hash) => find_session(tables, hash, now_ms),
            Bearer::Token(hash) => find_token(tables, hash, now_ms),
        })
        .await
    }
}

fn find_session(tables: &dyn Tables, hash: TokenHash, now_ms: u64) -> Found {
    let found: Option<Session> = tables::load(tables, &hash.0);
    let Some(session) = found.filter(|s| s.hash.same_as(&hash)) else {
        return Found::Unknown;
    };
    if session.expires_ms <= now_ms {
        return Found::Refused("the session has expired");
    }
    let Some(principal) = Principal::of(tables, session.user) else {
        return Found::Refused("the user or service account is gone");
    };
    let actor = match &principal {
        Principal::User(user) => Actor::User(user.id),
        Principal::ServiceAccount(account) => Actor::ServiceAccount(account.id),
    };
    let Some(rights) = Rights::of(tables, &actor, now_ms) else {
        return Found::Refused("the user is disabled");
    };
    Found::Caller(Box::new(Caller {
        actor,
        rights,
        principal,
        credential: Credential::Session(session),
    }))
}

fn find_token(tables: &dyn Tables, hash: TokenHash, now_ms: u64) -> Found {
    let found: Option<McpToken> = tables::by_name(tables, Table::TokenHashes, &hash.0);
    let Some(token) = found.filter(|t| t.hash.same_as(&hash)) else {
        let gone: Option<Tombstone> = tables::load(tables, &hash.0);
        return gone.map_or(Found::Unknown, |_| Found::Refused("the token is revoked"));
    };
    let actor = Actor::Token(hash);
    let owner = Principal::of(tables, token.owner);
    let project: Option<Project> = tables::by_id(tables, token.project);
    match (owner, project, Rights::of(tables, &actor, now_ms)) {
        (Some(owner), Some(project), Some(rights)) => Found::Caller(Box::new(Caller {
            actor,
            rights,
            principal: owner,
            credential: Credential::Token {
                token: Box::new(token),
                project: project.name.to_string(),
            },
        })),
        _ => Found::Refused("the token is revoked or expired, or its owner is disabled or gone"),
    }
}
