//! The form of a backup: a head that says what it is, and the records themselves, every byte of both under a SHA-256.
//!
//! ```text
//! MCPBKUP1 | format u16 | length u32 | header in a frame | SHA-256 of all before
//! body: (table u8 | length u32 | record in its frame) as often as there are records
//! ```
//!
//! The header holds the length and the SHA-256 of the body, so that the first bytes vouch for all that follow. What is found
//! again from the records (names, memberships, owners) is not in it, and neither is what belongs to the running cluster alone:
//! nodes, authority, sessions, join tokens, audit, answers to repeated commands. No I/O: bytes in, a verdict out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::frame::{self, FrameError, Framed};
use crate::ids::Id;
use crate::limits::{ProjectLimitsRecord, ServerLimitsRecord};
use crate::records::{
    Group, McpToken, Project, RbacDefinition, Secret, Server, ServiceAccount, Tombstone, ToolList, User,
};
use crate::tables::{Key, Table, Tables};
use crate::watch::ToolWatch;

/// The newest format that this program reads. It writes the oldest one that has a place for what there is: a backup without
/// limits and without watched tools is read by older programs too.
pub const FORMAT: u16 = 2;
/// The tables that a backup holds, in its order.
pub const TABLES: [Table; 13] = [
    Table::Users,
    Table::Groups,
    Table::ServiceAccounts,
    Table::Projects,
    Table::Servers,
    Table::Secrets,
    Table::Rbac,
    Table::Tokens,
    Table::Tombstones,
    Table::ToolLists,
    Table::ToolWatches,
    Table::ServerLimits,
    Table::ProjectLimits,
];
/// Those that older programs do not know.
const SINCE_FORMAT_2: [Table; 3] = [Table::ToolWatches, Table::ServerLimits, Table::ProjectLimits];
/// Longest body, in bytes: 1 GiB, which is some millions of tokens.
pub const BODY_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"MCPBKUP1";
const FIXED_BYTES: usize = MAGIC.len() + 2 + 4;
const DIGEST_BYTES: usize = 32;
/// Longest header: anything longer is none of ours.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Longest record: a command is shorter.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
const ROW_HEAD_BYTES: usize = 5;
const ROWS_PER_SCAN: usize = 1_000;

/// What a backup says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Whose state it is.
    pub cluster_id: Id,
    /// The log index up to which everything is in it, and nothing beyond.
    pub index: u64,
    /// When it was taken, ms since 1970.
    pub taken_ms: u64,
    /// The program that took it.
    pub program: String,
    /// What that program understood.
    pub feature_level: u32,
    /// Tells which data key the secrets were sealed under, without telling the key.
    pub key_id: [u8; 8],
    /// Records by the number of their table.
    pub counts: BTreeMap<u8, u64>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
}

impl Framed for Header {
    const KIND: u8 = 102;
}

impl Header {
    /// How many records of a table there are.
    pub fn count(&self, table: Table) -> u64 {
        self.counts.get(&(table as u8)).copied().unwrap_or(0)
    }
}

/// Why bytes are no backup that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// They begin like something else.
    #[error("this is not a backup: it does not begin like one")]
    NotABackup,
    /// The end is missing.
    #[error("the backup is cut off: {has} bytes are here, and {wants} belong to it")]
    CutOff {
        /// Bytes that are there.
        has: u64,
        /// Bytes that there should be, as far as they tell.
        wants: u64,
    },
    /// The first part was altered.
    #[error("the head of the backup is damaged: its checksum does not fit")]
    Head,
    /// A newer program made it.
    #[error(
        "the backup has format {found}, and this program reads formats up to {FORMAT}: use the program that made it"
    )]
    Newer {
        /// Its format.
        found: u16,
    },
    /// There are bytes behind its end.
    #[error("{extra} bytes that do not belong to it follow the end of the backup")]
    TooLong {
        /// How many.
        extra: u64,
    },
    /// One record was altered.
    #[error("record {number} of the backup ({table}) is damaged: {why}")]
    Record {
        /// Which, counted from 1.
        number: u64,
        /// `tokens`.
        table: &'static str,
        /// What is wrong with it.
        why: FrameError,
    },
    /// Something between the records was altered.
    #[error("the backup is damaged behind record {number}: what follows is no record")]
    NoRecord {
        /// The last record that could be read.
        number: u64,
    },
    /// Every record reads, and yet it is not what was written.
    #[error("the backup is damaged: the checksum of its records does not fit")]
    Body,
    /// The header says something else than what is there.
    #[error("the backup holds {found} {table} and says that it holds {said}")]
    Count {
        /// `tokens`.
        table: &'static str,
        /// In the header.
        said: u64,
        /// In the body.
        found: u64,
    },
}

