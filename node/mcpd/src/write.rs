//! Hands changes to the cluster and turns what comes back into answers.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode, header};
use mcp_api::headers::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX};
use mcp_api::problem::{Code, FieldFault};
use mcp_api::receipt::ReceiptBody;
use mcp_api::write::{self, Removed};
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::records::{AuditRecord, NodeRecord};
use mcp_model::tables::{self, Table, Tables};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::call::{Admitted, Call};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::limits;
use crate::port::{Pending, WaitFor, WriteFailed, Written};
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
        (wait, limit): (WaitFor, Duration),
    ) -> Result<Written, Fault> {
        let envelope = Envelope {
            id,
            now_ms: self.clock.wall_ms(),
            actor,
            command,
        };
        let writing = self.writer.write(envelope, wait, limit);
        // The port keeps its own limit; this one is for a port that does not.
        let written = tokio::time::timeout(limit + Duration::from_secs(5), writing).await;
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

    /// The same, and for how long.
    pub(crate) fn patience(&self) -> Result<(WaitFor, Duration), Fault> {
        let limit = match self.query("timeoutSeconds").map(str::parse) {
            None => limits::WRITE_WAIT,
            Some(Ok(seconds)) if (1..=limits::WRITE_WAIT_SECONDS_MAX).contains(&seconds) => {
                Duration::from_secs(seconds)
            }
            Some(_) => {
                let why = format!("a number of seconds, 1 to {}", limits::WRITE_WAIT_SECONDS_MAX);
                return Err(Fault::invalid(vec![FieldFault::new("timeoutSeconds", why)]));
            }
        };
        Ok((self.wait()?, limit))
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

impl Call {
    /// With an idempotency key the same request has the same command id, whichever node it is sent to, so that it is carried
    /// out once. Another request with that key has another id: a key never answers for something else. The id is kept where
    /// others can read it and the request may hold a password, so nobody without the cluster's key can try guesses on it.
    fn keyed_command_id(&self, caller: &Caller, attempt: u32) -> Result<Option<CommandId>, Fault> {
        let Some(key) = self.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(None);
        };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let why = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            return Err(Fault::invalid(vec![FieldFault::new("Idempotency-Key", why)]));
        }
        let principal = match caller.actor {
            Actor::System => "system".to_owned(),
            Actor::User(id) | Actor::ServiceAccount(id) => id.to_string(),
            Actor::Token(hash) => hash.to_string(),
        };
        let params: Vec<&str> = self.params.iter().map(|(_, value)| value.as_str()).collect();
        let mut hash = Sha256::new();
        for part in [
            self.api.idempotency_key.as_slice(),
            principal.as_bytes(),
            key.as_bytes(),
            self.route.method().as_str().as_bytes(),
            self.route.path().as_bytes(),
            params.join("/").as_bytes(),
            &self.body,
            &attempt.to_be_bytes(),
        ] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_at(16);
        let first = first.try_into().expect("16 of 32 bytes");
        Ok(Some(CommandId(u128::from_be_bytes(first))))
    }

    /// The answer to a removal that is repeated. Its object is gone, so there is nothing left that a right could be held on;
    /// that the same principal was let in and asked the same before is what its key proves.
    pub(crate) async fn removed_before(&self, caller: &Caller) -> Result<Option<Answer>, Fault> {
        if *self.route.method() != Method::DELETE {
            return Ok(None);
        }
        let Some(id) = self.keyed_command_id(caller, 0)? else {
            return Ok(None);
        };
        let before = self.api.read(move |t| {
            let outcome = outcome_of(t, id)?;
            let Reply::Deleted { id } = outcome.reply else {
                return None;
            };
            Some((id, object_of(t, outcome.index)))
        });
        let Some((object, named)) = before.await? else {
            return Ok(None);
        };
        // The command's id is known, so it is not carried out: its first outcome comes back, and is waited for anew.
        let command = Command::DeleteToken { id: object };
        let written = self.api.propose(id, caller.actor, command, self.patience()?).await?;
        let (kind, name) = named.unwrap_or_else(|| ("object".to_owned(), object.to_string()));
        let removed = Removed {
            kind,
            name,
            id: object.to_string(),
            already: false,
        };
        Ok(Some(self.answer(&written, StatusCode::OK, removed, &[]).await?))
    }

    /// The answer to a write: the object, the receipt if there is one, and 202 if that is not whole. `gone` names nodes that
    /// are registered no more.
    async fn answer(
        &self,
        written: &Written,
        status: StatusCode,
        object: impl Serialize,
        gone: &[(NodeId, String)],
    ) -> Result<Answer, Fault> {
        let receipt = self.api.receipt(written, gone).await?;
        let waited = written.restricts && self.wait()? == WaitFor::Effective;
        let effective = receipt.as_ref().is_some_and(|r| r.effective);
        let status = if waited && !effective {
            StatusCode::ACCEPTED
        } else {
            status
        };
        let body = write::Written { object, receipt };
        Ok(Answer::ok(&body).status(status).index(written.index))
    }
}

