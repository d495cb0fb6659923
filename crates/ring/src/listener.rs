//! Listening on an address of TCP or on a Unix socket, and accepting.

use crate::operation::{Completion, Operation, Payload};
use crate::runtime::Ring;
use crate::socket::Socket;
use io_uring::{opcode, types};
use socket2::{Domain, SockAddr, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the address of a Unix socket begins.
const UNIX: &str = "unix:";

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A port of TCP. An IPv6 address is for IPv6 alone.
    Tcp(SocketAddr),
    /// A Unix socket, by its path.
    Unix(PathBuf),
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
#[error("\"{0}\" is not an address: write 127.0.0.1:10001, [::1]:10001 or unix:/run/buddy-blocks.socket")]
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
    #[error("cannot listen on {0}: it is in use by another process")]
    InUse(Address),
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
    #[error("cannot listen on {0}: there is a file that is no socket")]
    NoSocket(Address),
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
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    /// Of connections over TCP; `None` leaves the system's.
    pub congestion_control: Option<String>,
    /// Permissions of a Unix socket's file; `None` leaves those that the process gives to new files.
    pub unix_mode: Option<u32>,
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
    /// Binds a socket to an address, which no other process may have bound for listening. It does not listen yet.
    ///
    /// # Errors
    ///
    /// [`ListenError`]
    pub fn bind(address: &Address, options: &ListenOptions) -> Result<Listener, ListenError> {
        match address {
            Address::Tcp(address) => bind_tcp(*address, false, options),
            Address::Unix(path) => bind_unix(path, options),
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
    pub fn listen(self, count: usize, backlog: i32) -> Result<Vec<Listener>, ListenError> {
        let failed = |source: rustix::io::Errno| bind_error(&self.address, source.into());
        rustix::net::listen(&self.descriptor, backlog).map_err(failed)?;
        if matches!(self.address, Address::Tcp(_)) {
            rustix::net::sockopt::set_socket_reuseport(&self.descriptor, true).map_err(failed)?;
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
    // Accepted connections inherit these two.
    socket.set_tcp_nodelay(true).map_err(failed)?;
    if let Some(name) = &options.congestion_control {
        socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|source| ListenError::CongestionControl { name: name.clone(), source })?;
    }
    socket.bind(&address.into()).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    Ok(Listener { descriptor: socket.into(), address: Address::Tcp(address), options: options.clone(), file: None })
}

/// Before it listens nobody can connect, so its permissions hold from the first connection on.
fn bind_unix(path: &Path, options: &ListenOptions) -> Result<Listener, ListenError> {
    let address = Address::Unix(path.to_owned());
    let failed = |error| bind_error(&address, error);
    remove_if_stale(path, &address)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let file = Arc::new(SocketFile { path: path.to_owned(), is_there: AtomicBool::new(true) });
    if let Some(mode) = options.unix_mode {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
    }
    Ok(Listener { descriptor: socket.into(), address, options: options.clone(), file: Some(file) })
}

/// A process that was killed leaves the file of its socket behind. Where nobody listens on it, it is in nobody's way but ours.
fn remove_if_stale(path: &Path, address: &Address) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(address, error)),
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NoSocket(address.clone())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| bind_error(address, error))
        }
        _ => Err(ListenError::InUse(address.clone())),
    }
}

/// The file of a Unix socket. It is removed once: afterwards one of that name is somebody else's.
struct SocketFile {
    path: PathBuf,
    is_there: AtomicBool,
}

impl SocketFile {
    fn remove(&self) {
        if self.is_there.swap(false, Ordering::Relaxed) {
            // Somebody may have removed it before.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn bind_error(address: &Address, error: io::Error) -> ListenError {
    match (error.kind(), address) {
        (ErrorKind::AddrInUse, Address::Tcp(address)) => ListenError::PortInUse(*address),
        (ErrorKind::AddrInUse, Address::Unix(_)) => ListenError::InUse(address.clone()),
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

    #[test]
    fn a_unix_socket_is_ones_own_has_its_permissions_and_goes_with_the_listener() {
        let directory = std::env::temp_dir().join(format!("buddy-listener-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let address = Address::Unix(path.clone());
        let options = ListenOptions { unix_mode: Some(0o600), ..ListenOptions::default() };
        // What a killed process leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listeners = Listener::bind(&address, &options).unwrap().listen(2, 16).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(Listener::bind(&address, &options), Err(ListenError::InUse(_))));
        drop(listeners);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Listener::bind(&address, &options), Err(ListenError::NoSocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
