use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP address or network")]
pub struct AddressError(String);

/// The addresses that a listener binds; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<IpAddr>);

impl Hosts {
    /// 127.0.0.1 and ::1.
    #[must_use]
    pub fn loopback() -> Self {
        Self(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)])
    }

    /// Takes addresses, `localhost` (both loopback addresses) and `*` (everything, both protocols).
    ///
    /// # Errors
    /// When the list is empty or one is no address. Host names are not resolved.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, AddressError> {
        let mut hosts = Vec::new();
        for text in texts.iter().map(AsRef::as_ref) {
            let more = match text {
                "localhost" => Self::loopback().0,
                "*" => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
                _ => vec![text.parse().map_err(|_| AddressError(text.to_owned()))?],
            };
            hosts.extend(more.into_iter().filter(|host| !hosts.contains(host)).collect::<Vec<_>>());
        }
        if hosts.is_empty() { Err(AddressError(String::new())) } else { Ok(Self(hosts)) }
    }

    /// The addresses.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().copied()
    }

    /// With a port. An IPv6 socket must be bound for IPv6 only, since IPv4 has its own.
    pub fn with_port(&self, port: u16) -> impl Iterator<Item = SocketAddr> + '_ {
        self.iter().map(move |host| SocketAddr::new(host, port))
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.iter().all(|host| host.to_canonical().is_loopback())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.iter().enumerate() {
            write!(f, "{}{host}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A network: an address and how many leading bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether an address is in the network. IPv4 in IPv6 (`::ffff:10.0.0.1`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (u32::from(network) ^ u32::from(address)) & self.mask4() == 0,
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (u128::from(network) ^ u128::from(address)) & self.mask6() == 0
            }
            _ => false,
        }
    }

    fn mask4(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0)
    }

    fn mask6(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| error())?;
        let all = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), |bits| bits.parse().map_err(|_| error()))?;
        if bits > all {
            return Err(error());
        }
        Ok(Self { network, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_exactly_its_addresses() {
        for (network, address, want) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), want, "{network} {address}");
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "", "a/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_know_who_can_reach_them() {
        assert!(Hosts::parse(&["localhost"]).unwrap().is_loopback());
        assert!(Hosts::parse(&["127.0.0.53", "::1"]).unwrap().is_loopback());
        assert!(!Hosts::parse(&["127.0.0.1", "192.0.2.1"]).unwrap().is_loopback());
        assert!(!Hosts::parse(&["*"]).unwrap().is_loopback());
        assert!(Hosts::parse(&["example.org"]).is_err());
        assert!(Hosts::parse(&[""; 0]).is_err());
    }
}
