//! Which addresses upstreams may have. A URL is written by people who may use the gateway, and what stands behind it is asked from
//! where the gateway is: so a name must not lead to what only the gateway's machine can see.
//!
//! It is the address that is looked at, after the name was resolved, and it is that very address that is connected to: a name that
//! means something else a moment later changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower_service::Service;

/// Which addresses may be connected to. Too wide is dangerous: whoever may write a server reaches whatever this machine reaches.
#[derive(Debug, Clone)]
pub struct Reach(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Anywhere,
    Checked { private: bool, networks: Arc<[IpNet]> },
}

/// An address that is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Whatever is configured.
    #[error("{address} is {what}: the gateway never connects there")]
    Never {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// Unless it is configured.
    #[error(
        "{address} is a private address: to allow it, set allow_private = true in [upstreams] of mcpnode.toml, or name its \
         network in allowed_networks there"
    )]
    Private {
        /// The address.
        address: IpAddr,
    },
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Public,
    Private,
    Never(&'static str),
}

impl Reach {
    /// Everywhere: for a program that asks on behalf of whoever started it.
    pub fn anywhere() -> Reach {
        Reach(Kind::Anywhere)
    }

    /// Public addresses; private ones (loopback among them) only if `private`, or in one of the networks. Link-local addresses and
    /// those of the metadata services of clouds never.
    pub fn checked(private: bool, networks: Vec<IpNet>) -> Reach {
        let networks = networks.into();
        Reach(Kind::Checked { private, networks })
    }

    /// Whether an address may be connected to.
    pub fn allows(&self, address: IpAddr) -> Result<(), Forbidden> {
        let Kind::Checked { private, networks } = &self.0 else {
            return Ok(());
        };
        // What stands for an IPv4 address is judged as that address, and as itself.
        let all = [Some(address), embedded(address).map(IpAddr::V4)];
        for meant in all.into_iter().flatten() {
            match scope(meant) {
                Scope::Never(what) => return Err(Forbidden::Never { address, what }),
                Scope::Private if !private && !networks.iter().any(|network| network.contains(&meant)) => {
                    return Err(Forbidden::Private { address });
                }
                Scope::Public | Scope::Private => {}
            }
        }
        Ok(())
    }

    /// The same for the host of a URL, if that is an address as it stands.
    pub(crate) fn allows_host(&self, host: &str) -> Result<(), Forbidden> {
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => self.allows(address),
            Err(_) => Ok(()),
        }
    }
}

fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(v4: Ipv4Addr) -> Scope {
    match v4.octets() {
        [169, 254, 169, 254] => Scope::Never("the metadata service of a cloud"),
        // Alibaba, Oracle, and Azure's agent.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Scope::Never("the metadata service of a cloud"),
        [169, 254, ..] => Scope::Never("a link-local address"),
        [0, ..] => Scope::Never("no address of a host"),
        [224..=239, ..] => Scope::Never("a multicast address"),
        [240..=255, ..] => Scope::Never("a reserved address"),
        [127, ..] | [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Scope::Private,
        // Carrier-grade NAT, protocol assignments, benchmarks, documentation.
        [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => Scope::Private,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Scope::Private,
        [..] => Scope::Public,
    }
}

fn scope_v6(v6: Ipv6Addr) -> Scope {
    let segments = v6.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Scope::Never("no address of a host"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Private,
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Scope::Never("the metadata service of a cloud"),
        // Google's, and Scaleway's.
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => {
            Scope::Never("the metadata service of a cloud")
        }
        [0xfe80..=0xfebf, ..] => Scope::Never("a link-local address"),
        [0xff00..=0xffff, ..] => Scope::Never("a multicast address"),
        // Teredo hides an address in bits that are turned around.
        [0x2001, 0, ..] => Scope::Never("a Teredo address"),
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfdff, ..] => Scope::Private,
        [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Scope::Private,
        _ => Scope::Public,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, translated (NAT64), or tunnelled (6to4).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let low = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, a, b] | [0, 0, 0, 0, 0, 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] => Some(low(a, b)),
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 1, .., a, b] | [0x2002, a, b, ..] => Some(low(a, b)),
        _ => None,
    }
}

/// Resolves names, and leaves out what may not be connected to.
#[derive(Clone)]
pub(crate) struct Resolver(pub(crate) Reach);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = crate::connect::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (mut allowed, mut forbidden) = (Vec::new(), None);
            for address in found {
                match reach.allows(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => forbidden = Some(why),
                }
            }
            match (allowed.is_empty(), forbidden) {
                (true, Some(why)) => Err(why.into()),
                (_, _) => Ok(allowed.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
