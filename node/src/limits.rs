//! How many descriptors this process may have, and what follows from that.

use std::sync::{Arc, OnceLock};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, Listener};
use crate::places::Places;

/// Connections of a listener of the gateway at most, where nothing else is said.
const GATEWAY_CONNECTIONS_MAX: usize = 10_000;
/// The same for the API.
const API_CONNECTIONS_MAX: usize = 1_000;
/// Never fewer than these.
const CONNECTIONS_MIN: usize = 32;

/// The soft limit with which this process began.
static AT_START: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one. A service manager gives 1,024 as a rule, for the sake of programs that use `select`.
pub(crate) fn raise() {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let Ok((soft, hard)) = limits else {
        return tracing::warn!("the limit on open files cannot be read");
    };
    AT_START.get_or_init(|| soft);
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit on open files cannot be raised");
    }
}

/// Puts the soft limit where it was for somebody else's program, which may not reckon with more.
pub(crate) fn lower(to: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, to.min(hard), hard)
}

/// The soft limit before it was raised.
pub(crate) fn at_start() -> Option<u64> {
    AT_START.get().copied()
}

/// Descriptors that this process may have.
fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft)
}

/// Connections of gateway and API where nothing else is said: a third of the descriptors for clients of the gateway, as many for
/// the servers behind it, a tenth for the API, and the rest for peers, stores and pipes.
fn connections(descriptors: u64) -> (usize, usize) {
    let within = |part: u64, max: usize| usize::try_from(part).map_or(max, |part| part.clamp(CONNECTIONS_MIN, max));
    (
        within(descriptors / 3, GATEWAY_CONNECTIONS_MAX),
        within(descriptors / 10, API_CONNECTIONS_MAX),
    )
}

/// The places of the gateway's and the API's listener.
pub(crate) fn places(config: &Config) -> (Arc<Places>, Arc<Places>) {
    let open_files = descriptors();
    let (gateway, api) = connections(open_files);
    let of = |listener: &Listener, usual: usize| {
        let max = listener.connections_max.unwrap_or(usual);
        Places::new(max, listener.trusted_proxies.as_slice().into())
    };
    let (gateway, api) = (of(&config.gateway, gateway), of(&config.api, api));
    let (for_gateway, for_api) = (gateway.max(), api.max());
    tracing::info!(
        open_files,
        gateway = for_gateway,
        api = for_api,
        "connections that clients may have"
    );
    if u64::try_from(for_gateway + for_api).is_ok_and(|all| all >= open_files) {
        tracing::warn!(
            open_files,
            "connections_max is more than this process may open: raise its limit on open files (LimitNOFILE, ulimit -Hn)"
        );
    }
    (gateway, api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_may_take_leaves_room_for_what_is_done_for_them() {
        for descriptors in [256, 1_024, 4_096, 20_000, 1 << 20] {
            let (gateway, api) = connections(descriptors);
            let all = u64::try_from(gateway * 2 + api).unwrap();
            assert!(all < descriptors, "{descriptors}: {gateway} and {api}");
        }
        assert_eq!(connections(1 << 20), (10_000, 1_000));
    }
}
