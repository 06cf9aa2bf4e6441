//! How a cluster begins: what `init` (or `dev`) has decided, kept in a file until it stands in the replicated state.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mcp_model::names::{Email, Name};
use mcp_model::records::Authority;
use mcp_model::token::{PlainSetup, TokenHash};
use serde::{Deserialize, Serialize};

use crate::home::FOUNDING_FILE;

/// The file. Its key is sealed and its secret is a hash: whoever reads it has nothing yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Founding {
    /// Every first voter, this node included.
    pub(crate) members: Vec<Founder>,
    /// The first administrator.
    admin_email: String,
    /// SHA-256 of the secret that sets their password.
    setup_hash: String,
    authority: String,
    sealed_key: String,
}

/// A first voter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Founder {
    /// Its id, 16 hexadecimal digits.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: Name,
    /// Where its peers connect to.
    pub(crate) address: String,
}

impl Founding {
    pub(crate) fn new(members: Vec<Founder>, admin: &Email, setup: &PlainSetup, authority: &Authority) -> Founding {
        Founding {
            members,
            admin_email: admin.to_string(),
            setup_hash: setup.hash().to_string(),
            authority: STANDARD.encode(&authority.certificate),
            sealed_key: STANDARD.encode(&authority.sealed_key),
        }
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// What is still to be done in `dir`, if anything.
    pub(crate) fn pending(dir: &Path) -> anyhow::Result<Option<Founding>> {
        let path = file(dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let founding = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(founding))
    }

    /// It stands in the replicated state now.
    pub(crate) fn done(dir: &Path) -> anyhow::Result<()> {
        let path = file(dir);
        std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))
    }

    pub(crate) fn admin(&self) -> anyhow::Result<Email> {
        Email::parse(&self.admin_email).with_context(|| format!("{FOUNDING_FILE}: adminEmail {:?}", self.admin_email))
    }

    pub(crate) fn setup_hash(&self) -> anyhow::Result<TokenHash> {
        TokenHash::from_hex(&self.setup_hash).with_context(|| format!("{FOUNDING_FILE}: setupHash"))
    }

    pub(crate) fn authority(&self) -> anyhow::Result<Authority> {
        Ok(Authority {
            certificate: STANDARD.decode(&self.authority)?,
            sealed_key: STANDARD.decode(&self.sealed_key)?,
        })
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FOUNDING_FILE)
}
