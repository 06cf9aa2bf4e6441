//! Restoring a backup: its pieces are laid down one by one, and one command then restores all of it or nothing. Rule 10.
//!
//! Afterwards the cluster's objects are those of the backup, with what only the running cluster can know kept: who it consists
//! of, who was refused, who is disabled, and whose password is which. **A token is let in after a restore only if it was let in
//! before**, unless that is asked for: the running cluster's word on who is refused is newer than the backup's, and of a token
//! that it never knew it cannot say whether it was revoked in the meantime.

use std::collections::{BTreeMap, BTreeSet};

use super::administrators::{Administered, SETUP_SECRETS_MAX, refuse_lost};
use super::naming::Named;
use super::rbac::TOKEN_DEFINITION_PREFIX;
use super::tokens::{definition_name, name_key};
use super::{Cut, Step};
use crate::backup::{self, BODY_BYTES_MAX, Contents, Header};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Action, Grants, Subject};
use crate::records::{
    ClusterRecord, McpToken, Project, RbacDefinition, Session, SetupSecret, TokenStatus, Tombstone, User,
};
use crate::reply::Restored;
use crate::tables::{self, Key, Stored, Table, Tables};
use crate::token::TokenHash;

/// Bytes of one piece.
pub const PART_BYTES_MAX: usize = 256 * 1024;
/// Pieces of one restore.
pub const PARTS_MAX: u32 = 2 * (BODY_BYTES_MAX / (256 * 1024)) as u32;
/// Records that are looked through at a time.
const SCAN: usize = 1_000;
/// What a restore replaces: the objects, and whatever is found again from them.
const REPLACED: [Table; 20] = [
    Table::Users,
    Table::UserEmails,
    Table::Groups,
    Table::GroupNames,
    Table::GroupMembers,
    Table::ServiceAccounts,
    Table::ServiceAccountNames,
    Table::Projects,
    Table::ProjectNames,
    Table::Servers,
    Table::ServerNames,
    Table::Secrets,
    Table::SecretNames,
    Table::Rbac,
    Table::RbacNames,
    Table::RbacSubjects,
    Table::ToolLists,
    Table::ToolWatches,
    Table::ServerLimits,
    Table::ProjectLimits,
];

/// What is asked of a restore.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Names the restore whose pieces were laid down.
    pub restore: Id,
    /// The head of the backup.
    pub head: &'a [u8],
    /// Whether tokens come back that are refused now.
    pub revive_tokens: bool,
    /// Whether the backup may be of another cluster.
    pub any_cluster: bool,
    /// The time at which it is decided what has expired, ms since 1970.
    pub now_ms: u64,
}

/// What a restore would change, decided before anything is changed.
struct Plan {
    header: Header,
    contents: Contents,
    /// Active now, and refused from then on.
    away: Vec<Id>,
    /// Refused or unknown now, and let in from then on.
    revived: Vec<McpToken>,
    /// The bindings of every token that is active afterwards.
    own: Vec<RbacDefinition>,
    /// Hashes that are refused from then on, though this cluster did not know them.
    buried: Vec<(TokenHash, Option<u64>)>,
    /// Sessions whose owner is not there any more.
    closed: Vec<Session>,
    summary: Restored,
}

/// Says what a restore would change, or why it is refused. Nothing is changed.
pub fn preview(tables: &(impl Tables + ?Sized), wish: Wish<'_>) -> Result<Restored, Refusal> {
    Ok(plan(tables, wish)?.summary)
}

