//! The ring against the real kernel: files, sockets, wakes from other threads, and futures dropped in flight.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use buddy_ring::{
    Address, Buffer, BufferPool, Deadline, Elapsed, File, Guarded, ListenError, ListenOptions, Listener,
    ReceiveBuffers, Ring, RingConfig, Runtime, SendAmount, Socket,
};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

fn runtime() -> Runtime {
    Runtime::new(RingConfig::default()).unwrap()
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

#[test]
fn files_are_written_flushed_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let ring = runtime.ring();
    let pool = BufferPool::new(1 << 20);
    runtime.block_on(async {
        let file = File::new(&ring, open(&directory.path().join("file")));
        let mut buffer = pool.take(8192).await.unwrap();
        buffer.fill(7);
        let (written, _) = file.write_at(buffer, 0..8192, 4096, true).await;
        assert_eq!(written.unwrap(), 8192);
        let parts: Vec<(Buffer, usize)> = (0..3u8)
            .map(|part| {
                let mut buffer = pool.try_take(4096).unwrap().unwrap();
                buffer.fill(part);
                (buffer, 4096)
            })
            .collect();
        let (written, parts) = file.write_vectored_at(parts, 0, false).await;
        assert_eq!((written.unwrap(), parts.len()), (12_288, 3));
        file.flush().await.unwrap();
        let (read, buffer) = file.read_at(pool.take(16_384).await.unwrap(), 0..16_384, 0).await;
        assert_eq!(read.unwrap(), 12_288);
        assert!(buffer[..4096].iter().all(|byte| *byte == 0) && buffer[8192..12_288].iter().all(|byte| *byte == 2));
        let (refused, _) = file.read_at(buffer, 0..16_385, 0).await;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_future_dropped_in_flight_frees_its_buffer_only_after_the_completion() {
    let runtime = runtime();
    let ring = runtime.ring();
    let pool = BufferPool::new(1 << 20);
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        let released = Rc::new(Cell::new(false));
        let guard = OnDrop(Rc::clone(&released));
        let guarded = Guarded { buffer: pool.take(4096).await.unwrap(), guard };
        let limited = ring.timeout(Duration::from_millis(5), socket.receive(guarded, 0..4096)).await;
        assert!(matches!(limited, Err(Elapsed)));
        assert!(!released.get(), "the kernel may still write into it");
        assert_eq!(pool.in_use_bytes(), 4096);
        while !released.get() {
            ring.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pool.in_use_bytes(), 0, "the cancelled receive has completed and released it");
        peer.write_all(b"later").unwrap();
        let (received, buffer) = socket.receive(vec![0; 16], 0..16).await;
        assert_eq!(&buffer[..received.unwrap()], b"later");
    });
}

struct OnDrop(Rc<Cell<bool>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn an_abandoned_ring_is_drained_when_its_last_handle_goes() {
    let pool = BufferPool::new(1 << 20);
    let released = Rc::new(Cell::new(false));
    let (_peer, socket) = {
        let runtime = runtime();
        let ring = runtime.ring();
        runtime.block_on(async {
            let (socket, peer) = pair(&ring).await;
            let guarded = Guarded { buffer: pool.take(4096).await.unwrap(), guard: OnDrop(Rc::clone(&released)) };
            let task = socket.clone();
            ring.spawn(async move { drop(task.receive(guarded, 0..4096).await) }).detach();
            ring.sleep(Duration::from_millis(2)).await;
            (peer, socket)
        })
    };
    drop(socket);
    assert!(released.get(), "cancelled, completed, freed");
    assert_eq!(pool.in_use_bytes(), 0);
}

#[test]
fn sockets_send_all_and_receive_what_is_there() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let bytes: Vec<u8> = (0..8 << 20).map(|index: u32| index.to_le_bytes()[0] ^ index.to_le_bytes()[2]).collect();
        let (sent, bytes) = socket.send(bytes, 0..8 << 20, SendAmount::All, false).await;
        assert_eq!(sent.unwrap(), 8 << 20);
        socket.finish_sending();
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn connecting_succeeds_or_says_why_not() {
    let runtime = runtime();
    let ring = runtime.ring();
    let listener = std::net::TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.block_on(async {
        let socket = Socket::connect(&ring, address, None).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (sent, _) = socket.send(b"hello".to_vec(), 0..5, SendAmount::All, false).await;
        assert_eq!(sent.unwrap(), 5);
        let mut received = [0; 5];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
        let unknown = Socket::connect(&ring, address, Some("nonsense")).await;
        assert!(unknown.is_err());
        drop(listener);
        let refused = Socket::connect(&ring, address, None).await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn what_is_discarded_is_counted_and_what_follows_is_received() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            peer.write_all(&vec![7; 4 << 20]).unwrap();
            peer.write_all(b"kept").unwrap();
        });
        let (received, buffer) = socket.receive_later(vec![0; 16], 0..16).await;
        let mut left = (4 << 20) - received.unwrap();
        assert_eq!(buffer[0], 7);
        while left > 0 {
            let discarded = socket.discard(left).await.unwrap();
            assert!(discarded > 0 && discarded <= left);
            left -= discarded;
        }
        let (received, buffer) = socket.receive_later(vec![0; 16], 0..16).await;
        assert_eq!(&buffer[..received.unwrap()], b"kept");
        writer.join().unwrap();
        assert_eq!(socket.discard(16).await.unwrap(), 0, "the end of the stream");
    });
}

