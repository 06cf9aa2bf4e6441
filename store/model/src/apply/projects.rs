//! Projects.

use super::{Cut, Step};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Resource, Verb};
use crate::records::{Project, ProjectSpec, Server};
use crate::tables::{self, Table};

/// Servers in one project.
pub const SERVERS_PER_PROJECT_MAX: usize = 1_000;
/// Active tokens that are revoked together with their project in one command.
const TOKENS_PER_PROJECT_SCAN: usize = 1_000;

impl Step<'_> {
    pub(super) fn create_project(&mut self, id: Id, name: &Name, spec: &ProjectSpec) -> Result<Reply, Refusal> {
        self.about(format!("project {name}"));
        self.rights().need(Verb::Create, Resource::Projects, name.as_str())?;
        self.may_attach(spec, &[])?;
        self.about_collisions(name, spec);
        let origin = self.origin();
        let id = self.add(&Project {
            id,
            name: name.clone(),
            spec: spec.clone(),
            origin,
        })?;
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn update_project(
        &mut self,
        name: &Name,
        spec: &ProjectSpec,
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("project {name}"));
        self.rights().need(Verb::Update, Resource::Projects, name.as_str())?;
        let mut project: Project = self.named_at(name.as_str(), if_version)?;
        self.may_attach(spec, &project.spec.servers)?;
        self.about_collisions(name, spec);
        let detached = project.spec.servers.iter().any(|id| !spec.servers.contains(id));
        // What changes nothing may repeat a change that detached and was not waited for to its end: that the server is gone
        // already proves nothing, so it waits like the first one.
        self.restricts = detached || project.spec == *spec;
        project.spec = spec.clone();
        let id = self.change(project);
        self.effects.policy_changed = true;
        if detached {
            self.effects.cuts.push(Cut::Project(id));
        }
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_project(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("project {name}"));
        self.rights().need(Verb::Delete, Resource::Projects, name.as_str())?;
        let project: Project = self.named_at(name.as_str(), if_version)?;
        self.revoke_all_of(project.id);
        self.drop_named(&project);
        self.tables.remove(Table::ProjectLimits, &project.id.to_bytes());
        self.effects.policy_changed = true;
        self.effects.cuts.push(Cut::Project(project.id));
        self.restricts = true;
        Ok(Reply::Deleted { id: project.id })
    }

    /// Attaching hands the server's tools to the project's tokens, so it needs the right to use it. Servers that were attached
    /// before stay without it.
    fn may_attach(&self, spec: &ProjectSpec, attached: &[Id]) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            Err(Refusal::Invalid {
                field: "servers".to_owned(),
                why: why.to_owned(),
            })
        };
        if spec.servers.len() > SERVERS_PER_PROJECT_MAX {
            return refuse("a project has at most 1,000 servers");
        }
        for (at, id) in spec.servers.iter().enumerate() {
            if spec.servers[..at].contains(id) {
                return refuse("a server is named twice");
            }
            let Some(server) = tables::by_id::<Server>(self.tables, *id) else {
                return Err(Refusal::NotFound {
                    kind: "server".to_owned(),
                    name: id.to_string(),
                });
            };
            if !attached.contains(id) {
                self.rights().need(Verb::Use, Resource::Servers, server.name.as_str())?;
            }
        }
        Ok(())
    }

    fn revoke_all_of(&mut self, project: Id) {
        loop {
            let some = self
                .tables
                .scan(Table::TokenNames, &project.to_bytes(), None, TOKENS_PER_PROJECT_SCAN);
            for (key, id) in &some {
                self.tables.remove(Table::TokenNames, key);
                if let Some(token) = tables::load(self.tables, id) {
                    self.take_away(token, crate::records::TokenStatus::Revoked);
                }
            }
            if some.len() < TOKENS_PER_PROJECT_SCAN {
                return;
            }
        }
    }
}