/// What the records of a table are called.
pub fn noun(table: Table) -> &'static str {
    match table {
        Table::Users => "users",
        Table::Groups => "groups",
        Table::ServiceAccounts => "serviceaccounts",
        Table::Projects => "projects",
        Table::Servers => "servers",
        Table::Secrets => "secrets",
        Table::Rbac => "definitions",
        Table::Tokens => "tokens",
        Table::Tombstones => "tombstones",
        Table::ToolLists => "tool lists",
        Table::ToolWatches => "watched tools",
        Table::ServerLimits => "server limits",
        Table::ProjectLimits => "project limits",
        _ => "records",
    }
}

/// The bytes before the body.
pub fn head(header: &Header) -> Vec<u8> {
    let framed = frame::encode(header);
    let length = u32::try_from(framed.len()).expect("a header is short");
    let mut head = MAGIC.to_vec();
    let format: u16 = if SINCE_FORMAT_2.iter().any(|table| header.count(*table) > 0) {
        2
    } else {
        1
    };
    head.extend_from_slice(&format.to_be_bytes());
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&framed);
    let sum: [u8; DIGEST_BYTES] = Sha256::digest(&head).into();
    head.extend_from_slice(&sum);
    head
}

/// One record as it stands in the body.
fn row(table: Table, record: &[u8]) -> Vec<u8> {
    let length = u32::try_from(record.len()).expect("a record is shorter than 4 GiB");
    let mut row = Vec::with_capacity(ROW_HEAD_BYTES + record.len());
    row.push(table as u8);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(record);
    row
}

/// What a header says that is not found in the records.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Whose state it is.
    pub cluster_id: Id,
    /// The log index of the state.
    pub index: u64,
    /// When it is taken, ms since 1970.
    pub taken_ms: u64,
    /// The program that takes it.
    pub program: String,
    /// What that program understands.
    pub feature_level: u32,
    /// Tells which data key secrets are sealed under.
    pub key_id: [u8; 8],
}

/// Hands every row of the body to `f`, in order, until it has had enough.
pub fn each_row(tables: &(impl Tables + ?Sized), mut f: impl FnMut(Table, Vec<u8>) -> bool) {
    for table in TABLES {
        let mut after: Option<Key> = None;
        loop {
            let some = tables.scan(table, &[], after.as_deref(), ROWS_PER_SCAN);
            let full = some.len() == ROWS_PER_SCAN;
            for (key, record) in some {
                if !f(table, row(table, &record)) {
                    return;
                }
                after = Some(key);
            }
            if !full {
                break;
            }
        }
    }
}

/// The header of a backup of `tables`, which must not change until its rows are written.
pub fn survey(tables: &(impl Tables + ?Sized), occasion: Occasion) -> Header {
    let mut counts = BTreeMap::new();
    let (mut sum, mut body_bytes) = (Sha256::new(), 0);
    each_row(tables, |table, row| {
        *counts.entry(table as u8).or_default() += 1;
        sum.update(&row);
        body_bytes += wide(row.len());
        true
    });
    let Occasion {
        cluster_id,
        index,
        taken_ms,
        program,
        feature_level,
        key_id,
    } = occasion;
    Header {
        cluster_id,
        index,
        taken_ms,
        program,
        feature_level,
        key_id,
        counts,
        body_bytes,
        body_sha256: sum.finalize().into(),
    }
}

