//! What servers offer, what their tools look like, and who approved that; and how much may be used of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Step;
use crate::command::{Refusal, Reply};
use crate::ids::{Id, NodeId};
use crate::limits::{ProjectLimits, ProjectLimitsRecord, ServerLimits, ServerLimitsRecord};
use crate::names::Name;
use crate::rbac::{Resource, Verb};
use crate::records::{Project, ProjectSpec, Server, ToolList, ToolNaming};
use crate::tables::{self, Table};
use crate::toolnames::{self, Offering};
use crate::watch::{Happened, Print, Sighting, TOOLS_MAX, ToolChange, ToolWatch};

/// Projects that are looked through at a time.
const PROJECTS_PER_SCAN: usize = 1_000;
/// Names that one audit event lists.
const NAMES_IN_AUDIT: usize = 20;

impl Step<'_> {
    pub(super) fn report_tools(
        &mut self,
        list: &ToolList,
        node: NodeId,
        prints: Option<&[Print]>,
    ) -> Result<Reply, Refusal> {
        let known = self.publish_tools(list)?;
        let Some(server) = tables::by_id::<Server>(self.tables, list.server) else {
            return Ok(known);
        };
        if prints.is_some_and(|prints| prints.len() > TOOLS_MAX) {
            return Err(Refusal::Invalid {
                field: "prints".to_owned(),
                why: format!("a server has at most {TOOLS_MAX} tools"),
            });
        }
        let watch: Option<ToolWatch> = tables::by_id(self.tables, server.id);
        let mut watch = watch.unwrap_or_else(|| ToolWatch::new(server.id, node));
        watch.node = node;
        watch.reported_ms = self.now_ms;
        let sighting = Sighting {
            node,
            time_ms: self.now_ms,
            pinned: server.spec.pin_tools,
        };
        let before: BTreeSet<String> = watch.names().map(str::to_owned).collect();
        let changes = prints.map_or_else(Vec::new, |prints| watch.see(prints, sighting));
        let after: BTreeSet<&str> = watch.names().collect();
        let appeared: Vec<String> = after
            .iter()
            .filter(|name| !before.contains(**name))
            .map(|n| (*n).to_owned())
            .collect();
        self.save(&watch);
        self.about_changes(&server, &changes, &appeared);
        Ok(known)
    }

    /// What people should hear of: tools that are others than they were, and names that now mean two tools.
    fn about_changes(&mut self, server: &Server, changes: &[ToolChange], appeared: &[String]) {
        let mut said = Vec::new();
        let changed = changes
            .iter()
            .map(|change| format!("{} {}", change.tool, word(change.happened)));
        let changed: Vec<String> = changed.collect();
        if !changed.is_empty() {
            said.push(format!("tools changed: {}", some_of(&changed)));
        }
        if !appeared.is_empty() {
            said.extend(self.collisions_with(server.id, appeared));
        }
        if !said.is_empty() {
            self.about(format!("server {} ({})", server.name, said.join("; ")));
        }
    }

    /// For each project with plain names: which of these names another of its servers has too.
    fn collisions_with(&self, server: Id, appeared: &[String]) -> Vec<String> {
        let mut said = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let some: Vec<Project> = tables::list(self.tables, after.as_deref(), PROJECTS_PER_SCAN);
            let plain = some
                .iter()
                .filter(|p| p.spec.tool_naming == ToolNaming::Plain && p.spec.servers.contains(&server));
            for project in plain {
                let collisions = self.collisions(&project.spec);
                let new = collisions.into_iter().filter(|(name, _)| appeared.contains(name));
                let new: Vec<String> = new
                    .map(|(name, servers)| format!("{name} of {}", servers.join(", ")))
                    .collect();
                if !new.is_empty() {
                    said.push(format!("names collide in project {}: {}", project.name, some_of(&new)));
                }
            }
            match some.last() {
                Some(last) if some.len() == PROJECTS_PER_SCAN => after = Some(last.id.to_bytes().to_vec()),
                _ => return said,
            }
        }
    }

    /// Names that several servers of a project have, with those servers.
    fn collisions(&self, spec: &ProjectSpec) -> BTreeMap<String, Vec<String>> {
        let servers = spec
            .servers
            .iter()
            .filter_map(|id| tables::by_id::<Server>(self.tables, *id));
        let known: Vec<(Server, Option<ToolWatch>)> = servers
            .map(|server| (tables::by_id(self.tables, server.id), server))
            .map(|(w, s)| (s, w))
            .collect();
        let tools: Vec<Vec<&str>> = known
            .iter()
            .map(|(_, watch)| watch.iter().flat_map(ToolWatch::names).collect())
            .collect();
        let offerings: Vec<Offering<'_>> = known
            .iter()
            .zip(&tools)
            .map(|((server, _), tools)| Offering {
                server: server.name.as_str(),
                tools,
            })
            .collect();
        let owned = |servers: Vec<&str>| servers.into_iter().map(str::to_owned).collect();
        let collisions = toolnames::collisions(&offerings).into_iter();
        collisions
            .map(|(name, servers)| (name.to_owned(), owned(servers)))
            .collect()
    }

    /// Says in the audit of a change of a project that names collide in it.
    pub(super) fn about_collisions(&mut self, name: &Name, spec: &ProjectSpec) {
        if spec.tool_naming != ToolNaming::Plain {
            return;
        }
        let collisions = self.collisions(spec).into_iter();
        let said: Vec<String> = collisions
            .map(|(tool, servers)| format!("{tool} of {}", servers.join(", ")))
            .collect();
        if !said.is_empty() {
            self.about(format!("project {name} (names collide: {})", some_of(&said)));
        }
    }

    /// Whoever may change a server may say that its tools are good as they are: they could turn the pinning off as well.
    pub(super) fn approve_tools(&mut self, server: &Name, tools: &[(String, [u8; 32])]) -> Result<Reply, Refusal> {
        let named: Vec<String> = tools.iter().map(|(tool, _)| tool.clone()).collect();
        self.about(format!("server {server} (tools approved: {})", some_of(&named)));
        self.rights().need(Verb::Update, Resource::Servers, server.as_str())?;
        let found: Server = self.named(server.as_str())?;
        let mut watch: ToolWatch =
            tables::by_id(self.tables, found.id).unwrap_or_else(|| ToolWatch::new(found.id, NodeId(0)));
        let mut happened = Vec::new();
        for (tool, digest) in tools {
            let full_name = format!("{server}/{tool}");
            let listed = watch.tools.get_mut(tool).filter(|seen| !seen.gone);
            let Some(seen) = listed else {
                return Err(Refusal::NotFound {
                    kind: "tool".to_owned(),
                    name: full_name,
                });
            };
            if seen.print.whole != *digest {
                return Err(Refusal::LooksOtherwise {
                    kind: "tool".to_owned(),
                    name: full_name,
                    digest: hex(&seen.print.whole),
                });
            }
            if seen.approved != Some(*digest) {
                happened.push(ToolChange {
                    tool: tool.clone(),
                    happened: Happened::Approved,
                    from: seen.approved,
                    to: Some(*digest),
                    by: self
                        .rights
                        .as_ref()
                        .map_or_else(String::new, |rights| rights.who().to_owned()),
                    time_ms: self.now_ms,
                });
                seen.approved = Some(*digest);
            }
        }
        watch.note(&happened);
        self.save(&watch);
        self.effects.lists_changed.push(found.id);
        Ok(Reply::Updated { id: found.id })
    }

    pub(super) fn limit_server(&mut self, server: Id, limits: ServerLimits) {
        match limits == ServerLimits::default() {
            true => drop(self.tables.remove(Table::ServerLimits, &server.to_bytes())),
            false => self.save(&ServerLimitsRecord { server, limits }),
        }
    }

    pub(super) fn limit_project(&mut self, project: Id, limits: ProjectLimits) {
        match limits == ProjectLimits::default() {
            true => drop(self.tables.remove(Table::ProjectLimits, &project.to_bytes())),
            false => self.save(&ProjectLimitsRecord { project, limits }),
        }
    }
}

/// What happened, in a word.
fn word(happened: Happened) -> &'static str {
    match happened {
        Happened::Added => "added",
        Happened::Description => "has another description",
        Happened::Schema => "has another schema",
        Happened::Both => "has another description and schema",
        Happened::Other => "has other annotations",
        Happened::Removed => "removed",
        Happened::Approved => "approved",
    }
}

/// The first of many, on one line, with nothing in them that steers a terminal.
fn some_of(names: &[String]) -> String {
    let visible = |name: &String| -> String {
        let chars = name.chars().map(|c| if toolnames::is_hidden(c) { ' ' } else { c });
        chars.take(120).collect()
    };
    let mut some: Vec<String> = names.iter().take(NAMES_IN_AUDIT).map(visible).collect();
    if names.len() > NAMES_IN_AUDIT {
        some.push(format!("and {} more", names.len() - NAMES_IN_AUDIT));
    }
    some.join(", ")
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
