//! What a project offers, compiled from the replicated lists: under which name each thing is shown, whose it is, and what
//! it is called there. Built once per change of lists or policy, read by every request.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use mcp_model::ids::Id;
use mcp_model::records::{Health, Project, Server, ToolNaming};
use mcp_model::toolnames::{self, Offering};
use mcp_store::view::{Known, Lists, Policy};
use mcp_wire::mirrored::MirroredParams;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::prints;

/// One thing that can be listed: a tool, a prompt, a resource or a resource template.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Whose it is.
    pub(crate) server: Arc<Server>,
    /// Under which name (or URI) clients see it.
    pub(crate) shown: Box<str>,
    /// What the server calls it.
    pub(crate) own: Box<str>,
    /// The entry as clients see it.
    pub(crate) json: Box<str>,
    /// Its parameters that are repeated in headers.
    pub(crate) mirrored: MirroredParams,
    /// Whether modern clients may see it: not if its `x-mcp-header` annotations are invalid.
    pub(crate) fit_for_modern: bool,
    /// Whether it is kept back until somebody approves it: it has changed, and the tools of its server are pinned.
    pub(crate) held: bool,
}

/// One kind of list of a project.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Arc<Listed>>,
    by_name: HashMap<Box<str>, usize>,
}

/// What a project (or one server of it) offers.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) tools: Listing,
    pub(crate) prompts: Listing,
    pub(crate) resources: Listing,
    pub(crate) templates: Listing,
    /// Whether a server of it does not answer just now, or was not asked yet.
    pub(crate) stale: bool,
    /// Whether what a server offered when it answered last is all that there is of it.
    pub(crate) serves_old: bool,
    /// When the lists of those that answer were fetched, ms since 1970.
    pub(crate) fetched_ms: Vec<u64>,
    /// Whether a server of it completes arguments.
    pub(crate) completes: bool,
    /// Whether resources of a server of it can be watched.
    pub(crate) subscribes: bool,
}

impl Listing {
    pub(crate) fn get(&self, shown: &str) -> Option<&Arc<Listed>> {
        self.by_name.get(shown).map(|at| &self.entries[*at])
    }

    fn push(&mut self, listed: Listed) {
        if self.by_name.contains_key(&listed.shown) {
            return;
        }
        self.by_name.insert(listed.shown.clone(), self.entries.len());
        self.entries.push(Arc::new(listed));
    }
}

impl Catalog {
    /// The server that reads this URI: by its list, or by exactly one of the templates. Nothing is ever asked around.
    pub(crate) fn resource(&self, uri: &str) -> Option<(Arc<Listed>, String)> {
        if let Some(listed) = self.resources.get(uri) {
            return Some((listed.clone(), listed.own.to_string()));
        }
        let mut fitting = self.templates.entries.iter().filter(|listed| fits(&listed.shown, uri));
        let (Some(listed), None) = (fitting.next(), fitting.next()) else {
            return None;
        };
        let prefix = listed.shown.len() - listed.own.len();
        Some((listed.clone(), uri.get(prefix..)?.to_owned()))
    }
}

/// Whether a URI can come from a template: its literal parts appear in order, with something in the place of each
/// expression.
fn fits(template: &str, uri: &str) -> bool {
    let mut literals = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        literals.push(literal);
        let Some((_, after)) = after.split_once('}') else {
            return false;
        };
        rest = after;
    }
    let Some(first) = literals.first() else {
        return template == uri;
    };
    let Some(mut middle) = uri.strip_prefix(first).and_then(|uri| uri.strip_suffix(rest)) else {
        return false;
    };
    for literal in &literals[1..] {
        let Some(at) = middle
            .char_indices()
            .skip(1)
            .find_map(|(at, _)| middle[at..].starts_with(literal).then_some(at))
        else {
            return false;
        };
        middle = &middle[at + literal.len()..];
    }
    !middle.is_empty()
}