impl Step<'_> {
    pub(super) fn stage_restore(&mut self, restore: Id, part: u32, bytes: &[u8]) -> Result<Reply, Refusal> {
        self.rights().need_restore()?;
        if part >= PARTS_MAX || bytes.is_empty() || bytes.len() > PART_BYTES_MAX {
            return Err(invalid(
                "part",
                "a piece of a backup has 1 byte to 256 KiB, and there are at most 8,192",
            ));
        }
        if part == 0 {
            self.forget_pieces(|_| true);
        }
        self.tables
            .put(Table::Restoring, &piece_key(restore, part), bytes.to_vec());
        Ok(Reply::Noted)
    }

    pub(super) fn drop_restore(&mut self, restore: Id) -> Result<Reply, Refusal> {
        self.rights().need_restore()?;
        self.forget_pieces(|of| of == restore);
        Ok(Reply::Deleted { id: restore })
    }

    pub(super) fn finish_restore(
        &mut self,
        restore: Id,
        head: &[u8],
        revive_tokens: bool,
        any_cluster: bool,
    ) -> Result<Reply, Refusal> {
        self.about("backup");
        self.rights().need_restore()?;
        let wish = Wish {
            restore,
            head,
            revive_tokens,
            any_cluster,
            now_ms: self.now_ms,
        };
        let plan = plan(self.tables, wish)?;
        let Header { cluster_id, index, .. } = plan.header;
        let how = if revive_tokens { ", reviving tokens" } else { "" };
        self.about(format!("backup of cluster {cluster_id} at index {index}{how}"));
        // From here on nothing is refused any more.
        for id in &plan.away {
            if let Some(token) = tables::by_id::<McpToken>(self.tables, *id) {
                self.tables
                    .remove(Table::TokenNames, &name_key(token.project, token.name.as_str()));
                self.take_away(token, TokenStatus::Revoked);
            }
        }
        plan.closed.iter().for_each(|session| self.drop_session(session));
        REPLACED.iter().for_each(|table| self.wipe(*table));
        self.put_back(plan.contents);
        plan.own.iter().for_each(|definition| self.index_subjects(definition));
        self.put_all(plan.own);
        plan.revived.iter().for_each(|token| self.revive(token));
        for (hash, expires_ms) in &plan.buried {
            self.save(&Tombstone {
                hash: *hash,
                index: self.index,
                expires_ms: *expires_ms,
            });
        }
        self.forget_pieces(|_| true);
        self.effects.policy_changed = true;
        self.effects.restored = true;
        self.effects.cuts.push(Cut::All);
        self.restricts = true;
        Ok(Reply::Restored(plan.summary))
    }

    fn put_back(&mut self, contents: Contents) {
        self.put_all(contents.users);
        self.put_all(contents.accounts);
        self.put_all(contents.servers);
        self.put_all(contents.projects);
        self.put_all(contents.secrets);
        contents.groups.iter().for_each(|group| self.index_members(group));
        self.put_all(contents.groups);
        contents
            .definitions
            .iter()
            .for_each(|definition| self.index_subjects(definition));
        self.put_all(contents.definitions);
        for list in contents.lists {
            self.save(&crate::records::ToolList {
                version: self.index,
                ..list
            });
        }
        contents.watches.iter().for_each(|watch| self.save(watch));
        contents.server_limits.iter().for_each(|limits| self.save(limits));
        contents.project_limits.iter().for_each(|limits| self.save(limits));
    }

    /// `plan` has seen to it that no name and no id is there twice.
    fn put_all<T: Named>(&mut self, records: Vec<T>) {
        for mut record in records {
            record.origin_mut().version = self.index;
            self.tables
                .put(T::NAMES, record.called().as_bytes(), record.id().to_bytes().to_vec());
            self.save(&record);
        }
    }

    fn revive(&mut self, token: &McpToken) {
        self.tables.remove(Table::Tombstones, &token.hash.0);
        let mut token = token.clone();
        token.origin.version = self.index;
        self.enlist(&token);
        self.effects.tokens_changed.push(token.id);
    }

    fn forget_pieces(&mut self, which: impl Fn(Id) -> bool) {
        let mut after: Option<Key> = None;
        loop {
            // One at a time: a piece is long.
            let some = self.tables.scan(Table::Restoring, &[], after.as_deref(), 1);
            let Some((key, _)) = some.into_iter().next() else {
                return;
            };
            if key.get(..16).and_then(Id::from_slice).is_none_or(&which) {
                self.tables.remove(Table::Restoring, &key);
            }
            after = Some(key);
        }
    }

    fn wipe(&mut self, table: Table) {
        loop {
            let some = self.tables.scan(table, &[], None, SCAN);
            for (key, _) in &some {
                self.tables.remove(table, key);
            }
            if some.len() < SCAN {
                return;
            }
        }
    }
}

