//! What a node does about stores that are damaged when it starts.
//!
//! A damaged *state* is rebuilt: from the newest whole snapshot and the log behind it, which between them hold everything that was
//! ever applied. A damaged *log* cannot be rebuilt by the node alone. It held promises: a vote that must not be given twice, and
//! entries that others count on. A node without its log is therefore dead to its peers until the cluster has let it go, by a
//! change of the membership that is decided without it, and comes back as a newcomer does: see [`crate::readmit`]. Nothing is
//! deleted: what is damaged is renamed. A state that is whole and not what the others have (see [`crate::compare`]) is dealt with like one that
//! is damaged; if what it is rebuilt to is not what they have either, the node keeps nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_model::ids::NodeId;
use mcp_store::log::{LogError, RaftLog, Ticks};
use mcp_store::{Replica, ReplicaOptions, StoreError, set_aside, snapshot};

use crate::doubt::Doubt;
use crate::machine::Applied;
use crate::outside::Member;
use crate::readmit::{Lost, Returning};

/// The file that holds the raft log.
pub const LOG_FILE: &str = "raft-log.redb";
/// The file that counts its acknowledged flushes.
const ACKED_FILE: &str = "raft-log.acked";
/// The folder of the snapshots.
pub const SNAPSHOTS: &str = "snapshots";

/// What is needed to open the stores of a node.
#[derive(Clone)]
pub struct Opening {
    /// The data directory.
    pub dir: PathBuf,
    /// Whether it has held data before.
    pub had_data: bool,
    /// `L`, ms.
    pub lease_ms: u64,
    /// Whose stores they are.
    pub me: NodeId,
    /// The other members, as far as this node has noted them outside of its stores.
    pub known: Vec<Member>,
    /// Wall time, for the names of what is set aside.
    pub now_ms: u64,
    /// Draws numbers.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Monotonic nanoseconds.
    pub ticks: Ticks,
}

/// The stores of a node.
pub enum Opened {
    /// They are whole, or were made whole.
    Whole(Whole),
    /// The log is lost, and the others must let this node go before it may take part again.
    LogLost(Box<LogLost>),
}

/// Stores to start with.
pub struct Whole {
    /// The state.
    pub replica: Arc<Replica>,
    /// The log.
    pub log: RaftLog,
    /// Set while this node is on its way back into the membership.
    pub returning: Option<Returning>,
}

/// A node without its log.
pub struct LogLost {
    pub(crate) opening: Opening,
    /// The state, if it was whole. It holds nothing but what was agreed.
    pub(crate) replica: Arc<Replica>,
    /// Whom to ask.
    pub(crate) others: Vec<Member>,
    /// What was wrong with the log.
    pub why: String,
}

/// Why a node cannot start from its stores. What is there was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be opened, for another reason than damage.
    #[error("the state cannot be opened")]
    Store(#[from] StoreError),
    /// The log cannot be opened, for another reason than damage.
    #[error("the log cannot be opened")]
    Log(#[from] LogError),
    /// Damaged, and nobody else has what it held.
    #[error(
        "{} is damaged ({why}), and no other member of this cluster is known that has what it held: restore the whole data \
         directory from a backup; as it is, this node does not start, and nothing was changed", path.display()
    )]
    Alone {
        /// What is damaged.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// A damaged file cannot be renamed, or the loss of the log not be noted.
    #[error("{} cannot be set aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
}

impl OpenError {
    /// Whether another process has the stores open: one that was killed lets go of them a moment later.
    pub fn is_in_use(&self) -> bool {
        matches!(
            self,
            OpenError::Log(LogError::InUse) | OpenError::Store(StoreError::InUse)
        )
    }
}

