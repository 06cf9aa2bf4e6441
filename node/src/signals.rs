//! The wish to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on SIGTERM, SIGINT or SIGHUP.
pub(crate) async fn stop() {
    let listen = |kind| signal(kind).expect("the process may listen to its signals");
    let (mut term, mut interrupt, mut hangup) = (
        listen(SignalKind::terminate()),
        listen(SignalKind::interrupt()),
        listen(SignalKind::hangup()),
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}
