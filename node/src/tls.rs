//! TLS of the listeners, with a certificate that can be replaced while connections come in.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate of a listener, as it is now.
#[derive(Debug)]
pub(crate) struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// From PEM files; both may be the same.
    pub(crate) fn read(cert: &Path, key: &Path) -> anyhow::Result<Arc<Certificate>> {
        Ok(Arc::new(Certificate(ArcSwap::new(load(cert, key)?))))
    }

    /// Puts what the files hold now in its place, for connections from now on. On an error everything stays as it is.
    pub(crate) fn replace(&self, cert: &Path, key: &Path) -> anyhow::Result<()> {
        self.0.store(load(cert, key)?);
        Ok(())
    }

    /// What a listener does with it: TLS 1.2 or 1.3, HTTP/2 or HTTP/1.1.
    pub(crate) fn server_config(self: &Arc<Certificate>) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// For the fuzzer: bytes as a file of certificates, or of a key, in PEM.
pub(crate) fn decode(bytes: &[u8]) {
    let _chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .is_ok();
    let _secret = PrivateKeyDer::from_pem_slice(bytes).is_ok();
}

fn load(cert: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| format!("{} cannot be read as PEM", cert.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate in PEM", cert.display());
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.with_context(|| format!("{} holds no private key in PEM", key.display()))?;
    let loaded = CertifiedKey::from_der(chain, secret, &rustls::crypto::ring::default_provider());
    let loaded = loaded.with_context(|| format!("{} and {} do not go together", cert.display(), key.display()))?;
    Ok(Arc::new(loaded))
}
