//! What is shown of those who may do things, and of what they may do.

use mcp_api::groups::GroupBody;
use mcp_api::rbac::RbacBody;
use mcp_api::secrets::SecretBody;
use mcp_api::serviceaccounts::ServiceAccountBody;
use mcp_api::sessions::SessionBody;
use mcp_api::users::UserBody;

use super::words::{at, bindings, by, listed, or_none};
use super::{Object, ago};
use crate::kinds::Kind;

impl Object for RbacBody {
    const KIND: Kind = Kind::Rbac;
    const COLUMNS: &'static [&'static str] = &["NAME", "SUBJECTS", "BINDINGS"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &["subjects", "roleBindings"];

    fn name(&self) -> String {
        self.name.clone()
    }

    /// What a token was granted is made and removed with the token.
    fn is_written_by_hand(&self) -> bool {
        !self.name.starts_with("mcptoken-")
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            subjects(self, " "),
            bindings(&self.role_bindings, " "),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Subjects", or_none(subjects(self, "\n"))),
            ("Bindings", or_none(bindings(&self.role_bindings, "\n"))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for UserBody {
    const KIND: Kind = Kind::Users;
    const COLUMNS: &'static [&'static str] = &["EMAIL", "NAME", "DISABLED", "CREATED"];
    const WIDE: &'static [&'static str] = &["VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &["name", "disabled"];

    fn name(&self) -> String {
        self.email.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.email.clone(),
            self.name.clone(),
            self.disabled.to_string(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("E-mail", self.email.clone()),
            ("Id", self.id.clone()),
            ("Name", self.name.clone()),
            ("Disabled", self.disabled.to_string()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for GroupBody {
    const KIND: Kind = Kind::Groups;
    const COLUMNS: &'static [&'static str] = &["NAME", "MEMBERS", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &["description", "members"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            listed(&self.members),
            self.description.clone(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.description.clone()),
            ("Members", or_none(self.members.join("\n"))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for ServiceAccountBody {
    const KIND: Kind = Kind::ServiceAccounts;
    const COLUMNS: &'static [&'static str] = &["NAME", "DESCRIPTION", "CREATED"];
    const WIDE: &'static [&'static str] = &["VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &["description"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.description.clone(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.description.clone()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

/// Values never come back, so a file made from one has none; applied again it leaves them as they are.
impl Object for SecretBody {
    const KIND: Kind = Kind::Secrets;
    const COLUMNS: &'static [&'static str] = &["NAME", "KEYS", "DESCRIPTION", "CREATED"];
    const WIDE: &'static [&'static str] = &["VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &["description"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            listed(&self.keys),
            self.description.clone(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.description.clone()),
            ("Keys", or_none(self.keys.join("\n"))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for SessionBody {
    const KIND: Kind = Kind::Sessions;
    const COLUMNS: &'static [&'static str] = &["ID", "OF", "CREATED", "ENDS", "THIS ONE"];
    const WIDE: &'static [&'static str] = &["OPENED BY", "VERSION"];
    const FIELDS: &'static [&'static str] = &[];

    fn name(&self) -> String {
        self.id.clone()
    }

    fn order(&self) -> String {
        self.created_at.clone()
    }

    fn is_written_by_hand(&self) -> bool {
        false
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.id.clone(),
            holder(self),
            ago(&self.created_at, now_ms),
            ago(&self.expires_at, now_ms),
            if self.current { "yes" } else { "" }.to_owned(),
            self.created_by.clone(),
            self.resource_version.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.clone()),
            ("Of", holder(self)),
            ("This one", self.current.to_string()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Ends", at(Some(&self.expires_at), now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

fn holder(session: &SessionBody) -> String {
    match (&session.user, &session.service_account) {
        (Some(user), _) => user.clone(),
        (None, Some(account)) => format!("ServiceAccount:{account}"),
        (None, None) => "-".to_owned(),
    }
}

fn subjects(definition: &RbacBody, between: &str) -> String {
    let subjects = definition.subjects.iter().map(|s| format!("{}:{}", s.kind, s.name));
    subjects.collect::<Vec<_>>().join(between)
}
