//! Random bytes from the operating system. Without them nothing is minted and the node stops.

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// Fills `bytes`.
pub(crate) fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has random bytes");
}

/// A random number.
pub(crate) fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// A random number that is not 0.
pub(crate) fn node_id() -> mcp_model::ids::NodeId {
    mcp_model::ids::NodeId(number().max(1))
}
