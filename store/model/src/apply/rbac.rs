//! Definitions: who is granted what.

use super::{Cut, Step};
use crate::authority::{DEFINITIONS_PER_SUBJECT_MAX, grants_of, subject_prefix, subjects_of_user};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Grants, Resource, RoleBinding, Subject, Verb};
use crate::records::{RbacDefinition, User};
use crate::tables::{self, Table};

/// What the names of definitions that belong to a token begin with.
pub const TOKEN_DEFINITION_PREFIX: &str = "mcptoken-";
/// Subjects or bindings in one definition.
pub const DEFINITION_LINES_MAX: usize = 1_000;
/// Users that are looked through for another administrator.
const USERS_PER_SCAN: usize = 1_000;
/// No record has this version: a definition is written only if there is none of that name.
pub const NONE_YET: u64 = 0;
/// Rule 8.
const NO_ADMIN_LEFT: &str = "this would leave the cluster without an administrator";

impl Step<'_> {
    pub(super) fn write_rbac(
        &mut self,
        id: Id,
        name: &Name,
        subjects: &[Subject],
        role_bindings: &[RoleBinding],
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("rbac {name}"));
        let before: Option<RbacDefinition> = self.named(name.as_str()).ok();
        let verb = if before.is_some() { Verb::Update } else { Verb::Create };
        self.rights().need(verb, Resource::Rbac, name.as_str())?;
        // `edit` keeps definitions in order; handing rights on is what `admin` adds to it.
        self.rights().need(Verb::Grant, Resource::Rbac, name.as_str())?;
        refuse_reserved(name)?;
        if subjects.len() > DEFINITION_LINES_MAX || role_bindings.len() > DEFINITION_LINES_MAX {
            let why = "a definition has at most 1,000 subjects and 1,000 bindings".to_owned();
            return Err(Refusal::Invalid {
                field: "roleBindings".to_owned(),
                why,
            });
        }
        self.refuse_crowded(subjects, before.as_ref())?;
        // Measured against all that it grants, also when only the subjects change.
        role_bindings.iter().try_for_each(|b| self.rights().need_cover(b))?;
        let (subjects, role_bindings) = (subjects.to_vec(), role_bindings.to_vec());
        let Some(_) = before else {
            // Who names a version has seen it: it was deleted meanwhile, and is not to come back.
            if if_version.is_some_and(|seen| seen != NONE_YET) {
                return self
                    .named::<RbacDefinition>(name.as_str())
                    .map(|d| Reply::Updated { id: d.id });
            }
            let origin = self.origin();
            let definition = RbacDefinition {
                id,
                name: name.to_string(),
                subjects,
                role_bindings,
                origin,
            };
            let id = self.add(&definition)?;
            self.index_subjects(&definition);
            self.effects.policy_changed = true;
            return Ok(Reply::Created { id });
        };
        let before: RbacDefinition = self.named_at(name.as_str(), if_version)?;
        before
            .role_bindings
            .iter()
            .try_for_each(|b| self.rights().need_cover(b))?;
        self.unindex_subjects(&before);
        let after = RbacDefinition {
            subjects,
            role_bindings,
            ..before.clone()
        };
        self.index_subjects(&after);
        let id = self.change(after);
        if makes_admins(&before) && !self.has_an_admin() {
            return self.undo_rbac(&before);
        }
        self.narrowed();
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_rbac(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("rbac {name}"));
        self.rights().need(Verb::Delete, Resource::Rbac, name.as_str())?;
        refuse_reserved(name)?;
        let definition: RbacDefinition = self.named_at(name.as_str(), if_version)?;
        self.drop_definition(&definition);
        if makes_admins(&definition) && !self.has_an_admin() {
            self.add(&definition)?;
            return self.undo_rbac(&definition);
        }
        self.narrowed();
        Ok(Reply::Deleted { id: definition.id })
    }

    fn refuse_crowded(&self, subjects: &[Subject], before: Option<&RbacDefinition>) -> Result<(), Refusal> {
        let new = |s: &&Subject| before.is_none_or(|before| !before.subjects.contains(s));
        for subject in subjects.iter().filter(new) {
            let prefix = subject_prefix(subject);
            let rows = self
                .tables
                .scan(Table::RbacSubjects, &prefix, None, DEFINITIONS_PER_SUBJECT_MAX);
            if rows.len() >= DEFINITIONS_PER_SUBJECT_MAX {
                return Err(Refusal::Invalid {
                    field: "subjects".to_owned(),
                    why: format!("{subject} stands in 1,000 definitions already"),
                });
            }
        }
        Ok(())
    }

    fn narrowed(&mut self) {
        self.effects.policy_changed = true;
        self.effects.cuts.push(Cut::All);
        self.restricts = true;
    }

    fn undo_rbac(&mut self, before: &RbacDefinition) -> Result<Reply, Refusal> {
        if let Ok(now) = self.named::<RbacDefinition>(&before.name) {
            self.unindex_subjects(&now);
        }
        self.index_subjects(before);
        self.save(before);
        Err(Refusal::Invalid {
            field: "roleBindings".to_owned(),
            why: NO_ADMIN_LEFT.to_owned(),
        })
    }

    pub(super) fn drop_definition(&mut self, definition: &RbacDefinition) {
        self.unindex_subjects(definition);
        self.drop_named(definition);
    }

    pub(super) fn index_subjects(&mut self, definition: &RbacDefinition) {
        for subject in &definition.subjects {
            self.tables
                .put(Table::RbacSubjects, &subject_key(subject, definition.id), Vec::new());
            self.touch_token(subject);
        }
    }

    fn unindex_subjects(&mut self, definition: &RbacDefinition) {
        for subject in &definition.subjects {
            self.tables
                .remove(Table::RbacSubjects, &subject_key(subject, definition.id));
            self.touch_token(subject);
        }
    }

    /// A token keeps its bindings in memory with it, so it is read again when one of its definitions changes.
    fn touch_token(&mut self, subject: &Subject) {
        let Subject::McpToken(hash) = subject else { return };
        let id = self.tables.get(Table::TokenHashes, &hash.0);
        self.effects
            .tokens_changed
            .extend(id.and_then(|id| Id::from_slice(&id)));
    }

    /// Takes a subject that is no more out of every definition. One that granted to nobody else goes with it.
    pub(super) fn strip_subject(&mut self, subject: &Subject) {
        loop {
            let prefix = subject_prefix(subject);
            let rows = self
                .tables
                .scan(Table::RbacSubjects, &prefix, None, DEFINITION_LINES_MAX);
            if rows.is_empty() {
                return;
            }
            for (key, _) in rows {
                self.tables.remove(Table::RbacSubjects, &key);
                let Some(mut definition) = tables::load::<RbacDefinition>(self.tables, &key[prefix.len()..]) else {
                    continue;
                };
                definition.subjects.retain(|s| s != subject);
                if definition.subjects.is_empty() {
                    self.drop_named(&definition);
                } else {
                    self.change(definition);
                }
            }
        }
    }

    /// Refuses a change after which nobody would administer everything. `counts` says which of a user's subjects still do.
    pub(super) fn keep_an_admin(&self, field: &str, counts: impl Fn(&User, &Subject) -> bool) -> Result<(), Refusal> {
        if self.any_admin(counts) {
            return Ok(());
        }
        Err(Refusal::Invalid {
            field: field.to_owned(),
            why: NO_ADMIN_LEFT.to_owned(),
        })
    }

    fn has_an_admin(&self) -> bool {
        self.any_admin(|_, _| true)
    }

    fn any_admin(&self, counts: impl Fn(&User, &Subject) -> bool) -> bool {
        let is_admin = |user: &User| {
            let mut subjects = subjects_of_user(self.tables, user).into_iter();
            !user.disabled && subjects.any(|s| counts(user, &s) && grants_of(self.tables, &s).is_admin_of_all())
        };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let some: Vec<User> = tables::list(self.tables, after.as_deref(), USERS_PER_SCAN);
            if some.iter().any(is_admin) {
                return true;
            }
            match some.last() {
                Some(last) if some.len() == USERS_PER_SCAN => after = Some(last.id.to_bytes().to_vec()),
                _ => return false,
            }
        }
    }
}

/// Whether a definition grants `admin` on everything: only then does its change need a look at who is left.
fn makes_admins(definition: &RbacDefinition) -> bool {
    let grants: Grants = definition.role_bindings.iter().cloned().collect();
    grants.is_admin_of_all()
}

fn subject_key(subject: &Subject, definition: Id) -> Vec<u8> {
    let mut key = subject_prefix(subject);
    key.extend_from_slice(&definition.to_bytes());
    key
}

fn refuse_reserved(name: &Name) -> Result<(), Refusal> {
    if name.as_str().starts_with(TOKEN_DEFINITION_PREFIX) {
        let why = "names that begin with mcptoken- belong to tokens: give the token other bindings instead".to_owned();
        return Err(Refusal::Invalid {
            field: "name".to_owned(),
            why,
        });
    }
    Ok(())
}
