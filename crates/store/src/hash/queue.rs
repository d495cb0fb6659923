//! Hashing what several have received or read: together, because that takes less time than one after the other. Nobody waits for
//! anybody for long: as long as each turn of the loop brings more, and there is less than the processor is quickest with, the next turn
//! is waited for, which the ring begins at once, without sleeping. Then all that is there is hashed. Large pieces that are received while
//! blocks wait for the disk are gathered for longer, as long as they are too few: theirs would most likely only wait, too.

use super::lanes::LANES;
use super::{Hash, Hasher};
use buddy_ring::{Buffer, Outcomes, Ring};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Fewer bytes than this are hashed at once: waiting would cost more than it saves.
const BYTES_MIN: usize = 4 * 1024;

/// Only pieces of more bytes than this wait for as many as the processor is quickest with: what is short is what somebody waits for.
const PATIENT_BYTES: usize = 64 * 1024;

/// When they have waited for so long, a timer that comes as often ends it.
const PATIENT_TIME_MAX: Duration = Duration::from_millis(10);

/// Room for this many pieces is kept from turn to turn.
const CAPACITY_KEPT: usize = 256;

/// What is to be hashed.
pub struct HashQueue {
    /// So many at once take the processor the least time.
    together_max: usize,
    queued: RefCell<Vec<Queued>>,
    /// How many were there at the end of the last turn, and waited for more.
    waited: Cell<usize>,
    /// Nobody is served by haste.
    unhurried: Cell<bool>,
    /// When the oldest of those that are there was first looked at.
    since: Cell<Option<Instant>>,
    /// Whether a timer sees to it that those that wait are looked at again.
    alarm: Cell<bool>,
    hashed: Outcomes<(Hasher, Buffer)>,
}

/// How many are gathered. In simulations a constant: a run with a seed is the same run on every processor.
fn gathered_max() -> usize {
    if cfg!(test) { LANES } else { Hasher::together_max() }
}

struct Queued {
    hasher: Hasher,
    buffer: Buffer,
    range: Range<usize>,
    key: usize,
    /// Part of a block that is to be written.
    received: bool,
}

impl HashQueue {
    /// A queue that is worked on after every turn of `ring`, when the kernel has been told of everything else.
    pub(crate) fn on(ring: &Ring) -> Rc<HashQueue> {
        HashQueue::gathering(gathered_max(), ring)
    }

    /// As [`HashQueue::on`], where so many at once take the processor the least time.
    fn gathering(together_max: usize, ring: &Ring) -> Rc<HashQueue> {
        let queue = Rc::new(HashQueue {
            together_max,
            queued: RefCell::default(),
            waited: Cell::default(),
            unhurried: Cell::default(),
            since: Cell::default(),
            alarm: Cell::default(),
            hashed: Outcomes::default(),
        });
        let (worked_on, own) = (Rc::clone(&queue), ring.clone());
        ring.on_turn_over(move || worked_on.run(&own));
        queue
    }

    /// `unhurried`: blocks that are received wait for the disk, however soon they are hashed. To be said anew in every turn.
    pub(crate) fn take_your_time(&self, unhurried: bool) {
        self.unhurried.set(unhurried);
    }

    /// The hash of `range` of `buffer`, in which a block was read.
    pub async fn hash(&self, buffer: Buffer, range: Range<usize>) -> (Hash, Buffer) {
        let (hasher, buffer) = self.take_in(Hasher::new(), buffer, range, false).await;
        (hasher.finish(), buffer)
    }

    /// Has `hasher` take in `range` of `buffer`, in which a block is received.
    pub async fn update(&self, hasher: Hasher, buffer: Buffer, range: Range<usize>) -> (Hasher, Buffer) {
        self.take_in(hasher, buffer, range, true).await
    }

