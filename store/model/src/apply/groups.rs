//! Groups. Members are kept by id: whoever gets an old e-mail inherits no membership.

use std::collections::BTreeSet;

use super::administrators::make_administrators;
use super::{Cut, Step};
use crate::authority::{GROUPS_PER_USER_MAX, grants_of, groups_of};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Resource, Subject, Verb};
use crate::records::{Group, User};
use crate::tables::{self, Table};

/// Users in one group.
pub const MEMBERS_MAX: usize = 10_000;

impl Step<'_> {
    pub(super) fn create_group(
        &mut self,
        id: Id,
        name: &Name,
        description: &str,
        members: &[Id],
    ) -> Result<Reply, Refusal> {
        self.about(format!("group {name}"));
        self.rights().need(Verb::Create, Resource::Groups, name.as_str())?;
        self.may_add(name, members, &[])?;
        let group = Group {
            id,
            name: name.clone(),
            description: description.to_owned(),
            members: members.to_vec(),
            origin: self.origin(),
        };
        let id = self.add(&group)?;
        self.index_members(&group);
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn update_group(
        &mut self,
        name: &Name,
        description: &str,
        members: &[Id],
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("group {name}"));
        self.rights().need(Verb::Update, Resource::Groups, name.as_str())?;
        let before: Group = self.named_at(name.as_str(), if_version)?;
        self.may_add(name, members, &before.members)?;
        let stay: BTreeSet<Id> = members.iter().copied().collect();
        let gone: BTreeSet<Id> = before.members.iter().filter(|id| !stay.contains(id)).copied().collect();
        let group = Subject::Group(name.clone());
        if !gone.is_empty() && make_administrators(&grants_of(self.tables, &group)) {
            self.keep_administered("members", |user, mut subjects| {
                subjects.retain(|subject| *subject != group);
                subjects.extend(stay.contains(&user.id).then(|| group.clone()));
                subjects
            })?;
        }
        // Who was removed before, in a change that was not waited for to its end, is refused by all only after this one.
        self.restricts = !gone.is_empty() || (before.members == members && before.description == description);
        self.unindex_members(&before);
        let after = Group {
            description: description.to_owned(),
            members: members.to_vec(),
            ..before
        };
        self.index_members(&after);
        let id = self.change(after);
        self.effects.policy_changed = true;
        self.effects.cuts.extend(gone.into_iter().map(Cut::Owner));
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_group(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("group {name}"));
        self.rights().need(Verb::Delete, Resource::Groups, name.as_str())?;
        let group: Group = self.named_at(name.as_str(), if_version)?;
        let subject = Subject::Group(name.clone());
        if make_administrators(&grants_of(self.tables, &subject)) {
            self.keep_administered("group", |_, mut subjects| {
                subjects.retain(|via| *via != subject);
                subjects
            })?;
        }
        self.strip_subject(&subject);
        self.unindex_members(&group);
        self.drop_named(&group);
        self.effects.policy_changed = true;
        self.effects.cuts.extend(group.members.iter().copied().map(Cut::Owner));
        self.restricts = true;
        Ok(Reply::Deleted { id: group.id })
    }

    /// Takes a user out of every group.
    pub(super) fn leave_groups(&mut self, user: Id) {
        loop {
            let groups = groups_of(self.tables, user);
            if groups.is_empty() {
                return;
            }
            for mut group in groups {
                self.tables.remove(Table::GroupMembers, &member_key(user, group.id));
                group.members.retain(|id| *id != user);
                self.change(group);
            }
        }
    }

    /// Rule 4: adding somebody hands them what the group confers, so the actor must hold all of it. Who is a member stays
    /// one without that.
    fn may_add(&self, name: &Name, members: &[Id], before: &[Id]) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            Err(Refusal::Invalid {
                field: "members".to_owned(),
                why: why.to_owned(),
            })
        };
        if members.len() > MEMBERS_MAX {
            return refuse("a group has at most 10,000 members");
        }
        let wanted: BTreeSet<Id> = members.iter().copied().collect();
        if wanted.len() < members.len() {
            return refuse("a member is named twice");
        }
        let before: BTreeSet<Id> = before.iter().copied().collect();
        let added: Vec<&Id> = wanted.difference(&before).collect();
        if !added.is_empty() {
            let conferred = grants_of(self.tables, &Subject::Group(name.clone()));
            self.rights().need_all_of(&conferred)?;
        }
        for id in added {
            if tables::by_id::<User>(self.tables, *id).is_none() {
                return Err(Refusal::NotFound {
                    kind: "user".to_owned(),
                    name: id.to_string(),
                });
            }
            let memberships = self
                .tables
                .scan(Table::GroupMembers, &id.to_bytes(), None, GROUPS_PER_USER_MAX);
            if memberships.len() >= GROUPS_PER_USER_MAX {
                return refuse("a member is in 1,000 groups already");
            }
        }
        Ok(())
    }

    pub(super) fn index_members(&mut self, group: &Group) {
        for user in &group.members {
            self.tables
                .put(Table::GroupMembers, &member_key(*user, group.id), Vec::new());
        }
    }

    fn unindex_members(&mut self, group: &Group) {
        for user in &group.members {
            self.tables.remove(Table::GroupMembers, &member_key(*user, group.id));
        }
    }
}

fn member_key(user: Id, group: Id) -> Vec<u8> {
    let mut key = user.to_bytes().to_vec();
    key.extend_from_slice(&group.to_bytes());
    key
}