/// What one server offers, parsed once per change of its list.
#[derive(Debug, Default)]
struct Offer {
    tools: Vec<Item>,
    prompts: Vec<Item>,
    resources: Vec<Item>,
    templates: Vec<Item>,
    healthy: bool,
    /// Whether it is the last good list of a server that does not answer.
    is_old: bool,
    fetched_ms: u64,
    completes: bool,
    subscribes: bool,
}

#[derive(Debug)]
struct Item {
    name: Box<str>,
    json: Box<str>,
    name_at: Range<usize>,
    mirrored: Result<MirroredParams, String>,
    /// SHA-256 over it, if it is a tool.
    print: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "uriTemplate")]
    uri_template: Option<&'a RawValue>,
    #[serde(borrow, rename = "inputSchema")]
    input_schema: Option<&'a RawValue>,
}

impl Offer {
    fn compile(known: &Known) -> Offer {
        let list = &known.list;
        let healthy = list.health == Health::Healthy;
        let Some(offer) = &list.offer else {
            return Offer {
                healthy,
                ..Offer::default()
            };
        };
        let capabilities: serde_json::Value = serde_json::from_str(&offer.capabilities).unwrap_or_default();
        let mut tools = items(&offer.tools, |entry| entry.name);
        tools.iter_mut().for_each(|tool| tool.print = prints::whole(&tool.json));
        Offer {
            tools,
            prompts: items(&offer.prompts, |entry| entry.name),
            resources: items(&offer.resources, |entry| entry.uri),
            templates: items(&offer.templates, |entry| entry.uri_template),
            healthy,
            is_old: !healthy,
            fetched_ms: list.fetched_ms,
            completes: capabilities.get("completions").is_some(),
            subscribes: capabilities["resources"]["subscribe"] == true,
        }
    }
}

/// The entries of a raw array that have a name that can be offered; what has none cannot be asked for and is left out.
fn items(array: &str, name_of: impl for<'a> Fn(&Entry<'a>) -> Option<&'a RawValue>) -> Vec<Item> {
    let entries: Vec<&RawValue> = serde_json::from_str(array).unwrap_or_default();
    let item = |raw: &RawValue| {
        let json = raw.get();
        let entry: Entry<'_> = serde_json::from_str(json).ok()?;
        let name = name_of(&entry)?.get();
        let start = name.as_ptr() as usize - json.as_ptr() as usize;
        let mirrored = match entry.input_schema {
            Some(schema) if schema.get().contains("x-mcp-header") => {
                let schema = serde_json::from_str(schema.get()).map_err(|error| error.to_string());
                schema.and_then(|schema| MirroredParams::compile(&schema))
            }
            Some(_) | None => Ok(MirroredParams::default()),
        };
        let own = serde_json::from_str::<Box<str>>(name).ok()?;
        if own.is_empty() || own.chars().any(toolnames::is_hidden) {
            return None;
        }
        Some(Item {
            name: own,
            json: json.into(),
            name_at: start..start + name.len(),
            mirrored,
            print: None,
        })
    };
    entries.into_iter().filter_map(item).collect()
}

/// For the fuzzer: bytes as the raw list of an upstream. A name's place is where the name stands.
pub(crate) fn decode_lists(bytes: &[u8]) {
    let array = String::from_utf8_lossy(bytes);
    for item in items(&array, |entry| entry.name) {
        let name = &item.json[item.name_at.clone()];
        assert_eq!(serde_json::from_str::<Box<str>>(name).ok(), Some(item.name));
    }
    if let Ok(prints) = prints::of_tools(&array) {
        assert!(prints.iter().all(|print| toolnames::unfit(&print.name).is_none()));
    }
    let _resources = items(&array, |entry| entry.uri).len();
    let _templates = items(&array, |entry| entry.uri_template).len();
}

/// An offer with the list it was compiled from.
type Compiled = (Arc<Known>, Arc<Offer>);

/// One server in a catalog that is being built.
struct Part<'a> {
    server: &'a Arc<Server>,
    offer: Arc<Offer>,
    known: Option<&'a Arc<Known>>,
}