    async fn take_in(
        &self,
        mut hasher: Hasher,
        buffer: Buffer,
        range: Range<usize>,
        received: bool,
    ) -> (Hasher, Buffer) {
        if range.len() < BYTES_MIN {
            hasher.update(buffer.get(range).unwrap_or_default());
            return (hasher, buffer);
        }
        let key = self.hashed.expect();
        self.queued.borrow_mut().push(Queued { hasher, buffer, range, key, received });
        self.hashed.wait(key).await
    }

    fn run(self: &Rc<Self>, ring: &Ring) {
        let mut queued = self.queued.borrow_mut();
        if queued.is_empty() {
            return;
        }
        let since = self.since.get().unwrap_or_else(|| ring.now());
        self.since.set(Some(since));
        if self.may_wait(&queued, ring.now().saturating_duration_since(since)) {
            self.set_alarm(ring);
            return;
        }
        let waited = self.waited.replace(queued.len());
        // Whoever is woken looks, and waits again: the ring does not sleep before that. Where nobody waits any more, nobody is woken.
        if (waited + 1..self.together_max).contains(&queued.len())
            && queued.iter().any(|piece| self.hashed.wake(piece.key))
        {
            return;
        }
        self.waited.set(0);
        self.since.set(None);
        Hasher::update_together(queued.iter_mut().map(|piece| {
            let bytes = piece.buffer.get(piece.range.clone()).unwrap_or_default();
            (&mut piece.hasher, bytes)
        }));
        for Queued { hasher, buffer, key, .. } in queued.drain(..) {
            self.hashed.finish(key, (hasher, buffer));
        }
        queued.shrink_to(CAPACITY_KEPT);
    }

    /// Whether these pieces, the first of which has waited for so long, may wait for more.
    fn may_wait(&self, queued: &[Queued], waited: Duration) -> bool {
        self.unhurried.get()
            && queued.len() < self.together_max
            && waited < PATIENT_TIME_MAX
            && queued.iter().all(|piece| piece.received && piece.range.len() > PATIENT_BYTES)
    }

    /// Makes a turn when they have waited for long: nothing else may.
    fn set_alarm(self: &Rc<Self>, ring: &Ring) {
        if self.alarm.replace(true) {
            return;
        }
        let (queue, clock) = (Rc::clone(self), ring.clone());
        let ringing = async move {
            clock.sleep(PATIENT_TIME_MAX).await;
            queue.alarm.set(false);
        };
        ring.spawn(ringing).detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buddy_ring::{BufferPool, Runtime};
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    /// Pieces of many messages, some below the limit, some whose connection is gone before they were hashed.
    #[test]
    fn every_message_gets_its_own_hash() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let (queue, buffers) = (HashQueue::gathering(16, &ring), BufferPool::new(64 << 20));
        let hashed: Rc<Cell<usize>> = Rc::default();
        for number in 0..40_usize {
            let (queue, buffers, hashed, ring) = (Rc::clone(&queue), buffers.clone(), Rc::clone(&hashed), ring.clone());
            let task = async move {
                let pieces = [number * 700, BYTES_MIN, 10, number * 3000];
                let bytes: usize = pieces.iter().sum();
                let mut buffer = buffers.try_take(bytes.max(1)).unwrap().unwrap();
                buffer.iter_mut().zip(0_usize..).for_each(|(byte, at)| *byte = (at * number).to_le_bytes()[0]);
                let expected = Hash::of(&buffer[..bytes]);
                let (mut hasher, mut at) = (Hasher::new(), 0);
                for piece in pieces {
                    (hasher, buffer) = queue.update(hasher, buffer, at..at + piece).await;
                    at += piece;
                }
                assert_eq!(hasher.finish(), expected, "message {number}");
                hashed.set(hashed.get() + 1);
            };
            if number % 8 == 7 {
                let gone = ring.clone();
                ring.spawn(async move { gone.timeout(std::time::Duration::ZERO, task).await }).detach();
            } else {
                ring.spawn(task).detach();
            }
        }
        let waiting = ring.clone();
        runtime.run(async move { waiting.sleep(std::time::Duration::from_millis(1)).await }).unwrap();
        assert!((35..=40).contains(&hashed.get()), "{}", hashed.get());
        assert_eq!(buffers.in_use_bytes(), 0, "what nobody waits for is given back");
    }

