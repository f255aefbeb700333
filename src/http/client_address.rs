//! The address of whoever sends a request, as far as it can be believed.
//!
//! A proxy adds the address that it sees at the **right** end of `X-Forwarded-For`; whatever stands left of what a trusted
//! proxy has added was written by the client. So the header is read from the right, and no further than trust goes. `Forwarded`
//! and `X-Real-IP` are not read at all.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{IpAddr, Ipv6Addr},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{HeaderMap, X_FORWARDED_FOR},
    web::Data,
};
use ipnet::IpNet;

use crate::app::App;

/// The address of whoever sends a request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

impl FromRequest for ClientAddress {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let peer = request.peer_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
        let app = request.app_data::<Data<App>>();
        let trusted = app.map(|app| &*app.trusted_proxies).unwrap_or_default();
        ready(Ok(Self(client_address(peer, request.headers(), trusted))))
    }
}

/// The first address from the right that is no trusted proxy's. A `peer` that is none is the client itself.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    // Several lines are one list.
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
    for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
        if !is_trusted(&client) {
            break;
        }
        // An unreadable one ends the walk at the last that could be believed.
        let Some(address) = parse(hop.trim()) else { break };
        client = address;
    }
    client
}

/// An address, perhaps with a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let address =
        hop.parse::<IpAddr>().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_says() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_the_first_other_address_from_the_right_is_the_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "198.51.100.7", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("::1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_walk_at_the_last_good_address() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, garbage, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
    }
}
