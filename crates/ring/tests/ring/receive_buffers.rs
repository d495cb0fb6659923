//! Receiving into buffers of the kernel's choice: who waits where there is none, and who gets the next.

use super::{pair, runtime};
use buddy_ring::ReceiveBuffers;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

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

/// Who has nothing to receive yet stands in nobody's way.
#[test]
fn a_quiet_receiver_does_not_keep_others_from_their_buffers() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let buffers = ReceiveBuffers::new(&ring, 1, 4096).unwrap();
        let (mut holder, mut first, quiet, mut last) =
            (pair(&ring).await, pair(&ring).await, pair(&ring).await, pair(&ring).await);
        holder.1.write_all(b"holder").unwrap();
        let held = buffers.receive(&holder.0).await.unwrap();
        first.1.write_all(b"first").unwrap();
        last.1.write_all(b"last").unwrap();
        let mut waiting = Vec::new();
        for socket in [&first.0, &quiet.0, &last.0] {
            let (buffers, socket) = (buffers.clone(), socket.clone());
            waiting.push(ring.spawn(async move { buffers.receive(&socket).await.unwrap().to_vec() }));
            ring.sleep(Duration::from_millis(2)).await;
        }
        drop(held);
        let mut waiting = waiting.into_iter();
        assert_eq!(waiting.next().unwrap().await, b"first");
        let quiet_task = waiting.next().unwrap();
        let served = ring.timeout(Duration::from_secs(5), waiting.next().unwrap()).await;
        assert_eq!(served.expect("it waits for one that has nothing to receive"), b"last");
        let mut quiet_peer = quiet.1;
        quiet_peer.write_all(b"quiet").unwrap();
        assert_eq!(quiet_task.await, b"quiet");
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
