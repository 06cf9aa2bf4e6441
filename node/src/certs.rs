//! Certificates among peers: one authority per cluster, one certificate per node that names the node's id.

use std::path::Path;

use anyhow::Context;
use mcp_model::ids::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::identity::write_private;

pub(crate) const CA_FILE: &str = "ca.crt";
pub(crate) const CERT_FILE: &str = "peer.crt";
pub(crate) const KEY_FILE: &str = "peer.key";

/// An authority whose key is in memory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Makes one.
    pub(crate) fn generate() -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("mcpnode cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Writes the authority's certificate, and a certificate and key for `node`, into `dir`.
    pub(crate) fn equip(&self, dir: &Path, node: NodeId) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![mcp_raft::tls::peer_name(node)])?;
        params.distinguished_name = named(&format!("mcpnode {node}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a peer certificate")?;
        write_private(&dir.join(CA_FILE), self.pem.as_bytes())?;
        write_private(&dir.join(CERT_FILE), cert.pem().as_bytes())?;
        write_private(&dir.join(KEY_FILE), key.serialize_pem().as_bytes())
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
