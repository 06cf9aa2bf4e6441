//! Certificates: one authority per cluster; under it, for each node, one that names the node's id to its peers, and one that
//! names its hosts to clients.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use mcp_model::ids::NodeId;
use mcp_model::records::Authority as Kept;
use mcp_store::seal::Seal;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::home::Files;
use crate::{identity, random};

pub(crate) const CA_FILE: &str = "ca.crt";
/// Certificate and key in one file, so that the two are never of different age.
pub(crate) const PEER_FILE: &str = "peer.pem";
pub(crate) const LISTENER_FILE: &str = "listener.pem";

/// How long an authority lasts, ms: 20 years. There is no way yet to replace one.
const AUTHORITY_MS: u64 = 20 * 365 * 86_400_000;
/// How long a certificate lasts, ms: 90 days. It is renewed when a third of that is left.
pub(crate) const CERTIFICATE_MS: u64 = 90 * 86_400_000;
/// How far clocks may be apart, ms: certificates begin a day before they are made.
const SKEW_MS: u64 = 86_400_000;
/// What the authority's key is sealed for.
const SEALED_FOR: &[u8] = b"certificate authority";

/// An authority whose key is in memory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

impl Authority {
    /// Makes one.
    pub(crate) fn generate(now_ms: u64) -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("mcpnode cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        last(&mut params, now_ms, AUTHORITY_MS)?;
        let cert = params.self_signed(&key)?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
            der: cert.der().to_vec(),
            pem: cert.pem(),
        })
    }

    /// The one that the cluster keeps.
    pub(crate) fn open(kept: &Kept, data_key: &[u8; 32]) -> anyhow::Result<Authority> {
        let key = seal(data_key).open(SEALED_FOR, &kept.sealed_key)?;
        let key = KeyPair::try_from(key.as_slice()).context("the authority's key cannot be read")?;
        let der = CertificateDer::from(kept.certificate.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).context("the authority's certificate cannot be read")?;
        Ok(Authority {
            issuer,
            pem: pem(&kept.certificate),
            der: kept.certificate.clone(),
        })
    }

    /// What the cluster keeps of it: the key is sealed.
    pub(crate) fn keep(&self, data_key: &[u8; 32]) -> Kept {
        let key = Zeroizing::new(self.issuer.key().serialize_der());
        Kept {
            certificate: self.der.clone(),
            sealed_key: seal(data_key).seal(SEALED_FOR, &key, random::bytes()),
        }
    }

    /// Its certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `node` among its peers, PEM.
    pub(crate) fn sign_peer(&self, key: &impl PublicKeyData, node: NodeId, now_ms: u64) -> anyhow::Result<String> {
        let names = vec![mcp_raft::tls::peer_name(node), mcp_raft::tls::ANY_PEER.to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(&format!("mcpnode {node}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, key, now_ms)
    }

    /// A certificate for the listeners of a node, PEM: whatever clients may call it.
    pub(crate) fn sign_listeners(
        &self,
        key: &impl PublicKeyData,
        hosts: &[String],
        now_ms: u64,
    ) -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = hosts.iter().map(|host| san(host)).collect::<anyhow::Result<_>>()?;
        params.distinguished_name = named("mcpnode listener");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, now_ms)
    }

    fn sign(&self, mut params: CertificateParams, key: &impl PublicKeyData, now_ms: u64) -> anyhow::Result<String> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        last(&mut params, now_ms, CERTIFICATE_MS)?;
        let cert = params
            .signed_by(key, &self.issuer)
            .context("a certificate cannot be signed")?;
        Ok(cert.pem())
    }

    /// Everything that `node` needs of an authority, in files.
    pub(crate) fn equip(&self, node: NodeId, hosts: &[String], now_ms: u64) -> anyhow::Result<Files> {
        let (peer, listener) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut files = Files::default();
        files.add(CA_FILE, self.pem.as_bytes());
        files.add(PEER_FILE, &both(&self.sign_peer(&peer, node, now_ms)?, &peer));
        files.add(
            LISTENER_FILE,
            &both(&self.sign_listeners(&listener, hosts, now_ms)?, &listener),
        );
        Ok(files)
    }
}

/// Certificate and key as they stand in one file.
pub(crate) fn both(cert: &str, key: &KeyPair) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(format!("{cert}{}", *Zeroizing::new(key.serialize_pem())).into_bytes())
}

/// A new key with the request to have it signed: PEM both. The key stays where it is.
pub(crate) fn request() -> anyhow::Result<(KeyPair, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("mcpnode");
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

/// A request of somebody who has shown to hold its key. What else stands in it counts for nothing.
pub(crate) fn read_request(pem: &str) -> anyhow::Result<CertificateSigningRequestParams> {
    CertificateSigningRequestParams::from_pem(pem).context("the certificate request cannot be read")
}

/// SHA-256 of the authority in `pem`.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    digest(&SHA256, der).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What the first certificate of a file says of itself.
pub(crate) fn life(path: &Path) -> anyhow::Result<Life> {
    let read = || -> anyhow::Result<Life> {
        let cert = CertificateDer::from_pem_file(path)?;
        let (_, cert) = x509_parser::parse_x509_certificate(&cert)?;
        let names = cert.subject_alternative_name()?;
        let names = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(name_of)
            .collect();
        let validity = cert.validity();
        let ms = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1_000);
        let (begins, ends) = (ms(validity.not_before), ms(validity.not_after));
        let renew_ms = ends - ends.saturating_sub(begins) / 3;
        Ok(Life {
            ends_ms: ends,
            renew_ms,
            names,
        })
    };
    read().with_context(|| format!("{} cannot be read", path.display()))
}

/// The life of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// When it ends, ms since 1970.
    pub(crate) ends_ms: u64,
    /// When it should be renewed.
    pub(crate) renew_ms: u64,
    /// The hosts that it names.
    pub(crate) names: BTreeSet<String>,
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}

fn seal(data_key: &[u8; 32]) -> Seal {
    Seal::new(&identity::derive_key(data_key, SEALED_FOR))
}

fn pem(der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new("CERTIFICATE", der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

fn san(host: &str) -> anyhow::Result<SanType> {
    let bare = host.trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let name = bare.try_into();
    Ok(SanType::DnsName(
        name.with_context(|| format!("{host:?} is no host name"))?,
    ))
}

fn last(params: &mut CertificateParams, now_ms: u64, ms: u64) -> anyhow::Result<()> {
    let at = |ms: u64| {
        OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1_000)?).context("a time beyond all calendars")
    };
    params.not_before = at(now_ms.saturating_sub(SKEW_MS))?;
    params.not_after = at(now_ms + ms)?;
    if params.not_before >= params.not_after {
        bail!("a certificate must end after it begins");
    }
    Ok(())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
