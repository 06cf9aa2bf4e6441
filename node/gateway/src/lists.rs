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
            .filter(move |listed| self.access(list, listed) != Access::Hidden)
    }
}

impl Rendered {
    pub(crate) fn new(most: usize, ttl_ms: u64) -> Rendered {
        Rendered {
            kept: DashMap::new(),
            most,
            ttl_ms,
        }
    }

    /// The raw `result` of a list request.
    pub(crate) fn result(&self, list: List, era: Era, eyes: Eyes<'_>, catalog: &Arc<Catalog>) -> Bytes {
        let key = (eyes.hash, list, era == Era::Modern);
        if let Some(kept) = self.kept.get(&key)
            && Arc::ptr_eq(&kept.token, eyes.token)
            && Arc::ptr_eq(&kept.owner, eyes.owner)
            && Arc::ptr_eq(&kept.catalog, catalog)
        {
            return kept.result.clone();
        }
        let result = Bytes::from(self.render(list, era, eyes, catalog));
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
        result
    }

    fn render(&self, list: List, era: Era, eyes: Eyes<'_>, catalog: &Catalog) -> String {
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
        if era == Era::Modern {
            out.push_str(&modern_members(self.ttl_ms(catalog)));
        }
        out.push('}');
        out
    }

    /// How long clients may take a list for true: calls are checked anyway. Shorter while a server is missing from it.
    pub(crate) fn ttl_ms(&self, catalog: &Catalog) -> u64 {
        if catalog.stale { self.ttl_ms / 4 } else { self.ttl_ms }
    }
}

/// What every modern, cacheable result of ours carries besides its own members.
pub(crate) fn modern_members(ttl_ms: u64) -> String {
    format!(
        r#","resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"private","_meta":{{"{META_SERVER_INFO}":{SERVER_INFO}}}"#
    )
}