fn plan(tables: &(impl Tables + ?Sized), wish: Wish<'_>) -> Result<Plan, Refusal> {
    let header = backup::header(wish.head).map_err(|damage| invalid("backup", &damage.to_string()))?;
    let ours = tables::load::<ClusterRecord>(tables, &[0]).map(|cluster| cluster.cluster_id);
    if ours != Some(header.cluster_id) && !wish.any_cluster {
        let why = format!(
            "it is of cluster {}, and this is cluster {}: to restore it all the same say so (--other-cluster)",
            header.cluster_id,
            ours.map_or_else(|| "none".to_owned(), |id| id.to_string())
        );
        return Err(invalid("backup", &why));
    }
    if header.body_bytes > BODY_BYTES_MAX {
        return Err(invalid("backup", "it is longer than 1 GiB"));
    }
    if tables.get(Table::Restoring, &piece_key(wish.restore, 0)).is_none() && header.body_bytes > 0 {
        return Err(Refusal::NotFound {
            kind: "restore".to_owned(),
            name: wish.restore.to_string(),
        });
    }
    let mut part = 0;
    let pieces = || {
        part += 1;
        tables.get(Table::Restoring, &piece_key(wish.restore, part - 1))
    };
    let (header, mut contents) =
        backup::read_body(header, pieces).map_err(|damage| invalid("backup", &damage.to_string()))?;
    let mut own_of = own_definitions(&mut contents);
    check(&contents)?;
    let mut summary = Restored {
        backup_index: header.index,
        ..Restored::default()
    };
    keep_what_is_known_of_users(tables, &mut contents, &mut summary);
    refuse_lost(Administered::of(tables), administered(tables, &contents), "backup")?;
    let fate = Fate {
        tables,
        wish,
        owners: owners(&contents),
        projects: contents.projects.iter().map(|p| (p.id, p.name.clone())).collect(),
    };
    let mut plan = Plan {
        header,
        away: Vec::new(),
        revived: Vec::new(),
        own: Vec::new(),
        buried: Vec::new(),
        closed: Vec::new(),
        contents,
        summary,
    };
    fate.decide(&mut plan, &mut own_of);
    let own: BTreeSet<Id> = plan.own.iter().map(|d| d.id).collect();
    if plan.contents.definitions.iter().any(|d| own.contains(&d.id)) {
        return Err(invalid("backup", "a definition in it has the id of a token"));
    }
    each(tables, |session: Session| {
        let stays = fate.owners.get(&session.user).is_some_and(|enabled| *enabled);
        if !stays {
            plan.summary.sessions_closed += 1;
            plan.closed.push(session);
        }
    });
    Ok(plan)
}

/// What becomes of tokens.
struct Fate<'a, T: ?Sized> {
    tables: &'a T,
    wish: Wish<'a>,
    /// Who can own tokens and sessions afterwards, and whether they are enabled.
    owners: BTreeMap<Id, bool>,
    projects: BTreeMap<Id, Name>,
}

