//! Listening on an address of TCP or on a Unix socket, and accepting.

use crate::operation::{Completion, Operation, Payload};
use crate::runtime::Ring;
use crate::socket::Socket;
use crate::unix_socket::{self, SocketFile};
use io_uring::{opcode, types};
use socket2::{Domain, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// How the address of a Unix socket begins.
const UNIX: &str = "unix:";

/// Bytes that a connection's peer has no room for yet, and that the kernel queues all the same. What is on its way does not count, so
/// fast peers do not notice; but without this one that does not read makes the kernel queue megabytes, and enough of those make it drop
/// what others send.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A port of TCP. An IPv6 address is for IPv6 alone.
    Tcp(SocketAddr),
    /// A Unix socket, by its path.
    Unix(PathBuf),
}

impl Address {
    /// Whether who listens on one of them keeps the other from being had. Asks the file system where both are Unix sockets.
    #[must_use]
    pub fn overlaps(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Tcp(address), Address::Tcp(other)) => {
                let is_any = |address: &SocketAddr| address.ip().is_unspecified();
                // Port 0 is another one each time.
                let same_port = address.port() == other.port() && address.port() != 0;
                let same_family = address.is_ipv4() == other.is_ipv4();
                same_port && same_family && (address == other || is_any(address) || is_any(other))
            }
            (Address::Unix(path), Address::Unix(other)) => unix_socket::is_same(path, other),
            _ => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(formatter),
            Address::Unix(path) => write!(formatter, "{UNIX}{}", path.display()),
        }
    }
}

/// A text that is no address.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not an address (names are not looked up): write 127.0.0.1:10001, [::1]:10001 or unix:/run/buddy-blocks/buddy.sock"
)]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.strip_prefix(UNIX) {
            Some("") => Err(wrong()),
            Some(path) => Ok(Address::Unix(PathBuf::from(path))),
            None => text.parse().map(Address::Tcp).map_err(|_| wrong()),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("cannot listen on {0}: the port is in use by another process")]
    PortInUse(SocketAddr),
    /// Somebody listens on that socket already.
    #[error("cannot listen on {UNIX}{}: it is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The congestion control is unknown to the kernel or not allowed.
    #[error(
        "TCP congestion control \"{name}\" cannot be used ({source}): see /proc/sys/net/ipv4/tcp_allowed_congestion_control"
    )]
    CongestionControl {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is something else where the socket should be.
    #[error("cannot listen on {UNIX}{}: there is a file that is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Somebody keeps the directory of the socket locked.
    #[error(
        "cannot listen on {UNIX}{}: another process keeps the lock (flock) of that directory; see /proc/locks for its id",
        .0.display()
    )]
    DirectoryLocked(PathBuf),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address that was asked for.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What connections and sockets are like.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Of connections over TCP; `None` leaves the system's.
    pub congestion_control: Option<String>,
    /// Permissions of a Unix socket's file.
    pub unix_mode: u32,
}

impl Default for ListenOptions {
    /// The system's congestion control; Unix sockets for the user and the group of the process.
    fn default() -> ListenOptions {
        ListenOptions { congestion_control: None, unix_mode: 0o660 }
    }
}

/// A socket bound to an address, to be used through any ring.
pub struct Listener {
    descriptor: OwnedFd,
    address: Address,
    options: ListenOptions,
    /// Of a Unix socket.
    file: Option<Arc<SocketFile>>,
}

impl Listener {
    /// Makes sure that an address can be listened on, which no other process may be doing, and keeps a port of TCP for us. It does not
    /// listen yet.
    ///
    /// # Errors
    ///
    /// [`ListenError`]
    pub fn bind(address: &Address, options: &ListenOptions) -> Result<Listener, ListenError> {
        match address {
            Address::Tcp(address) => bind_tcp(*address, false, options),
            Address::Unix(path) => {
                unix_socket::check(path)?;
                let descriptor = unix_socket::new().map_err(|error| bind_error(address, error))?;
                Ok(Listener { descriptor, address: address.clone(), options: options.clone(), file: None })
            }
        }
    }

