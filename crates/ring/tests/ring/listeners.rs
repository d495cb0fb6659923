//! Listeners: several of one address, and addresses that cannot be had.

use super::{listen, loopback, port, runtime};
use buddy_ring::{Address, ListenError, ListenOptions, Listener};
use std::cell::Cell;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn all_listeners_of_an_address_get_connections_and_a_second_owner_is_refused() {
    let listeners = listen(2);
    assert_eq!(listeners[0].address(), listeners[1].address());
    let refused = Listener::bind(listeners[0].address(), &ListenOptions::default());
    assert!(matches!(refused, Err(ListenError::PortInUse(address)) if address == port(&listeners[0])));
    let peers: Vec<_> = (0..64).map(|_| TcpStream::connect(port(&listeners[0])).unwrap()).collect();
    let runtime = runtime();
    let ring = runtime.ring();
    let counts: Vec<_> = listeners.iter().map(|_| Rc::new(Cell::new(0))).collect();
    runtime.block_on(async {
        for (listener, count) in listeners.iter().zip(&counts) {
            let (listener, ring, count) = (Arc::clone(listener), ring.clone(), Rc::clone(count));
            ring.clone()
                .spawn(async move {
                    while listener.accept(&ring).await.is_ok() {
                        count.set(count.get() + 1);
                    }
                })
                .detach();
        }
        while counts.iter().map(|count| count.get()).sum::<u32>() < 64 {
            ring.sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(counts.iter().all(|count| count.get() > 0));
    drop(peers);
}

/// Both have bound the port before either listens: only one may.
#[test]
fn of_two_that_bind_at_the_same_time_one_may_listen() {
    let first = Listener::bind(&Address::Tcp(loopback()), &ListenOptions::default()).unwrap();
    let second = Listener::bind(first.address(), &ListenOptions::default()).unwrap();
    let listening = first.listen(2, 16).unwrap();
    assert!(matches!(second.listen(1, 16), Err(ListenError::PortInUse(address)) if address == port(&listening[0])));
}

#[test]
fn an_unknown_congestion_control_is_named() {
    let nonsense = ListenOptions { congestion_control: Some("nonsense".to_owned()), ..ListenOptions::default() };
    let error = Listener::bind(&Address::Tcp(loopback()), &nonsense).err().unwrap();
    assert!(error.to_string().contains("\"nonsense\""), "{error}");
}
