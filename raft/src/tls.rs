//! Who a peer is: a certificate of the cluster's own authority that names the node's id.

use std::sync::Arc;

use mcp_model::ids::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in a node's certificate.
pub fn peer_name(node: NodeId) -> String {
    format!("node-{node}.mcpnode.internal")
}

/// Both sides of mutual TLS among peers.
#[derive(Clone)]
pub struct PeerTls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// The certificates or the key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("peer {what}: {why}")]
pub struct TlsError {
    what: &'static str,
    why: String,
}

fn bad(what: &'static str) -> impl Fn(String) -> TlsError {
    move |why| TlsError { what, why }
}

impl PeerTls {
    /// From PEM: the authority's certificate, this node's chain, this node's key.
    pub fn from_pem(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<PeerTls, TlsError> {
        let certs = |what, pem: &[u8]| {
            let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            certs.map_err(|e| bad(what)(e.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for cert in certs("CA", ca)? {
            roots.add(cert).map_err(|e| bad("CA")(e.to_string()))?;
        }
        let chain = certs("certificate", chain)?;
        let key = || PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("key")("is no private key in PEM".to_owned()));
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|e| bad("CA")(e.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("TLS")(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|e| bad("certificate")(e.to_string()))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("TLS")(e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|e| bad("certificate")(e.to_string()))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(PeerTls {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// Whether a verified certificate names `node`.
pub(crate) fn names(cert: &CertificateDer<'_>, node: NodeId) -> bool {
    let Ok(cert) = webpki::EndEntityCert::try_from(cert) else {
        return false;
    };
    let Ok(name) = ServerName::try_from(peer_name(node)) else {
        return false;
    };
    cert.verify_is_valid_for_subject_name(&name).is_ok()
}
