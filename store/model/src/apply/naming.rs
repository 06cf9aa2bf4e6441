//! What all named records share: finding by name, the name's uniqueness, the version check.

use super::Step;
use crate::command::Refusal;
use crate::ids::Id;
use crate::records::{Group, Origin, Project, RbacDefinition, Secret, Server, ServiceAccount, User};
use crate::tables::{self, Stored, Table};

/// A record that people call by name.
pub(super) trait Named: Stored {
    /// The table that maps its name to its id.
    const NAMES: Table;
    /// What people call its kind.
    const NOUN: &'static str;
    fn id(&self) -> Id;
    fn called(&self) -> &str;
    fn origin_mut(&mut self) -> &mut Origin;
}

macro_rules! named {
    ($type:ident, $names:ident, $noun:literal, |$r:ident| $called:expr) => {
        impl Named for $type {
            const NAMES: Table = Table::$names;
            const NOUN: &'static str = $noun;
            fn id(&self) -> Id {
                self.id
            }
            fn called(&self) -> &str {
                let $r = self;
                $called
            }
            fn origin_mut(&mut self) -> &mut Origin {
                &mut self.origin
            }
        }
    };
}

named!(User, UserEmails, "user", |r| r.email.as_str());
named!(Project, ProjectNames, "project", |r| r.name.as_str());
named!(Server, ServerNames, "server", |r| r.name.as_str());
named!(RbacDefinition, RbacNames, "rbac", |r| &r.name);
named!(Group, GroupNames, "group", |r| r.name.as_str());
named!(ServiceAccount, ServiceAccountNames, "serviceaccount", |r| r
    .name
    .as_str());
named!(Secret, SecretNames, "secret", |r| r.name.as_str());

impl Step<'_> {
    pub(super) fn named<T: Named>(&self, name: &str) -> Result<T, Refusal> {
        let found = tables::by_name(self.tables, T::NAMES, name.as_bytes());
        found.ok_or_else(|| Refusal::NotFound {
            kind: T::NOUN.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The record of that name, if it is still at the version that the caller saw.
    pub(super) fn named_at<T: Named>(&self, name: &str, if_version: Option<u64>) -> Result<T, Refusal> {
        let mut record: T = self.named(name)?;
        let version = record.origin_mut().version;
        if if_version.is_some_and(|seen| seen != version) {
            return Err(Refusal::VersionMismatch {
                kind: T::NOUN.to_owned(),
                name: name.to_owned(),
                version,
            });
        }
        Ok(record)
    }

    /// Stores a new record unless its name or id is taken.
    pub(super) fn add<T: Named>(&mut self, record: &T) -> Result<Id, Refusal> {
        let taken = self.tables.get(T::NAMES, record.called().as_bytes()).is_some();
        if taken || self.tables.get(T::TABLE, &record.key()).is_some() {
            return Err(Refusal::NameTaken {
                kind: T::NOUN.to_owned(),
                name: record.called().to_owned(),
            });
        }
        self.tables
            .put(T::NAMES, record.called().as_bytes(), record.id().to_bytes().to_vec());
        self.save(record);
        Ok(record.id())
    }

    /// Stores a changed record at this index.
    pub(super) fn change<T: Named>(&mut self, mut record: T) -> Id {
        record.origin_mut().version = self.index;
        self.save(&record);
        record.id()
    }

    pub(super) fn drop_named<T: Named>(&mut self, record: &T) {
        self.tables.remove(T::NAMES, record.called().as_bytes());
        self.tables.remove(T::TABLE, &record.key());
    }
}