    /// What tasks wait for until a turn comes.
    struct Gates {
        gates: Rc<Outcomes<()>>,
        keys: Vec<usize>,
        turn: Rc<Cell<usize>>,
    }

    /// A gate for each of these turns, from the second on.
    fn gates(ring: &Ring, turns: &[usize]) -> Gates {
        let (turn, gates) = (Rc::new(Cell::new(1)), Rc::<Outcomes<()>>::default());
        let mut closed: Vec<_> = turns.iter().map(|turn| (*turn, gates.expect())).collect();
        let keys = closed.iter().map(|(_, key)| *key).collect();
        let (counted, opened) = (Rc::clone(&turn), Rc::clone(&gates));
        ring.on_turn_end(move || {
            counted.set(counted.get() + 1);
            closed.extract_if(.., |(turn, _)| *turn == counted.get()).for_each(|(_, key)| {
                opened.finish(key, ());
            });
        });
        Gates { gates, keys, turn }
    }

    /// Has a piece come in each of these turns, from the second on, where at most `together_max` are gathered. Returns the turns in which
    /// they were found to be hashed, which is the one after the end of which they were.
    fn turns_hashed(together_max: usize, turns_come: &[usize]) -> Vec<usize> {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let Gates { keys, gates, turn } = gates(&ring, turns_come);
        let (queue, buffers) = (HashQueue::gathering(together_max, &ring), BufferPool::new(1 << 20));
        let piece = |key| {
            let (queue, buffers, turn, gates) =
                (Rc::clone(&queue), buffers.clone(), Rc::clone(&turn), Rc::clone(&gates));
            ring.spawn(async move {
                gates.wait(key).await;
                let mut buffer = buffers.try_take(BYTES_MIN).unwrap().unwrap();
                buffer.fill(7);
                let (hasher, _) = queue.update(Hasher::new(), buffer, 0..BYTES_MIN).await;
                assert_eq!(hasher.finish(), Hash::of(&[7; BYTES_MIN]));
                turn.get()
            })
        };
        let pieces: Vec<_> = keys.into_iter().map(piece).collect();
        let all = async move {
            let mut turns = Vec::new();
            for piece in pieces {
                turns.push(piece.await);
            }
            turns
        };
        runtime.run(all).unwrap()
    }

