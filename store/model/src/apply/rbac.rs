//! Definitions: who is granted what.

use super::administrators::{Administered, makes_administrators};
use super::{Cut, Step};
use crate::authority::{DEFINITIONS_PER_SUBJECT_MAX, subject_prefix};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Grants, Resource, RoleBinding, Subject, Verb};
use crate::records::{Group, RbacDefinition, ServiceAccount, User};
use crate::tables::{self, Table};

/// What the names of definitions that belong to a token begin with.
pub const TOKEN_DEFINITION_PREFIX: &str = "mcptoken-";
/// Subjects or bindings in one definition.
pub const DEFINITION_LINES_MAX: usize = 1_000;
/// Owners who are told one by one that something of theirs ends. More, and everybody is: who still may comes back at once.
const CUTS_MAX: usize = 10_000;
/// No record has this version: a definition is written only if there is none of that name.
pub const NONE_YET: u64 = 0;

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
        let administered = makes_administrators(&before).then(|| Administered::of(self.tables));
        self.unindex_subjects(&before);
        let after = RbacDefinition {
            subjects,
            role_bindings,
            ..before.clone()
        };
        self.index_subjects(&after);
        let losers = losers(&before, &after);
        let id = self.change(after);
        if let Some(administered) = administered
            && let Err(refusal) = self.still_administered(administered, "roleBindings")
        {
            self.undo_rbac(&before);
            return Err(refusal);
        }
        self.narrowed(&losers);
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_rbac(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("rbac {name}"));
        self.rights().need(Verb::Delete, Resource::Rbac, name.as_str())?;
        refuse_reserved(name)?;
        let definition: RbacDefinition = self.named_at(name.as_str(), if_version)?;
        let administered = makes_administrators(&definition).then(|| Administered::of(self.tables));
        self.drop_definition(&definition);
        if let Some(administered) = administered
            && let Err(refusal) = self.still_administered(administered, "roleBindings")
        {
            self.add(&definition)?;
            self.undo_rbac(&definition);
            return Err(refusal);
        }
        self.narrowed(&definition.subjects);
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

    /// Ends what is open on behalf of those who lost something, and of nobody else. It is waited for in any case: who lost something
    /// before, in a change that was not waited for to its end, is refused by all only after this one.
    fn narrowed(&mut self, losers: &[Subject]) {
        self.effects.policy_changed = true;
        self.restricts = true;
        let mut cuts = Vec::new();
        for subject in losers {
            match subject {
                Subject::User(email) => cuts.extend(self.named::<User>(email.as_str()).map(|u| Cut::Owner(u.id)).ok()),
                Subject::Group(name) => {
                    let group = self.named::<Group>(name.as_str());
                    cuts.extend(group.iter().flat_map(|g| g.members.iter().copied().map(Cut::Owner)));
                }
                Subject::ServiceAccount(name) => {
                    let account = self.named::<ServiceAccount>(name.as_str());
                    cuts.extend(account.map(|a| Cut::Owner(a.id)).ok());
                }
                Subject::McpToken(hash) => cuts.push(Cut::Token(*hash)),
            }
            if cuts.len() > CUTS_MAX {
                cuts = vec![Cut::All];
                break;
            }
        }
        self.effects.cuts.extend(cuts);
    }

    fn undo_rbac(&mut self, before: &RbacDefinition) {
        if let Ok(now) = self.named::<RbacDefinition>(&before.name) {
            self.unindex_subjects(&now);
        }
        self.index_subjects(before);
        self.save(before);
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
}

/// The subjects of a definition that may do less after its change than before: those who are not in it any more, and all of them
/// if it grants less than it did.
fn losers(before: &RbacDefinition, after: &RbacDefinition) -> Vec<Subject> {
    let grants: Grants = after.role_bindings.iter().cloned().collect();
    let narrower = !before.role_bindings.iter().all(|binding| grants.cover(binding));
    let loses = |subject: &&Subject| narrower || !after.subjects.contains(subject);
    before.subjects.iter().filter(loses).cloned().collect()
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
