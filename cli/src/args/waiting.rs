//! For how long a change that takes a right away is waited for.

use clap::Args;

/// How a change is waited for.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// Return when the change is committed: until every replica has confirmed, or for up to a lease more, one of them may still let in what was
    /// taken away
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Longest wait until what was taken away is refused everywhere: 15s if not given, 5m at most. Exit code 6 after it; the change stays
    #[arg(long, value_parser = limit, value_name = "TIME", conflicts_with = "no_wait")]
    pub(crate) timeout: Option<u64>,
}

impl Waiting {
    /// What the API is told of it.
    pub(crate) fn query(&self) -> Option<String> {
        if self.no_wait {
            return Some("wait=committed".to_owned());
        }
        self.timeout.map(|seconds| format!("timeoutSeconds={seconds}"))
    }
}

/// Seconds, from 1 to 300.
fn limit(text: &str) -> Result<u64, String> {
    let seconds = super::objects::seconds(text)?;
    let within = (1..=300).contains(&seconds).then_some(seconds);
    within.ok_or_else(|| "between 1s and 5m".to_owned())
}
