//! Who is let in at the gateway, and to what: the decision itself, on facts that a replica holds in memory.

use std::cell::OnceCell;

use crate::rbac::{Grants, Resource, Verb};

/// Why a request is not let in. The caller reads little of it; the audit reads all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Denial {
    /// No bearer, or not exactly one, or not of a token's shape.
    NoBearer,
    /// A bearer that no token has, after asking for the newest state.
    UnknownToken,
    /// Its time has come.
    Expired,
    /// Its owner is disabled or gone.
    OwnerDisabled,
    /// It belongs to another project, whether the one asked for exists or not.
    WrongProject,
    /// This replica may not admit anybody: it has no lease, or its store failed.
    NoLease,
    /// Too many unknown bearers at once.
    TooMany,
}

impl Denial {
    /// The word in the audit and in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Denial::NoBearer => "no_bearer",
            Denial::UnknownToken => "unknown_token",
            Denial::Expired => "expired",
            Denial::OwnerDisabled => "owner_disabled",
            Denial::WrongProject => "wrong_project",
            Denial::NoLease => "no_lease",
            Denial::TooMany => "too_many",
        }
    }
}

/// How far a node's wall clock may be off before it refuses a token as expired on its own, ms. The leader's replicated
/// expiry decides; this only refuses early.
pub const EXPIRY_SKEW_MS: u64 = 2_000;

/// The time that a command is carried out at: what its proposer says, unless that is not the leader's time (rule 9). The cluster's time
/// never goes back, so a node whose clock is ahead must not move it.
pub fn time_of_command(said_ms: u64, leaders_ms: u64) -> u64 {
    match said_ms.abs_diff(leaders_ms) <= EXPIRY_SKEW_MS {
        true => said_ms,
        false => leaders_ms,
    }
}

/// Whether a token has expired for a node whose wall clock says `now_ms`.
pub fn expired(expires_ms: Option<u64>, now_ms: u64) -> bool {
    expires_ms.is_some_and(|at| now_ms >= at.saturating_add(EXPIRY_SKEW_MS))
}

/// What a token may do with one thing that a server offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It may not know of it.
    Hidden,
    /// It may see it and not use it.
    Visible,
    /// It may use it.
    Usable,
}

/// What a token with the bindings `own`, whose owner holds `owner`, may do with `item` of `server`. The owner's rights limit
/// and never grant, so demoting the owner demotes the token.
pub fn access(own: &Grants, owner: &Grants, kind: Resource, server: &str, item: &str) -> Access {
    // Few bindings name single items, so that the name is seldom needed: asked for every call, it is made when it is.
    let made = OnceCell::new();
    let name = || -> &str { made.get_or_init(|| format!("{server}/{item}")) };
    let both = |verb| own.allow_named(verb, kind, &name) && owner.allow_named(verb, kind, &name);
    if both(Verb::Use) {
        return Access::Usable;
    }
    if both(Verb::See) {
        Access::Visible
    } else {
        Access::Hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::RoleBinding;

    fn grants(lines: &[&str]) -> Grants {
        lines.iter().map(|l| l.parse::<RoleBinding>().unwrap()).collect()
    }

    #[test]
    fn the_owner_limits_and_never_grants() {
        let run = grants(&["role:run,resource:servers"]);
        let view = grants(&["role:view,resource:servers"]);
        let none = Grants::default();
        let tools = Resource::Tools;
        assert_eq!(access(&run, &run, tools, "git", "log"), Access::Usable);
        assert_eq!(access(&run, &view, tools, "git", "log"), Access::Visible);
        assert_eq!(access(&view, &run, tools, "git", "log"), Access::Visible);
        assert_eq!(access(&none, &run, tools, "git", "log"), Access::Hidden);
        assert_eq!(access(&run, &none, tools, "git", "log"), Access::Hidden);
        let one = grants(&["role:run,resource:tools,name:git/log"]);
        assert_eq!(access(&one, &run, tools, "git", "log"), Access::Usable);
        assert_eq!(access(&one, &run, tools, "git", "push"), Access::Hidden);
    }

    #[test]
    fn a_node_refuses_on_its_own_only_beyond_the_skew() {
        assert!(!expired(None, u64::MAX));
        assert!(!expired(Some(1_000), 2_999));
        assert!(expired(Some(1_000), 3_000));
    }
}
