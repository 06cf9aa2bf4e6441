//! Admission: who is let in, and the proof of it. There is no second way to a [`Permit`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_model::admission::{self, Access, Denial};
use mcp_model::clock::Clock;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::Project;
use mcp_model::token::TokenHash;
use mcp_store::Replica;
use mcp_store::cuts::CutGuard;
use mcp_store::view::{Policy, TokenFacts, UserFacts};
use tokio::sync::Semaphore;

use crate::cluster::{Cluster, Unavailable};
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Which project a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// The token's own, whichever that is.
    Own,
    /// The project of this name.
    Named(&'a str),
}

/// Lets requests in.
pub(crate) struct Admission {
    replica: Arc<Replica>,
    clock: Arc<dyn Clock>,
    cluster: Arc<dyn Cluster>,
    metrics: Arc<Metrics>,
    unknown: Semaphore,
    lease_wait_ms: u64,
}

/// Proof that a request was admitted: what was decided on, as it was at that moment, and the signal that ends it.
pub(crate) struct Permit {
    hash: TokenHash,
    token: Arc<TokenFacts>,
    owner: Arc<UserFacts>,
    project: Arc<Project>,
    policy: Arc<Policy>,
    cut: CutGuard,
}

impl Admission {
    pub(crate) fn new(
        replica: Arc<Replica>,
        clock: Arc<dyn Clock>,
        cluster: Arc<dyn Cluster>,
        metrics: Arc<Metrics>,
        limits: &Limits,
    ) -> Admission {
        let unknown = Semaphore::new(limits.unknown_tokens_max);
        Admission {
            replica,
            clock,
            cluster,
            metrics,
            unknown,
            lease_wait_ms: limits.lease_wait_ms,
        }
    }

    /// Whether this replica may admit anybody now.
    pub(crate) fn has_lease(&self) -> bool {
        self.replica.gate().holds(self.clock.reading())
    }

    /// Decides on a request. Registered first, so that a cut between the look-up and the end of the request finds it; then
    /// the view is read; then, last, a fresh clock is compared with the lease (rule 3), with the one that was held before the look:
    /// one that came after it vouches for nothing that was seen. Without a lease nothing is said about the token, not even that it
    /// is unknown.
    pub(crate) async fn admit(&self, hash: TokenHash, wanted: Wanted<'_>) -> Result<Permit, Denial> {
        let cut = self.replica.cuts().register(hash);
        let mut lease = self.replica.gate().deadline();
        let mut token = self.replica.view().token(&hash);
        if !self.seems_good(token.as_deref()) {
            self.freshen().await?;
            lease = self.replica.gate().deadline();
            token = self.replica.view().token(&hash);
        }
        let policy = self.replica.view().policy();
        let decided = token
            .ok_or(Denial::UnknownToken)
            .and_then(|token| self.decide(token, policy, hash, cut, wanted));
        if !self.replica.gate().vouches(lease, self.clock.reading()) {
            return Err(Denial::NoLease);
        }
        let permit = decided?;
        // Something went between the look and now. Whoever still holds what they need comes back at once.
        if permit.cut.is_cut() {
            return Err(Denial::NoLease);
        }
        Metrics::add(&self.metrics.admitted);
        Ok(permit)
    }

    /// Whether the view knows the token and an owner who is not disabled. If not, that may be old news: the token may have been minted
    /// through another node a moment ago, or its owner enabled again, and a client that is told 401 throws its token away.
    fn seems_good(&self, token: Option<&TokenFacts>) -> bool {
        let policy = self.replica.view().policy_ref();
        let owner = token.and_then(|token| policy.user(token.owner()));
        owner.is_some_and(|owner| !owner.disabled)
    }

    /// Asks once for newer state (rule 4).
    async fn freshen(&self) -> Result<(), Denial> {
        if !self.has_lease() {
            return Err(Denial::NoLease);
        }
        let _permit = self.unknown.try_acquire().map_err(|_| Denial::TooMany)?;
        Metrics::add(&self.metrics.freshened);
        self.cluster.freshen().await.map_err(|unavailable| match unavailable {
            Unavailable::NoLeader => Denial::NoLease,
            Unavailable::TooMany => Denial::TooMany,
        })
    }

