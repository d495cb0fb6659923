//! A disk that takes its time to read: whoever does not need what it reads waits for nothing.
//!
//! Needs root, loop devices, `/dev/fuse` and `mkfs.ext4`; where one is missing the test says so and passes.

use crate::support::logged_disks::{Disks, HeldReads};
use crate::support::loop_device::{Kind, Mount, or_skip};
use crate::support::write_log::Image;
use crate::support::{BLOCK_BYTES_MAX, Client, Server, bytes, check, directory, name, narrow};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

const DISK_BYTES: u64 = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// True where nothing has come.
fn has_no_answer(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let peeked = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A store of which only the blocks lie on a disk that can be told to wait.
struct SlowStore {
    server: Server,
    /// Goes before the disk that it lies on.
    mount: Mount,
    disks: Disks,
    directory: tempfile::TempDir,
}

impl SlowStore {
    fn start() -> Option<SlowStore> {
        let directory = directory();
        let (path, mounted, store) =
            (directory.path().join("disks"), directory.path().join("mounted"), directory.path().join("store"));
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(&store).unwrap();
        let (disks, mount) = or_skip(|| {
            let disks = Disks::serve(vec![Image::default()], DISK_BYTES, &path)?;
            Mount::make(Kind::Ext4, &disks.file(0))?;
            let mount = Mount::new(Kind::Ext4, &disks.file(0), &mounted)?;
            Ok((disks, mount))
        })?;
        std::fs::File::create(mounted.join("data")).unwrap();
        symlink(Path::new("../mounted/data"), store.join("data")).unwrap();
        let server = Server::start(&store, &["--workers", "1", "--body-timeout", "10min"]);
        Some(SlowStore { server, mount, disks, directory })
    }

    fn stop(self) {
        let SlowStore { server, mount, disks, directory } = self;
        server.stop();
        check(&directory.path().join("store"));
        drop(mount);
        drop(disks);
    }
}

/// Waits until something was read from the disk.
fn wait_for_reads(held: &HeldReads) {
    let began = Instant::now();
    while held.count() == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing was read from the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_read_that_the_disk_does_not_answer_holds_up_nobody_else() {
    let Some(store) = SlowStore::start() else { return };
    let (disks, server) = (&store.disks, &store.server);
    let mut client = server.connect();
    let cold: Vec<_> =
        [4096, 20_000, 65_536, 300_000, 524_288].into_iter().map(|size| bytes(size as u64, size)).collect();
    let warm: Vec<_> = [100, 4096, 65_536, 524_288].into_iter().map(|size| bytes(1 + size as u64, size)).collect();
    cold.iter().chain(&warm).for_each(|body| client.put_block(body));
    // The first read may pass the cache, the third comes from there.
    (0..3).for_each(|_| warm.iter().for_each(|body| client.get_block(body)));

    let held = disks.hold_reads(0);
    let mut waiting: Vec<_> = cold.iter().map(|_| server.connect()).collect();
    for (waits, body) in waiting.iter_mut().zip(&cold) {
        waits.send(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", name(body)).as_bytes());
    }
    wait_for_reads(&held);
    // The one worker is asked by others, and by the same ones once more.
    for client in [&mut client, &mut server.connect()] {
        warm.iter().for_each(|body| client.get_block(body));
        assert_eq!(client.request("HEAD", &format!("/{}", name(&cold[0])), &[], b"").status, 200);
        assert_eq!(client.request("GET", &format!("/{}", name(b"never stored")), &[], b"").status, 404);
        assert_eq!(client.request("DELETE", &format!("/{}", name(b"never stored")), &[], b"").status, 404);
        // What is there already needs no space on the disk.
        assert_eq!(client.request("PUT", &format!("/{}", name(&cold[4])), &[], &cold[4]).status, 200);
    }
    assert_eq!(client.request("DELETE", &format!("/{}", name(&warm[0])), &[], b"").status, 204);
    assert!(waiting.iter().all(has_no_answer), "answered with what was not read");

    drop(held);
    for (waits, body) in waiting.iter_mut().zip(&cold) {
        waits.read_reply(false).unwrap().assert_block(body);
    }
    store.stop();
}

/// Clients that do not read have all the pipes in which pages are kept for them; the pages of one more leave the cache before it reads on.
#[test]
fn pages_that_left_the_cache_under_way_hold_up_nobody_else() {
    let Some(store) = SlowStore::start() else { return };
    let (disks, server) = (&store.disks, &store.server);
    let (kept, evicted) = (bytes(1, BLOCK_BYTES_MAX), bytes(2, BLOCK_BYTES_MAX));
    let mut client = server.connect();
    for body in [&kept, &evicted] {
        client.put_block(body);
        (0..3).for_each(|_| client.get_block(body));
    }
    let ask = |body: &[u8]| {
        let mut client = Client::new(narrow(server.address));
        client.send(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", name(body)).as_bytes());
        assert!(client.stream.peek(&mut [0]).unwrap() > 0);
        client
    };
    let have_pipes: Vec<_> = (0..64).map(|_| ask(&kept)).collect();
    let mut has_none = ask(&evicted);
    // That its pages are cached was seen, and is believed for a while.
    std::thread::sleep(Duration::from_secs(1));
    let data = std::fs::File::open(server.data.join("data")).unwrap();
    rustix::fs::fadvise(&data, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    drop(data);
    let held = disks.hold_reads(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| has_none.read_reply(false).unwrap());
        wait_for_reads(&held);
        for client in [&mut client, &mut server.connect()] {
            assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
            assert_eq!(client.request("HEAD", &format!("/{}", name(&evicted)), &[], b"").status, 200);
        }
        assert!(!reading.is_finished());
        drop(held);
        reading.join().unwrap().assert_block(&evicted);
    });
    have_pipes.into_iter().next().unwrap().read_reply(false).unwrap().assert_block(&kept);
    store.stop();
}
