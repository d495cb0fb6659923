//! A network of its own for a test, over whose connections little is on its way at a time, as over real ones that are slow.

use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `SIOCSIFFLAGS`, and `IFF_UP` for the one interface there is, as in netdevice(7).
const SET_INTERFACE_FLAGS: Opcode = 0x8914;
const INTERFACE_UP: u16 = 1;

/// Runs a test in a network where a socket takes at most `send_bytes` that its peer has not taken; what the test starts is there, too.
/// Where that is not possible here the test is skipped, and it says why.
///
/// A thread that has left the network of the others cannot go back: this one is made for the test. Tests that run one at a time share
/// theirs.
pub fn within(send_bytes: usize, test: impl FnOnce() + Send) {
    let run = || match enter(send_bytes) {
        Ok(()) => test(),
        Err(reason) => eprintln!("skipped: {reason}"),
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Moves this thread, and what it starts from now on, to a network of its own. Where that is not possible here, why.
fn enter(send_bytes: usize) -> Result<(), String> {
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
    // Closed in what other tests start meanwhile: it would keep the network there.
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a request of the size of `struct ifreq`, which is what this number reads.
    let up: Setter<SET_INTERFACE_FLAGS, [u8; 40]> = unsafe { Setter::new(request) };
    // SAFETY: the socket is open, and what is passed is what the number asks for.
    unsafe { ioctl(&any, up) }
}

#[test]
fn a_test_leaves_its_network_behind() {
    let network = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = network();
    within(16 << 10, || assert_ne!(network(), before));
    assert_eq!(network(), before);
}
