//! Which addresses Colloquy may be sent to: the guard against server-side request forgery.
//!
//! A callback's URL is checked twice. A literal address is checked as parsed, so every notation of it (decimal, octal,
//! hexadecimal, IPv4 inside IPv6) is one address. A name is checked after resolution, by the resolver the connection
//! itself uses, so what was checked is what is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// An address, or every address of a name, lies where callbacks may not go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} is {why}; {}", remedy(.why))]
pub struct AddressRefused {
    host: String,
    why: &'static str,
}

const METADATA: &str = "a metadata address";

fn remedy(why: &str) -> &'static str {
    match why {
        METADATA => "credentials are kept there, so no setting allows it",
        _ => "a target in a private network needs `allow_networks` in colloquy.toml",
    }
}

/// The rule for one target: the public Internet, and the private networks it was explicitly given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct AddressRule {
    allowed: Arc<[IpNet]>,
}

impl AddressRule {
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Says why an address may not be connected to, if so.
    ///
    /// Where a cloud keeps credentials (instance metadata, Azure's wire server) no rule allows.
    pub fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let address = unwrapped(address);
        if is_metadata(address) {
            return Some(METADATA);
        }
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return None;
        }
        match address {
            IpAddr::V4(address) => refused_v4(address),
            IpAddr::V6(address) => refused_v6(address),
        }
    }

    /// Of what a name resolved to this time, what may be connected to. An answer may differ from the one before, so each is
    /// judged, by whoever connects to it.
    fn of_name(
        &self,
        name: &str,
        found: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, AddressRefused> {
        let mut refused = None;
        let judge = |address: &SocketAddr| {
            let why = self.refuses(address.ip());
            refused = why.or(refused);
            why.is_none()
        };
        let allowed: Vec<_> = found.filter(judge).collect();
        match refused {
            Some(why) if allowed.is_empty() => Err(AddressRefused { host: name.to_owned(), why }),
            _ => Ok(allowed),
        }
    }

    /// Checks a URL whose host is a literal address; names wait for their resolution.
    pub fn check_literal(&self, url: &Url) -> Result<(), AddressRefused> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            // Of schemes that are not the web's a host is any text, addresses too.
            Some(Host::Domain(name)) => match name.parse() {
                Ok(address) => address,
                Err(_) => return Ok(()),
            },
            None => return Ok(()),
        };
        match self.refuses(address) {
            Some(why) => Err(AddressRefused { host: address.to_string(), why }),
            None => Ok(()),
        }
    }
}

/// The address that a wrapped one reaches: IPv4 mapped or translated into IPv6 (RFC 4291, 6052, 3056).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [.., g, h] = v6.segments();
    let low = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => {
            low.into()
        }
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => low.into(),
        [0x2002, a, b, ..] => Ipv4Addr::from((u32::from(a) << 16) | u32::from(b)).into(),
        _ => address,
    }
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address == Ipv4Addr::new(168, 63, 129, 16),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified address"),
        (127, ..) => Some("a loopback address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a carrier-shared address"),
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18..=19, _) => {
            Some("a reserved address")
        }
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some("a private address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Only 2000::/3 is routed; of it, documentation, Teredo and ORCHID are not for us.
        [0x2001, 0xdb8, ..] | [0x2001, 0..=0x1ff, ..] | [0x3fff, 0..=0xfff, ..] => Some("a reserved address"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

/// Resolves names and hands out only the addresses a rule allows.
#[derive(Clone, Debug)]
pub struct GuardedResolver {
    rule: AddressRule,
}

impl GuardedResolver {
    pub fn new(rule: AddressRule) -> Self {
        Self { rule }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.rule.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(rule.of_name(name.as_str(), found)?.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_a_private_address_is_refused() {
        let rule = AddressRule::default();
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[64:ff9b:1::1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001::1]/",
            "https://[fd12::1]/",
            "https://[fe80::1]/",
            "https://10.255.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://169.254.169.254/",
            "https://168.63.129.16/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://１２７.0.0.1/",
            "other://169.254.169.254/",
        ] {
            let parsed = Url::parse(url).unwrap();
            assert!(rule.check_literal(&parsed).is_err(), "{url} must be refused");
        }
    }

    #[test]
    fn public_addresses_pass() {
        let rule = AddressRule::default();
        for url in [
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "https://[64:ff9b::8.8.8.8]/",
            "https://172.32.0.1/",
        ] {
            assert_eq!(rule.check_literal(&Url::parse(url).unwrap()), Ok(()), "{url}");
        }
    }

    #[test]
    fn an_allowed_network_opens_itself_alone_and_never_metadata() {
        let rule = AddressRule::new(&["10.1.0.0/16".parse().unwrap(), "169.254.0.0/16".parse().unwrap()]);
        assert_eq!(rule.refuses("10.1.2.3".parse().unwrap()), None);
        assert_eq!(rule.refuses("::ffff:10.1.2.3".parse().unwrap()), None);
        assert!(rule.refuses("10.2.0.1".parse().unwrap()).is_some());
        assert!(rule.refuses("169.254.169.254".parse().unwrap()).is_some());
        let refused = |url: &str| rule.check_literal(&url.parse().unwrap()).unwrap_err().to_string();
        assert!(refused("https://10.2.0.1/").contains("allow_networks"));
        assert!(!refused("https://169.254.169.254/").contains("allow_networks"), "it would not help");
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = |rule| GuardedResolver::new(rule).resolve("localhost".parse().unwrap());
        let error = resolve(AddressRule::default()).await.err().expect("localhost is loopback");
        assert!(error.downcast_ref::<AddressRefused>().is_some(), "{error}");
        let rule = AddressRule::new(&["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert!(resolve(rule).await.unwrap().count() > 0);
    }

    #[test]
    fn a_name_that_resolves_differently_each_time_is_judged_each_time() {
        let rule = AddressRule::default();
        let resolved = |addresses: &[&str]| {
            let found = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
            let allowed = rule.of_name("rebinds.example", found)?;
            Ok::<_, AddressRefused>(
                allowed.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(resolved(&["8.8.8.8"]).unwrap(), ["8.8.8.8"]);
        // The same name a moment later.
        for private in ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"] {
            assert!(resolved(&[private]).unwrap_err().to_string().contains("rebinds.example"), "{private}");
            // Both at once: whoever connects sees the public one alone, in whatever order they came.
            assert_eq!(resolved(&["8.8.8.8", private]).unwrap(), ["8.8.8.8"], "{private}");
            assert_eq!(resolved(&[private, "8.8.8.8"]).unwrap(), ["8.8.8.8"], "{private}");
        }
        assert_eq!(resolved(&[]), Ok(Vec::new()), "nothing is nowhere");
    }
}
