//! Where we can be told to send something.

use std::net::{IpAddr, Ipv6Addr};

use url::Url;

use crate::jobs::address::AddressRule;

/// Sixteen bytes are an address, anything else is a URL. What the rule lets through without a setting is reachable from the
/// Internet by everybody, by a second opinion that is written differently.
pub fn addresses(data: &[u8]) {
    let rule = AddressRule::default();
    if let Ok(bytes) = <[u8; 16]>::try_from(data) {
        let address = IpAddr::V6(Ipv6Addr::from(bytes));
        assert!(rule.refuses(address).is_some() || is_public(address), "{address}");
        return;
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(url) = Url::parse(text) else { return };
    if rule.check_literal(&url).is_err() {
        return;
    }
    // As a client would read it from the parsed URL.
    let host = url.host_str().unwrap_or_default();
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        assert!(is_public(address), "{url}");
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation();
            // Carrier-shared, benchmarking, reserved; and Azure's wire server.
            let shared = a == 100 && b & 0b1100_0000 == 64 || a == 198 && b & 0xfe == 18;
            !special && !shared && a != 0 && a < 240 && v4.octets() != [168, 63, 129, 16]
        }
        IpAddr::V6(v6) => match v6.to_canonical() {
            v4 @ IpAddr::V4(_) => is_public(v4),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let [a, b, c, d] = [octets[12], octets[13], octets[14], octets[15]];
                let low = IpAddr::from([a, b, c, d]);
                if octets[..12] == [0; 12] || octets[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] {
                    return is_public(low);
                }
                if octets[..2] == [0x20, 0x02] {
                    return is_public(IpAddr::from([octets[2], octets[3], octets[4], octets[5]]));
                }
                octets[0] & 0b1110_0000 == 0b0010_0000 && octets[..4] != [0x20, 0x01, 0, 0]
            }
        },
    }
}
