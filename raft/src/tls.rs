//! Who a peer is: a certificate of the cluster's own authority that names the node's id.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mcp_model::ids::NodeId;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

/// The name that every node's certificate has beside its own: for a machine that joins and knows no id yet.
pub const ANY_PEER: &str = "peers.mcpnode.internal";
/// What a machine that joins says it speaks (ALPN). It has no certificate yet, and gets no further than the door.
pub const JOIN_ALPN: &[u8] = b"mcp-join/1";

/// The name in a node's certificate.
pub fn peer_name(node: NodeId) -> String {
    format!("node-{node}.mcpnode.internal")
}

/// Both sides of mutual TLS among peers. The node's own certificate can be replaced while it runs.
#[derive(Clone)]
pub struct PeerTls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    /// For machines that join: no certificate is asked for.
    pub(crate) door: Arc<ServerConfig>,
    own: Arc<Own>,
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

/// This node's certificate: without the authority's for peers, who know it, and with it for machines that join, who know its
/// hash.
#[derive(Debug)]
struct Own {
    authority: Vec<CertificateDer<'static>>,
    now: ArcSwap<CertifiedKey>,
    at_the_door: ArcSwap<CertifiedKey>,
}

impl PeerTls {
    /// From PEM: the authority's certificate, this node's chain, this node's key.
    pub fn from_pem(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<PeerTls, TlsError> {
        let authority = certs("CA", ca)?;
        let mut roots = RootCertStore::empty();
        for cert in &authority {
            roots.add(cert.clone()).map_err(|e| bad("CA")(e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (now, at_the_door) = own_keys(&authority, chain, key, &provider)?;
        let own = Arc::new(Own {
            authority,
            now: ArcSwap::from_pointee(now),
            at_the_door: ArcSwap::from_pointee(at_the_door),
        });
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|e| bad("CA")(e.to_string()))?;
        let builder = || {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            builder
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| bad("TLS")(e.to_string()))
        };
        let mut server = builder()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(ToPeers(Arc::clone(&own))));
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut door = builder()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AtTheDoor(Arc::clone(&own))));
        door.alpn_protocols = vec![JOIN_ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("TLS")(e.to_string()))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(ToPeers(Arc::clone(&own))));
        client.alpn_protocols = vec![b"h2".to_vec()];
        // What was resumed would not be looked at again: neither whether it has expired nor whether it was replaced.
        client.resumption = rustls::client::Resumption::disabled();
        Ok(PeerTls {
            server: Arc::new(server),
            client: Arc::new(client),
            door: Arc::new(door),
            own,
        })
    }

    /// Puts another certificate of the same authority in the place of this node's, for connections from now on.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let provider = rustls::crypto::ring::default_provider();
        let (now, at_the_door) = own_keys(&self.own.authority, chain, key, &provider)?;
        self.own.now.store(Arc::new(now));
        self.own.at_the_door.store(Arc::new(at_the_door));
        Ok(())
    }
}

fn certs(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certs = certs.map_err(|e| bad(what)(e.to_string()))?;
    if certs.is_empty() {
        return Err(bad(what)("holds no certificate in PEM".to_owned()));
    }
    Ok(certs)
}

fn own_keys(
    authority: &[CertificateDer<'static>],
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, CertifiedKey), TlsError> {
    let chain = certs("certificate", chain)?;
    let read = || PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("key")("is no private key in PEM".to_owned()));
    let whole = [chain.clone(), authority.to_vec()].concat();
    let of = |chain| Ok((chain, read()?));
    let make =
        |(chain, key)| CertifiedKey::from_der(chain, key, provider).map_err(|e| bad("certificate")(e.to_string()));
    Ok((make(of(chain)?)?, make(of(whole)?)?))
}

#[derive(Debug)]
struct ToPeers(Arc<Own>);

impl ResolvesServerCert for ToPeers {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.now.load_full())
    }
}

impl ResolvesClientCert for ToPeers {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.now.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AtTheDoor(Arc<Own>);

impl ResolvesServerCert for AtTheDoor {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.at_the_door.load_full())
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