#[test]
fn a_file_is_sent_without_copying() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let bytes: Vec<u8> = (0..4 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let mut offset = 0;
        while offset < 4 << 20 {
            let left = (4 << 20) - usize::try_from(offset).unwrap();
            match socket.send_file(std::os::fd::AsFd::as_fd(&file), &mut offset, left) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    socket.writable().await.unwrap();
                }
            }
        }
        socket.finish_sending();
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn the_kernel_picks_buffers_and_receivers_wait_when_all_are_taken() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let buffers = ReceiveBuffers::new(&ring, 2, 4096).unwrap();
        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(pair(&ring).await);
        }
        for (_, peer) in &mut sockets {
            peer.write_all(b"hello").unwrap();
        }
        let first = buffers.receive(&sockets[0].0).await.unwrap();
        let second = buffers.receive(&sockets[1].0).await.unwrap();
        assert_eq!((&first[..], &second[..], buffers.in_use()), (&b"hello"[..], &b"hello"[..], 2));
        let limited = ring.timeout(Duration::from_millis(5), buffers.receive(&sockets[2].0)).await;
        assert!(limited.is_err(), "no buffer is left");
        let third = ring.spawn({
            let (buffers, socket) = (buffers.clone(), sockets[2].0.clone());
            async move { buffers.receive(&socket).await.unwrap().to_vec() }
        });
        ring.sleep(Duration::from_millis(2)).await;
        drop(first);
        assert_eq!(third.await, b"hello");
        drop(second);
        assert_eq!(buffers.in_use(), 0);
        // A receive that is given up holds no buffer, and the bytes are there for the next.
        let limited = ring.timeout(Duration::from_millis(2), buffers.receive(&sockets[0].0)).await;
        assert!(limited.is_err());
        sockets[0].1.write_all(b"again").unwrap();
        assert_eq!(&buffers.receive(&sockets[0].0).await.unwrap()[..], b"again");
        let (socket, peer) = sockets.remove(1);
        drop(peer);
        assert!(buffers.receive(&socket).await.unwrap().is_empty());
        assert_eq!(buffers.in_use(), 0, "the end of the stream needs no buffer");
    });
}

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

#[test]
fn a_deadline_moves_for_nothing_and_ends_what_is_late() {
    let runtime = Runtime::simulated(3);
    let ring = runtime.ring();
    runtime.block_on(async {
        let start = ring.now();
        let deadline = Deadline::new(&ring, Duration::from_secs(1));
        for _ in 0..10 {
            assert!(deadline.limit(ring.sleep(Duration::from_millis(900))).await.is_ok());
            deadline.set(Duration::from_secs(1));
        }
        assert!(deadline.limit(std::future::pending::<()>()).await.is_err());
        assert_eq!(ring.now() - start, Duration::from_secs(10));
    });
}

