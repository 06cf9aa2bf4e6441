//! The configuration file: contexts, each with the nodes of a cluster and the session there. Readable by its owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// All contexts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// The context that is used when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_context: Option<String>,
    pub(crate) contexts: Vec<Context>,
}

/// One cluster, as one user of it. Its `Debug` leaves the session out.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Context {
    pub(crate) name: String,
    /// API URLs of the nodes, in the order in which they are tried.
    pub(crate) servers: Vec<String>,
    /// Who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The session's bearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_expires_at: Option<String>,
    /// PEM file with certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cacert: Option<PathBuf>,
    /// The project that `-p` stands for when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the file; a missing one is an empty one.
    pub(crate) fn load() -> Result<Config, Failure> {
        let path = path()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => {
                return Err(
                    Failure::new(format!("cannot read {}", path.display()), error.to_string())
                        .next(format!("ls -l {}", path.display())),
                );
            }
        };
        warn_if_open(&path);
        yaml_serde::from_str(&text).map_err(|error| {
            Failure::new(format!("cannot read {}", path.display()), error.to_string())
                .next("mend or remove that file, then: mcpctl login")
        })
    }

    /// Writes the file: complete or not at all, and for its owner's eyes only from the first byte.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = path()?;
        let failed = |error: &dyn std::fmt::Display| {
            let dir = path.parent().unwrap_or(&path).display().to_string();
            Failure::new(format!("cannot write {}", path.display()), error.to_string()).next(format!("ls -ld {dir}"))
        };
        let text = yaml_serde::to_string(self).map_err(|error| failed(&error))?;
        write_private(&path, text.as_bytes()).map_err(|error| failed(&error))
    }

    pub(crate) fn context(&self, name: &str) -> Option<&Context> {
        self.contexts.iter().find(|c| c.name == name)
    }

    /// The context of that name, made if there is none.
    pub(crate) fn context_mut(&mut self, name: &str) -> &mut Context {
        let at = self.contexts.iter().position(|c| c.name == name).unwrap_or_else(|| {
            self.contexts.push(Context {
                name: name.to_owned(),
                ..Context::default()
            });
            self.contexts.len() - 1
        });
        &mut self.contexts[at]
    }
}

/// Sessions stand in it: others must not read it.
fn warn_if_open(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!(
            "warning: others can read {0}, which holds sessions: chmod 600 {0}",
            path.display()
        );
    }
}

fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("mcpctl/config.yaml")).ok_or_else(|| {
        Failure::new(
            "cannot find the configuration",
            "neither HOME nor XDG_CONFIG_HOME is set",
        )
        .next("export HOME=/path/to/your/home")
    })
}

/// Writes a file for its owner's eyes only: complete or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = path.with_extension(format!("yaml.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
