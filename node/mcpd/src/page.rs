//! Lists, page by page, filtered to what the caller may see.

use mcp_api::List;
use mcp_api::list::{PAGE_DEFAULT, PAGE_MAX};
use mcp_model::tables::{self, Stored, Table, Tables};

use crate::body::Faults;
use crate::call::Call;
use crate::fault::Fault;
use crate::limits::SCAN_MAX;

/// Records that are read at a time.
const CHUNK: usize = 500;

/// Which part of a list is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    after: Option<Vec<u8>>,
    limit: usize,
}

impl Call {
    /// The page that the query asks for.
    pub(crate) fn page(&self) -> Result<Page, Fault> {
        let mut faults = Faults::default();
        let limit = match self.query("limit").map(str::parse::<usize>) {
            None => PAGE_DEFAULT,
            Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
            Some(_) => {
                faults.add("limit", format!("a number from 1 to {PAGE_MAX}"));
                PAGE_DEFAULT
            }
        };
        let after = self.query("continue").map(from_hex);
        if after == Some(None) {
            faults.add("continue", "not what an earlier page gave");
        }
        faults.refuse()?;
        Ok(Page {
            after: after.flatten(),
            limit,
        })
    }
}

impl Page {
    /// One page of what is not in the order of its keys, each item with a key that names it.
    pub(crate) fn cut<B>(&self, all: Vec<(Vec<u8>, B)>, version: u64) -> Result<List<B>, Fault> {
        let begin = match &self.after {
            None => 0,
            Some(after) => {
                let mut faults = Faults::default();
                let at = all.iter().position(|(key, _)| key == after);
                let at = faults.check(
                    "continue",
                    at.ok_or("the list has changed meanwhile: begin again without it"),
                );
                faults.refuse()?;
                at.map_or(0, |at| at + 1)
            }
        };
        let end = all.len().min(begin + self.limit);
        let more = (end < all.len() && end > begin).then(|| to_hex(&all[end - 1].0));
        let items = all.into_iter().skip(begin).take(end - begin);
        Ok(List {
            items: items.map(|(_, item)| item).collect(),
            more,
            resource_version: version.to_string(),
        })
    }
}

/// Collects one page of what `show` lets through. A page may be short, even empty, and still have more behind it.
pub(crate) fn collect<T: Stored, B>(
    tables: &dyn Tables,
    page: &Page,
    version: u64,
    mut show: impl FnMut(T) -> Option<B>,
) -> List<B> {
    let mut items = Vec::new();
    let mut after = page.after.clone().map(whole_key::<T>);
    let mut more = None;
    'scan: for _ in 0..SCAN_MAX / CHUNK {
        let some: Vec<T> = tables::list(tables, after.as_deref(), CHUNK);
        let last_chunk = some.len() < CHUNK;
        for record in some {
            let key = record.key();
            if items.len() == page.limit {
                more = after.as_deref().map(shown_key);
                break 'scan;
            }
            items.extend(show(record));
            after = Some(key);
        }
        more = after.as_deref().map(shown_key);
        if last_chunk {
            more = None;
            break;
        }
    }
    List {
        items,
        more,
        resource_version: version.to_string(),
    }
}

/// Bytes of a key that are shown. Ids are no longer than that, and half of a session's hash says nothing about the rest.
const SHOWN_BYTES: usize = 16;

fn shown_key(key: &[u8]) -> String {
    to_hex(&key[..key.len().min(SHOWN_BYTES)])
}

/// The last key that what was shown can stand for.
fn whole_key<T: Stored>(mut shown: Vec<u8>) -> Vec<u8> {
    if T::TABLE == Table::Sessions {
        shown.resize(32, 0xff);
    }
    shown
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// For the fuzzer: a text as what an earlier page gave.
pub(crate) fn decode_continue(text: &str) {
    if let Some(bytes) = from_hex(text) {
        assert!(to_hex(&bytes).eq_ignore_ascii_case(text));
    }
}
