//! How much each token, and each project with all of its tokens, may use of this node: requests per second, requests and streams at
//! once, sessions. Every node counts for itself.
//!
//! Counters are atomic and found in maps of many parts, so that counting one token never waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use mcp_model::clock::Reading;
use mcp_model::ids::Id;
use mcp_model::limits::{ProjectLimits, Quota};
use mcp_model::token::TokenHash;
use mcp_store::view::HashBits;

use crate::admit::Permit;

const NS_PER_S: u64 = 1_000_000_000;

/// The counters of this node.
pub(crate) struct Quotas {
    tokens: DashMap<TokenHash, Arc<Meter>, HashBits>,
    projects: DashMap<Id, Arc<Meter>, HashBits>,
    /// For what a project does not say.
    usual: ProjectLimits,
}

/// What one token, or one project, uses now.
#[derive(Default)]
pub(crate) struct Meter {
    /// When the last request that was let in would have come, had all of them come evenly; ns of the clock's reading.
    due_ns: AtomicU64,
    requests: AtomicU32,
    streams: AtomicU32,
    sessions: AtomicU32,
    /// The second in which a refusal was last put on record.
    said_s: AtomicU64,
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverQuota {
    /// `requests per second of the token`.
    pub(crate) what: &'static str,
    /// When it is worth trying again, in seconds.
    pub(crate) retry_after_s: u64,
    /// Whether this one is to be put on record: once a second is enough.
    pub(crate) is_news: bool,
}

/// What is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A request, until it is answered.
    Request,
    /// A stream that is held open.
    Stream,
    /// A session.
    Session,
}

/// A place among those of a token and of its project, until it is dropped.
pub(crate) struct Held {
    token: Arc<Meter>,
    project: Arc<Meter>,
    of: Use,
}

impl Quotas {
    pub(crate) fn new(usual: ProjectLimits) -> Quotas {
        Quotas {
            tokens: DashMap::default(),
            projects: DashMap::default(),
            usual,
        }
    }

    /// What is written for the permit's project, with what is usual for the rest.
    pub(crate) fn limits(&self, permit: &Permit) -> ProjectLimits {
        match permit.policy().project_limits(permit.project().id) {
            None => self.usual,
            Some(limits) => ProjectLimits {
                token: or(limits.token, self.usual.token),
                project: or(limits.project, self.usual.project),
                body_bytes: limits.body_bytes.or(self.usual.body_bytes),
                session_idle_ms: limits.session_idle_ms.or(self.usual.session_idle_ms),
            },
        }
    }

    /// Lets a request pass if it comes slowly enough.
    pub(crate) fn rate(&self, permit: &Permit, limits: &ProjectLimits) -> Result<(), OverQuota> {
        let now = permit.at();
        if limits.token.rate.is_some() {
            let of_token = self.token(permit.hash());
            of_token.pass(limits.token.rate, now, "requests per second of the token")?;
        }
        if limits.project.rate.is_some() {
            let of_project = self.project(permit.project().id);
            of_project.pass(limits.project.rate, now, "requests per second of the project")?;
        }
        Ok(())
    }

    /// A place for what an admitted principal wants, if there is one.
    pub(crate) fn take(&self, permit: &Permit, of: Use, limits: &ProjectLimits) -> Result<Held, OverQuota> {
        let (token, project) = (self.token(permit.hash()), self.project(permit.project().id));
        let now = permit.at();
        let (of_token, of_project) = match of {
            Use::Request => ("requests at once of the token", "requests at once of the project"),
            Use::Stream => ("streams of the token", "streams of the project"),
            Use::Session => ("sessions of the token", "sessions of the project"),
        };
        token.enter(of, &limits.token, now, of_token)?;
        if let Err(over) = project.enter(of, &limits.project, now, of_project) {
            token.leave(of);
            return Err(over);
        }
        Ok(Held { token, project, of })
    }

    /// The same where nobody asks: a session that another node has opened.
    pub(crate) fn count(&self, token: TokenHash, project: Id, of: Use) -> Held {
        let (token, project) = (self.token(token), self.project(project));
        token.counter(of).fetch_add(1, Ordering::Relaxed);
        project.counter(of).fetch_add(1, Ordering::Relaxed);
        Held { token, project, of }
    }

    fn token(&self, hash: TokenHash) -> Arc<Meter> {
        if let Some(meter) = self.tokens.get(&hash) {
            return meter.clone();
        }
        self.tokens.entry(hash).or_default().clone()
    }

    fn project(&self, id: Id) -> Arc<Meter> {
        if let Some(meter) = self.projects.get(&id) {
            return meter.clone();
        }
        self.projects.entry(id).or_default().clone()
    }

    /// Forgets those who use nothing, and whose rate says nothing any more.
    pub(crate) fn sweep(&self, now: Reading) {
        let stays =
            |meter: &Arc<Meter>| Arc::strong_count(meter) > 1 || meter.due_ns.load(Ordering::Relaxed) > now.raw_ns;
        self.tokens.retain(|_, meter| stays(meter));
        self.projects.retain(|_, meter| stays(meter));
    }

    /// Tokens and projects that are counted now.
    #[cfg(test)]
    fn counted(&self) -> (usize, usize) {
        (self.tokens.len(), self.projects.len())
    }
}

fn or(quota: Quota, usual: Quota) -> Quota {
    Quota {
        rate: quota.rate.or(usual.rate),
        requests: quota.requests.or(usual.requests),
        streams: quota.streams.or(usual.streams),
        sessions: quota.sessions.or(usual.sessions),
    }
}

