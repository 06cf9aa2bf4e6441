//! Waits for the notices with which a server says that its lists have changed, where they do not come by themselves.

use std::time::Duration;

use mcp_wire::upstream::{Heard, Upstream};
use tokio_util::task::AbortOnDropHandle;

/// At most one task that listens to one upstream.
#[derive(Default)]
pub(crate) struct Listening {
    task: Option<AbortOnDropHandle<()>>,
    to: Option<Upstream>,
}

impl Listening {
    /// Listens from now on, or no more. Who ends it is begun again after `retry_ms`, unless it does not offer this.
    pub(crate) fn keep(&mut self, listens: bool, retry_ms: u64, upstream: impl Fn() -> Option<Upstream>) {
        let Some(upstream) = listens.then(upstream).flatten() else {
            *self = Listening::default();
            return;
        };
        if self.to.as_ref().is_some_and(|to| to.is_same(&upstream)) {
            return;
        }
        let listened = upstream.clone();
        self.to = Some(upstream);
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                match listened.listen().await {
                    Ok(Heard::Nothing) => return,
                    Ok(Heard::AllThereWas) => {}
                    Err(error) => tracing::debug!(%error, "change notices are not listened for"),
                }
                tokio::time::sleep(Duration::from_millis(retry_ms)).await;
            }
        })));
    }
}