impl Part<'_> {
    /// Whether a tool is kept back.
    fn holds(&self, item: &Item) -> bool {
        let approved = |print| {
            let watch = self.known.and_then(|known| known.watch.as_ref());
            watch.is_some_and(|watch| !watch.holds(&item.name, print))
        };
        self.server.spec.pin_tools && item.print.as_ref().is_some_and(|print| !approved(print))
    }
}

/// Which catalog: a project's, or that of one server in it.
pub(crate) type Scope = (Id, Option<Id>);

/// The catalogs in use.
pub(crate) struct Catalogs {
    current: ArcSwap<Current>,
    offers: Mutex<HashMap<Id, Compiled>>,
    name_bytes_max: usize,
}

#[derive(Default)]
struct Current {
    policy: Arc<Policy>,
    lists: Arc<Lists>,
    built: DashMap<Scope, Arc<Catalog>>,
}

impl Catalogs {
    pub(crate) fn new(name_bytes_max: usize) -> Catalogs {
        Catalogs {
            current: ArcSwap::default(),
            offers: Mutex::default(),
            name_bytes_max,
        }
    }

    /// The catalog of a project, or of one server in it, as policy and lists have it.
    pub(crate) fn get(
        &self,
        policy: &Arc<Policy>,
        lists: &Arc<Lists>,
        project: &Project,
        only: Option<Id>,
    ) -> Arc<Catalog> {
        let mut current = self.current.load();
        if !Arc::ptr_eq(&current.policy, policy) || !Arc::ptr_eq(&current.lists, lists) {
            let next = Current {
                policy: policy.clone(),
                lists: lists.clone(),
                built: DashMap::new(),
            };
            self.current.store(Arc::new(next));
            self.forget_offers(lists);
            current = self.current.load();
        }
        let scope = (project.id, only);
        if let Some(built) = current.built.get(&scope) {
            return built.clone();
        }
        let built = Arc::new(self.build(policy, lists, project, only));
        // Another request may have swapped in newer state meanwhile: what was built here fits the arguments only.
        if Arc::ptr_eq(&current.policy, policy) && Arc::ptr_eq(&current.lists, lists) {
            current.built.insert(scope, built.clone());
        }
        built
    }

    fn build<'p>(&self, policy: &'p Policy, lists: &'p Lists, project: &'p Project, only: Option<Id>) -> Catalog {
        let attached = policy
            .attached(project)
            .filter(|server| only.is_none_or(|only| server.id == only));
        let part = |server: &'p Arc<Server>| {
            let known = lists.get(&server.id);
            Part {
                server,
                offer: known.map_or_else(Arc::default, |known| self.offer(known)),
                known,
            }
        };
        let parts: Vec<Part<'_>> = attached.map(part).collect();
        let naming = match only {
            None => project.spec.tool_naming,
            Some(_) => ToolNaming::Plain,
        };
        let healthy = parts.iter().filter(|part| part.offer.healthy);
        Catalog {
            tools: self.named(&parts, |offer| &offer.tools, naming),
            prompts: self.named(&parts, |offer| &offer.prompts, naming),
            resources: addressed(&parts, |offer| &offer.resources),
            templates: addressed(&parts, |offer| &offer.templates),
            stale: parts.iter().any(|part| !part.offer.healthy),
            serves_old: parts.iter().any(|part| part.offer.is_old),
            fetched_ms: healthy.map(|part| part.offer.fetched_ms).collect(),
            completes: parts.iter().any(|part| part.offer.completes),
            subscribes: parts.iter().any(|part| part.offer.subscribes),
        }
    }

    /// Tools and prompts: see [`toolnames`].
    fn named(&self, parts: &[Part<'_>], pick: fn(&Offer) -> &[Item], naming: ToolNaming) -> Listing {
        let names: Vec<Vec<&str>> = parts
            .iter()
            .map(|part| pick(&part.offer).iter().map(|item| &*item.name).collect())
            .collect();
        let offerings = parts.iter().zip(&names).map(|(part, tools)| Offering {
            server: part.server.name.as_str(),
            tools,
        });
        let offerings: Vec<Offering<'_>> = offerings.collect();
        let shown = toolnames::shown(naming, &offerings, self.name_bytes_max);
        let mut listing = Listing::default();
        for (part, shown) in parts.iter().zip(shown) {
            for (item, shown) in pick(&part.offer).iter().zip(shown) {
                if let Some(shown) = shown {
                    listing.push(item.listed(part.server, shown, part.holds(item)));
                }
            }
        }
        listing
    }

    fn offer(&self, known: &Arc<Known>) -> Arc<Offer> {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, offer)) = offers.get(&known.list.server)
            && Arc::ptr_eq(of, known)
        {
            return offer.clone();
        }
        let offer = Arc::new(Offer::compile(known));
        offers.insert(known.list.server, (known.clone(), offer.clone()));
        offer
    }

    fn forget_offers(&self, lists: &Lists) {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.retain(|server, _| lists.contains_key(server));
    }
}

