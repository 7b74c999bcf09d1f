//! Which hosts an activity may send requests to, and which addresses never.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest pattern, in bytes: a DNS name has at most 253 characters.
const MAX_PATTERN: usize = 300;

/// A host that requests may go to: `api.example.com`, `*.example.com` (any
/// depth below it, not itself), either with a port, or `*` for any host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    name: NamePattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum NamePattern {
    Any,
    Exact(String),
    /// With the leading dot.
    Suffix(String),
}

/// What is wrong with a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host pattern; write `api.example.com`, `*.example.com` or `*`, with `:port` if need be"
)]
pub struct InvalidHost(String);

impl HostPattern {
    /// Whether a request to this host and port is allowed. `host` is as in a
    /// parsed URL: lower case, IPv6 literals in brackets.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let name = match &self.name {
            NamePattern::Any => true,
            NamePattern::Exact(name) => host == name,
            NamePattern::Suffix(suffix) => {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
        };
        name && self.port.is_none_or(|expected| expected == port)
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidHost(text.chars().take(80).collect());
        if text.len() > MAX_PATTERN {
            return Err(invalid());
        }
        let (name, port) = split_port(text).ok_or_else(invalid)?;
        let name = name.to_ascii_lowercase();
        let plain = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_.[]:".contains(&c))
        };
        let name = if name == "*" {
            NamePattern::Any
        } else if let Some(suffix) = name.strip_prefix('*') {
            if !suffix.starts_with('.') || !plain(&suffix[1..]) {
                return Err(invalid());
            }
            NamePattern::Suffix(suffix.to_owned())
        } else if plain(&name) {
            NamePattern::Exact(name)
        } else {
            return Err(invalid());
        };
        Ok(Self { name, port })
    }
}

