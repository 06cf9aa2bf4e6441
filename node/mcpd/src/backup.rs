//! Backups: streamed out of one transaction while everything goes on, and restored through the log, piece by piece and then at once.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use mcp_api::backup::{RestoreBody, RestorePart, RestorePartBody, RestoreRequest};
use mcp_api::problem::{Code, FieldFault};
use mcp_api::write::{Removed, Written};
use mcp_model::apply::restore::{PART_BYTES_MAX, PARTS_MAX, Wish, preview};
use mcp_model::command::{Command, Reply};
use mcp_model::ids::{CommandId, Id};
use mcp_store::StoreError;
use mcp_store::backup::{Backup, Taker};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::body::{self, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;

/// Pieces that are made before their reader takes them.
const PIECES_AHEAD: usize = 4;
/// How long a reader may leave a piece lying: the pages under a backup are not given back before it ends.
const READER_WAIT: Duration = Duration::from_secs(60);

/// Everything that was acknowledged anywhere before this is in it.
pub(crate) async fn save(it: Admitted) -> Result<Answer, Fault> {
    let api = &it.call.api;
    let busy = |_| Fault::new(Code::TooManyRequests, "this node is sending a backup already").retry_after_s(5);
    let place = api.backups.clone().try_acquire_owned().map_err(busy)?;
    api.catch_up().await?;
    let taker = Taker {
        program: format!("mcpnode {}", env!("CARGO_PKG_VERSION")),
        taken_ms: api.clock.wall_ms(),
        key_id: api.key_id(),
    };
    let replica = api.replica.clone();
    let taken = tokio::task::spawn_blocking(move || replica.backup(taker)).await;
    let broken = |_| Fault::new(Code::StoreFailed, "this node cannot read its store");
    let backup = taken.map_err(broken)??;
    let header = backup.header();
    let (index, length) = (header.index, backup.length());
    let (pieces, ready) = mpsc::channel::<Bytes>(PIECES_AHEAD);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        if let Err(error) = send(backup, &handle, &pieces) {
            // The reader sees a body that is shorter than was announced.
            tracing::error!(%error, "a backup broke off");
        }
    });
    let body = stream::unfold(ready, |mut ready| async move {
        let piece = ready.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), ready))
    });
    tracing::info!(index, bytes = length, "a backup is taken");
    Ok(Answer::file(Body::from_stream(body), length).index(index))
}

fn send(backup: Backup, handle: &Handle, pieces: &mpsc::Sender<Bytes>) -> Result<(), StoreError> {
    backup.write(|piece| {
        let sent = tokio::time::timeout(READER_WAIT, pieces.send(piece.into()));
        matches!(handle.block_on(sent), Ok(Ok(())))
    })
}

pub(crate) async fn stage(it: Admitted) -> Result<Answer, Fault> {
    let restore = restore_id(&it)?;
    let Parsed { value, mut faults } = body::parse::<RestorePart>(&it.call.body)?;
    let bytes = faults.check("data", BASE64.decode(&value.data).map_err(|_| "this is not base64"));
    if bytes.as_ref().is_some_and(|b| b.is_empty() || b.len() > PART_BYTES_MAX) {
        faults.add("data", "1 byte to 256 KiB");
    }
    if value.part >= PARTS_MAX {
        faults.add("part", format!("less than {PARTS_MAX}"));
    }
    faults.refuse()?;
    let part = value.part;
    let command = Command::StageRestore {
        restore,
        part,
        bytes: bytes.expect(READ),
    };
    let written = it.propose(command).await?;
    let restore = restore.to_string();
    it.answer(&written, StatusCode::CREATED, RestorePartBody { restore, part })
        .await
}

pub(crate) async fn finish(it: Admitted) -> Result<Answer, Fault> {
    let restore = restore_id(&it)?;
    let Parsed { value, mut faults } = body::parse::<RestoreRequest>(&it.call.body)?;
    let head = faults.check("head", BASE64.decode(&value.head).map_err(|_| "this is not base64"));
    if head.as_ref().is_some_and(Vec::is_empty) {
        faults.add("head", "the head of the backup is missing");
    }
    faults.refuse()?;
    let head = head.expect(READ);
    let (revive_tokens, any_cluster) = (value.revive_tokens, value.other_cluster);
    let api = &it.call.api;
    if value.dry_run {
        api.catch_up().await?;
        let now_ms = api.clock.wall_ms();
        let found = api.read(move |tables| {
            let head = head.as_slice();
            preview(
                tables,
                Wish {
                    restore,
                    head,
                    revive_tokens,
                    any_cluster,
                    now_ms,
                },
            )
        });
        let object = RestoreBody::of(restore.to_string(), true, &found.await??);
        return Ok(Answer::ok(&Written { object, receipt: None }));
    }
    let id = finish_id(restore, &head, revive_tokens, any_cluster);
    let command = Command::FinishRestore {
        restore,
        head,
        revive_tokens,
        any_cluster,
    };
    let written = api.propose(id, it.caller.actor, command, it.call.patience()?).await?;
    let Reply::Restored(restored) = &written.reply else {
        return Err(Fault::new(
            Code::NotProposed,
            "the state gave another answer than that to a restore",
        ));
    };
    tracing::info!(
        index = written.index,
        backup_index = restored.backup_index,
        "a backup was restored"
    );
    if restored.refused.count > 0 {
        tracing::warn!(
            index = written.index,
            backup_index = restored.backup_index,
            tokens = restored.refused.count,
            names = restored.refused.names.join(", "),
            "tokens of the restored backup stay refused: they were revoked, deleted or have expired since, or were never known here"
        );
    }
    let object = RestoreBody::of(restore.to_string(), false, restored);
    it.answer(&written, StatusCode::OK, object).await
}

pub(crate) async fn forget(it: Admitted) -> Result<Answer, Fault> {
    let restore = restore_id(&it)?;
    let written = it.propose(Command::DropRestore { restore }).await?;
    let removed = Removed {
        kind: "restore".to_owned(),
        name: restore.to_string(),
        id: restore.to_string(),
        already: false,
    };
    it.answer(&written, StatusCode::OK, removed).await
}

/// The same restore, asked for in the same way, is carried out once: whoever does not know what became of it asks again.
fn finish_id(restore: Id, head: &[u8], revive_tokens: bool, any_cluster: bool) -> CommandId {
    let mut hash = Sha256::new();
    hash.update(b"restore a backup");
    hash.update(restore.to_bytes());
    hash.update([u8::from(revive_tokens), u8::from(any_cluster)]);
    hash.update(head);
    let digest: [u8; 32] = hash.finalize().into();
    CommandId(u128::from_be_bytes(*digest.first_chunk().expect("32 bytes")))
}

fn restore_id(it: &Admitted) -> Result<Id, Fault> {
    let given = it.call.param("name");
    given.parse().map_err(|_| {
        let why = "a restore is named by an id (a uuid) that whoever begins it chooses";
        Fault::invalid(vec![FieldFault::new("name", why)])
    })
}

impl crate::router::Api {
    /// Tells one data key from another and says nothing else about it.
    fn key_id(&self) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(b"id of the data key");
        hash.update(self.idempotency_key.as_slice());
        let digest: [u8; 32] = hash.finalize().into();
        *digest.first_chunk().expect("32 bytes")
    }
}