impl Meter {
    /// Lets a request pass, if it comes no faster than `rate` in a second, of which a second's worth may come at once.
    fn pass(&self, rate: Option<u32>, now: Reading, what: &'static str) -> Result<(), OverQuota> {
        let Some(rate) = rate else { return Ok(()) };
        let now_ns = now.raw_ns;
        if rate == 0 {
            return Err(self.over(now, what, 60));
        }
        let each_ns = NS_PER_S / u64::from(rate);
        let mut due_ns = self.due_ns.load(Ordering::Relaxed);
        loop {
            let next_ns = due_ns.max(now_ns) + each_ns;
            if next_ns > now_ns + NS_PER_S.max(each_ns) {
                let wait_ns = next_ns - now_ns - NS_PER_S.max(each_ns);
                return Err(self.over(now, what, wait_ns.div_ceil(NS_PER_S)));
            }
            match self
                .due_ns
                .compare_exchange_weak(due_ns, next_ns, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(newer) => due_ns = newer,
            }
        }
    }

    fn enter(&self, of: Use, quota: &Quota, now: Reading, what: &'static str) -> Result<(), OverQuota> {
        let most = match of {
            Use::Request => quota.requests,
            Use::Stream => quota.streams,
            Use::Session => quota.sessions,
        };
        let before = self.counter(of).fetch_add(1, Ordering::Relaxed);
        if most.is_some_and(|most| before >= most) {
            self.leave(of);
            // Requests end soon; streams and sessions when somebody ends them.
            let retry_after_s = if of == Use::Request { 1 } else { 30 };
            return Err(self.over(now, what, retry_after_s));
        }
        Ok(())
    }

    fn leave(&self, of: Use) {
        self.counter(of).fetch_sub(1, Ordering::Relaxed);
    }

    fn counter(&self, of: Use) -> &AtomicU32 {
        match of {
            Use::Request => &self.requests,
            Use::Stream => &self.streams,
            Use::Session => &self.sessions,
        }
    }

    fn over(&self, now: Reading, what: &'static str, retry_after_s: u64) -> OverQuota {
        // Counted from 1, so that the first second is one too.
        let second = now.raw_ns / NS_PER_S + 1;
        OverQuota {
            what,
            retry_after_s: retry_after_s.max(1),
            is_news: self.said_s.swap(second, Ordering::Relaxed) != second,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.token.leave(self.of);
        self.project.leave(self.of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    #[test]
    fn a_rate_lets_a_seconds_worth_through_at_once_and_then_what_it_says() {
        let meter = Meter::default();
        let passes = |now_ms| meter.pass(Some(10), at_ms(now_ms), "x").is_ok();
        let let_in = |from_ms: u64, tries: u32| (0..tries).filter(|_| passes(from_ms)).count();
        assert_eq!(let_in(5_000, 50), 10);
        assert_eq!(let_in(5_099, 50), 0);
        assert_eq!(let_in(5_100, 50), 1);
        assert_eq!(let_in(5_600, 50), 5);
        // Who has waited for long gets no more than a second's worth.
        assert_eq!(let_in(60_000, 50), 10);
        let over = meter.pass(Some(10), at_ms(60_000), "x").unwrap_err();
        assert_eq!((over.what, over.retry_after_s), ("x", 1));
    }

    #[test]
    fn slow_rates_say_how_long_to_wait_and_none_lets_nobody_in() {
        let meter = Meter::default();
        assert!(meter.pass(Some(1), at_ms(1_000), "x").is_ok());
        assert_eq!(meter.pass(Some(1), at_ms(1_000), "x").unwrap_err().retry_after_s, 1);
        assert!(meter.pass(Some(1), at_ms(2_000), "x").is_ok());
        assert!(Meter::default().pass(Some(0), at_ms(1_000), "x").is_err());
        assert!(Meter::default().pass(None, at_ms(1_000), "x").is_ok());
    }

    #[test]
    fn a_flood_of_refusals_is_on_record_once_a_second() {
        let meter = Meter::default();
        let quota = Quota {
            requests: Some(0),
            ..Quota::default()
        };
        let news = |ms| meter.enter(Use::Request, &quota, at_ms(ms), "x").unwrap_err().is_news;
        assert_eq!(
            [news(100), news(200), news(999), news(1_000), news(1_100)],
            [true, false, false, true, false]
        );
    }

    #[test]
    fn places_come_back_and_who_uses_nothing_is_forgotten() {
        let quotas = Quotas::new(ProjectLimits::default());
        let project = Id::from_u128(1);
        let held: Vec<Held> = (0..10_000u32)
            .map(|at| {
                let mut hash = [0; 32];
                hash[..4].copy_from_slice(&at.to_be_bytes());
                quotas.count(TokenHash(hash), project, Use::Session)
            })
            .collect();
        assert_eq!(quotas.counted(), (10_000, 1));
        assert_eq!(quotas.project(project).sessions.load(Ordering::Relaxed), 10_000);
        quotas.sweep(at_ms(1));
        assert_eq!(quotas.counted(), (10_000, 1));
        drop(held);
        assert_eq!(quotas.project(project).sessions.load(Ordering::Relaxed), 0);
        quotas.sweep(at_ms(1));
        assert_eq!(quotas.counted(), (0, 0));
    }
}