    /// Begins to listen, with `count` sockets on the one address, for as many rings. Each port of TCP keeps up to `backlog`
    /// connections for us until they are accepted, and the kernel spreads them; a Unix socket is one, which all accept from.
    ///
    /// The first socket of TCP listens before it may share the port, so that a port that somebody else listens on, or shares with
    /// whoever asks, is an error; only then the option is set, and the others join it.
    ///
    /// # Errors
    ///
    /// [`ListenError`]
    pub fn listen(mut self, count: usize, backlog: i32) -> Result<Vec<Listener>, ListenError> {
        match &self.address {
            Address::Tcp(_) => {
                let failed = |source: rustix::io::Errno| bind_error(&self.address, source.into());
                rustix::net::listen(&self.descriptor, backlog).map_err(failed)?;
                rustix::net::sockopt::set_socket_reuseport(&self.descriptor, true).map_err(failed)?;
            }
            Address::Unix(path) => {
                let file = unix_socket::listen(&self.descriptor, path, self.options.unix_mode, backlog)?;
                self.file = Some(Arc::new(file));
            }
        }
        let mut listeners = Vec::with_capacity(count);
        for _ in 1..count {
            listeners.push(self.another(backlog)?);
        }
        listeners.push(self);
        Ok(listeners)
    }

    /// One more socket on the same address, that listens.
    fn another(&self, backlog: i32) -> Result<Listener, ListenError> {
        match &self.address {
            Address::Tcp(address) => {
                let joined = bind_tcp(*address, true, &self.options)?;
                rustix::net::listen(&joined.descriptor, backlog)
                    .map_err(|error| bind_error(&joined.address, error.into()))?;
                Ok(joined)
            }
            Address::Unix(_) => Ok(Listener {
                descriptor: self.descriptor.try_clone().map_err(|error| bind_error(&self.address, error))?,
                address: self.address.clone(),
                options: self.options.clone(),
                file: self.file.clone(),
            }),
        }
    }

    /// The address it listens on, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Stops listening, on this socket: connections that were not accepted are reset, new ones refused.
    pub fn stop(&self) {
        // A socket that does not listen needs no stopping.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Read);
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// The system's; those of the connection (`ECONNABORTED`) and of descriptors that ran out are for the caller to outlive.
    pub async fn accept(self: &Arc<Self>, ring: &Ring) -> io::Result<Socket> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry =
            opcode::Accept::new(types::Fd(self.descriptor.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut())
                .flags(flags)
                .build();
        // SAFETY: the entry points to no memory; the listener's descriptor stays open in the payload.
        let operation = unsafe { Operation::submit(ring, entry, Accepting(Arc::clone(self))) };
        let (completion, _) = operation.await;
        completion.into_result()?;
        Ok(Socket::new(ring, accepted(completion)))
    }
}

fn bind_tcp(address: SocketAddr, join: bool, options: &ListenOptions) -> Result<Listener, ListenError> {
    let failed = |error| bind_error(&Address::Tcp(address), error);
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    if join {
        socket.set_reuse_port(true).map_err(failed)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
    }
    // Accepted connections inherit these.
    socket.set_tcp_nodelay(true).map_err(failed)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX).map_err(failed)?;
    if let Some(name) = &options.congestion_control {
        socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|source| ListenError::CongestionControl { name: name.clone(), source })?;
    }
    socket.bind(&address.into()).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    Ok(Listener { descriptor: socket.into(), address: Address::Tcp(address), options: options.clone(), file: None })
}

pub(crate) fn bind_error(address: &Address, error: io::Error) -> ListenError {
    match (error.kind(), address) {
        (ErrorKind::AddrInUse, Address::Tcp(address)) => ListenError::PortInUse(*address),
        (ErrorKind::AddrInUse, Address::Unix(path)) => ListenError::InUse(path.clone()),
        _ => ListenError::Other { address: address.clone(), source: error },
    }
}

/// An accept in flight. A connection that arrives when nobody waits for it any more is closed.
struct Accepting(Arc<Listener>);

impl Payload for Accepting {
    fn discard(self, completion: Completion) {
        if completion.result >= 0 {
            drop(accepted(completion));
        }
        drop(self.0);
    }
}

/// The descriptor that a successful accept handed over.
fn accepted(completion: Completion) -> OwnedFd {
    // SAFETY: the kernel has just created this descriptor for us, and a completion is looked at once.
    unsafe { OwnedFd::from_raw_fd(completion.result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:10001", "[::1]:80", "unix:/run/x.socket", "unix:relative"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "localhost:1", "127.0.0.1", "::1:80", "/run/x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
