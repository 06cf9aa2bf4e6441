//! Listeners: accepting connections, bounding what a client can make us hold, and draining on the way out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::calm::Calm;
use crate::{linger, proxies};

/// Longest header block, bytes. Longer: 431.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Longest wait for a request's headers, so that slow ones do not hold connections.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// Streams one HTTP/2 connection may have open.
const H2_STREAMS_MAX: u32 = 256;
/// How long a stopping node lets answers finish.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `address`.
pub(crate) async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("the {what} listener cannot bind {address}: is another mcpnode running there?"))
}

/// A listener with what stands in front of its requests.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) trusted_proxies: Arc<[IpNet]>,
}

/// Serves `router` on a listener until `stop` turns true, then lets what is running finish.
pub(crate) async fn serve(door: Door, router: Router, mut stop: watch::Receiver<bool>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("32 KiB fits"))
        .max_concurrent_streams(H2_STREAMS_MAX);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                // Without it a small answer waits for the client's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                let service = Service {
                    router: router.clone(),
                    from,
                    trusted_proxies: Arc::clone(&door.trusted_proxies),
                };
                let (builder, watcher, tls) = (builder.clone(), graceful.watcher(), door.tls.clone());
                tokio::spawn(Calm::new(connection(builder, watcher, tls, stream, service)));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(door);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("some answers were still under way when the node stopped");
    }
}

/// One connection from its first byte to its last. How a client leaves is the client's business.
async fn connection(
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    service: Service,
) {
    let (stream, returned) = linger::lend(stream);
    let Some(tls) = tls else {
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        watcher.watch(serving.into_owned()).await.unwrap_or(());
        return returned.linger().await;
    };
    match tokio::time::timeout(HEADER_WAIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            watcher.watch(serving.into_owned()).await.unwrap_or(());
            returned.linger().await;
        }
        Ok(Err(error)) => {
            tracing::debug!(from = %service.from, %error, "a client did not get through the TLS handshake")
        }
        Err(_) => {}
    }
}

/// The router, for one connection.
#[derive(Clone)]
struct Service {
    router: Router,
    from: SocketAddr,
    trusted_proxies: Arc<[IpNet]>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Service {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = <Router as tower_service::Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        let from = proxies::client(&self.trusted_proxies, self.from, request.headers());
        request.extensions_mut().insert(ConnectInfo(from));
        tower_service::Service::call(&mut self.router.clone(), request)
    }
}
