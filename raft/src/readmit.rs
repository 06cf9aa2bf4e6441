//! The way back of a node that has lost its log.
//!
//! Such a node may have voted in the current term and may have been counted for entries that it no longer has. If it took part
//! under its old name with an empty log, it could vote twice, or be one of a majority that no longer exists. So it answers nobody,
//! which for its peers is the same as being dead, and asks the leader to be *let go*: taken out of the membership. That change is
//! decided by majorities that do not count on it; every later leader has it in its log, and whoever the node had voted for in
//! vain lacks it and cannot win any more. From then on nothing depends on what the node has forgotten. It begins anew: with an empty
//! log, the vote of that leader (so that no leader of an earlier term, who may still count on it, is obeyed), and whatever state it
//! has, which holds only what was agreed. Then it asks to be *taken back*: as a learner, and as a voter once it has caught up.
//!
//! How far it has come stands in a file beside the log, so that it survives a crash in between. A file that cannot be read means the
//! beginning: to be let go twice does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_model::ids::NodeId;
use mcp_model::records::Enrolment;
use mcp_model::tables;
use mcp_store::log::{LogError, Mark, Purged, RaftLog};
use openraft::ChangeMembers;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::link::{Badge, Lane, Link};
use crate::machine::Applied;
use crate::node::Core;
use crate::outside::{Member, StartError};
use crate::recover::{LOG_FILE, LogLost, Whole};
use crate::removal::{self, Removal};
use crate::rounds;
use crate::rpc::{Index, READMIT};
use crate::tls::PeerTls;
use crate::types::{Peer, Vote};

const LOST_FILE: &str = "raft-log.lost";
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one change of the membership may take.
const CHANGE_WAIT: Duration = Duration::from_secs(8);
/// How long an answer may take, the change included.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Entries that a node may lag behind when it begins to vote.
const CAUGHT_UP: u64 = 64;

/// What a node without its log asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Readmit {
    /// To be taken out of the membership.
    LetGo,
    /// To be taken in again, under this name and address.
    TakeBack { voter: bool, name: String, address: String },
}

/// What the leader answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Readmitted {
    /// Somebody else leads, or nobody, or it did not work out this time.
    NotNow,
    /// It never will.
    Refused(String),
    /// It is out, by a change at this index that was decided under this vote. Says whether it voted, if it was in.
    LetGo {
        vote: Vote,
        index: u64,
        voter: Option<bool>,
    },
    /// It is on its way in.
    Pending,
    /// It is in.
    TakenBack,
}

/// How far a node without its log has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its peers may still count on what it has forgotten. Says what was wrong.
    NotLetGo(String),
    /// They do not any more.
    LetGo(Returning),
}

/// A node that was let go and has begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    /// Whether it is to vote.
    voter: bool,
    /// The index at which it was let go: a membership of before says nothing.
    index: u64,
    file: PathBuf,
    /// Whom to ask while it knows no leader: a node that nobody counts in is told nothing.
    pub(crate) others: Vec<Member>,
}

impl Lost {
    pub(crate) fn load(dir: &Path) -> Option<Lost> {
        let file = dir.join(LOST_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Lost::NotLetGo(format!("{} cannot be read: {error}", file.display()))),
        };
        Some(Lost::read(&text, file))
    }

    /// What stands in the file. What it is not sure of is the beginning.
    pub(crate) fn read(text: &str, file: PathBuf) -> Lost {
        let returning = text.trim_end().strip_prefix("let go ").and_then(|rest| {
            let (voter, index) = rest.split_once(' ')?;
            let voter = match voter {
                "voter" => true,
                "learner" => false,
                _ => return None,
            };
            let index = index.parse().ok()?;
            Some(Returning {
                voter,
                index,
                file,
                others: Vec::new(),
            })
        });
        returning.map_or_else(|| Lost::NotLetGo(text.trim_end().to_owned()), Lost::LetGo)
    }

    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let text = match self {
            Lost::NotLetGo(why) => format!("{why}\n"),
            Lost::LetGo(Returning { voter, index, .. }) => {
                format!("let go {} {index}\n", if *voter { "voter" } else { "learner" })
            }
        };
        let (file, beside) = (dir.join(LOST_FILE), dir.join("raft-log.lost.tmp"));
        let mut out = File::create(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&beside, &file)?;
        File::open(dir)?.sync_all()
    }
}