/// Resources and templates: under their own URI, or `server+uri` where several servers have it.
fn addressed(parts: &[Part<'_>], pick: fn(&Offer) -> &[Item]) -> Listing {
    let mut servers_of: HashMap<&str, Vec<Id>> = HashMap::new();
    for part in parts {
        for item in pick(&part.offer) {
            let servers = servers_of.entry(&item.name).or_default();
            if servers.last() != Some(&part.server.id) {
                servers.push(part.server.id);
            }
        }
    }
    let mut listing = Listing::default();
    for part in parts {
        for item in pick(&part.offer) {
            let collides = servers_of.get(&*item.name).is_some_and(|servers| servers.len() > 1);
            let shown = match collides {
                false => item.name.to_string(),
                true => format!("{}+{}", part.server.name, item.name),
            };
            listing.push(item.listed(part.server, shown, false));
        }
    }
    listing
}

impl Item {
    fn listed(&self, server: &Arc<Server>, shown: String, held: bool) -> Listed {
        let mut json = String::with_capacity(self.json.len() + shown.len());
        json.push_str(&self.json[..self.name_at.start]);
        json.push_str(&serde_json::Value::from(shown.as_str()).to_string());
        json.push_str(&self.json[self.name_at.end..]);
        Listed {
            server: server.clone(),
            shown: shown.into(),
            own: self.name.clone(),
            json: json.into(),
            mirrored: self.mirrored.clone().unwrap_or_default(),
            fit_for_modern: self.mirrored.is_ok(),
            held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fits_what_it_can_make() {
        let rows = [
            ("file:///{path}", "file:///a/b", true),
            ("file:///{path}", "file:///", false),
            ("demo://x/{a}/y/{b}.txt", "demo://x/1/y/2.txt", true),
            ("demo://x/{a}/y/{b}.txt", "demo://x//y/2.txt", false),
            ("demo://x/{a}/y/{b}.txt", "demo://x/1/z/2.txt", false),
            ("demo://plain", "demo://plain", true),
            ("demo://plain", "demo://other", false),
            ("demo://{broken", "demo://{broken", false),
            ("é{a}", "éé", true),
        ];
        for (template, uri, expected) in rows {
            assert_eq!(fits(template, uri), expected, "{template} {uri}");
        }
    }

    fn items_of(array: &str) -> Vec<String> {
        let items = items(array, |entry| entry.name);
        items.iter().map(|item| item.name.to_string()).collect()
    }

    #[test]
    fn entries_without_a_name_or_with_two_are_left_out() {
        let array =
            r#"[{"name":"a"},{"title":"b"},{"name":"c","name":"d"},7,{"name":"e","inputSchema":{"x-mcp-header":"E"}}]"#;
        let items = items(array, |entry| entry.name);
        let names: Vec<&str> = items.iter().map(|item| &*item.name).collect();
        assert_eq!(names, ["a", "e"]);
        assert!(items[1].mirrored.is_err());
        let hidden = "[{\"name\":\"a\\u202eb\"},{\"name\":\"\u{200b}\"},{\"name\":\"\\u001b[2J\"},{\"name\":\"\"},{\"name\":\"ok\"}]";
        let items = items_of(hidden);
        assert_eq!(items, ["ok"]);
    }
}
