//! A network of its own for a test, over whose connections little is on its way at a time, as over real ones that are slow.

use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `SIOCSIFFLAGS`, and `IFF_UP` for the one interface there is, as in netdevice(7).
const SET_INTERFACE_FLAGS: Opcode = 0x8914;
const INTERFACE_UP: u16 = 1;

/// Moves this thread, and what it starts from now on, to a network where a socket takes at most `send_bytes` that its peer has not taken.
/// Where that is not possible here, why.
pub fn enter(send_bytes: usize) -> Result<(), String> {
    // SAFETY: only the network of this thread changes: it shares as much memory and as many files with others as before.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| format!("no network of its own: {error}"))?;
    bring_loopback_up().map_err(|error| format!("no loopback: {error}"))?;
    let limits = format!("4096 {send_bytes} {send_bytes}");
    std::fs::write("/proc/sys/net/ipv4/tcp_wmem", limits).map_err(|error| format!("tcp_wmem: {error}"))
}

fn bring_loopback_up() -> rustix::io::Result<()> {
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&INTERFACE_UP.to_ne_bytes());
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: a request of the size of `struct ifreq`, which is what this number reads.
    let up: Setter<SET_INTERFACE_FLAGS, [u8; 40]> = unsafe { Setter::new(request) };
    // SAFETY: the socket is open, and what is passed is what the number asks for.
    unsafe { ioctl(&any, up) }
}
