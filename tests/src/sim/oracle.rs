//! What must never happen, and what must.

use std::collections::BTreeMap;

use mcp_model::admission::Denial;
use mcp_model::ids::NodeId;

use super::machine::MS;
use super::story::Story;
use super::world::{CALM, HEALED};

pub(crate) enum Verdict {
    Fine,
    Violation(String),
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// When and what.
    pub(crate) violation: Option<(u64, String)>,
    reached: BTreeMap<NodeId, u64>,
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) without_lease: u64,
    pub(crate) acknowledged: u64,
    /// Unknown tokens that a newer state was asked for.
    pub(crate) asked: u64,
    /// Those for which there was no room.
    pub(crate) too_many: u64,
    /// Backups that were restored.
    pub(crate) restored: u64,
}

impl Oracle {
    pub(crate) fn reached(&mut self, node: NodeId, index: u64) {
        let reached = self.reached.entry(node).or_insert(0);
        *reached = (*reached).max(index);
    }

    pub(crate) fn has_reached(&self, node: NodeId, index: u64) -> bool {
        self.reached.get(&node).is_some_and(|reached| *reached >= index)
    }

    /// The promise: nobody is admitted who asked after the revoke was acknowledged.
    pub(crate) fn admitted(&mut self, story: &Story, token: usize, began: u64) -> Verdict {
        self.admitted += 1;
        let token = &story.tokens[token];
        if token.mint_asked.is_none() {
            return Verdict::Violation("nobody has ever minted it".to_owned());
        }
        let gone = [token.gone, token.expired, story.owners[token.owner].gone];
        match gone.into_iter().flatten().find(|gone| began > *gone) {
            Some(gone) => Verdict::Violation(format!(
                "its right was gone since {} ms, and it asked {} us after that",
                gone / MS,
                (began - gone) / 1_000
            )),
            None => Verdict::Fine,
        }
    }

    /// A token that lives is never called unknown, and while all is well never sent away.
    pub(crate) fn refused(
        &mut self,
        story: &Story,
        (token, began, now): (usize, u64, u64),
        denial: Denial,
        member: bool,
    ) -> Verdict {
        self.refused += 1;
        let lives = story.lives(token, began);
        // Its own clock may say so two seconds late or ten minutes early: that refuses, and decides nothing.
        if denial == Denial::Expired && story.tokens[token].expires_ms.is_some() {
            return Verdict::Fine;
        }
        match denial {
            Denial::NoLease | Denial::TooMany => {
                self.without_lease += 1;
                let calm = began > CALM && now > CALM && now < began + 500 * MS;
                match calm && member && lives && HEALED < began {
                    true => Verdict::Violation("nothing was wrong any more, and there was no lease".to_owned()),
                    false => Verdict::Fine,
                }
            }
            Denial::UnknownToken
            | Denial::OwnerDisabled
            | Denial::WrongProject
            | Denial::NoBearer
            | Denial::Expired
                if lives =>
            {
                Verdict::Violation(format!("it lives, and was called {}", denial.reason()))
            }
            _ => Verdict::Fine,
        }
    }

    pub(crate) fn finish(&mut self, now: u64) {
        if self.violation.is_none() && self.acknowledged == 0 {
            self.violation = Some((now, "not one revoke was acknowledged".to_owned()));
        }
    }
}
