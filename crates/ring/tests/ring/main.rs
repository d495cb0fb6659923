//! The ring against the real kernel.
//!
//! | file | one idea |
//! | --- | --- |
//! | `files` | writing, flushing and reading files |
//! | `sockets` | sending, receiving, throwing away |
//! | `receive_buffers` | receiving into buffers of the kernel's choice |
//! | `listeners` | several listeners of one address, and none |
//! | `dropping` | what is dropped in flight |
//! | `wakes` | waking rings and tasks from other threads |
//! | `time` | deadlines and sleeps |
//! | `turns` | what a turn consists of |
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod dropping;
mod files;
mod listeners;
mod receive_buffers;
mod sockets;
mod time;
mod turns;
mod wakes;

use buddy_ring::{Address, ListenOptions, Listener, Ring, RingConfig, Runtime, Socket};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

fn runtime() -> Runtime {
    Runtime::new(RingConfig::default()).unwrap()
}

/// A ring that sleeps as soon as it has nothing to do.
fn runtime_that_sleeps() -> Runtime {
    Runtime::new(RingConfig { busy_poll: Duration::ZERO, ..RingConfig::default() }).unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn port(listener: &Listener) -> SocketAddr {
    listener.address().to_string().parse().unwrap()
}

fn listen(count: usize) -> Vec<Arc<Listener>> {
    let listeners =
        Listener::bind(&Address::Tcp(loopback()), &ListenOptions::default()).unwrap().listen(count, 128).unwrap();
    listeners.into_iter().map(Arc::new).collect()
}

/// A connected pair: our side on the ring, the peer as a plain blocking socket.
async fn pair(ring: &Ring) -> (Socket, TcpStream) {
    let listener = listen(1).remove(0);
    let peer = TcpStream::connect(port(&listener)).unwrap();
    (listener.accept(ring).await.unwrap(), peer)
}

fn open(path: &std::path::Path) -> Arc<std::os::fd::OwnedFd> {
    Arc::new(std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap().into())
}
