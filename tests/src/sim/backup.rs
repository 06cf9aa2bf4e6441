//! A backup that is taken at some moment and restored when more has been revoked: rule 10. What is restored, and what becomes of each
//! token, is decided by our own code; this looks at which tokens it has let in before and lets in after.

use std::collections::BTreeSet;

use mcp_model::apply::{Effects, apply};
use mcp_model::backup::{Occasion, each_row, head, survey};
use mcp_model::command::{Command, Envelope, Outcome, Reply};
use mcp_model::ids::Id;
use mcp_model::records::{McpToken, TokenStatus, Tombstone, User};
use mcp_model::tables::{self, MemTables, Tables, TablesMut};
use mcp_model::token::TokenHash;

use super::machine::MS;
use super::mutant::{Broken, Mutant};
use super::story::{Beat, CLUSTER, Deed, Story, owner_of};
use super::world::{Event, HEALED, World};

/// Names the one restore of a seed.
const RESTORE: Id = Id::from_u128(77);
/// More than there are tokens.
const MANY: usize = 10_000;

/// A backup, and what came of it.
#[derive(Default)]
pub(crate) struct Backup {
    saved: Option<(Vec<u8>, Vec<u8>)>,
    /// The index at which it was restored.
    pub(crate) restored_at: Option<u64>,
    /// The tokens that the restore has taken away.
    pub(crate) away: Vec<usize>,
}

impl Backup {
    /// The command that lays the backup down, and the one that restores it.
    pub(crate) fn command(&self, deed: Deed) -> Command {
        let (head, body) = self.saved.clone().unwrap_or_default();
        match deed {
            Deed::Stage => Command::StageRestore {
                restore: RESTORE,
                part: 0,
                bytes: body,
            },
            _ => Command::FinishRestore {
                restore: RESTORE,
                head,
                revive_tokens: false,
                any_cluster: false,
            },
        }
    }
}

fn active(tables: &MemTables) -> BTreeSet<TokenHash> {
    let all = tables::list::<McpToken>(tables, None, MANY).into_iter();
    all.filter(|t| t.status == TokenStatus::Active)
        .map(|t| t.hash)
        .collect()
}

/// Carries a command out on one replica. The first one that restores the backup tells which tokens that has taken away.
pub(crate) fn carry_out(
    tables: &mut MemTables,
    (index, rules): (u64, Broken),
    envelope: &Envelope,
    effects: &mut Effects,
    (story, now): (&mut Story, u64),
) -> Outcome {
    let Command::FinishRestore { .. } = &envelope.command else {
        return apply(tables, index, 0, envelope, effects);
    };
    let before = active(tables);
    let outcome = match rules.is(Mutant::RestoreWithoutTombstones) {
        true => {
            let forgetting = forgetting(tables, envelope);
            apply(tables, index, 0, &forgetting, effects)
        }
        false => apply(tables, index, 0, envelope, effects),
    };
    let first = outcome.index == index && story.backup.restored_at.is_none();
    if first && matches!(outcome.reply, Reply::Restored(_)) {
        let gone = &before - &active(tables);
        story.backup.restored_at = Some(index);
        for (number, token) in story.tokens.iter_mut().enumerate() {
            if gone.contains(&token.hash) {
                token.revoke_asked.get_or_insert(now);
                story.backup.away.push(number);
            }
        }
        // Whoever was disabled in the backup is disabled again.
        for user in tables::list::<User>(tables, None, MANY)
            .iter()
            .filter(|user| user.disabled)
        {
            if let Some(owner) = owner_of(user.id) {
                story.owners[owner].last = (index, true);
            }
        }
    }
    outcome
}

/// The state is replaced by the backup's, and what the running cluster knew of who is refused is gone.
fn forgetting(tables: &mut MemTables, envelope: &Envelope) -> Envelope {
    for stone in tables::list::<Tombstone>(tables, None, MANY) {
        tables.remove(tables::Table::Tombstones, &stone.hash.0);
    }
    let Command::FinishRestore {
        restore,
        head,
        any_cluster,
        ..
    } = envelope.command.clone()
    else {
        return envelope.clone();
    };
    let command = Command::FinishRestore {
        restore,
        head,
        revive_tokens: true,
        any_cluster,
    };
    Envelope {
        command,
        ..envelope.clone()
    }
}

impl World {
    /// A backup is taken on any node, of what that has.
    pub(crate) fn save(&mut self) {
        let slots = self.machines.len() as u64;
        let at = self.below(slots) as usize;
        let process = self.machines[at].process.as_ref();
        let Some(process) = process.filter(|p| p.tables.get(tables::Table::Cluster, &[0]).is_some()) else {
            let again = self.now + 200 * MS;
            return self.at(again, Event::Story(Beat::Save));
        };
        let header = survey(
            &process.tables,
            Occasion {
                cluster_id: CLUSTER,
                index: process.applied,
                taken_ms: self.machines[at].clocks.wall_ms(self.now),
                program: "sim".to_owned(),
                feature_level: 1,
                key_id: [0; 8],
            },
        );
        let mut body = Vec::new();
        each_row(&process.tables, |_, row| {
            body.extend(row);
            true
        });
        let (me, index) = (self.machines[at].me, process.applied);
        self.note(&[16, me.0, index], |s| {
            s.push_str(&format!("a backup of {me} at {index} is saved"));
        });
        self.story.backup.saved = Some((head(&header), body));
        let then = self.now + 6_000 * MS + self.below(8_000 * MS);
        if then < HEALED {
            self.at(then, Event::Story(Beat::Begin(Deed::Stage)));
        }
    }
}
