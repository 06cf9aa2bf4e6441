//! Lists, answered from the replicated cache: filtered by what the principal may see, in a stable order, never waiting for
//! anybody. What was rendered once is kept until the token, the policy or a list changes.

use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use mcp_model::admission::Access;
use mcp_model::rbac::Resource;
use mcp_model::token::TokenHash;
use mcp_store::view::{TokenFacts, UserFacts};
use mcp_wire::message::META_SERVER_INFO;
use mcp_wire::version::Era;

use crate::admit::access;
use crate::catalog::{Catalog, Listed, Listing};
use crate::limits::Limits;

/// Who we say we are: an MCP `Implementation`.
pub(crate) const SERVER_INFO: &str = concat!(r#"{"name":"mcpnode","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// A list that clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl List {
    pub(crate) fn of_method(method: &str) -> Option<List> {
        match method {
            "tools/list" => Some(List::Tools),
            "prompts/list" => Some(List::Prompts),
            "resources/list" => Some(List::Resources),
            "resources/templates/list" => Some(List::Templates),
            _ => None,
        }
    }

    fn member(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
        }
    }

    fn right(self) -> Resource {
        match self {
            List::Tools => Resource::Tools,
            List::Prompts => Resource::Prompts,
            List::Resources | List::Templates => Resource::Servers,
        }
    }

    pub(crate) fn of(self, catalog: &Catalog) -> &Listing {
        match self {
            List::Tools => &catalog.tools,
            List::Prompts => &catalog.prompts,
            List::Resources => &catalog.resources,
            List::Templates => &catalog.templates,
        }
    }
}

/// Rendered lists.
pub(crate) struct Rendered {
    kept: DashMap<(TokenHash, List, IsModern), Kept>,
    most: usize,
    ttl_ms: u64,
    list_ms: u64,
    retry_ms: u64,
}

/// Whether the list is for the modern era.
type IsModern = bool;

struct Kept {
    token: Arc<TokenFacts>,
    owner: Arc<UserFacts>,
    catalog: Arc<Catalog>,
    result: Bytes,
}

/// Whose view of a catalog.
#[derive(Clone, Copy)]
pub(crate) struct Eyes<'a> {
    pub(crate) hash: TokenHash,
    pub(crate) token: &'a Arc<TokenFacts>,
    pub(crate) owner: &'a Arc<UserFacts>,
}

impl Eyes<'_> {
    /// What they may do with an entry.
    pub(crate) fn access(&self, list: List, listed: &Listed) -> Access {
        access(
            self.token,
            self.owner,
            list.right(),
            listed.server.name.as_str(),
            &listed.own,
        )
    }

    /// What of a list they see.
    pub(crate) fn visible<'c>(&self, list: List, catalog: &'c Catalog) -> impl Iterator<Item = &'c Arc<Listed>> {
        list.of(catalog)
            .entries
            .iter()
            .filter(move |listed| !listed.held && self.access(list, listed) != Access::Hidden)
    }
}

impl Rendered {
    pub(crate) fn new(limits: &Limits) -> Rendered {
        Rendered {
            kept: DashMap::new(),
            most: limits.rendered_max,
            ttl_ms: limits.list_ttl_ms,
            list_ms: limits.list_ms,
            retry_ms: limits.list_retry_ms,
        }
    }

    /// The raw `result` of a list request, but for the members that a modern one ends with and the brace behind them; and whether
    /// it was made just now.
    pub(crate) fn result(&self, list: List, era: Era, eyes: Eyes<'_>, catalog: &Arc<Catalog>) -> (Bytes, IsNew) {
        let key = (eyes.hash, list, era == Era::Modern);
        if let Some(kept) = self.kept.get(&key)
            && Arc::ptr_eq(&kept.token, eyes.token)
            && Arc::ptr_eq(&kept.owner, eyes.owner)
            && Arc::ptr_eq(&kept.catalog, catalog)
        {
            return (kept.result.clone(), false);
        }
        let result = Bytes::from(render(list, era, eyes, catalog));
        if self.kept.len() >= self.most {
            self.kept.clear();
        }
        let kept = Kept {
            token: eyes.token.clone(),
            owner: eyes.owner.clone(),
            catalog: catalog.clone(),
            result: result.clone(),
        };
        self.kept.insert(key, kept);
        (result, true)
    }

    /// How long clients may take a list for true, in milliseconds: until the first of its servers is asked again, and never longer
    /// than calls, which are checked anyway, can do without. While a server does not answer, about as long as it takes until the
    /// next attempt.
    pub(crate) fn ttl_ms(&self, catalog: &Catalog, now_ms: u64) -> u64 {
        let until_next = |fetched_ms: &u64| self.list_ms - now_ms.saturating_sub(*fetched_ms) % self.list_ms;
        let next_ms = catalog.fetched_ms.iter().map(until_next).min();
        let most = if catalog.stale { self.retry_ms / 2 } else { self.list_ms };
        self.ttl_ms.min(most).min(next_ms.unwrap_or(u64::MAX))
    }
}

/// Whether a list was rendered for this request.
type IsNew = bool;

fn render(list: List, era: Era, eyes: Eyes<'_>, catalog: &Catalog) -> String {
    let mut out = format!("{{\"{}\":[", list.member());
    let visible = eyes
        .visible(list, catalog)
        .filter(|listed| era == Era::Legacy || listed.fit_for_modern);
    for (at, listed) in visible.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&listed.json);
    }
    out.push(']');
    out
}

/// What every modern, cacheable result of ours carries besides its own members.
pub(crate) fn modern_members(ttl_ms: u64) -> String {
    format!(
        r#","resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"private","_meta":{{"{META_SERVER_INFO}":{SERVER_INFO}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_good_until_the_first_of_its_servers_is_asked_again() {
        let rendered = Rendered::new(&Limits::default());
        let ttl_ms = |fetched_ms: &[u64], stale, now_ms| {
            let catalog = Catalog {
                fetched_ms: fetched_ms.to_vec(),
                stale,
                ..Catalog::default()
            };
            rendered.ttl_ms(&catalog, now_ms)
        };
        let rows = [
            (vec![], false, 60_000),
            (vec![1_000_000], false, 60_000),
            (vec![1_000_000 - 280_000], false, 20_000),
            (vec![1_000_000 - 100_000, 1_000_000 - 299_000], false, 1_000),
            (vec![1_000_000 - 600_000 - 250_000], false, 50_000),
            (vec![1_000_000], true, 15_000),
            (vec![1_000_000 - 299_000], true, 1_000),
            (vec![2_000_000], false, 60_000),
        ];
        for (fetched_ms, stale, expected) in rows {
            assert_eq!(
                ttl_ms(&fetched_ms, stale, 1_000_000),
                expected,
                "{fetched_ms:?} {stale}"
            );
        }
    }
}
