//! Deadlines and sleeps, in virtual time.

use buddy_ring::{Deadline, Runtime};
use std::future::Future;
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
