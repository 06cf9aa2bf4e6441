//! A data directory in the making: complete, or not there. What says that there is a node is written last.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::certs::{CA_FILE, LISTENER_FILE, PEER_FILE};
use crate::identity::{self, DATA_KEY_FILE, Identity, write_private};

/// The configuration that `init` and `join` write.
pub(crate) const CONFIG_FILE: &str = "mcpnode.toml";
/// The setup secret of the first administrator.
pub(crate) const SETUP_FILE: &str = "setup.secret";
/// How the cluster begins, until it has.
pub(crate) const FOUNDING_FILE: &str = "founding.json";
/// What an interrupted attempt may have left behind. Without `node.json` it belongs to nobody.
const OURS: [&str; 7] = [
    CA_FILE,
    PEER_FILE,
    LISTENER_FILE,
    DATA_KEY_FILE,
    CONFIG_FILE,
    SETUP_FILE,
    FOUNDING_FILE,
];
/// What a fresh file system has.
const NOT_OURS: &str = "lost+found";

/// Files that are to be written together.
#[derive(Default)]
pub(crate) struct Files(Vec<(&'static str, zeroize::Zeroizing<Vec<u8>>)>);

impl Files {
    /// One more.
    pub(crate) fn add(&mut self, name: &'static str, bytes: &[u8]) {
        self.0.push((name, zeroize::Zeroizing::new(bytes.to_vec())));
    }

    /// Those too.
    pub(crate) fn append(&mut self, mut others: Files) {
        self.0.append(&mut others.0);
    }

    /// Writes them into `dir`, each for its owner's eyes only. Where one fails, those before it go again.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        for (at, (name, bytes)) in self.0.iter().enumerate() {
            if let Err(error) = write_private(&dir.join(name), bytes) {
                for (name, _) in &self.0[..at] {
                    fs::remove_file(dir.join(name)).unwrap_or(());
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// An empty directory for a new node. Made if it is not there.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Refuses a directory that holds anything but what an interrupted attempt has left.
    pub(crate) fn claim(dir: &Path) -> anyhow::Result<Home> {
        let dir = std::path::absolute(dir)?;
        let cannot = || format!("{} cannot be made", dir.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(cannot)?;
        let mut others = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("{} cannot be read", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name == identity::FILE {
                return Err(refuse_a_node(&dir));
            }
            let left_over = OURS.contains(&name.as_str()) || name.ends_with(".tmp");
            if !left_over && name != NOT_OURS {
                others.push(name);
            }
        }
        if let Some(other) = others.first() {
            bail!(
                "{} is not empty (it holds {other:?}): name an empty or a new directory with --data-dir",
                dir.display()
            );
        }
        Ok(Home(dir))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where its configuration will be.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join(CONFIG_FILE)
    }

    /// Writes everything, and last of all who it is: from then on it is a node's directory.
    pub(crate) fn furnish(&self, files: &Files, identity: &Identity) -> anyhow::Result<()> {
        files.write(&self.0)?;
        identity.save(&self.0)
    }
}

fn refuse_a_node(dir: &Path) -> anyhow::Error {
    let config = dir.join(CONFIG_FILE);
    match Identity::load(dir).and_then(|i| Ok((i.node()?, i.cluster()?))) {
        Ok((node, cluster)) => anyhow::anyhow!(
            "{} holds node {node} of cluster {cluster} already: start it with `mcpnode serve --config {}`, or name another \
             --data-dir",
            dir.display(),
            config.display()
        ),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use mcp_model::ids::{Id, NodeId};

    use super::*;

    #[test]
    fn only_an_empty_directory_is_claimed_and_what_an_attempt_left_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        let mut files = Files::default();
        files.add(CA_FILE, b"x");
        let claimed = Home::claim(&home).unwrap();
        files.write(claimed.path()).unwrap();
        fs::create_dir(home.join(NOT_OURS)).unwrap();
        let again = Home::claim(&home).unwrap();
        again
            .furnish(&files, &Identity::new(Id::from_u128(1), NodeId(2)))
            .unwrap();
        let said = Home::claim(&home).unwrap_err().to_string();
        assert!(
            said.contains("node 0000000000000002") && said.contains("mcpnode serve"),
            "{said}"
        );
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("photo.jpg"), "x").unwrap();
        let said = Home::claim(&other).unwrap_err().to_string();
        assert!(said.contains("photo.jpg") && said.contains("--data-dir"), "{said}");
    }
}