impl LogLost {
    /// Asks the others until one of them has let this node go, and begins anew. `told` is told what is being waited for.
    pub async fn be_let_go(
        self,
        cluster: String,
        tls: PeerTls,
        told: watch::Sender<String>,
    ) -> Result<Whole, StartError> {
        let badge = Badge {
            cluster,
            me: self.opening.me,
            tls,
            // It holds no lease, and asks for none before it is a node again.
            lease: String::new(),
            turned_away: watch::Sender::new(false),
        };
        let links: Vec<Link> = self
            .others
            .iter()
            .map(|other| Link::new(badge.clone(), other.id, other.address.clone()))
            .collect();
        loop {
            for link in &links {
                let answer: Result<Readmitted, _> = link.call(Lane::Fast, READMIT, &Readmit::LetGo, ANSWER_WAIT).await;
                match answer {
                    Ok(Readmitted::LetGo { vote, index, voter }) => {
                        let voter = voter.unwrap_or(true);
                        return tokio::task::spawn_blocking(move || self.begin_anew(&vote, index, voter))
                            .await
                            .map_err(|error| StartError::Raft(error.to_string()))?;
                    }
                    Ok(Readmitted::Refused(why)) => return Err(StartError::NotReadmitted(why)),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "not let go yet"),
                }
                // One that turns it away is asked whether the cluster has decided so.
                let told = badge.turned_away.send_replace(false);
                if told && matches!(removal::ask(link).await, Some(Removal::Removed | Removal::Out)) {
                    return Err(StartError::NotReadmitted(
                        "it was removed from the cluster: let it join as a new node, with an empty data directory"
                            .to_owned(),
                    ));
                }
            }
            told.send_replace(format!(
                "this node has lost its log ({}) and waits for a leader of the others to let it go",
                self.why
            ));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A new log that holds the vote of the leader who let this node go, and begins where the state ends.
    fn begin_anew(self, vote: &Vote, index: u64, voter: bool) -> Result<Whole, StartError> {
        let dir = &self.opening.dir;
        let log = RaftLog::open_or_create(&dir.join(LOG_FILE), Arc::clone(&self.opening.ticks))?;
        wait(|done| log.put_mark(Mark::Vote, encode(vote), done))?;
        if let Some(last) = Applied::of(&self.replica)?.last() {
            // The log may forget only what the state on disk remembers.
            self.replica.flush()?;
            let purged = Purged {
                index: last.index,
                bytes: encode(&last),
            };
            wait(|done| log.purge(purged, done))?;
        }
        let file = dir.join(LOST_FILE);
        let returning = Returning {
            voter,
            index,
            file,
            others: self.others,
        };
        let noted = Lost::LetGo(returning.clone()).save(dir);
        noted.map_err(|error| LogError::Io(error.to_string()))?;
        tracing::warn!(index, "the others have let this node go: it begins anew");
        Ok(Whole {
            replica: self.replica,
            log,
            returning: Some(returning),
        })
    }
}

fn wait(write: impl FnOnce(mcp_store::log::Completion)) -> Result<(), LogError> {
    let (tx, rx) = std::sync::mpsc::channel();
    write(Box::new(move |result| tx.send(result).unwrap_or(())));
    rx.recv().unwrap_or(Err(LogError::Closed))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes")
}

/// Asks to be taken back until the membership says so.
pub(crate) async fn come_back(core: Arc<Core>, returning: Returning, myself: Member) {
    let request = Readmit::TakeBack {
        voter: returning.voter,
        name: myself.name,
        address: myself.address,
    };
    let mut told = false;
    while !is_back(&core, &returning, told) {
        let asked = ask(&core, &returning.others, &request).await;
        tracing::debug!(?asked, "asked to be taken back");
        told |= matches!(asked, Some(Readmitted::TakenBack));
        tokio::time::sleep(PAUSE).await;
    }
    match fs::remove_file(&returning.file) {
        Ok(()) => tracing::info!("this node is a member again"),
        Err(error) => tracing::warn!(%error, "this node is a member again, and will ask once more when it starts"),
    }
}

/// Asks the leader, or everybody: a node that nobody sends anything to knows no leader.
async fn ask(core: &Core, others: &[Member], request: &Readmit) -> Option<Readmitted> {
    if let Some(leader) = core.leader().filter(|leader| *leader != core.me)
        && let Some(link) = core.link(leader)
    {
        return link.call(Lane::Fast, READMIT, request, ANSWER_WAIT).await.ok();
    }
    for other in others {
        let link = core.links.to(other.id, &other.address);
        let asked: Result<Readmitted, _> = link.call(Lane::Fast, READMIT, request, ANSWER_WAIT).await;
        if let Ok(answer @ (Readmitted::Pending | Readmitted::TakenBack)) = asked {
            return Some(answer);
        }
    }
    None
}

/// `told`: the leader has said that nothing more is to come, though this node does not vote: it was decided so meanwhile.
fn is_back(core: &Core, returning: &Returning, told: bool) -> bool {
    let applied = core.membership.borrow().clone();
    let newer = applied.log_id().is_some_and(|id| id.index > returning.index);
    let settled = applied.membership().get_joint_config().len() == 1;
    let votes = applied.voter_ids().any(|id| id == core.me.0);
    newer && settled && core.is_applied_member(core.me) && (votes || !returning.voter || told)
}

/// Answers on the leader. Only the node itself can ask this: its certificate says who it is.
pub(crate) async fn answer(core: &Arc<Core>, from: NodeId, asked: Readmit) -> Readmitted {
    // One at a time, and each to its end: whoever hangs up would leave the membership half changed.
    let core = Arc::clone(core);
    let answered = tokio::spawn(async move {
        let _one = core.readmitting.lock().await;
        if from == core.me {
            return Readmitted::NotNow;
        }
        match asked {
            Readmit::LetGo => let_go(&core, from).await,
            Readmit::TakeBack { voter, name, address } => take_back(&core, from, voter, Peer { name, address }).await,
        }
    });
    answered.await.unwrap_or(Readmitted::NotNow)
}

async fn let_go(core: &Core, node: NodeId) -> Readmitted {
    let Some(term) = core.office.term().filter(|_| core.is_fit()) else {
        return Readmitted::NotNow;
    };
    let config = core.metrics.borrow().membership_config.clone();
    let votes = config.voter_ids().any(|id| id == node.0);
    if config.membership().get_node(&node.0).is_none() && !votes {
        // A leader that was deposed may not know what its successor has decided.
        let Index::At(index) = rounds::join(core).await else {
            return Readmitted::NotNow;
        };
        let vote = Vote::new_committed(term.number, core.me.0);
        return Readmitted::LetGo {
            vote,
            index,
            voter: None,
        };
    }
    let others = config.voter_ids().filter(|id| *id != node.0);
    let reached = others.filter(|id| *id == core.me.0 || core.reach.of(NodeId(*id)) == Some(true));
    if votes && reached.count() <= config.voter_ids().count() / 2 {
        // The change could not be decided without it, and the membership would be stuck half way.
        tracing::warn!(%node, "a node that lost its log waits: too few of the others are there to let it go");
        return Readmitted::NotNow;
    }
    let one = BTreeSet::from([node.0]);
    let change = if votes {
        ChangeMembers::RemoveVoters(one)
    } else {
        ChangeMembers::RemoveNodes(one)
    };
    match timeout(CHANGE_WAIT, core.raft.change_membership(change, false)).await {
        Ok(Ok(changed)) => {
            let id = changed.log_id;
            tracing::warn!(%node, index = id.index, "a node that lost its log was let go");
            Readmitted::LetGo {
                vote: Vote::new_committed(id.leader_id.term, id.leader_id.node_id),
                index: id.index,
                voter: Some(votes),
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(%node, %error, "a node that lost its log could not be let go");
            Readmitted::NotNow
        }
        Err(_) => Readmitted::NotNow,
    }
}

async fn take_back(core: &Core, node: NodeId, voter: bool, peer: Peer) -> Readmitted {
    if core.office.term().is_none() || !core.is_fit() {
        return Readmitted::NotNow;
    }
    // Whoever was meanwhile told only to follow is not made to vote.
    let enrolled = core
        .replica
        .read(|t| tables::load::<Enrolment>(t, &node.0.to_be_bytes()));
    let voter = voter && !matches!(enrolled, Ok(Some(Enrolment { voter: false, .. })));
    let metrics = core.metrics.borrow().clone();
    let config = &metrics.membership_config;
    let change = if config.membership().get_node(&node.0).is_none() {
        ChangeMembers::AddNodes(BTreeMap::from([(node.0, peer)]))
    } else if voter && !config.voter_ids().any(|id| id == node.0) {
        let matched = metrics.replication.as_ref().and_then(|all| *all.get(&node.0)?);
        let lag = matched.map(|id| metrics.last_log_index.unwrap_or(0).saturating_sub(id.index));
        if lag.is_none_or(|lag| lag > CAUGHT_UP) {
            return Readmitted::Pending;
        }
        ChangeMembers::AddVoterIds(BTreeSet::from([node.0]))
    } else {
        return Readmitted::TakenBack;
    };
    match timeout(CHANGE_WAIT, core.raft.change_membership(change, true)).await {
        Ok(Ok(_)) => tracing::info!(%node, "a node that lost its log was taken back a step"),
        Ok(Err(error)) => tracing::warn!(%node, %error, "a node that lost its log could not be taken back"),
        Err(_) => tracing::warn!(%node, "a node that lost its log was not taken back in time"),
    }
    Readmitted::Pending
}
