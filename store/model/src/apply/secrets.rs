//! Secrets. Their values arrive sealed and leave sealed: nothing here could read one.

use std::collections::BTreeMap;

use super::{Cut, Step};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Resource, Verb};
use crate::records::{Project, Secret, Server};
use crate::secrets::{KEYS_MAX, SEALED_BYTES_MAX, is_key, referred};
use crate::tables::{self, Stored};

/// Records that are looked through at a time.
const SCAN: usize = 1_000;

impl Step<'_> {
    pub(super) fn create_secret(
        &mut self,
        id: Id,
        name: &Name,
        description: &str,
        values: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("secret {name}"));
        self.rights().need(Verb::Create, Resource::Secrets, name.as_str())?;
        check_values(values)?;
        let id = self.add(&Secret {
            id,
            name: name.clone(),
            description: description.to_owned(),
            values: values.clone(),
            origin: self.origin(),
        })?;
        self.secret_changed(name);
        Ok(Reply::Created { id })
    }

    /// The values were sealed for the secret of this `id`: one that was made anew under the name cannot open them.
    pub(super) fn update_secret(
        &mut self,
        id: Id,
        name: &Name,
        description: &str,
        values: &BTreeMap<String, Vec<u8>>,
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("secret {name}"));
        self.rights().need(Verb::Update, Resource::Secrets, name.as_str())?;
        check_values(values)?;
        let mut secret: Secret = self.named_at(name.as_str(), if_version)?;
        if secret.id != id {
            return Err(Refusal::VersionMismatch {
                kind: "secret".to_owned(),
                name: name.to_string(),
                version: secret.origin.version,
            });
        }
        description.clone_into(&mut secret.description);
        if secret.values != *values {
            secret.values.clone_from(values);
            self.secret_changed(name);
        }
        let id = self.change(secret);
        self.effects.policy_changed = true;
        self.restricts = true;
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_secret(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("secret {name}"));
        self.rights().need(Verb::Delete, Resource::Secrets, name.as_str())?;
        let secret: Secret = self.named_at(name.as_str(), if_version)?;
        self.drop_named(&secret);
        self.secret_changed(name);
        self.restricts = true;
        Ok(Reply::Deleted { id: secret.id })
    }

    /// Servers that refer to it are connected to anew; what runs on the old value ends.
    fn secret_changed(&mut self, name: &Name) {
        self.effects.policy_changed = true;
        let mut servers = Vec::new();
        each(self.tables, |server: Server| {
            let refers = referred(&server.spec.transport).is_ok_and(|names| names.contains_key(name));
            servers.extend(refers.then_some(server.id));
        });
        self.cut_projects_with(&servers);
    }

    /// Ends what is open on behalf of the projects to which one of these servers is attached.
    pub(super) fn cut_projects_with(&mut self, servers: &[Id]) {
        if servers.is_empty() {
            return;
        }
        let mut cuts = Vec::new();
        each(self.tables, |project: Project| {
            let touched = project.spec.servers.iter().any(|id| servers.contains(id));
            cuts.extend(touched.then_some(Cut::Project(project.id)));
        });
        self.effects.cuts.extend(cuts);
    }
}

fn check_values(values: &BTreeMap<String, Vec<u8>>) -> Result<(), Refusal> {
    let refuse = |why: &str| {
        Err(Refusal::Invalid {
            field: "data".to_owned(),
            why: why.to_owned(),
        })
    };
    if values.len() > KEYS_MAX {
        return refuse("a secret has at most 100 keys");
    }
    if !values.keys().all(|key| is_key(key)) {
        return refuse("a key has 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'");
    }
    if values.values().map(Vec::len).sum::<usize>() > SEALED_BYTES_MAX {
        return refuse("the values of a secret have at most 512 KiB together");
    }
    Ok(())
}

/// Hands every record of a kind to `f`.
fn each<T: Stored>(tables: &(impl tables::Tables + ?Sized), mut f: impl FnMut(T)) {
    let mut after = None;
    loop {
        let some: Vec<T> = tables::list(tables, after.as_deref(), SCAN);
        let full = some.len() == SCAN;
        after = some.last().map(Stored::key);
        some.into_iter().for_each(&mut f);
        if !full {
            return;
        }
    }
}