/// Opens the stores, and sets aside what is damaged if that can be made good.
pub fn open(opening: Opening) -> Result<Opened, OpenError> {
    remove_unfinished(&opening.dir);
    let doubt = Doubt::load(&opening.dir);
    if doubt == Some(Doubt::Again) {
        return with_nothing_of_its_own(opening);
    }
    let lost = Lost::load(&opening.dir);
    if let Some(Lost::NotLetGo(why)) = &lost {
        return without_log(opening, why.clone());
    }
    let log = match open_log(&opening) {
        Ok(log) => log,
        Err(error) if is_damage(&error) => return without_log(opening, error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let purged = log.purged()?.map_or(0, |purged| purged.index);
    let opened = if doubt == Some(Doubt::Differs) {
        Err(StoreError::Corrupt(
            "it differed from that of the other replicas".to_owned(),
        ))
    } else {
        open_state(&opening, opening.had_data)
    };
    let opened = opened.and_then(|replica| {
        if replica.auth_index() >= purged {
            return Ok(replica);
        }
        let at = replica.auth_index();
        Err(StoreError::Corrupt(format!(
            "it ends at index {at}, and the log begins behind {purged}"
        )))
    });
    let replica = match opened {
        Ok(replica) => replica,
        Err(error @ (StoreError::Corrupt(_) | StoreError::Missing { what: "empty", .. })) => {
            let why = error.to_string();
            match rebuild_state(&opening, purged, &why)? {
                Some(replica) => {
                    if doubt == Some(Doubt::Differs) {
                        note(&opening, Doubt::Rebuilt)?;
                    }
                    replica
                }
                None => {
                    log.close();
                    if doubt == Some(Doubt::Differs) {
                        return with_nothing_of_its_own(opening);
                    }
                    return without_log(opening, format!("{why}, and there is no whole snapshot"));
                }
            }
        }
        Err(error) => return Err(error.into()),
    };
    let returning = match lost {
        Some(Lost::LetGo(mut returning)) => {
            let members = Applied::of(&replica)?.members();
            returning.others = others(opening.me, opening.known.into_iter().chain(members));
            Some(returning)
        }
        _ => None,
    };
    Ok(Opened::Whole(Whole {
        replica,
        log,
        returning,
    }))
}

/// A file that is there and not what it should be. One that is gone is not damage but another disk, or somebody's doing.
fn is_damage(error: &LogError) -> bool {
    match error {
        LogError::Corrupt(_) => true,
        LogError::Missing { what, .. } => *what != "gone",
        _ => false,
    }
}

fn open_log(opening: &Opening) -> Result<RaftLog, LogError> {
    let path = opening.dir.join(LOG_FILE);
    if opening.had_data {
        return RaftLog::open_existing(&path, Arc::clone(&opening.ticks));
    }
    RaftLog::open_or_create(&path, Arc::clone(&opening.ticks))
}

fn open_state(opening: &Opening, had_data: bool) -> Result<Arc<Replica>, StoreError> {
    let options = ReplicaOptions {
        lease_ms: opening.lease_ms,
        had_data,
        random: Arc::clone(&opening.random),
    };
    Replica::open(&opening.dir, options)
}

/// A state from the newest snapshot, or from nothing if the log reaches back to its beginning; consensus carries out the rest.
/// `None`: there is no snapshot that reaches up to the log.
fn rebuild_state(opening: &Opening, purged: u64, why: &str) -> Result<Option<Arc<Replica>>, OpenError> {
    let from = newest_snapshot(&opening.dir.join(SNAPSHOTS), purged);
    if purged > 0 && from.is_none() {
        return Ok(None);
    }
    let aside = put_away(opening, mcp_store::replica::STATE_FILE)?;
    let replica = state_from(opening, from.as_deref())?;
    let index = replica.auth_index();
    tracing::warn!(
        why,
        ?aside,
        ?from,
        index,
        "the state was damaged: it is rebuilt from a snapshot and the log"
    );
    Ok(Some(replica))
}

fn state_from(opening: &Opening, file: Option<&Path>) -> Result<Arc<Replica>, StoreError> {
    let replica = open_state(opening, false)?;
    if let Some(file) = file {
        replica.install_snapshot(file)?;
    }
    Ok(replica)
}

fn newest_snapshot(dir: &Path, purged: u64) -> Option<PathBuf> {
    let files = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let whole = files
        .filter(|path| path.extension().is_some_and(|e| e == "snap"))
        .filter_map(|path| {
            let index = snapshot::verify(&path).ok()?.index;
            (index >= purged).then_some((index, path))
        });
    whole.max().map(|(_, path)| path)
}

/// Notes that the log is lost, before anything is renamed: whatever happens from here on, this node does not vote.
fn without_log(opening: Opening, why: String) -> Result<Opened, OpenError> {
    let path = opening.dir.join(LOG_FILE);
    let kept = open_state(&opening, true).and_then(|replica| {
        let known = Applied::of(&replica)?.members();
        Ok((replica, known))
    });
    if let Err(error @ (StoreError::Io(_) | StoreError::InUse)) = kept {
        return Err(error.into());
    }
    // One that is gone as well is another matter than one that is damaged: see `is_damage`.
    if let Err(error @ StoreError::Missing { what: "missing", .. }) = kept {
        return Err(error.into());
    }
    let members = kept.as_ref().map_or_else(|_| Vec::new(), |(_, known)| known.clone());
    let others = others(opening.me, opening.known.iter().cloned().chain(members));
    if others.is_empty() {
        return Err(OpenError::Alone { path, why });
    }
    let lost = Lost::NotLetGo(why.clone());
    lost.save(&opening.dir).map_err(|source| OpenError::Aside {
        path: path.clone(),
        source,
    })?;
    let aside = put_away(&opening, LOG_FILE)?;
    put_away(&opening, ACKED_FILE)?;
    let replica = match kept {
        Ok((replica, _)) => replica,
        Err(_) => {
            put_away(&opening, mcp_store::replica::STATE_FILE)?;
            state_from(&opening, newest_snapshot(&opening.dir.join(SNAPSHOTS), 0).as_deref())?
        }
    };
    tracing::error!(
        why,
        ?aside,
        "this node has lost its log: it takes no part until the others have let it go"
    );
    Ok(Opened::LogLost(Box::new(LogLost {
        opening,
        replica,
        others,
        why,
    })))
}

/// Takes leave of log, state and snapshots: the state differed from that of the others, and what the node could make it from led to the same
/// once more, or is not there. Until all is set aside the note stays as it is, so that this begins again if it is interrupted.
fn with_nothing_of_its_own(opening: Opening) -> Result<Opened, OpenError> {
    let why =
        "its state differed from that of the other replicas, and what it had itself did not make it right".to_owned();
    let kept = open_state(&opening, true).and_then(|replica| Ok(Applied::of(&replica)?.members()));
    if let Err(error @ (StoreError::Io(_) | StoreError::InUse)) = kept {
        return Err(error.into());
    }
    let others = others(
        opening.me,
        opening.known.iter().cloned().chain(kept.unwrap_or_default()),
    );
    let path = opening.dir.join(mcp_store::replica::STATE_FILE);
    if others.is_empty() {
        return Err(OpenError::Alone { path, why });
    }
    let lost = Lost::NotLetGo(why.clone()).save(&opening.dir);
    lost.map_err(|source| OpenError::Aside { path, source })?;
    for file in [LOG_FILE, ACKED_FILE, mcp_store::replica::STATE_FILE, SNAPSHOTS] {
        put_away(&opening, file)?;
    }
    let replica = state_from(&opening, None)?;
    note(&opening, Doubt::Rebuilt)?;
    tracing::error!(
        why,
        "this node takes no part until the others have let it go, and gets everything from them"
    );
    Ok(Opened::LogLost(Box::new(LogLost {
        opening,
        replica,
        others,
        why,
    })))
}

fn note(opening: &Opening, doubt: Doubt) -> Result<(), OpenError> {
    let path = opening.dir.clone();
    doubt
        .save(&opening.dir)
        .map_err(|source| OpenError::Aside { path, source })
}

fn others(me: NodeId, known: impl Iterator<Item = Member>) -> Vec<Member> {
    let mut others: Vec<Member> = known.filter(|member| member.id != me).collect();
    others.sort_by(|a, b| (a.id, &a.address).cmp(&(b.id, &b.address)));
    others.dedup_by(|a, b| (a.id, &a.address) == (b.id, &b.address));
    others
}

fn put_away(opening: &Opening, file: &str) -> Result<Option<PathBuf>, OpenError> {
    let path = opening.dir.join(file);
    set_aside(&path, opening.now_ms).map_err(|source| OpenError::Aside { path, source })
}

/// What a crash has left half written.
fn remove_unfinished(dir: &Path) {
    for file in ["raft-log.mending", "state.mending"] {
        // As a rule there is none.
        let _removed = fs::remove_file(dir.join(file));
    }
}
