//! Admission: who is let in, and the proof of it. There is no second way to a [`Permit`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_model::admission::{self, Access, Denial};
use mcp_model::clock::{Clock, Reading};
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::Project;
use mcp_model::token::TokenHash;
use mcp_store::Replica;
use mcp_store::admit::{Admitted, Questions, Registered};
use mcp_store::cuts::Signal;
use mcp_store::view::{Policy, TokenFacts, UserFacts};

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
    unknown: Questions,
    lease_wait_ms: u64,
}

/// Proof that a request was admitted.
pub(crate) struct Permit(Admitted);

impl Admission {
    pub(crate) fn new(
        replica: Arc<Replica>,
        clock: Arc<dyn Clock>,
        cluster: Arc<dyn Cluster>,
        metrics: Arc<Metrics>,
        limits: &Limits,
    ) -> Admission {
        let unknown = Questions::new(limits.unknown_tokens_max);
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

    /// Decides on a request, in the order of [`mcp_store::admit`]; what does not seem good is looked at once more, in a newer state
    /// (rule 4).
    pub(crate) async fn admit(&self, hash: TokenHash, wanted: Wanted<'_>) -> Result<Permit, Denial> {
        let live = self.replica.live();
        let mut looked = Registered::new(live, hash).look(live);
        if !looked.seems_good() {
            self.freshen().await?;
            looked = looked.again(live);
        }
        let wants = |project: &Project| match wanted {
            Wanted::Named(name) => project.name.as_str() == name,
            Wanted::Own => true,
        };
        let now = (self.clock.reading(), self.clock.wall_ms());
        let admitted = looked.decide(live, now, wants)?;
        Metrics::add(&self.metrics.admitted);
        Ok(Permit(admitted))
    }

    /// Asks once for newer state (rule 4).
    async fn freshen(&self) -> Result<(), Denial> {
        if !self.has_lease() {
            return Err(Denial::NoLease);
        }
        let _question = self.unknown.ask()?;
        Metrics::add(&self.metrics.freshened);
        self.cluster.freshen().await.map_err(|unavailable| match unavailable {
            Unavailable::NoLeader | Unavailable::NotReached => Denial::NoLease,
            Unavailable::TooMany => Denial::TooMany,
        })
    }

    /// Whether what was permitted still is, at this moment: before a request goes to an upstream and before an event of a
    /// long stream is written.
    pub(crate) fn still(&self, permit: &Permit) -> Result<(), Denial> {
        permit.0.still(self.replica.live(), || self.clock.reading())
    }

    /// The same for a stream under way, which may wait a moment for the lease to come back: an election must not end every
    /// stream of the cluster. Nothing is written meanwhile.
    pub(crate) async fn still_or_soon(&self, permit: &Permit) -> Result<(), Denial> {
        const STEP_MS: u64 = 20;
        for _ in 0..=self.lease_wait_ms / STEP_MS {
            match self.still(permit) {
                Err(Denial::NoLease) if !permit.0.is_cut() => {
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
        let known = self.replica.view().knows(&permit.hash());
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
        self.0.hash()
    }

    pub(crate) fn token(&self) -> &Arc<TokenFacts> {
        self.0.token()
    }

    pub(crate) fn owner(&self) -> &Arc<UserFacts> {
        self.0.owner()
    }

    pub(crate) fn project(&self) -> &Arc<Project> {
        self.0.project()
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        self.0.policy()
    }

    /// When it was admitted.
    pub(crate) fn at(&self) -> Reading {
        self.0.at()
    }

    /// When it was admitted, ms since 1970.
    pub(crate) fn at_ms(&self) -> u64 {
        self.0.at_ms()
    }

    /// What ends the call.
    pub(crate) fn signal(&self) -> &Arc<Signal> {
        self.0.signal()
    }

    /// Resolves when the token, or a right that it may have, is taken away.
    pub(crate) async fn cut(&self) {
        self.0.cut().await;
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
