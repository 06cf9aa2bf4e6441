//! Clients behind a proxy that is trusted: whose address counts.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that a request comes from: the connection's, or, where that is a trusted proxy's, the last one in
/// `X-Forwarded-For` that is not. What stands further left the client may have written itself.
pub(crate) fn client(trusted: &[IpNet], from: SocketAddr, headers: &HeaderMap) -> SocketAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if trusted.is_empty() || !is_trusted(from.ip()) {
        return from;
    }
    let given = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let given: Vec<&str> = given.flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut last = from.ip();
    for text in given.iter().rev() {
        // Beyond what is no address, nothing can be told.
        let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() else {
            break;
        };
        last = ip;
        if !is_trusted(ip) {
            break;
        }
    }
    if last == from.ip() {
        from
    } else {
        SocketAddr::new(last, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_choose_its_address() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let proxy = "10.0.0.1:5".parse().unwrap();
        for (from, lines, expected) in [
            (proxy, vec!["203.0.113.7"], "203.0.113.7"),
            (proxy, vec!["1.2.3.4, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (proxy, vec!["1.2.3.4", "203.0.113.7"], "203.0.113.7"),
            (proxy, vec!["1.2.3.4, nonsense"], "10.0.0.1"),
            (proxy, vec![], "10.0.0.1"),
            ("198.51.100.9:5".parse().unwrap(), vec!["1.2.3.4"], "198.51.100.9"),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(client(&trusted, from, &headers).ip().to_string(), expected, "{lines:?}");
            assert_eq!(client(&[], from, &headers), from);
        }
    }
}
