//! Hands changes to the cluster and turns what comes back into answers.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{StatusCode, header};
use mcp_api::headers::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX};
use mcp_api::problem::FieldFault;
use mcp_api::receipt::ReceiptBody;
use mcp_api::write;
use mcp_model::command::{Actor, Command, Envelope, Reply};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::records::NodeRecord;
use mcp_model::tables;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::call::{Admitted, Call};
use crate::fault::Fault;
use crate::limits;
use crate::port::{WaitFor, WriteFailed, Written};
use crate::router::Api;

/// Nodes whose names are read for a receipt.
const NODES_MAX: usize = 1_000;

impl Api {
    /// Has a command carried out. A refusal of the state is a fault here.
    pub(crate) async fn propose(
        &self,
        id: CommandId,
        actor: Actor,
        command: Command,
        wait: WaitFor,
    ) -> Result<Written, Fault> {
        let envelope = Envelope {
            id,
            now_ms: self.clock.wall_ms(),
            actor,
            command,
        };
        let writing = self.writer.write(envelope, wait, limits::WRITE_WAIT);
        // The port keeps its own limit; this one is for a port that does not.
        let written = tokio::time::timeout(limits::WRITE_WAIT + Duration::from_secs(5), writing).await;
        let late = |_| WriteFailed::OutcomeUnknown("no answer in time".to_owned());
        let written = written.map_err(late)??;
        match written.reply {
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Ok(written),
        }
    }

    pub(crate) fn random_command_id(&self) -> CommandId {
        CommandId(u128::from_be_bytes(self.random()))
    }

    pub(crate) fn new_id(&self) -> Id {
        Id::v7(self.clock.wall_ms(), self.random())
    }

    /// What people call the nodes of a receipt.
    async fn receipt(&self, written: &Written, gone: &[(NodeId, String)]) -> Result<Option<ReceiptBody>, Fault> {
        let Some(receipt) = &written.receipt else {
            return Ok(None);
        };
        let nodes = self.read(|t| tables::list::<NodeRecord>(t, None, NODES_MAX)).await?;
        let names: BTreeMap<NodeId, String> = nodes
            .into_iter()
            .map(|n| (n.id, n.name.to_string()))
            .chain(gone.iter().cloned())
            .collect();
        Ok(Some(ReceiptBody::of(receipt, |node| names.get(&node).cloned())))
    }
}

impl Call {
    /// What the caller wants to wait for.
    pub(crate) fn wait(&self) -> Result<WaitFor, Fault> {
        match self.query("wait") {
            None | Some("effective") => Ok(WaitFor::Effective),
            Some("committed") => Ok(WaitFor::Committed),
            Some(_) => Err(Fault::invalid(vec![FieldFault::new(
                "wait",
                "the values are effective and committed",
            )])),
        }
    }

    /// The version that the object must still have, from `If-Match`.
    pub(crate) fn if_version(&self) -> Result<Option<u64>, Fault> {
        let Some(value) = self.headers.get(header::IF_MATCH) else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let number = text.trim_matches('"').parse();
        number.map(Some).map_err(|_| {
            Fault::invalid(vec![FieldFault::new(
                "If-Match",
                "it is the resourceVersion of the object, a decimal number",
            )])
        })
    }
}

impl Admitted {
    /// Has a command carried out on the caller's behalf.
    pub(crate) async fn propose(&self, command: Command) -> Result<Written, Fault> {
        self.propose_again(command, 0).await
    }

    /// The same for a change that was overtaken `attempt` times and was made anew.
    pub(crate) async fn propose_again(&self, command: Command, attempt: u32) -> Result<Written, Fault> {
        let id = self.command_id(attempt)?;
        self.call
            .api
            .propose(id, self.caller.actor, command, self.call.wait()?)
            .await
    }

    /// With an idempotency key the same request has the same command id, whichever node it is sent to, so that it is carried
    /// out once. Another request with that key has another id: a key never answers for something else.
    fn command_id(&self, attempt: u32) -> Result<CommandId, Fault> {
        let Some(key) = self.call.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(self.call.api.random_command_id());
        };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let why = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            return Err(Fault::invalid(vec![FieldFault::new("Idempotency-Key", why)]));
        }
        let principal = match self.caller.actor {
            Actor::System => "system".to_owned(),
            Actor::User(id) | Actor::ServiceAccount(id) => id.to_string(),
            Actor::Token(hash) => hash.to_string(),
        };
        let params: Vec<&str> = self.call.params.iter().map(|(_, value)| value.as_str()).collect();
        let route = self.call.route;
        let mut hash = Sha256::new();
        for part in [
            principal.as_bytes(),
            key.as_bytes(),
            route.method().as_str().as_bytes(),
            route.path().as_bytes(),
            params.join("/").as_bytes(),
            &self.call.body,
            &attempt.to_be_bytes(),
        ] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_at(16);
        Ok(CommandId(u128::from_be_bytes(
            first.try_into().expect("16 of 32 bytes"),
        )))
    }

    /// The answer to a write: the object, the receipt if there is one, and 202 if that is not whole.
    pub(crate) async fn answer(
        &self,
        written: &Written,
        status: StatusCode,
        object: impl Serialize,
    ) -> Result<Answer, Fault> {
        self.answer_naming(written, status, object, &[]).await
    }

    /// The same, where some nodes of the receipt are registered no more.
    pub(crate) async fn answer_naming(
        &self,
        written: &Written,
        status: StatusCode,
        object: impl Serialize,
        gone: &[(NodeId, String)],
    ) -> Result<Answer, Fault> {
        let receipt = self.call.api.receipt(written, gone).await?;
        let waited = written.restricts && self.call.wait()? == WaitFor::Effective;
        let effective = receipt.as_ref().is_some_and(|r| r.effective);
        let status = if waited && !effective {
            StatusCode::ACCEPTED
        } else {
            status
        };
        let body = write::Written { object, receipt };
        Ok(Answer::ok(&body).status(status).index(written.index))
    }

    /// Waits until this node shows what was just written.
    pub(crate) async fn see(&self, written: &Written) -> Result<(), Fault> {
        let reached = self.call.api.reach(written.index, limits::INDEX_WAIT).await;
        reached.map_err(|fault| {
            let index = written.index;
            fault.hint(format!(
                "the change itself is committed at index {index}: read it from another node"
            ))
        })
    }
}
