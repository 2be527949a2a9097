//! Addresses no emitter may talk to: link-local ones, where cloud machines keep their metadata
//! (credentials among it), and such that name no single host. Private networks are allowed:
//! receivers live there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata addresses outside the link-local ranges: AWS over IPv6, and Alibaba.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// Why an address is refused; `None` when it may be used.
pub(crate) fn refusal(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4 == METADATA_V4 => Some("a metadata service"),
        IpAddr::V4(v4) if v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() => {
            Some("not a single host")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6 == METADATA_V6 => Some("a metadata service"),
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() => Some("not a single host"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Resolves `host:port` and leaves out what may not be talked to.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let allowed: Vec<SocketAddr> = found
        .iter()
        .copied()
        .filter(|address| refusal(address.ip()).is_none())
        .collect();
    match (allowed.is_empty(), found.first()) {
        (false, _) => Ok(allowed),
        (true, Some(address)) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{host} is {}, which is {}: refused",
                address.ip(),
                refusal(address.ip()).unwrap_or("not allowed")
            ),
        )),
        (true, None) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{host} has no address"),
        )),
    }
}

/// The resolver of HTTP clients. Literal addresses do not come here: check those in the URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is set by the client.
            let addresses = resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_refused_in_every_spelling() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(refusal(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "203.0.113.5",
            "fd00::1",
            "::1",
        ] {
            assert!(refusal(good.parse().unwrap()).is_none(), "{good}");
        }
    }

    #[tokio::test]
    async fn a_literal_metadata_address_does_not_resolve() {
        let error = resolve("169.254.169.254", 80).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("link-local"), "{error}");
    }
}
