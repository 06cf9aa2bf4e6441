//! Files for minted tokens.

use std::path::{Path, PathBuf};

use crate::config::write_private;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::out;

/// Where minted tokens are kept.
pub(super) struct Store {
    path: PathBuf,
    directory: bool,
}

impl Store {
    /// Finds out whether tokens can be kept there, before any is made.
    pub(super) fn at(path: &Path, tokens: usize) -> Result<Store, Failure> {
        let directory = path.is_dir();
        let failed = |why: &str| Failure::usage(format!("cannot keep tokens in {}", path.display()), why);
        if tokens > 1 && !directory {
            return Err(
                failed(&format!("{tokens} tokens are to be made, and a file holds one")).next(format!(
                    "mkdir -p {0} && mcpctl apply … --token-out {0}",
                    path.with_extension("d").display()
                )),
            );
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(missing) = parent.filter(|p| !p.is_dir()) {
            return Err(failed("there is no such directory").next(format!("mkdir -p {}", missing.display())));
        }
        let store = Store {
            path: path.to_owned(),
            directory,
        };
        let probe = store.path_of(".probe");
        write_private(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|error| failed(&error.to_string()).next(format!("ls -ld {}", path.display())))?;
        Ok(store)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        if self.directory {
            return self.path.join(name);
        }
        match name {
            ".probe" => self.path.with_extension("probe"),
            _ => self.path.clone(),
        }
    }

    /// Keeps a token, readable by its owner alone.
    pub(super) fn keep(&self, manifest: &Manifest, token: &str) -> Result<(), Failure> {
        let path = self.path_of(&format!("{}.{}", manifest.project().unwrap_or_default(), manifest.name));
        let kept = write_private(&path, format!("{token}\n").as_bytes());
        // It is not shown twice: better here than lost.
        if let Err(error) = kept {
            out::line(token);
            let what = format!("cannot keep the token in {}: it stands above", path.display());
            return Err(Failure::new(what, error.to_string()).next(format!("ls -ld {}", path.display())));
        }
        eprintln!("the token is in {}", path.display());
        Ok(())
    }
}
