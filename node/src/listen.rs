//! Listeners: accepting connections, bounding what a client can make us hold, and draining on the way out.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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

/// Serves `router` on `listener` until `stop` turns true, then lets what is running finish.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
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
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let connection = connection(&builder, stream, from, router.clone());
                let watched = graceful.watch(connection);
                // How a client leaves is the client's business.
                tokio::spawn(async move { watched.await.unwrap_or(()) });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("some answers were still under way when the node stopped");
    }
}

fn connection(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static
{
    // Without it a small answer waits for the client's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        tower_service::Service::call(&mut router.clone(), request)
    });
    builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned()
}