/// Two threads pass a counter to and fro over queues; each sleeps in its ring whenever its queue is empty. A lost wake hangs.
#[test]
fn messages_between_rings_wake_sleepers() {
    const ROUNDS: u64 = 20_000;
    let (ping_sender, ping_receiver) = rtrb::RingBuffer::new(8);
    let (pong_sender, pong_receiver) = rtrb::RingBuffer::new(8);
    let (remote_sender, remote_receiver) = mpsc::channel();
    let (peer_sender, peer_receiver) = mpsc::channel();
    let echo = std::thread::spawn(move || {
        let runtime = runtime();
        peer_sender.send(runtime.ring().remote()).unwrap();
        relay(&runtime, ping_receiver, pong_sender, remote_receiver.recv().unwrap(), false)
    });
    let runtime = runtime();
    remote_sender.send(runtime.ring().remote()).unwrap();
    let last = relay(&runtime, pong_receiver, ping_sender, peer_receiver.recv().unwrap(), true);
    assert_eq!(last, ROUNDS);
    echo.join().unwrap();

    fn relay(
        runtime: &Runtime,
        mut inbox: rtrb::Consumer<u64>,
        mut outbox: rtrb::Producer<u64>,
        peer: buddy_ring::Remote,
        begin: bool,
    ) -> u64 {
        let ring = runtime.ring();
        let received: Rc<Cell<Option<u64>>> = Rc::default();
        let waiting: Rc<RefCell<Option<std::task::Waker>>> = Rc::default();
        ring.on_turn_start({
            let (received, waiting) = (Rc::clone(&received), Rc::clone(&waiting));
            move || {
                if let Ok(message) = inbox.pop() {
                    received.set(Some(message));
                    if let Some(waker) = waiting.borrow_mut().take() {
                        waker.wake();
                    }
                }
            }
        });
        runtime.block_on(async {
            if begin {
                outbox.push(1).unwrap();
                peer.wake_from(&ring);
            }
            loop {
                let message = std::future::poll_fn(|context| match received.take() {
                    Some(message) => std::task::Poll::Ready(message),
                    None => {
                        *waiting.borrow_mut() = Some(context.waker().clone());
                        std::task::Poll::Pending
                    }
                })
                .await;
                if message < ROUNDS {
                    outbox.push(message + 1).unwrap();
                }
                peer.wake_from(&ring);
                if message + 1 >= ROUNDS {
                    // Lets the last message to the peer's ring leave.
                    ring.sleep(Duration::from_millis(1)).await;
                    return ROUNDS;
                }
            }
        })
    }
}

#[test]
fn a_thread_without_a_ring_wakes_a_task() {
    let runtime = runtime();
    let (sender, receiver) = mpsc::channel::<std::task::Waker>();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let thread = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            for waker in receiver {
                std::thread::sleep(Duration::from_millis(5));
                done.store(true, std::sync::atomic::Ordering::Release);
                waker.wake();
            }
        }
    });
    runtime.block_on(std::future::poll_fn(|context| {
        if done.load(std::sync::atomic::Ordering::Acquire) {
            return std::task::Poll::Ready(());
        }
        sender.send(context.waker().clone()).unwrap();
        std::task::Poll::Pending
    }));
    drop(sender);
    thread.join().unwrap();
}

#[test]
fn more_operations_than_the_queue_holds_all_complete() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RingConfig { submission_entries: 4 }).unwrap();
    let ring = runtime.ring();
    runtime.block_on(async {
        let file = File::new(&ring, open(&directory.path().join("file")));
        let tasks: Vec<_> = (0..500u64)
            .map(|index| {
                let file = file.clone();
                ring.spawn(async move {
                    let byte = index.to_le_bytes()[0];
                    file.write_at(vec![byte; 100], 0..100, index * 100, false).await.0.unwrap();
                    let (read, buffer) = file.read_at(vec![0; 100], 0..100, index * 100).await;
                    read.unwrap() == 100 && buffer.iter().all(|read| *read == byte)
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await);
        }
        assert!(ring.tasks() <= 1, "only the ring's own task is left");
    });
}

/// A runtime that is dropped while a receive waits for a buffer of the kernel's choice lets everything go.
#[test]
fn a_dropped_runtime_lets_go_of_receives_in_flight() {
    let runtime = runtime();
    let ring = runtime.ring();
    let mut peer = runtime.block_on(async {
        let (socket, peer) = pair(&ring).await;
        let buffers = ReceiveBuffers::new(&ring, 2, 4096).unwrap();
        ring.spawn(async move { drop(buffers.receive(&socket).await) }).detach();
        ring.sleep(Duration::from_millis(2)).await;
        peer
    });
    drop(ring);
    drop(runtime);
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "the socket is closed");
}

/// Tasks that were ready in the turn in which the main future ended go on in the next run.
#[test]
fn tasks_outlive_the_main_future() {
    for seed in 0..20 {
        let runtime = Runtime::simulated(seed);
        let ring = runtime.ring();
        let tasks: Vec<_> = runtime.block_on(async { (0..10).map(|task| ring.spawn(async move { task })).collect() });
        runtime.block_on(async {
            for (task, handle) in tasks.into_iter().enumerate() {
                assert_eq!(handle.await, task);
            }
        });
    }
}

