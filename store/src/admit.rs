//! How a request is decided on: rule 3 of the guarantee, step by step.
//!
//! Registered first, so that a cut between the look-up and the end of the request finds it; then the view is read; then, last, a
//! fresh clock is compared with the lease, with the one that was held before the look: one that came after it vouches for nothing that was
//! seen. The steps are types, so that they cannot be taken in another order. Between any two of them as much time may pass as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_model::admission::{self, Denial};
use mcp_model::clock::Reading;
use mcp_model::records::Project;
use mcp_model::rules::{AllRules, Rule, Rules};
use mcp_model::token::TokenHash;

use crate::cuts::{CutGuard, Signal};
use crate::live::Live;
use crate::view::{Policy, TokenFacts, UserFacts};

/// Questions for newer state on behalf of bearers that the view does not know: so many at a time, and who comes then is told to come
/// back later. Rule 4: strangers must not keep the leader busy. Those that are under way share rounds ([`mcp_model::office`]).
pub struct Questions<R: Rules = AllRules> {
    rules: R,
    at_most: usize,
    under_way: Arc<AtomicUsize>,
}

/// One of them, for as long as it is under way.
pub struct Question(Arc<AtomicUsize>);

impl Questions {
    /// None so far.
    pub fn new(at_most: usize) -> Questions {
        Questions::with_rules(AllRules, at_most)
    }
}

impl<R: Rules> Questions<R> {
    /// The same by these rules.
    pub fn with_rules(rules: R, at_most: usize) -> Questions<R> {
        Questions {
            rules,
            at_most,
            under_way: Arc::default(),
        }
    }

