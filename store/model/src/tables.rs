//! The replicated state as ordered tables of framed records, whoever keeps them: redb in a node, a map in a test.

use std::collections::BTreeMap;

use crate::frame::{self, Framed};
use crate::ids::Id;

/// A key: compared byte by byte.
pub type Key = Vec<u8>;

/// The tables. The discriminant is part of the snapshot format: append-only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "a table is named after its records")]
pub enum Table {
    Cluster = 1,
    Users = 2,
    /// E-mail to id.
    UserEmails = 3,
    Sessions = 4,
    Projects = 5,
    /// Name to id.
    ProjectNames = 6,
    Servers = 7,
    /// Name to id.
    ServerNames = 8,
    Rbac = 9,
    /// Name to id.
    RbacNames = 10,
    Tokens = 11,
    /// Hash to id, of tokens in every status.
    TokenHashes = 12,
    /// Project id and name to id, of active tokens.
    TokenNames = 13,
    Tombstones = 14,
    ToolLists = 15,
    Nodes = 16,
    Retired = 17,
    Audit = 18,
    /// Command id to its outcome.
    Replies = 19,
    /// Log index and position to command id: the order in which outcomes are forgotten.
    ReplyOrder = 20,
    /// Expiry and token id, of active tokens that expire.
    Expiries = 21,
    /// Subject and definition id.
    RbacSubjects = 22,
    /// Hash to the one-time secret behind it.
    SetupSecrets = 23,
    /// Hash to the join token behind it.
    JoinTokens = 24,
    /// Node id to the part that the node is to play.
    Enrolments = 25,
    Groups = 26,
    /// Name to id.
    GroupNames = 27,
    /// User id and group id.
    GroupMembers = 28,
    ServiceAccounts = 29,
    /// Name to id.
    ServiceAccountNames = 30,
    Secrets = 31,
    /// Name to id.
    SecretNames = 32,
    /// Id of a user or service account, and session hash.
    SessionOwners = 33,
    /// Id of a user or service account, and token id, of active tokens.
    TokenOwners = 34,
    /// Restore id and number of the part: pieces of a backup that is about to be restored.
    Restoring = 35,
    /// Server id to what its tools look like.
    ToolWatches = 40,
    /// Server id to its limits, where it has any of its own.
    ServerLimits = 41,
    /// Project id to its limits, where it has any of its own.
    ProjectLimits = 42,
}

impl Table {
    /// Every table, in the order of a snapshot.
    pub const ALL: [Table; 38] = [
        Table::Cluster,
        Table::Users,
        Table::UserEmails,
        Table::Sessions,
        Table::Projects,
        Table::ProjectNames,
        Table::Servers,
        Table::ServerNames,
        Table::Rbac,
        Table::RbacNames,
        Table::Tokens,
        Table::TokenHashes,
        Table::TokenNames,
        Table::Tombstones,
        Table::ToolLists,
        Table::Nodes,
        Table::Retired,
        Table::Audit,
        Table::Replies,
        Table::ReplyOrder,
        Table::Expiries,
        Table::RbacSubjects,
        Table::SetupSecrets,
        Table::JoinTokens,
        Table::Enrolments,
        Table::Groups,
        Table::GroupNames,
        Table::GroupMembers,
        Table::ServiceAccounts,
        Table::ServiceAccountNames,
        Table::Secrets,
        Table::SecretNames,
        Table::SessionOwners,
        Table::TokenOwners,
        Table::Restoring,
        Table::ToolWatches,
        Table::ServerLimits,
        Table::ProjectLimits,
    ];
}

/// A record with a place.
pub trait Stored: Framed {
    /// Where it is kept.
    const TABLE: Table;
    /// Under which key.
    fn key(&self) -> Key;
}

/// Reading the state. A fault of the store is not this trait's business: an implementation remembers it, answers as if
/// there were nothing, and whoever opened the tables throws the result away.
pub trait Tables {
    /// The bytes under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;
    /// Up to `limit` entries whose keys begin with `prefix` and are greater than `after`, in order.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Key, Vec<u8>)>;
    /// Says that a record cannot be read. The state must not be served any more.
    fn corrupt(&self, table: Table, key: &[u8], why: frame::FrameError);
}

/// Changing the state: given to `apply` and to nobody else.
pub trait TablesMut: Tables {
    /// Puts `value` under `key`.
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>);
    /// Takes away what is under `key`; says whether there was anything.
    fn remove(&mut self, table: Table, key: &[u8]) -> bool;
}

/// The record of type `T` under `key`.
pub fn load<T: Stored>(tables: &(impl Tables + ?Sized), key: &[u8]) -> Option<T> {
    read(tables, key, &tables.get(T::TABLE, key)?)
}

/// The record of type `T` with this id.
pub fn by_id<T: Stored>(tables: &(impl Tables + ?Sized), id: Id) -> Option<T> {
    load(tables, &id.to_bytes())
}

/// The record of type `T` that `names` knows under `name`.
pub fn by_name<T: Stored>(tables: &(impl Tables + ?Sized), names: Table, name: &[u8]) -> Option<T> {
    load(tables, &tables.get(names, name)?)
}

/// Up to `limit` records of type `T` after the key `after`, in the order of their keys.
pub fn list<T: Stored>(tables: &(impl Tables + ?Sized), after: Option<&[u8]>, limit: usize) -> Vec<T> {
    let rows = tables.scan(T::TABLE, &[], after, limit);
    rows.iter()
        .filter_map(|(key, bytes)| read(tables, key, bytes))
        .collect()
}

/// Stores a record under its key.
pub fn save<T: Stored>(tables: &mut (impl TablesMut + ?Sized), record: &T) {
    tables.put(T::TABLE, &record.key(), frame::encode(record));
}

fn read<T: Stored>(tables: &(impl Tables + ?Sized), key: &[u8], bytes: &[u8]) -> Option<T> {
    frame::decode(bytes)
        .inspect_err(|why| tables.corrupt(T::TABLE, key, *why))
        .ok()
}

/// The state in memory: for tests, simulations and the check of a snapshot.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MemTables {
    rows: BTreeMap<(Table, Key), Vec<u8>>,
}

impl Tables for MemTables {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.get(&(table, key.to_vec())).cloned()
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Key, Vec<u8>)> {
        let from = after.map_or_else(|| prefix.to_vec(), <[u8]>::to_vec);
        self.rows
            .range((table, from)..)
            .take_while(|((t, _), _)| *t == table)
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take_while(|((_, key), _)| key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn corrupt(&self, table: Table, key: &[u8], why: frame::FrameError) {
        panic!("{table:?} {key:?}: {why}");
    }
}

impl TablesMut for MemTables {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.rows.insert((table, key.to_vec()), value);
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        self.rows.remove(&(table, key.to_vec())).is_some()
    }
}
