//! The pipe's own addresses: who may come in by port 22 follows from them.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;
use trainspot_base::error::{Context, Error, Result};
use trainspot_http::{Answer, Redirects};

/// How long the service may take to tell the address.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of the answer: an address has 15 characters at most, and a longer answer is none.
const ADDRESS_LIMIT_BYTES: usize = 256;

/// A destination in the range for documentation, which nothing is ever sent to.
const UNSENT_DESTINATION: &str = "192.0.2.1:9";

/// The pipe's public address, as a service tells it.
///
/// Asked over IPv4, as the machine is reached over IPv4.
pub(crate) async fn public(url: &str) -> Result<IpAddr> {
    let what = || format!("cannot learn the pipe's own public address from {url} (PUBLIC_IP_URL)");
    let client = trainspot_http::client(Redirects::Anywhere)
        .local_address(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        .timeout(ANSWER_TIMEOUT)
        .build()
        .with_context(what)?;
    let answer = Answer::to(client.get(url), ADDRESS_LIMIT_BYTES).await.with_context(what)?;
    if !answer.is_success() {
        return Err(Error::new(what()).source(format!("HTTP {}", answer.status)));
    }
    parse(&String::from_utf8_lossy(&answer.body))
        .ok_or_else(|| Error::new(what()).source(Error::new("the answer is no IPv4 address")))
}

fn parse(text: &str) -> Option<IpAddr> {
    text.trim().parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// The local address that the pipe sends from. Connecting a UDP socket sends nothing.
pub(crate) fn local() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(UNSENT_DESTINATION).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Whether an IPv4 range, as `10.0.0.0/16`, holds an address.
pub(super) fn holds(cidr: &str, address: Ipv4Addr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(length)) = (network.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
    length <= 32 && (network.to_bits() & mask) == (address.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_own_addresses() {
        let cases = [
            ("10.0.0.0/16", "10.0.255.1", true),
            ("10.0.0.0/16", "10.1.0.1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("10.0.0.7/32", "10.0.0.7", true),
            ("10.0.0.7/32", "10.0.0.6", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("fd00::/8", "10.0.0.1", false),
        ];
        for (cidr, address, expected) in cases {
            assert_eq!(holds(cidr, address.parse().unwrap()), expected, "{cidr} {address}");
        }
    }

    #[test]
    fn only_an_address_is_taken_for_one() {
        assert_eq!(parse(" 198.51.100.7\n"), Some("198.51.100.7".parse().unwrap()));
        for text in ["", "<html>", "198.51.100", "::1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