    fn decide(
        &self,
        token: Arc<TokenFacts>,
        policy: Arc<Policy>,
        hash: TokenHash,
        cut: CutGuard,
        wanted: Wanted<'_>,
    ) -> Result<Permit, Denial> {
        if admission::expired(token.expires_ms(), self.clock.wall_ms()) {
            return Err(Denial::Expired);
        }
        let owner = policy
            .user(token.owner())
            .filter(|user| !user.disabled)
            .ok_or(Denial::OwnerDisabled)?
            .clone();
        let project = policy.project(token.project()).ok_or(Denial::UnknownToken)?.clone();
        match wanted {
            Wanted::Named(name) if project.name.as_str() != name => Err(Denial::WrongProject),
            Wanted::Named(_) | Wanted::Own => Ok(Permit {
                hash,
                token,
                owner,
                project,
                policy,
                cut,
            }),
        }
    }

    /// Whether what was permitted still is, at this moment: before a request goes to an upstream and before an event of a
    /// long stream is written. A change that takes a right away cuts, so the right itself need not be decided anew; whose
    /// token is still good after a cut is asked to come back.
    pub(crate) fn still(&self, permit: &Permit) -> Result<(), Denial> {
        let is_cut = permit.cut.is_cut();
        let known = self.replica.view().token(&permit.hash).is_some();
        if !self.has_lease() {
            return Err(Denial::NoLease);
        }
        match (known, is_cut) {
            (false, _) => Err(Denial::UnknownToken),
            (true, true) => Err(Denial::NoLease),
            (true, false) => Ok(()),
        }
    }

    /// The same for a stream under way, which may wait a moment for the lease to come back: an election must not end every
    /// stream of the cluster. Nothing is written meanwhile.
    pub(crate) async fn still_or_soon(&self, permit: &Permit) -> Result<(), Denial> {
        const STEP_MS: u64 = 20;
        for _ in 0..=self.lease_wait_ms / STEP_MS {
            match self.still(permit) {
                Err(Denial::NoLease) if !permit.cut.is_cut() => {
                    tokio::time::sleep(Duration::from_millis(STEP_MS)).await;
                }
                decided => return decided,
            }
        }
        Err(Denial::NoLease)
    }

    /// Why a permit was cut: its token is gone, or this replica cannot decide; none if another right went and the token is
    /// still good.
    pub(crate) fn why_cut(&self, permit: &Permit) -> Option<Denial> {
        let known = self.replica.view().token(&permit.hash).is_some();
        match (self.has_lease(), known) {
            (false, _) => Some(Denial::NoLease),
            (true, false) => Some(Denial::UnknownToken),
            (true, true) => None,
        }
    }

    /// Streams open now.
    pub(crate) fn stream_opened(&self) -> StreamCount {
        self.metrics.streams.fetch_add(1, Ordering::Relaxed);
        StreamCount(self.metrics.clone())
    }
}

/// Counts one stream while it lives.
pub(crate) struct StreamCount(Arc<Metrics>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    pub(crate) fn hash(&self) -> TokenHash {
        self.hash
    }

    pub(crate) fn token(&self) -> &Arc<TokenFacts> {
        &self.token
    }

    pub(crate) fn owner(&self) -> &Arc<UserFacts> {
        &self.owner
    }

    pub(crate) fn project(&self) -> &Arc<Project> {
        &self.project
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Resolves when the token, or a right that it may have, is taken away.
    pub(crate) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

/// What a token may do with an item of a server. Resources have no right of their own: the server's decides.
pub(crate) fn access(token: &TokenFacts, owner: &UserFacts, kind: Resource, server: &str, item: &str) -> Access {
    if kind != Resource::Servers {
        return admission::access(token.grants(), &owner.grants, kind, server, item);
    }
    let both = |verb| token.grants().allow(verb, kind, server) && owner.grants.allow(verb, kind, server);
    match (both(Verb::Use), both(Verb::See)) {
        (true, _) => Access::Usable,
        (false, true) => Access::Visible,
        (false, false) => Access::Hidden,
    }
}