/// What became of a command, if it was carried out.
fn outcome_of(tables: &dyn Tables, id: CommandId) -> Option<Outcome> {
    let bytes = tables.get(Table::Replies, &id.0.to_be_bytes())?;
    mcp_model::frame::decode(&bytes).ok()
}

/// Kind and name of what the entry at `index` was about, if it was about one thing.
fn object_of(tables: &dyn Tables, index: u64) -> Option<(String, String)> {
    let rows = tables.scan(Table::Audit, &index.to_be_bytes(), None, 2);
    let [(key, _)] = rows.as_slice() else { return None };
    let event: AuditRecord = tables::load(tables, key)?;
    let (kind, name) = event.object.split_once(' ')?;
    Some((kind.to_owned(), name.to_owned()))
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
            .propose(id, self.caller.actor, command, self.call.patience()?)
            .await
    }

    /// Makes a change out of what is there now, and makes it anew when somebody else was quicker, unless the caller named the
    /// version that it is for.
    pub(crate) async fn change_of<'a>(
        &'a self,
        make: impl Fn() -> Pending<'a, Result<Command, Fault>>,
    ) -> Result<Written, Fault> {
        let asked = self.call.if_version()?;
        for attempt in 0..limits::OVERTAKEN_MAX {
            match self.propose_again(make().await?, attempt).await {
                Err(fault) if fault.code() == Code::VersionMismatch && asked.is_none() => {
                    self.call.api.catch_up().await?;
                }
                done => return done,
            }
        }
        let detail = format!("{:?} is being changed by others", self.name);
        Err(Fault::new(Code::VersionMismatch, detail).hint("try again in a moment"))
    }

    fn command_id(&self, attempt: u32) -> Result<CommandId, Fault> {
        let keyed = self.call.keyed_command_id(&self.caller, attempt)?;
        Ok(keyed.unwrap_or_else(|| self.call.api.random_command_id()))
    }

    /// Whether this very request was carried out before.
    pub(crate) async fn is_repeated(&self) -> Result<bool, Fault> {
        let Some(id) = self.call.keyed_command_id(&self.caller, 0)? else {
            return Ok(false);
        };
        let outcome = self.call.api.read(move |t| outcome_of(t, id)).await?;
        Ok(outcome.is_some_and(|o| !matches!(o.reply, Reply::Refused(_))))
    }

    /// The answer to a write.
    pub(crate) async fn answer(
        &self,
        written: &Written,
        status: StatusCode,
        object: impl Serialize,
    ) -> Result<Answer, Fault> {
        self.call.answer(written, status, object, &[]).await
    }

    /// The same, where some nodes of the receipt are registered no more.
    pub(crate) async fn answer_naming(
        &self,
        written: &Written,
        status: StatusCode,
        object: impl Serialize,
        gone: &[(NodeId, String)],
    ) -> Result<Answer, Fault> {
        self.call.answer(written, status, object, gone).await
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
