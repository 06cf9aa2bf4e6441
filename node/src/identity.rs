//! Who this data directory is: `node.json`, the data key and the peer certificate, and the refusal to be anybody else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use mcp_model::ids::{Id, NodeId};
use serde::{Deserialize, Serialize};

/// Layout of a data directory. A newer one is refused.
const FORMAT: u32 = 1;
/// Says that a directory is a node's, and whose.
pub(crate) const FILE: &str = "node.json";
pub(crate) const DATA_KEY_FILE: &str = "data.key";

/// The name badge of a data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Identity {
    format: u32,
    cluster_id: String,
    node_id: String,
    /// Set once the stores were opened: from then on an empty store is a lost one.
    pub(crate) had_data: bool,
    /// Set once the cluster has removed this node: its id never comes back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

impl Identity {
    pub(crate) fn new(cluster: Id, node: NodeId) -> Identity {
        Identity {
            format: FORMAT,
            cluster_id: cluster.to_string(),
            node_id: node.to_string(),
            had_data: false,
            removed: false,
        }
    }

    pub(crate) fn cluster(&self) -> anyhow::Result<Id> {
        self.cluster_id
            .parse()
            .with_context(|| format!("{FILE}: clusterId {:?}", self.cluster_id))
    }

    pub(crate) fn node(&self) -> anyhow::Result<NodeId> {
        self.node_id
            .parse()
            .with_context(|| format!("{FILE}: nodeId {:?}", self.node_id))
    }

    pub(crate) fn load(dir: &Path) -> anyhow::Result<Identity> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "{} cannot be read: `mcpnode init` and `mcpnode join` make data directories",
                path.display()
            )
        })?;
        Identity::read(&path, &text)
    }

    /// What stands in the file at `path`.
    pub(crate) fn read(path: &Path, text: &str) -> anyhow::Result<Identity> {
        let identity: Identity = serde_json::from_str(text).with_context(|| {
            format!(
                "{} is damaged: put back a copy of it (it never changes but for `hadData` and `removed`), or move the \
                     directory away and let the machine join anew with `mcpnode join`",
                path.display()
            )
        })?;
        if identity.format != FORMAT {
            bail!(
                "{} has format {}, this mcpnode knows {FORMAT}: run a newer mcpnode",
                path.display(),
                identity.format
            );
        }
        Ok(identity)
    }

    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_private(&dir.join(FILE), text.as_bytes())
    }
}

/// The key that seals what must not stand in the store in the clear. The same on every node of a cluster.
pub(crate) fn load_data_key(dir: &Path) -> anyhow::Result<[u8; 32]> {
    let path = dir.join(DATA_KEY_FILE);
    let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("{} is not a data key: it must hold 32 bytes", path.display()))
}

/// Writes a file that only its owner reads: beside its place, to the disk, then renamed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let beside = path.with_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::File::open(dir)?.sync_all()
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

/// A key for one purpose, derived from the data key (HKDF-SHA256).
pub(crate) fn derive_key(data_key: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"mcpnode");
    let mut key = [0; 32];
    let info = [purpose];
    let okm = salt.extract(data_key);
    let okm = okm
        .expand(&info, ring::hkdf::HKDF_SHA256)
        .expect("32 bytes can be expanded");
    okm.fill(&mut key).expect("the length is that of the algorithm");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::new(Id::from_u128(7), NodeId(9));
        identity.save(dir.path()).unwrap();
        let back = Identity::load(dir.path()).unwrap();
        assert_eq!(
            (back.cluster().unwrap(), back.node().unwrap()),
            (Id::from_u128(7), NodeId(9))
        );
        let newer = Identity { format: 2, ..identity };
        newer.save(dir.path()).unwrap();
        assert!(
            Identity::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("newer mcpnode")
        );
    }

    #[test]
    fn a_file_without_a_folder_is_written_here() {
        let name = format!("mcpnode-test-{}.tmp2", std::process::id());
        write_private(Path::new(&name), b"x").unwrap();
        fs::remove_file(&name).unwrap();
    }

    #[test]
    fn purposes_have_different_keys() {
        assert_ne!(derive_key(&[1; 32], b"a"), derive_key(&[1; 32], b"b"));
        assert_ne!(derive_key(&[1; 32], b"a"), derive_key(&[2; 32], b"a"));
    }
}
