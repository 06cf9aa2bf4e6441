//! A connection to a node of the one cluster whose authority is known by its hash, and to nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use mcp_raft::tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certs;
use crate::config::PEER_PORT;

const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Connects, and shakes hands with nobody else. Nothing of the caller's has left when this returns.
pub(super) async fn connect(address: &str, authority: [u8; 32]) -> anyhow::Result<TlsStream<TcpStream>> {
    let connecting = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
    let unreachable = || {
        format!(
            "{address} cannot be reached: it must be the peers' listener of a node that runs (port {PEER_PORT} as a rule)"
        )
    };
    let stream = connecting.with_context(unreachable)?.with_context(unreachable)?;
    let pinned = Arc::new(Pinned {
        authority,
        provider: Arc::new(rustls::crypto::ring::default_provider()),
        stranger: AtomicBool::new(false),
    });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&pinned.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&pinned) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::JOIN_ALPN.to_vec()];
    let name = ServerName::try_from(tls::ANY_PEER).expect("a constant name is a name");
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let shaken = tokio::time::timeout(CONNECT_WAIT, shaking).await;
    let shaken =
        shaken.with_context(|| format!("{address} does not speak TLS: is it the peers' listener of a node?"))?;
    shaken.with_context(|| match pinned.stranger.load(Ordering::Acquire) {
        true => format!(
            "{address} does not belong to the cluster of the join token: its certificate does not stand under the authority \
             that the token names. Nothing was sent. Check the address, and that the token was made in that cluster"
        ),
        false => format!("{address} cannot be talked to as the peers' listener of a node: nothing was sent"),
    })
}

/// Takes a server only under the one authority whose hash is known.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
    /// Set when a server stood under none that has this hash.
    stranger: AtomicBool,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|cert| certs::fingerprint(cert) == self.authority);
        let Some(authority) = authority else {
            self.stranger.store(true, Ordering::Release);
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .inspect_err(|error| {
                let unsigned = matches!(
                    error,
                    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
                );
                self.stranger.fetch_or(unsigned, Ordering::AcqRel);
            })
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use mcp_model::clock::Clock;
    use mcp_model::ids::NodeId;
    use rcgen::KeyPair;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::certs::Authority;
    use crate::clock::SystemClock;

    const DAY_MS: u64 = 86_400_000;

    /// A server that shows these certificates, and how many bytes it gets to read from whoever comes.
    async fn server(chain: &str, key: &KeyPair) -> (String, tokio::task::JoinHandle<usize>) {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![tls::JOIN_ALPN.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let read = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
                return 0;
            };
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap_or(0)
        });
        (address, read)
    }

    #[tokio::test]
    async fn nothing_is_said_to_whoever_only_holds_the_authoritys_certificate() {
        let now_ms = SystemClock.wall_ms();
        let (ours, theirs) = (
            Authority::generate(now_ms).unwrap(),
            Authority::generate(now_ms).unwrap(),
        );
        let der = CertificateDer::from_pem_slice(ours.pem().as_bytes()).unwrap();
        let pinned = certs::fingerprint(&der);
        let node = NodeId(7);
        let key = KeyPair::generate().unwrap();
        let sign = |authority: &Authority, at_ms| authority.sign_peer(&key, node, at_ms).unwrap();
        let listener_only = ours.sign_listeners(&key, &["localhost".to_owned()], now_ms).unwrap();
        for (what, leaf, stands, said) in [
            ("a node of ours", sign(&ours, now_ms), true, ""),
            (
                "theirs with our authority beside it",
                sign(&theirs, now_ms),
                false,
                "does not belong to the cluster",
            ),
            (
                "ours, long over",
                sign(&ours, now_ms - 200 * DAY_MS),
                false,
                "nothing was sent",
            ),
            ("ours, for a listener", listener_only, false, "nothing was sent"),
        ] {
            let (address, read) = server(&format!("{leaf}{}", ours.pem()), &key).await;
            let connected = connect(&address, pinned).await;
            assert_eq!(connected.is_ok(), stands, "{what}: {connected:?}");
            if let Err(error) = connected {
                assert!(error.to_string().contains(said), "{what}: {error:#}");
                assert_eq!(read.await.unwrap(), 0, "{what}");
            }
        }
        // Without the authority there is nothing to compare.
        let (address, _read) = server(&sign(&ours, now_ms), &key).await;
        let error = connect(&address, pinned).await.unwrap_err();
        assert!(
            error.to_string().contains("does not belong to the cluster"),
            "{error:#}"
        );
    }
}
