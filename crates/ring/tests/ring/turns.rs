//! What a turn consists of, and in which order.

use super::runtime;
use buddy_ring::File;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// What an end hook starts is with the kernel before the work that follows the turn begins.
#[test]
fn what_a_turn_asks_for_goes_on_beside_the_work_after_it() {
    let runtime = runtime();
    let ring = runtime.ring();
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    let asked = Rc::new(Cell::new(false));
    ring.on_turn_end({
        let (asking, event, asked) = (ring.clone(), File::new(&ring, Arc::clone(&event)), Rc::clone(&asked));
        move || {
            if !asked.replace(true) {
                let event = event.clone();
                let writing =
                    async move { event.write_at(1_u64.to_ne_bytes().to_vec(), 0..8, 0, false).await.0.unwrap() };
                asking.spawn_polled(writing).detach();
            }
        }
    });
    let counted: Rc<Cell<Option<u64>>> = Rc::default();
    ring.on_turn_over({
        let (counted, asked) = (Rc::clone(&counted), Rc::clone(&asked));
        move || {
            if asked.get() && counted.get().is_none() {
                let mut counter = [0; 8];
                let is_there = rustix::io::read(&event, &mut counter).is_ok();
                counted.set(Some(if is_there { u64::from_ne_bytes(counter) } else { 0 }));
            }
        }
    });
    runtime.block_on(async {
        while counted.get().is_none() {
            ring.next_turn().await;
        }
    });
    assert_eq!(counted.get(), Some(1), "the kernel had been told");
}

#[test]
fn a_task_that_is_polled_at_once_is_a_task_like_others() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let steps: Rc<Cell<u32>> = Rc::default();
        let task = ring.spawn_polled({
            let (steps, ring) = (Rc::clone(&steps), ring.clone());
            async move {
                steps.set(1);
                ring.next_turn().await;
                steps.set(2);
                "its result"
            }
        });
        assert_eq!(steps.get(), 1);
        assert_eq!((task.await, steps.get()), ("its result", 2));
        assert_eq!(ring.spawn_polled(async { 7 }).await, 7, "it had ended before it was waited for");
    });
}

/// Whom the others of its round wake finds it done.
#[test]
fn what_is_submitted_early_does_not_wait_for_the_end_of_the_turn() {
    for early in [true, false] {
        let runtime = runtime();
        let ring = runtime.ring();
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let is_there = || rustix::io::read(&event, &mut [0; 8]).is_ok();
        let turns: Rc<Cell<u32>> = Rc::default();
        ring.on_turn_end({
            let turns = Rc::clone(&turns);
            move || turns.set(turns.get() + 1)
        });
        runtime.block_on(async {
            let turn = turns.get();
            let (asking, file) = (ring.clone(), File::new(&ring, Arc::clone(&event)));
            let asks = async move {
                if early {
                    asking.submit_early();
                }
                // Submitted when it is first polled.
                file.write_at(1_u64.to_ne_bytes().to_vec(), 0..8, 0, false).await.0.unwrap();
            };
            ring.spawn(asks).detach();
            // Woken by a task of the round in which that one is polled.
            ring.spawn(async {}).await;
            assert_eq!((is_there(), turns.get()), (early, turn));
        });
    }
}

/// Also where others are ready, so that the ring need not look for work.
#[test]
fn what_has_ended_beside_the_work_after_a_turn_is_known_in_the_next_one() {
    let runtime = runtime();
    let ring = runtime.ring();
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let turns: Rc<Cell<u32>> = Rc::default();
    let ended: Rc<Cell<Option<u32>>> = Rc::default();
    ring.on_turn_start({
        let turns = Rc::clone(&turns);
        move || turns.set(turns.get() + 1)
    });
    let happened: Rc<Cell<Option<u32>>> = Rc::default();
    ring.on_turn_over({
        let (event, turns, happened) = (Arc::clone(&event), Rc::clone(&turns), Rc::clone(&happened));
        move || {
            // The receive waits in the kernel by then.
            if turns.get() > 10 && happened.get().is_none() {
                rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
                happened.set(Some(turns.get()));
            }
        }
    });
    runtime.block_on(async {
        let (file, turns, known) = (File::new(&ring, event), Rc::clone(&turns), Rc::clone(&ended));
        let waits = async move {
            file.read_at(vec![0; 8], 0..8, 0).await.0.unwrap();
            known.set(Some(turns.get()));
        };
        ring.spawn(waits).detach();
        while ended.get().is_none() {
            // Ready again at once.
            let mut is_ready = false;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut is_ready, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    });
    assert_eq!(ended.get(), happened.get().map(|turn| turn + 1));
}
