//! How many connections each peer has, where that is limited: shared by all workers, asked once a connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The part of an IPv6 address that one peer cannot choose: networks are given out by 64 bits.
const IPV6_PREFIX: u128 = !0 << 64;

/// Connections by peer.
pub(crate) struct Peers {
    connections_max: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a peer, counted as long as this lives.
pub(crate) struct PeerSlot {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// Lets each peer have so many connections.
    pub(crate) fn new(connections_max: usize) -> Arc<Peers> {
        Arc::new(Peers { connections_max, connections: Mutex::default() })
    }

    /// How many connections each may have.
    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Counts a connection in; `None` where its peer has as many as it may.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<PeerSlot> {
        let peer = peer(address);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(peer).or_insert(0);
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(PeerSlot { peers: Arc::clone(self), peer })
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut connections = self.peers.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

/// What counts as one peer: an IPv4 address, however it is written, or a /64 of IPv6.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_PREFIX).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_as_many_as_it_may_and_what_is_over_counts_no_more() {
        let peers = Peers::new(2);
        let admit = |address: &str| peers.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        let _other = admit("10.0.0.2").unwrap();
        drop(first);
        assert!(admit("10.0.0.1").is_some());
        let v6 = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert!(admit("2001:db8::3").is_none(), "one network of 64 bits");
        assert!(admit("2001:db8:0:1::3").is_some());
        drop(v6);
        assert_eq!(peers.connections.lock().unwrap().len(), 2, "peers without connections take no room");
    }
}
