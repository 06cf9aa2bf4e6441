//! Rule 8: there is always somebody who can set everything right again.
//!
//! That is a user who is not disabled, can log in, and holds `admin` on `*` and `action:*`. Nothing less is enough: what nobody holds
//! nobody can grant, so a right that its last holder gives away is gone for good; and somebody without a way in is nobody.

use super::Step;
use crate::authority::{grants_of, subjects_of_user};
use crate::command::Refusal;
use crate::rbac::{Action, Grants, Subject};
use crate::records::{RbacDefinition, SetupSecret, User};
use crate::tables::{self, Tables};

/// Users that are looked through at a time.
const USERS_PER_SCAN: usize = 1_000;
/// Setup secrets that are looked through: `init` makes one for a cluster.
pub(super) const SETUP_SECRETS_MAX: usize = 100;

/// What somebody in the cluster is. A change may not take away the last of any: a cluster of an earlier version, or one whose
/// first administrator has no password yet, has not all of them, and keeps what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Administered {
    /// Holds `admin` on `*`.
    pub admin: bool,
    /// Holds `action:*` too, and so can hand on every right there is.
    pub everything: bool,
    /// Holds `admin` on `*`, and can log in.
    pub admin_with_a_way_in: bool,
    /// Holds everything, and can log in.
    pub everything_with_a_way_in: bool,
}

impl Administered {
    /// What the users of a cluster are.
    pub fn of(tables: &(impl Tables + ?Sized)) -> Administered {
        Administered::as_if(tables, |user| subjects_of_user(tables, user))
    }

    /// The same for a cluster in which these were the subjects of each user.
    fn as_if(tables: &(impl Tables + ?Sized), subjects: impl Fn(&User) -> Vec<Subject>) -> Administered {
        let mut all = Administered::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let some: Vec<User> = tables::list(tables, after.as_deref(), USERS_PER_SCAN);
            for user in some.iter().filter(|user| !user.disabled) {
                all.add(tables, user, subjects(user));
                if all.everything_with_a_way_in {
                    return all;
                }
            }
            match some.last() {
                Some(last) if some.len() == USERS_PER_SCAN => after = Some(last.id.to_bytes().to_vec()),
                _ => return all,
            }
        }
    }

    fn add(&mut self, tables: &(impl Tables + ?Sized), user: &User, subjects: Vec<Subject>) {
        let grants: Grants = subjects
            .iter()
            .flat_map(|s| grants_of(tables, s).into_bindings())
            .collect();
        if !grants.is_admin_of_all() {
            return;
        }
        let (everything, way_in) = (grants.allow_action(Action::Any), has_a_way_in(tables, user));
        self.admin = true;
        self.everything |= everything;
        self.admin_with_a_way_in |= way_in;
        self.everything_with_a_way_in |= everything && way_in;
    }

    /// What is lost from here to `after`, in words for people.
    fn lost(self, after: Administered) -> Option<&'static str> {
        let rows = [
            (
                self.admin,
                after.admin,
                "this would leave the cluster without an administrator",
            ),
            (
                self.everything,
                after.everything,
                "this would leave nobody who holds admin on * and action:* together: what nobody holds, nobody can grant again",
            ),
            (
                self.admin_with_a_way_in,
                after.admin_with_a_way_in,
                "this would leave the cluster without an administrator who can log in",
            ),
            (
                self.everything_with_a_way_in,
                after.everything_with_a_way_in,
                "this would leave nobody who can log in and holds admin on * and action:* together: what nobody holds, nobody \
                 can grant again",
            ),
        ];
        rows.into_iter()
            .find(|(before, after, _)| *before && !after)
            .map(|(_, _, why)| why)
    }
}

/// Whether a user can come to a session by themselves: by a password, or by a setup secret that gives them one.
fn has_a_way_in(tables: &(impl Tables + ?Sized), user: &User) -> bool {
    let offered = || {
        let some: Vec<SetupSecret> = tables::list(tables, None, SETUP_SECRETS_MAX);
        some.iter().any(|secret| secret.user == user.id)
    };
    user.password_hash.is_some() || offered()
}

/// Whether what is granted here is part of what makes an administrator: only then does a change of it need a look at who is left.
pub(super) fn make_administrators(grants: &Grants) -> bool {
    grants.is_admin_of_all() || grants.allow_action(Action::Any)
}

/// The same for a definition.
pub(super) fn makes_administrators(definition: &RbacDefinition) -> bool {
    make_administrators(&definition.role_bindings.iter().cloned().collect())
}

impl Step<'_> {
    /// Refuses a change after which somebody would be missing. `subjects` makes of a user's subjects what they would be.
    pub(super) fn keep_administered(
        &self,
        field: &str,
        subjects: impl Fn(&User, Vec<Subject>) -> Vec<Subject>,
    ) -> Result<(), Refusal> {
        let after = Administered::as_if(self.tables, |user| subjects(user, subjects_of_user(self.tables, user)));
        refuse_lost(Administered::of(self.tables), after, field)
    }

    /// The same for a change that is made already.
    pub(super) fn still_administered(&self, before: Administered, field: &str) -> Result<(), Refusal> {
        refuse_lost(before, Administered::of(self.tables), field)
    }
}

pub(super) fn refuse_lost(before: Administered, after: Administered, field: &str) -> Result<(), Refusal> {
    let Some(why) = before.lost(after) else { return Ok(()) };
    Err(Refusal::Invalid {
        field: field.to_owned(),
        why: why.to_owned(),
    })
}