/// What the last turn sent to another ring leaves with it.
#[test]
fn the_last_turn_wakes_whom_it_has_sent_something() {
    let (sender, receiver) = mpsc::channel();
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sleeper = std::thread::spawn({
        let flag = Arc::clone(&flag);
        move || {
            let runtime = runtime();
            let ring = runtime.ring();
            let waiting: Rc<RefCell<Option<std::task::Waker>>> = Rc::default();
            ring.on_turn_start({
                let (flag, waiting) = (Arc::clone(&flag), Rc::clone(&waiting));
                move || {
                    if flag.load(std::sync::atomic::Ordering::Acquire)
                        && let Some(waker) = waiting.borrow_mut().take()
                    {
                        waker.wake();
                    }
                }
            });
            sender.send(ring.remote()).unwrap();
            runtime.block_on(std::future::poll_fn(|context| {
                *waiting.borrow_mut() = Some(context.waker().clone());
                if flag.load(std::sync::atomic::Ordering::Acquire) {
                    return std::task::Poll::Ready(());
                }
                std::task::Poll::Pending
            }));
        }
    });
    let remote = receiver.recv().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        flag.store(true, std::sync::atomic::Ordering::Release);
        remote.wake_from(&ring);
    });
    sleeper.join().unwrap();
}

/// A task that is woken from another thread exactly while it is polled is polled again.
#[test]
fn a_wake_during_a_poll_is_not_lost() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const ROUNDS: u64 = 200_000;
    let round = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::sync_channel::<std::task::Waker>(1);
    let waker_thread = std::thread::spawn({
        let round = Arc::clone(&round);
        move || {
            for waker in receiver {
                round.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        }
    });
    let runtime = runtime();
    let mut seen = 0;
    let mut sent = 0;
    runtime.block_on(std::future::poll_fn(|context| {
        seen = seen.max(round.load(Ordering::Relaxed));
        if seen >= ROUNDS {
            return std::task::Poll::Ready(());
        }
        if seen == sent {
            sent += 1;
            sender.send(context.waker().clone()).unwrap();
            if round.load(Ordering::Relaxed) >= sent {
                context.waker().wake_by_ref();
            }
        }
        std::task::Poll::Pending
    }));
    drop(sender);
    waker_thread.join().unwrap();
}

#[test]
fn a_deadline_can_be_moved_earlier_and_a_sleep_can_change_hands() {
    let runtime = Runtime::simulated(5);
    let ring = runtime.ring();
    runtime.block_on(async {
        let start = ring.now();
        let deadline = Rc::new(Deadline::new(&ring, Duration::from_secs(60)));
        let limited = ring.spawn({
            let deadline = Rc::clone(&deadline);
            async move { deadline.limit(std::future::pending::<()>()).await }
        });
        ring.sleep(Duration::from_secs(1)).await;
        deadline.set(Duration::from_secs(1));
        assert!(limited.await.is_err());
        assert_eq!(ring.now() - start, Duration::from_secs(2));
        let mut sleep = Box::pin(ring.sleep(Duration::from_secs(1)));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(sleep.as_mut().poll(context).is_ready()));
        assert!(!polled.await);
        ring.spawn(sleep).await;
        assert!(ring.timeout(Duration::MAX, ring.sleep(Duration::from_secs(1))).await.is_ok());
    });
}

/// One that takes and gives back a buffer all the time does not keep others from theirs.
#[test]
fn a_busy_receiver_does_not_starve_others() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let buffers = ReceiveBuffers::new(&ring, 1, 4096).unwrap();
        let (busy, mut busy_peer) = pair(&ring).await;
        let (quiet, mut quiet_peer) = pair(&ring).await;
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let feeder = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && busy_peer.write_all(&[1; 4096]).is_ok() {}
            }
        });
        let hog = ring.spawn({
            let buffers = buffers.clone();
            async move { while !buffers.receive(&busy).await.unwrap().is_empty() {} }
        });
        ring.sleep(Duration::from_millis(20)).await;
        quiet_peer.write_all(b"x").unwrap();
        let served = ring.timeout(Duration::from_secs(5), buffers.receive(&quiet)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(served.is_ok(), "starved");
        drop(served);
        hog.await;
        feeder.join().unwrap();
    });
}