/// Reads the head at the beginning of `bytes`, and says how long it is. `None`: more bytes are needed.
fn read_head(bytes: &[u8]) -> Result<Option<(Header, usize)>, Damage> {
    let begins = bytes.len().min(MAGIC.len());
    if bytes[..begins] != MAGIC[..begins] {
        return Err(Damage::NotABackup);
    }
    if bytes.len() < FIXED_BYTES {
        return Ok(None);
    }
    let format = u16::from_be_bytes([bytes[8], bytes[9]]);
    let length = u32::from_be_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]);
    let framed = usize::try_from(length)
        .ok()
        .filter(|l| *l <= HEADER_BYTES_MAX)
        .ok_or(Damage::Head)?;
    let (end, whole) = (FIXED_BYTES + framed, FIXED_BYTES + framed + DIGEST_BYTES);
    if bytes.len() < whole {
        return Ok(None);
    }
    let sum: [u8; DIGEST_BYTES] = Sha256::digest(&bytes[..end]).into();
    if sum != bytes[end..whole] {
        return Err(Damage::Head);
    }
    // The checksum fits, so it is not an altered number.
    if format > FORMAT {
        return Err(Damage::Newer { found: format });
    }
    match frame::decode(&bytes[FIXED_BYTES..end]) {
        Ok(header) => Ok(Some((header, whole))),
        Err(FrameError::Unknown) => Err(Damage::Newer { found: format + 1 }),
        Err(_) => Err(Damage::Head),
    }
}

/// The header in a head that stands alone.
pub fn header(head: &[u8]) -> Result<Header, Damage> {
    match read_head(head)? {
        Some((header, length)) if length == head.len() => Ok(header),
        Some((_, length)) => Err(Damage::TooLong {
            extra: wide(head.len() - length),
        }),
        None => Err(Damage::CutOff {
            has: wide(head.len()),
            wants: wide(FIXED_BYTES + DIGEST_BYTES),
        }),
    }
}

/// The records of a backup.
#[derive(Default)]
pub struct Contents {
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
    pub(crate) accounts: Vec<ServiceAccount>,
    pub(crate) projects: Vec<Project>,
    pub(crate) servers: Vec<Server>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) definitions: Vec<RbacDefinition>,
    pub(crate) tokens: Vec<McpToken>,
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) lists: Vec<ToolList>,
    pub(crate) watches: Vec<ToolWatch>,
    pub(crate) server_limits: Vec<ServerLimitsRecord>,
    pub(crate) project_limits: Vec<ProjectLimitsRecord>,
}

