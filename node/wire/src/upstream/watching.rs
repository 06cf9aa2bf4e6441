//! Resources of one server that somebody watches, counted, and who is told that one has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use super::Upstream;
use crate::message::{Kind, Message};

/// Changes that a slow listener may have in front of it; it misses the oldest of more.
const UPDATES_MAX: usize = 256;

/// A resource that is watched, until this is dropped.
pub struct Watch {
    upstream: Upstream,
    uri: String,
}

impl Watch {
    pub(super) fn new(upstream: Upstream, uri: &str) -> Watch {
        Watch {
            upstream,
            uri: uri.to_owned(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (upstream, uri) = (self.upstream.clone(), std::mem::take(&mut self.uri));
        runtime.spawn(async move { upstream.unwatch(&uri).await });
    }
}

/// The resources that are watched, by URI, each with how many watch it.
pub(super) struct Watched {
    uris: Mutex<BTreeMap<String, usize>>,
    version: watch::Sender<u64>,
}

impl Default for Watched {
    fn default() -> Watched {
        Watched {
            uris: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.uris.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uris(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// One more watches it. Whether it is the first.
    pub(super) fn add(&self, uri: &str) -> bool {
        let mut uris = self.lock();
        let count = uris.entry(uri.to_owned()).or_default();
        *count += 1;
        let is_first = *count == 1;
        drop(uris);
        if is_first {
            self.version.send_modify(|version| *version += 1);
        }
        is_first
    }

    /// One less. Whether it was the last.
    pub(super) fn remove(&self, uri: &str) -> bool {
        let mut uris = self.lock();
        let Some(count) = uris.get_mut(uri) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            uris.remove(uri);
        }
        drop(uris);
        if is_last {
            self.version.send_modify(|version| *version += 1);
        }
        is_last
    }

    /// Waits until another set is watched than at the time of the call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let mut version = self.version.subscribe();
        async move {
            if version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Who is told of changed resources.
#[derive(Clone)]
pub(super) struct Updates(broadcast::Sender<Arc<str>>);

impl Default for Updates {
    fn default() -> Updates {
        Updates(broadcast::Sender::new(UPDATES_MAX))
    }
}

impl Updates {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.subscribe()
    }

    pub(super) fn tell(&self, uri: &str) {
        // Where nobody listens nobody is told.
        self.0.send(uri.into()).ok();
    }
}

/// The URI, if a message says that a resource has changed.
pub(super) fn updated_uri(message: &Message) -> Option<&str> {
    let is_update = message.kind() == Kind::Notification && message.method() == Some("notifications/resources/updated");
    message.uri().filter(|_| is_update)
}