    /// Whose connection is gone waits for nothing; who comes later must not wait for it either.
    #[test]
    fn what_nobody_waits_for_keeps_nobody_waiting() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let (queue, buffers) = (HashQueue::gathering(16, &ring), BufferPool::new(1 << 20));
        let Gates { gates, keys, .. } = gates(&ring, &[2, 3]);
        let [first, second] = [0, 1].map(|_| buffers.try_take(BYTES_MIN).unwrap().unwrap());
        let all = async move {
            gates.wait(keys[0]).await;
            let mut gone = Box::pin(queue.hash(first, 0..BYTES_MIN));
            let looked = poll_fn(|context| Poll::Ready(gone.as_mut().poll(context).is_ready())).await;
            assert!(!looked);
            // In the turn in which the second one comes the first one goes.
            gates.wait(keys[1]).await;
            drop(gone);
            queue.hash(second, 0..BYTES_MIN).await.0
        };
        assert!(runtime.run(all).is_some(), "nothing else ever happens on this ring");
        assert_eq!(buffers.in_use_bytes(), 0);
    }

    #[test]
    fn what_is_alone_waits_for_one_turn_and_no_longer() {
        assert_eq!(turns_hashed(16, &[2]), [4]);
        assert_eq!(turns_hashed(2, &[2]), [4]);
    }

    #[test]
    fn nothing_waits_where_one_at_a_time_is_as_quick() {
        assert_eq!(turns_hashed(1, &[2]), [3]);
    }

    #[test]
    fn what_comes_turn_by_turn_is_gathered_until_a_turn_brings_nothing() {
        assert_eq!(turns_hashed(16, &[2, 3, 3, 4, 6]), [6, 6, 6, 6, 8]);
    }

    #[test]
    fn as_many_as_the_processor_is_quickest_with_do_not_wait_for_more() {
        assert_eq!(turns_hashed(3, &[2, 3, 3, 4]), [4, 4, 4, 6]);
        assert_eq!(turns_hashed(2, &[2, 2, 3]), [3, 3, 5]);
    }

    /// In simulated time: when each of these pieces, which come a millisecond apart and the first at 1 ms, is hashed, in ms, in a queue
    /// that takes its time until `unhurried_ms`, when a write ends.
    fn hashed_at_ms(pieces: &[(usize, bool)], together_max: usize, unhurried_ms: u64) -> Vec<u64> {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let (queue, buffers) = (HashQueue::gathering(together_max, &ring), BufferPool::new(64 << 20));
        let began = ring.now();
        let ms = move |ring: &Ring| u64::try_from((ring.now() - began).as_millis()).unwrap();
        ring.on_turn_end({
            let (queue, ring) = (Rc::clone(&queue), ring.clone());
            move || queue.take_your_time(ms(&ring) < unhurried_ms)
        });
        let hashing: Vec<_> = (1..)
            .zip(pieces)
            .map(|(number, (bytes, received))| {
                let (queue, buffers, own, bytes, received) =
                    (Rc::clone(&queue), buffers.clone(), ring.clone(), *bytes, *received);
                ring.spawn(async move {
                    own.sleep(Duration::from_millis(number)).await;
                    let mut buffer = buffers.try_take(bytes).unwrap().unwrap();
                    buffer.fill(9);
                    let (hash, _) = if received {
                        let (hasher, buffer) = queue.update(Hasher::new(), buffer, 0..bytes).await;
                        (hasher.finish(), buffer)
                    } else {
                        queue.hash(buffer, 0..bytes).await
                    };
                    assert_eq!(hash, Hash::of(&vec![9; bytes]));
                    ms(&own)
                })
            })
            .collect();
        ring.spawn(ring.sleep(Duration::from_millis(unhurried_ms))).detach();
        runtime.block_on(async move {
            let mut times = Vec::new();
            for task in hashing {
                times.push(task.await);
            }
            times
        })
    }

    const LARGE: (usize, bool) = (PATIENT_BYTES + 1, true);

    #[test]
    fn what_would_wait_for_the_disk_waits_for_as_many_as_are_quickest_together() {
        assert_eq!(hashed_at_ms(&[LARGE; 4], 4, 1000), [4; 4]);
        assert_eq!(hashed_at_ms(&[LARGE; 3], 4, 0), [1, 2, 3], "the disk waits");
    }

    #[test]
    fn what_takes_its_time_ends_with_the_reason_for_it() {
        assert_eq!(hashed_at_ms(&[LARGE; 3], 4, 6), [6; 3]);
    }

    #[test]
    fn nothing_takes_its_time_for_long() {
        let longest = u64::try_from(PATIENT_TIME_MAX.as_millis()).unwrap();
        assert_eq!(hashed_at_ms(&[LARGE; 2], 4, 1000), [1 + longest; 2]);
    }

    #[test]
    fn what_is_short_or_was_read_is_not_kept_waiting() {
        assert_eq!(hashed_at_ms(&[LARGE, (PATIENT_BYTES, true)], 4, 1000), [2, 2]);
        assert_eq!(hashed_at_ms(&[LARGE, (PATIENT_BYTES + 1, false)], 4, 1000), [2, 2]);
    }
}