    /// One more, if there is room for it.
    pub fn ask(&self) -> Result<Question, Denial> {
        let limit = match self.rules.keep(Rule::QuestionsHaveALimit) {
            true => self.at_most,
            false => usize::MAX,
        };
        let one_more = |n: usize| (n < limit).then_some(n + 1);
        let counted = self
            .under_way
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        counted.map_err(|_| Denial::TooMany)?;
        Ok(Question(Arc::clone(&self.under_way)))
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request whose end is signalled from here on.
pub struct Registered {
    hash: TokenHash,
    cut: CutGuard,
}

/// A request whose token was looked up.
pub struct Looked {
    registered: Registered,
    /// Until when the lease held that was held then.
    before: Option<Reading>,
    token: Option<Arc<TokenFacts>>,
    policy: Arc<Policy>,
}

/// Proof that a request was let in: what was decided on, as it was at that moment, and the signal that ends it.
pub struct Admitted {
    registered: Registered,
    token: Arc<TokenFacts>,
    owner: Arc<UserFacts>,
    project: Arc<Project>,
    policy: Arc<Policy>,
    at: (Reading, u64),
}

impl Registered {
    /// Registers a request of this bearer.
    pub fn new<R: Rules>(live: &Live<R>, hash: TokenHash) -> Registered {
        Registered {
            hash,
            cut: live.cuts().register(hash),
        }
    }

    /// Looks its token up.
    pub fn look<R: Rules>(self, live: &Live<R>) -> Looked {
        let before = live.gate().deadline();
        let token = live.view().token(&self.hash);
        Looked {
            registered: self,
            before,
            token,
            policy: live.view().policy(),
        }
    }
}

impl Looked {
    /// Whether the view knows the token and an owner who is not disabled. If not, that may be old news (rule 4): the token may have been
    /// minted through another node a moment ago, or its owner enabled again, and a client that is told 401 throws its token away.
    pub fn seems_good(&self) -> bool {
        let owner = self.token.as_ref().and_then(|token| self.policy.user(token.owner()));
        owner.is_some_and(|owner| !owner.disabled)
    }

    /// Looks again.
    pub fn again<R: Rules>(self, live: &Live<R>) -> Looked {
        self.registered.look(live)
    }

    /// Decides, at `now`, which must be read after the look. Without a lease nothing is said about the token, not even that it is unknown.
    /// `wall_ms` is for expiry only; `wants` says whether the request is for this project.
    pub fn decide<R: Rules>(
        mut self,
        live: &Live<R>,
        (now, wall_ms): (Reading, u64),
        wants: impl FnOnce(&Project) -> bool,
    ) -> Result<Admitted, Denial> {
        let before = self.before;
        if !live.rules().keep(Rule::RegisteredBeforeTheLook) {
            self.registered = Registered::new(live, self.registered.hash);
        }
        let decided = self.judge((now, wall_ms), wants);
        if !live.gate().vouches(before, now) {
            return Err(Denial::NoLease);
        }
        // Something went between the look and now. Whoever still holds what they need comes back at once.
        decided.and_then(|admitted| match admitted.is_cut() {
            true => Err(Denial::NoLease),
            false => Ok(admitted),
        })
    }

    fn judge(self, at: (Reading, u64), wants: impl FnOnce(&Project) -> bool) -> Result<Admitted, Denial> {
        let Looked {
            registered,
            token,
            policy,
            ..
        } = self;
        let token = token.ok_or(Denial::UnknownToken)?;
        if admission::expired(token.expires_ms(), at.1) {
            return Err(Denial::Expired);
        }
        let owner = policy
            .user(token.owner())
            .filter(|user| !user.disabled)
            .ok_or(Denial::OwnerDisabled)?
            .clone();
        let project = policy.project(token.project()).ok_or(Denial::UnknownToken)?.clone();
        if !wants(&project) {
            return Err(Denial::WrongProject);
        }
        Ok(Admitted {
            registered,
            token,
            owner,
            project,
            policy,
            at,
        })
    }
}

impl Admitted {
    /// Whether what was let in still is, at `now`: before a request goes to an upstream and before an event of a long stream is
    /// written. A change that takes a right away cuts, so the right itself need not be decided anew; whose token is still good after a
    /// cut is asked to come back. The clock is read by `now` after the view.
    pub fn still<R: Rules>(&self, live: &Live<R>, now: impl FnOnce() -> Reading) -> Result<(), Denial> {
        let is_cut = self.is_cut();
        let known = live.view().knows(&self.registered.hash);
        if !live.gate().holds(now()) {
            return Err(Denial::NoLease);
        }
        match (known, is_cut) {
            (false, _) => Err(Denial::UnknownToken),
            (true, true) => Err(Denial::NoLease),
            (true, false) => Ok(()),
        }
    }

    /// The bearer's hash.
    pub fn hash(&self) -> TokenHash {
        self.registered.hash
    }

    /// The token.
    pub fn token(&self) -> &Arc<TokenFacts> {
        &self.token
    }

    /// Whose it is.
    pub fn owner(&self) -> &Arc<UserFacts> {
        &self.owner
    }

    /// Its project.
    pub fn project(&self) -> &Arc<Project> {
        &self.project
    }

    /// Everything else that was in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether the token, or a right that it may have had, was taken away.
    pub fn is_cut(&self) -> bool {
        self.registered.cut.is_cut()
    }

    /// Resolves when it is.
    pub async fn cut(&self) {
        self.registered.cut.cancelled().await;
    }

    /// When it was let in, by the clock that was compared with the lease.
    pub fn at(&self) -> Reading {
        self.at.0
    }

    /// The same in wall time, ms since 1970.
    pub fn at_ms(&self) -> u64 {
        self.at.1
    }

    /// The signal that ends it.
    pub fn signal(&self) -> &Arc<Signal> {
        self.registered.cut.signal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_asked_about_at_a_time_and_the_next_is_told_to_come_back() {
        let questions = Questions::new(2);
        let first = questions.ask().unwrap();
        let _second = questions.ask().unwrap();
        assert_eq!(questions.ask().err(), Some(Denial::TooMany));
        drop(first);
        let _third = questions.ask().unwrap();
        assert_eq!(questions.ask().err(), Some(Denial::TooMany));
    }
}