impl<T: Tables + ?Sized> Fate<'_, T> {
    fn decide(&self, plan: &mut Plan, own_of: &mut BTreeMap<Id, RbacDefinition>) {
        let good: BTreeMap<Id, &McpToken> = plan
            .contents
            .tokens
            .iter()
            .filter(|t| t.status == TokenStatus::Active && self.has_a_place(t))
            .map(|t| (t.id, t))
            .collect();
        let mut kept: BTreeSet<(Id, Name)> = BTreeSet::new();
        each(self.tables, |token: McpToken| {
            if token.status != TokenStatus::Active {
                return;
            }
            if good.get(&token.id).is_some_and(|was| same(was, &token)) {
                kept.insert((token.project, token.name.clone()));
                let own: Option<RbacDefinition> = tables::by_id(self.tables, token.id);
                plan.own.extend(own.filter(|d| d.name == definition_name(token.id)));
                return;
            }
            plan.summary.revoked.add(self.full_name(&token));
            plan.away.push(token.id);
        });
        let mut taken: BTreeSet<TokenHash> = BTreeSet::new();
        for token in &plan.contents.tokens {
            let now: Option<McpToken> = tables::by_id(self.tables, token.id);
            let lives = now
                .as_ref()
                .is_some_and(|n| n.status == TokenStatus::Active && same(n, token));
            if lives {
                continue;
            }
            let place = (token.project, token.name.clone());
            let comes_back = self.wish.revive_tokens
                && good.contains_key(&token.id)
                && token.expires_ms.is_none_or(|at| at > self.wish.now_ms)
                && now.as_ref().is_none_or(|n| same(n, token))
                && self.is_free(token)
                && !kept.contains(&place)
                && taken.insert(token.hash);
            if comes_back {
                kept.insert(place);
                plan.summary.revived.add(self.full_name(token));
                plan.own.extend(own_of.remove(&token.id));
                plan.revived.push(token.clone());
                continue;
            }
            if token.status == TokenStatus::Active {
                plan.summary.refused.add(self.full_name(token));
            }
            self.bury(plan.buried.as_mut(), token.hash, token.expires_ms);
        }
        let revived: BTreeSet<TokenHash> = plan.revived.iter().map(|t| t.hash).collect();
        for stone in &plan.contents.tombstones {
            if !revived.contains(&stone.hash) {
                self.bury(plan.buried.as_mut(), stone.hash, stone.expires_ms);
            }
        }
    }

    /// A tombstone of the running cluster stays as it is; a bearer that is let in gets none.
    fn bury(&self, buried: &mut Vec<(TokenHash, Option<u64>)>, hash: TokenHash, expires_ms: Option<u64>) {
        let known = self.tables.get(Table::Tombstones, &hash.0).is_some()
            || self.tables.get(Table::TokenHashes, &hash.0).is_some();
        if !known {
            buried.push((hash, expires_ms));
        }
    }

    fn has_a_place(&self, token: &McpToken) -> bool {
        self.owners.contains_key(&token.owner) && self.projects.contains_key(&token.project)
    }

    /// Whether its hash is nobody else's.
    fn is_free(&self, token: &McpToken) -> bool {
        let holder = self.tables.get(Table::TokenHashes, &token.hash.0);
        holder.is_none_or(|id| Id::from_slice(&id) == Some(token.id))
    }

    fn full_name(&self, token: &McpToken) -> String {
        let now = || tables::by_id::<Project>(self.tables, token.project).map(|p| p.name);
        let project = self.projects.get(&token.project).cloned().or_else(now);
        project.map_or_else(|| format!("-/{}", token.name), |p| format!("{p}/{}", token.name))
    }
}

fn same(one: &McpToken, other: &McpToken) -> bool {
    (one.id, one.hash, one.project, one.owner) == (other.id, other.hash, other.project, other.owner)
}

/// Takes out the definitions that hold the bindings of tokens.
fn own_definitions(contents: &mut Contents) -> BTreeMap<Id, RbacDefinition> {
    let all = std::mem::take(&mut contents.definitions);
    let (own, people): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|d| d.name.starts_with(TOKEN_DEFINITION_PREFIX));
    contents.definitions = people;
    let own = own.into_iter().filter(|d| d.name == definition_name(d.id));
    own.map(|d| (d.id, d)).collect()
}

