//! What is dropped while the kernel still works on it, or tasks still run.

use super::{pair, runtime};
use buddy_ring::{BufferPool, Elapsed, Guarded, ReceiveBuffers, Runtime};
use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

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
