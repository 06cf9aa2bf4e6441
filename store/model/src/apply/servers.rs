//! Servers.

use super::{Cut, Step};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Action, Resource, Verb};
use crate::records::{Project, Server, ServerSpec, Transport};
use crate::secrets::referred;
use crate::tables::{self, Table};

/// Projects that are looked through at a time when a server is deleted.
const PROJECTS_PER_SCAN: usize = 1_000;

impl Step<'_> {
    pub(super) fn create_server(&mut self, id: Id, name: &Name, spec: &ServerSpec) -> Result<Reply, Refusal> {
        self.about(format!("server {name}"));
        self.rights().need(Verb::Create, Resource::Servers, name.as_str())?;
        self.may_run(spec, None)?;
        self.may_refer(spec, None)?;
        let origin = self.origin();
        let id = self.add(&Server {
            id,
            name: name.clone(),
            spec: spec.clone(),
            origin,
        })?;
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn update_server(
        &mut self,
        name: &Name,
        spec: &ServerSpec,
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("server {name}"));
        self.rights().need(Verb::Update, Resource::Servers, name.as_str())?;
        let mut server: Server = self.named_at(name.as_str(), if_version)?;
        self.may_run(spec, Some(&server.spec))?;
        self.may_refer(spec, Some(&server.spec))?;
        // What runs at the old place ends; and what changes nothing may repeat a change that moved it and was not waited for.
        let moved = server.spec.transport != spec.transport;
        self.restricts = moved || server.spec == *spec;
        server.spec = spec.clone();
        let id = self.change(server);
        if moved {
            self.cut_projects_with(&[id]);
        }
        self.effects.policy_changed = true;
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_server(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("server {name}"));
        self.rights().need(Verb::Delete, Resource::Servers, name.as_str())?;
        let server: Server = self.named_at(name.as_str(), if_version)?;
        self.detach_everywhere(server.id);
        for table in [Table::ToolLists, Table::ToolWatches, Table::ServerLimits] {
            self.tables.remove(table, &server.id.to_bytes());
        }
        self.drop_named(&server);
        self.effects.lists_changed.push(server.id);
        self.effects.policy_changed = true;
        self.restricts = true;
        Ok(Reply::Deleted { id: server.id })
    }

    /// A stdio server is a command that runs on the nodes: saying which needs the action `exec`, before and after a change.
    fn may_run(&self, spec: &ServerSpec, before: Option<&ServerSpec>) -> Result<(), Refusal> {
        let runs = |spec: &ServerSpec| matches!(spec.transport, Transport::Stdio { .. });
        if runs(spec) || before.is_some_and(runs) {
            self.rights().need_action(Action::Exec)?;
        }
        Ok(())
    }

    /// Whoever says where a secret goes can read it, so referring to one, or changing anything about how a server is reached
    /// that refers to one, needs `run` on it. Whether there is such a secret is not asked: a server may be written first.
    fn may_refer(&self, spec: &ServerSpec, before: Option<&ServerSpec>) -> Result<(), Refusal> {
        let referred = referred(&spec.transport).map_err(|(field, why)| Refusal::Invalid {
            field,
            why: why.to_string(),
        })?;
        if before.is_some_and(|before| before.transport == spec.transport) {
            return Ok(());
        }
        let mut names = referred.keys();
        names.try_for_each(|name| self.rights().need(Verb::Use, Resource::Secrets, name.as_str()))
    }

    fn detach_everywhere(&mut self, server: Id) {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let some: Vec<Project> = tables::list(self.tables, after.as_deref(), PROJECTS_PER_SCAN);
            for mut project in some.iter().cloned() {
                if !project.spec.servers.contains(&server) {
                    continue;
                }
                project.spec.servers.retain(|id| *id != server);
                let id = self.change(project);
                self.effects.cuts.push(Cut::Project(id));
            }
            match some.last() {
                Some(last) if some.len() == PROJECTS_PER_SCAN => after = Some(last.id.to_bytes().to_vec()),
                _ => return,
            }
        }
    }
}