/// A checksum says that a backup is what was written, and not that it makes sense.
fn check(contents: &Contents) -> Result<(), Refusal> {
    once(&contents.users)?;
    once(&contents.groups)?;
    once(&contents.accounts)?;
    once(&contents.projects)?;
    once(&contents.servers)?;
    once(&contents.secrets)?;
    once(&contents.definitions)?;
    let users: BTreeSet<Id> = contents.users.iter().map(|u| u.id).collect();
    let servers: BTreeSet<Id> = contents.servers.iter().map(|s| s.id).collect();
    if contents.accounts.iter().any(|account| users.contains(&account.id)) {
        return Err(invalid("backup", "a user and a service account in it have the same id"));
    }
    for group in &contents.groups {
        if group.members.iter().any(|id| !users.contains(id)) {
            return Err(invalid(
                "backup",
                &format!("group {} in it has a member who is not in it", group.name),
            ));
        }
    }
    for project in &contents.projects {
        if project.spec.servers.iter().any(|id| !servers.contains(id)) {
            let why = format!("project {} in it has a server that is not in it", project.name);
            return Err(invalid("backup", &why));
        }
    }
    Ok(())
}

fn once<T: Named>(records: &[T]) -> Result<(), Refusal> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        if !ids.insert(record.id()) || !names.insert(record.called()) {
            let why = format!("{} {:?} is in it twice", T::NOUN, record.called());
            return Err(invalid("backup", &why));
        }
    }
    Ok(())
}

/// Whoever is disabled stays disabled, and nobody gets an old password back: both may have been changed for a reason.
fn keep_what_is_known_of_users(tables: &(impl Tables + ?Sized), contents: &mut Contents, summary: &mut Restored) {
    for user in &mut contents.users {
        match tables::by_id::<User>(tables, user.id) {
            Some(now) => {
                user.disabled |= now.disabled;
                user.password_hash = now.password_hash;
            }
            None => summary.users_back.add(user.email.to_string()),
        }
    }
}

fn owners(contents: &Contents) -> BTreeMap<Id, bool> {
    let users = contents.users.iter().map(|u| (u.id, !u.disabled));
    users.chain(contents.accounts.iter().map(|a| (a.id, true))).collect()
}

/// Who would administer the cluster (rule 8).
fn administered(tables: &(impl Tables + ?Sized), contents: &Contents) -> Administered {
    let secrets: Vec<SetupSecret> = tables::list(tables, None, SETUP_SECRETS_MAX);
    let mut all = Administered::default();
    for user in contents.users.iter().filter(|user| !user.disabled) {
        let groups = contents.groups.iter().filter(|g| g.members.contains(&user.id));
        let groups: BTreeSet<&Name> = groups.map(|g| &g.name).collect();
        let is_theirs = |subject: &Subject| match subject {
            Subject::User(email) => *email == user.email,
            Subject::Group(name) => groups.contains(name),
            Subject::ServiceAccount(_) | Subject::McpToken(_) => false,
        };
        let theirs = contents.definitions.iter().filter(|d| d.subjects.iter().any(is_theirs));
        let grants: Grants = theirs.flat_map(|d| d.role_bindings.iter().cloned()).collect();
        if grants.is_admin_of_all() {
            let everything = grants.allow_action(Action::Any);
            let way_in = user.password_hash.is_some() || secrets.iter().any(|secret| secret.user == user.id);
            all.admin = true;
            all.everything |= everything;
            all.admin_with_a_way_in |= way_in;
            all.everything_with_a_way_in |= everything && way_in;
        }
    }
    all
}

/// Hands every record of a kind to `f`.
fn each<T: Stored>(tables: &(impl Tables + ?Sized), mut f: impl FnMut(T)) {
    let mut after: Option<Key> = None;
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

fn piece_key(restore: Id, part: u32) -> Key {
    let mut key = restore.to_bytes().to_vec();
    key.extend_from_slice(&part.to_be_bytes());
    key
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why: why.to_owned(),
    }
}
