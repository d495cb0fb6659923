//! Connecting to somebody who listens.

use crate::operation::{Operation, Payload};
use crate::runtime::Ring;
use crate::socket::Socket;
use io_uring::{opcode, types};
use socket2::SockAddr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A connect in flight: the kernel reads the address, which does not move with its box.
struct Connecting {
    _address: Box<SockAddr>,
    _descriptor: Arc<OwnedFd>,
}

impl Payload for Connecting {}

impl Socket {
    /// Connects to `address`, without Nagle's delay. `congestion_control` is for what is sent; `None` leaves the system's.
    ///
    /// # Errors
    ///
    /// The system's: nobody listens, no route, no descriptors left, an unknown congestion control.
    pub async fn connect(ring: &Ring, address: SocketAddr, congestion_control: Option<&str>) -> io::Result<Socket> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        if let Some(name) = congestion_control {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        let descriptor = Arc::new(OwnedFd::from(socket));
        let address = Box::new(SockAddr::from(address));
        let entry =
            opcode::Connect::new(types::Fd(descriptor.as_raw_fd()), address.as_ptr().cast(), address.len()).build();
        let payload = Connecting { _address: address, _descriptor: Arc::clone(&descriptor) };
        // SAFETY: the entry names the boxed address and the descriptor, and the payload owns both.
        let operation = unsafe { Operation::submit(ring, entry, payload) };
        let (completion, payload) = operation.await;
        completion.into_result()?;
        drop(payload);
        Ok(Socket::shared(ring, descriptor))
    }
}
