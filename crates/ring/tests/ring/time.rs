//! Deadlines and sleeps, in virtual time, and what the kernel's ring does about them.

use super::{pair, runtime};
use buddy_ring::{Deadline, RingConfig, Runtime};
use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

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

/// The thread stands still for longer than a limit, as one does that is stopped, or waits for a page of a mapped file. More completes
/// meanwhile than the kernel hands over at a time, and than the ring has room for.
#[test]
fn what_arrives_in_time_is_not_late_because_the_ring_was() {
    const CONNECTIONS: usize = 200;
    let limit = Duration::from_millis(100);
    let runtime = Runtime::new(RingConfig { submission_entries: 4, ..RingConfig::default() }).unwrap();
    let ring = runtime.ring();
    runtime.block_on(async {
        let mut receiving = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS {
            let (socket, peer) = pair(&ring).await;
            peers.push(peer);
            receiving.push(async move { socket.receive(vec![0; 1], 0..1).await.0 });
        }
        let receiving: Vec<_> = receiving
            .into_iter()
            .map(|receiving| {
                let limited = ring.timeout(limit, receiving);
                ring.spawn(limited)
            })
            .collect();
        ring.next_turn().await;
        for peer in &mut peers {
            peer.write_all(&[7]).unwrap();
        }
        std::thread::sleep(2 * limit);
        for task in receiving {
            assert_eq!(task.await.expect("it was there in time").unwrap(), 1);
        }
    });
}

#[test]
fn the_next_turn_is_waited_for_without_a_look_at_everything_before_sleep() {
    let (runtime, looks) = (runtime(), Rc::new(Cell::new(0)));
    let ring = runtime.ring();
    ring.on_turn_start({
        let looks = Rc::clone(&looks);
        move || looks.set(looks.get() + 1)
    });
    runtime.block_on(async {
        let before = looks.get();
        for _ in 0..100 {
            ring.next_turn().await;
        }
        assert!(looks.get() - before <= 101, "{} looks in 100 turns", looks.get() - before);
    });
}
