//! A backup of the state as one transaction sees it, while everything goes on.

use mcp_model::backup::{self, Header, Occasion};
use mcp_model::records::ClusterRecord;
use mcp_model::tables;
use redb::ReadTransaction;

use crate::error::StoreError;
use crate::rows::{Rows, STATE};

/// Bytes that are handed on at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// A state that is about to be written down. It stays as it is for as long as this is kept, and so do the pages under it.
pub struct Backup {
    txn: ReadTransaction,
    header: Header,
}

/// Who takes a backup, and when.
#[derive(Debug, Clone)]
pub struct Taker {
    /// The program.
    pub program: String,
    /// ms since 1970.
    pub taken_ms: u64,
    /// Tells which data key secrets are sealed under.
    pub key_id: [u8; 8],
}

impl Backup {
    pub(crate) fn of(txn: ReadTransaction, index: u64, taker: Taker) -> Result<Backup, StoreError> {
        let rows = Rows::new(txn.open_table(STATE)?);
        let cluster: Option<ClusterRecord> = tables::load(&rows, &[0]);
        rows.check()?;
        let cluster = cluster.ok_or_else(|| StoreError::Corrupt("there is no cluster in the state".to_owned()))?;
        let Taker {
            program,
            taken_ms,
            key_id,
        } = taker;
        let occasion = Occasion {
            cluster_id: cluster.cluster_id,
            index,
            taken_ms,
            program,
            feature_level: cluster.feature_level,
            key_id,
        };
        let header = backup::survey(&rows, occasion);
        rows.check()?;
        drop(rows);
        Ok(Backup { txn, header })
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the whole.
    pub fn length(&self) -> u64 {
        u64::try_from(backup::head(&self.header).len()).unwrap_or(0) + self.header.body_bytes
    }

    /// Hands the whole backup to `take`, piece by piece, until it has had enough.
    pub fn write(self, mut take: impl FnMut(Vec<u8>) -> bool) -> Result<(), StoreError> {
        let mut piece = backup::head(&self.header);
        let rows = Rows::new(self.txn.open_table(STATE)?);
        let mut wanted = true;
        backup::each_row(&rows, |_, row| {
            piece.extend_from_slice(&row);
            if piece.len() >= PIECE_BYTES {
                wanted = take(std::mem::take(&mut piece));
            }
            wanted
        });
        rows.check()?;
        if wanted && !piece.is_empty() {
            take(piece);
        }
        Ok(())
    }
}
