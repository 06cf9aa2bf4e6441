//! Receipts in words.

use mcp_api::receipt::{ProofBody, ReceiptBody};

use crate::failure::{Exit, Failure};
use crate::out;

/// How a change that took a right away is reported.
pub(crate) struct Report<'a> {
    /// `mcptoken "ci" revoked`.
    pub(crate) what: String,
    /// `refused` for tokens, `effective` for the rest.
    pub(crate) word: &'static str,
    /// The command that can be repeated.
    pub(crate) again: String,
    pub(crate) receipt: Option<&'a ReceiptBody>,
    pub(crate) waited: bool,
}

impl Report<'_> {
    /// Prints the line, and says whether the change is effective everywhere.
    pub(crate) fn print(&self) -> Result<Exit, Failure> {
        let Some(receipt) = self.receipt else {
            if self.waited {
                return Err(self.uncertain("the answer carries no receipt"));
            }
            out::line(&format!("{}: committed, and not waited for", self.what));
            return Ok(Exit::Done);
        };
        if !receipt.effective {
            let pending = names(receipt, ProofBody::Pending);
            let have = if pending.len() == 1 { "has" } else { "have" };
            let why = format!("{} {have} not confirmed and may still hold a lease", pending.join(", "));
            return Err(self.uncertain(&format!("{}; {why}", self.count(receipt))));
        }
        let mut line = format!("{}: {}", self.what, self.count(receipt));
        for replica in receipt.replicas.iter().filter(|r| r.proof == ProofBody::LeaseRanOut) {
            let (name, after_ms) = (replica.called(), replica.after_ms);
            let after = format!("{}.{} s", after_ms / 1_000, after_ms % 1_000 / 100);
            line.push_str(&format!("; {name} unreachable: its lease ran out after {after}"));
        }
        out::line(&line);
        Ok(Exit::Done)
    }

    fn count(&self, receipt: &ReceiptBody) -> String {
        format!(
            "{} on {} of {} replicas ({} ms)",
            self.word,
            receipt.refusing,
            receipt.replicas.len(),
            receipt.took_ms
        )
    }

    fn uncertain(&self, why: &str) -> Failure {
        Failure::new(format!("{}, but not yet effective everywhere", self.what), why)
            .next(format!("{} (safe to repeat)", self.again))
            .with_exit(Exit::Uncertain)
    }
}

fn names(receipt: &ReceiptBody, proof: ProofBody) -> Vec<&str> {
    receipt
        .replicas
        .iter()
        .filter(|r| r.proof == proof)
        .map(|r| r.called())
        .collect()
}