impl Contents {
    fn take(&mut self, table: Table, bytes: &[u8]) -> Result<(), FrameError> {
        match table {
            Table::Users => self.users.push(frame::decode(bytes)?),
            Table::Groups => self.groups.push(frame::decode(bytes)?),
            Table::ServiceAccounts => self.accounts.push(frame::decode(bytes)?),
            Table::Projects => self.projects.push(frame::decode(bytes)?),
            Table::Servers => self.servers.push(frame::decode(bytes)?),
            Table::Secrets => self.secrets.push(frame::decode(bytes)?),
            Table::Rbac => self.definitions.push(frame::decode(bytes)?),
            Table::Tokens => self.tokens.push(frame::decode(bytes)?),
            Table::Tombstones => self.tombstones.push(frame::decode(bytes)?),
            Table::ToolLists => self.lists.push(frame::decode(bytes)?),
            Table::ToolWatches => self.watches.push(frame::decode(bytes)?),
            Table::ServerLimits => self.server_limits.push(frame::decode(bytes)?),
            Table::ProjectLimits => self.project_limits.push(frame::decode(bytes)?),
            _ => return Err(FrameError::Kind),
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = Contents::default();
    }
}

/// Reads a body piece by piece.
struct Body {
    header: Header,
    sum: Sha256,
    taken: u64,
    ahead: Vec<u8>,
    number: u64,
    found: BTreeMap<u8, u64>,
    contents: Contents,
    keep: bool,
    /// The first record that does not read. Whether the body is shorter than it should be is known at the end only, and says more.
    broken: Option<Damage>,
}

impl Body {
    fn new(header: Header, keep: bool) -> Body {
        Body {
            header,
            sum: Sha256::new(),
            taken: 0,
            ahead: Vec::new(),
            number: 0,
            found: BTreeMap::new(),
            contents: Contents::default(),
            keep,
            broken: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.taken += wide(bytes.len());
        self.sum.update(bytes);
        if self.broken.is_some() {
            return;
        }
        self.ahead.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((table, length)) = row_head(&self.ahead[at..]) {
            let Some(table) = table.filter(|_| length <= RECORD_BYTES_MAX) else {
                self.broken = Some(Damage::NoRecord { number: self.number });
                break;
            };
            let begin = at + ROW_HEAD_BYTES;
            let Some(record) = self.ahead.get(begin..begin + length) else {
                break;
            };
            self.number += 1;
            if let Err(why) = self.contents.take(table, record) {
                let (number, table) = (self.number, noun(table));
                self.broken = Some(Damage::Record { number, table, why });
                break;
            }
            if !self.keep {
                self.contents.clear();
            }
            *self.found.entry(table as u8).or_default() += 1;
            at = begin + length;
        }
        self.ahead.drain(..at);
    }

    fn finish(self) -> Result<(Header, Contents), Damage> {
        let wants = self.header.body_bytes;
        if self.taken < wants {
            return Err(Damage::CutOff { has: self.taken, wants });
        }
        if self.taken > wants {
            let extra = self.taken - wants;
            return Err(Damage::TooLong { extra });
        }
        let sum: [u8; DIGEST_BYTES] = self.sum.finalize().into();
        if sum != self.header.body_sha256 {
            return Err(self.broken.unwrap_or(Damage::Body));
        }
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if !self.ahead.is_empty() {
            return Err(Damage::NoRecord { number: self.number });
        }
        for table in TABLES {
            let (said, found) = (self.header.count(table), self.found.get(&(table as u8)).copied());
            let found = found.unwrap_or(0);
            if said != found {
                let table = noun(table);
                return Err(Damage::Count { table, said, found });
            }
        }
        Ok((self.header, self.contents))
    }
}

fn row_head(bytes: &[u8]) -> Option<(Option<Table>, usize)> {
    let head: &[u8; ROW_HEAD_BYTES] = bytes.first_chunk()?;
    let table = TABLES.into_iter().find(|table| *table as u8 == head[0]);
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    Some((table, usize::try_from(length).unwrap_or(usize::MAX)))
}

/// Judges a backup that comes piece by piece: push all of it, then finish.
#[derive(Default)]
pub struct Check {
    head: Vec<u8>,
    body: Option<Body>,
}

impl Check {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if let Some(body) = &mut self.body {
            body.push(bytes);
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        let Some((header, length)) = read_head(&self.head)? else {
            return Ok(());
        };
        let mut body = Body::new(header, false);
        body.push(&self.head[length..]);
        self.head.truncate(length);
        self.body = Some(body);
        Ok(())
    }

    /// The head as it stands in the backup, once all of it has come.
    pub fn head(&self) -> Option<&[u8]> {
        self.body.as_ref().map(|_| self.head.as_slice())
    }

    /// What the backup says of itself, if every byte of it is as it was written.
    pub fn finish(self) -> Result<Header, Damage> {
        let head_bytes = wide(self.head.len());
        let Some(body) = self.body else {
            return Err(Damage::CutOff {
                has: head_bytes,
                wants: head_bytes.max(wide(FIXED_BYTES)) + 1,
            });
        };
        let whole = |damage| match damage {
            Damage::CutOff { has, wants } => Damage::CutOff {
                has: has + head_bytes,
                wants: wants + head_bytes,
            },
            damage => damage,
        };
        body.finish().map(|(header, _)| header).map_err(whole)
    }
}

/// Reads the records of a backup out of the pieces of its body.
pub(crate) fn read_body(
    header: Header,
    mut next: impl FnMut() -> Option<Vec<u8>>,
) -> Result<(Header, Contents), Damage> {
    let mut body = Body::new(header, true);
    while let Some(piece) = next() {
        body.push(&piece);
    }
    body.finish()
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
