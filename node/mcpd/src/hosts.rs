//! Which host names are served: a page in a browser must not reach a loopback listener under a name of its own.

use http::{HeaderMap, Uri, header};

/// The host names that a listener answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

/// What a listener on loopback answers to when nothing else is configured.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Default for AllowedHosts {
    fn default() -> AllowedHosts {
        AllowedHosts::new(LOOPBACK)
    }
}

impl AllowedHosts {
    /// These names, without ports. `*` allows every one: only for a listener behind something that checks.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> AllowedHosts {
        AllowedHosts(names.into_iter().map(|n| n.into().to_ascii_lowercase()).collect())
    }

    /// Whether a request for this host is served. `None`, no host at all, is not.
    pub fn allow(&self, host: Option<&str>) -> bool {
        if self.0.iter().any(|n| n == "*") {
            return true;
        }
        let Some(host) = host else { return false };
        let name = without_port(host).to_ascii_lowercase();
        self.0.contains(&name)
    }
}

/// The host that a request names: in its target (HTTP/2) or in its `Host` header.
pub(crate) fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut given = headers.get_all(header::HOST).iter();
    match (uri.authority(), given.next(), given.next()) {
        (Some(authority), ..) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        (None, ..) => None,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_hosts_are_served() {
        let hosts = AllowedHosts::default();
        for good in ["localhost", "LOCALHOST:3100", "127.0.0.1:3100", "[::1]:3100", "[::1]"] {
            assert!(hosts.allow(Some(good)), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:80",
            "",
            "127.0.0.1.nip.io",
            "[::1",
        ] {
            assert!(!hosts.allow(Some(bad)), "{bad}");
        }
        assert!(!hosts.allow(None));
        assert!(AllowedHosts::new(["*"]).allow(Some("anything")));
        assert!(AllowedHosts::new(["Gate.Example"]).allow(Some("gate.example:443")));
    }
}
