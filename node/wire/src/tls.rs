//! Which certificates we trust when we connect as a client: the system's bundle, and what the caller adds.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tracing::warn;

/// Where systems keep their bundle; the first that exists is taken.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Reads the certificates of a PEM file.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| fault(&error))?
        .collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(fault(&"holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(fault(&error)),
    }
}

/// A client configuration that trusts the system's bundle and `extra`. `SSL_CERT_FILE` names another bundle. A machine
/// without one is not an error: plain HTTP still works, and TLS then trusts `extra` alone.
pub fn client_config(extra: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE");
    let bundle = match &named {
        Some(file) => Some(Path::new(file)),
        None => BUNDLES.iter().map(Path::new).find(|file| file.exists()),
    };
    match bundle.map(read_certificates) {
        Some(Ok(certificates)) => {
            roots.add_parsable_certificates(certificates);
        }
        Some(Err(why)) => warn!(%why, "certificate bundle not read"),
        None => warn!("no certificate bundle on this machine: TLS upstreams need a certificate of their own"),
    }
    roots.add_parsable_certificates(extra.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
