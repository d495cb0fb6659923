//! Waking: a ring from another's thread, a task from any. A wake that is lost hangs.

use super::{runtime, runtime_that_sleeps};
use buddy_ring::Runtime;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn messages_between_rings_wake_sleepers() {
    pass_messages(runtime_that_sleeps, 0);
}

#[test]
fn messages_between_rings_are_found_by_polling() {
    pass_messages(runtime, 0);
}

/// Each ring polls for a while, gives up and sleeps.
#[test]
fn messages_between_rings_that_poll_and_sleep_in_turns_arrive() {
    pass_messages(runtime, 7);
}

/// Two threads pass a counter to and fro over queues; each waits in its ring whenever its queue is empty, and where `pause_every` is
/// not 0 one lets the other wait for longer each time that it has come so far. A lost wake hangs.
fn pass_messages(runtime: fn() -> Runtime, pause_every: u64) {
    const ROUNDS: u64 = 20_000;
    let (ping_sender, ping_receiver) = rtrb::RingBuffer::new(8);
    let (pong_sender, pong_receiver) = rtrb::RingBuffer::new(8);
    let (remote_sender, remote_receiver) = mpsc::channel();
    let (peer_sender, peer_receiver) = mpsc::channel();
    let echo = std::thread::spawn(move || {
        let runtime = runtime();
        peer_sender.send(runtime.ring().remote()).unwrap();
        relay(&runtime, ping_receiver, pong_sender, remote_receiver.recv().unwrap(), 0, false)
    });
    let runtime = runtime();
    remote_sender.send(runtime.ring().remote()).unwrap();
    let last = relay(&runtime, pong_receiver, ping_sender, peer_receiver.recv().unwrap(), pause_every, true);
    assert_eq!(last, ROUNDS);
    echo.join().unwrap();

    fn relay(
        runtime: &Runtime,
        mut inbox: rtrb::Consumer<u64>,
        mut outbox: rtrb::Producer<u64>,
        peer: buddy_ring::Remote,
        pause_every: u64,
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
                if pause_every > 0 && message % pause_every == 0 {
                    // The lengths go through all that is near the time at which the other gives up polling.
                    ring.sleep(Duration::from_micros(message % 211)).await;
                }
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