/// `host[:port]`, the host an IPv6 literal in brackets perhaps.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let after_brackets = text.rfind(']').map_or(0, |end| end + 1);
    match text[after_brackets..].find(':') {
        None => Some((text, None)),
        Some(colon) => {
            let (host, port) = text.split_at(after_brackets + colon);
            Some((host, Some(port[1..].parse().ok()?)))
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            NamePattern::Any => f.write_str("*")?,
            NamePattern::Exact(name) => f.write_str(name)?,
            NamePattern::Suffix(suffix) => write!(f, "*{suffix}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

/// Private addresses that a policy allows all the same: `127.0.0.1:8080`,
/// `10.1.0.0/16`, `[::1]:8080`, `fd12::/32`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateHost {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

/// What is wrong with an entry of `allow_private`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address; write `127.0.0.1:8080`, `10.1.0.0/16` or `[::1]:8080`")]
pub struct InvalidPrivateHost(String);

impl PrivateHost {
    /// Whether a connection to this address and port is allowed.
    pub fn matches(&self, address: IpAddr, port: u16) -> bool {
        let inside = match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        };
        inside && self.port.is_none_or(|expected| expected == port)
    }
}

impl PrivateHost {
    /// Whether it holds for every port.
    pub(super) fn matches_any_port(&self) -> bool {
        self.port.is_none()
    }
}

impl FromStr for PrivateHost {
    type Err = InvalidPrivateHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPrivateHost(text.chars().take(80).collect());
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            if prefix > bits {
                return Err(invalid());
            }
            return Ok(Self {
                address,
                prefix,
                port: None,
            });
        }
        let (host, port) = match text.parse::<IpAddr>() {
            Ok(_) => (text, None),
            Err(_) => split_port(text).ok_or_else(invalid)?,
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let address: IpAddr = bare.parse().map_err(|_| invalid())?;
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Ok(Self {
            address,
            prefix,
            port,
        })
    }
}

impl fmt::Display for PrivateHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = if self.address.is_ipv4() { 32 } else { 128 };
        match self.port {
            Some(port) => write!(f, "{}", std::net::SocketAddr::new(self.address, port)),
            None if self.prefix == full => self.address.fmt(f),
            None => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl TryFrom<String> for PrivateHost {
    type Error = InvalidPrivateHost;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PrivateHost> for String {
    fn from(host: PrivateHost) -> Self {
        host.to_string()
    }
}

/// Whether an address is on the public internet. Everything else is refused:
/// it would let an activity reach the server itself, its neighbours, or the
/// metadata service of the cloud that it runs in.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Everything but the special-purpose registry of IANA (RFC 6890 and later).
fn is_public_v4(address: Ipv4Addr) -> bool {
    const SPECIAL: [(Ipv4Addr, u8); 15] = [
        (Ipv4Addr::UNSPECIFIED, 8),           // this network
        (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
        (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier-grade NAT
        (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
        (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, metadata services
        (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
        (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
        (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
        (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays, withdrawn
        (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
        (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
        (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
        (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
        (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
        (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
    ];
    // Alibaba Cloud's metadata service stands in carrier-grade NAT space,
    // Azure's wire server on an address that is public by number.
    const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    address != WIRE_SERVER
        && !SPECIAL.iter().any(|(net, prefix)| {
            let mask = u32::MAX << (32 - u32::from(*prefix));
            address.to_bits() & mask == net.to_bits()
        })
}

/// Only global unicast, `2000::/3`, less what tunnels to IPv4 or is special.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let global = segments[0] & 0xe000 == 0x2000;
    let teredo_or_special = segments[0] == 0x2001 && segments[1] < 0x0200; // 2001::/23
    let documentation = (segments[0] == 0x2001 && segments[1] == 0x0db8)
        || (segments[0] == 0x3fff && segments[1] < 0x1000);
    let six_to_four = segments[0] == 0x2002;
    global && !teredo_or_special && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        // Not public: loopback, private, link-local and metadata, unspecified,
        // multicast, broadcast, CGNAT, and IPv6 forms that lead to any of them.
        for private in [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "168.63.129.16",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "fec0::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
        ] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }

    #[test]
    fn a_host_pattern_matches_what_it_says() {
        for (pattern, host, port, matches) in [
            ("api.example.com", "api.example.com", 443, true),
            ("api.example.com", "api.example.com.", 443, true), // the same name, rooted
            ("API.example.com", "api.example.com", 443, true),
            ("api.example.com", "xapi.example.com", 443, false),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "badexample.com", 443, false),
            ("*.example.com", "example.com.evil.org", 443, false),
            ("api.example.com:8443", "api.example.com", 8443, true),
            ("api.example.com:8443", "api.example.com", 443, false),
            ("[::1]:80", "[::1]", 80, true),
            ("*", "anything", 1, true),
        ] {
            let parsed: HostPattern = pattern.parse().expect(pattern);
            assert_eq!(
                parsed.matches(host, port),
                matches,
                "{pattern} {host}:{port}"
            );
        }
        for bad in [
            "", "*x.com", "a b", "a/b", "http://a", "a:99999", "*.", "a@b", "ä.de",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_private_host_allows_its_network_and_port_only() {
        for (entry, address, port, matches) in [
            ("127.0.0.1:8080", "127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "127.0.0.1", 8081, false),
            ("127.0.0.1", "127.0.0.1", 1, true),
            ("10.1.0.0/16", "10.1.255.1", 1, true),
            ("10.1.0.0/16", "10.2.0.1", 1, false),
            ("0.0.0.0/0", "10.2.0.1", 1, true),
            ("[::1]:80", "::1", 80, true),
            ("::1", "::1", 9, true),
            ("fd12::/32", "fd12:0:1::", 9, true),
            ("127.0.0.1", "::ffff:127.0.0.1", 9, true), // the same address, mapped
        ] {
            let parsed: PrivateHost = entry.parse().expect(entry);
            let address = address.parse().expect(address);
            assert_eq!(
                parsed.matches(address, port),
                matches,
                "{entry} {address}:{port}"
            );
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{entry} round trip");
        }
        for bad in ["", "localhost", "10.0.0.0/33", "1.2.3.4:x", "::/129"] {
            assert!(bad.parse::<PrivateHost>().is_err(), "{bad}");
        }
    }
}
