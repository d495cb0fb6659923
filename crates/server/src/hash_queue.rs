//! Hashing what several connections have received in the same turn: together, because that takes less time than one after the other.
//! Nobody waits for anybody for long: what is there at the end of the turn is hashed. What is alone then gets one more turn, which the
//! ring begins at once, without sleeping, and then is hashed, alone or not.

use buddy_ring::{Buffer, Outcomes, Ring};
use buddy_store::Hasher;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// Fewer bytes than this are hashed at once: waiting for the end of the turn would cost more than it saves.
const BYTES_MIN: usize = 4 * 1024;

/// Room for this many pieces is kept from turn to turn.
const CAPACITY_KEPT: usize = 256;

/// What is to be hashed at the end of the turn.
#[derive(Default)]
pub(crate) struct HashQueue {
    queued: RefCell<Vec<Queued>>,
    hashed: Outcomes<(Hasher, Buffer)>,
}

struct Queued {
    hasher: Hasher,
    buffer: Buffer,
    range: Range<usize>,
    key: usize,
    /// It was alone at the end of a turn.
    has_waited: bool,
}

impl HashQueue {
    /// A queue that is worked on at the end of every turn of `ring`.
    pub(crate) fn new(ring: &Ring) -> Rc<HashQueue> {
        let queue = Rc::new(HashQueue::default());
        let worked_on = Rc::clone(&queue);
        ring.on_turn_end(move || worked_on.run());
        queue
    }

    /// Has `hasher` take in `range` of `buffer`.
    pub(crate) async fn update(&self, mut hasher: Hasher, buffer: Buffer, range: Range<usize>) -> (Hasher, Buffer) {
        if range.len() < BYTES_MIN {
            hasher.update(buffer.get(range).unwrap_or_default());
            return (hasher, buffer);
        }
        let key = self.hashed.expect();
        self.queued.borrow_mut().push(Queued { hasher, buffer, range, key, has_waited: false });
        self.hashed.wait(key).await
    }

    fn run(&self) {
        let mut queued = self.queued.borrow_mut();
        match &mut queued[..] {
            [] => return,
            [alone] if !alone.has_waited => {
                alone.has_waited = true;
                // Whoever is woken looks, and waits again: the ring does not sleep before that.
                return self.hashed.wake(alone.key);
            }
            _ => {}
        }
        Hasher::update_together(queued.iter_mut().map(|piece| {
            let bytes = piece.buffer.get(piece.range.clone()).unwrap_or_default();
            (&mut piece.hasher, bytes)
        }));
        for Queued { hasher, buffer, key, .. } in queued.drain(..) {
            self.hashed.finish(key, (hasher, buffer));
        }
        queued.shrink_to(CAPACITY_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buddy_ring::{BufferPool, Runtime};
    use buddy_store::Hash;
    use std::cell::Cell;

    /// Pieces of many messages, some below the limit, some whose connection is gone before they were hashed.
    #[test]
    fn every_message_gets_its_own_hash() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let (queue, buffers) = (HashQueue::new(&ring), BufferPool::new(64 << 20));
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

    #[test]
    fn what_is_alone_waits_for_one_turn_and_no_longer() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let (queue, buffers, turns) = (HashQueue::new(&ring), BufferPool::new(1 << 20), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&turns);
        ring.on_turn_end(move || counted.set(counted.get() + 1));
        runtime.run(async move {
            let mut buffer = buffers.try_take(BYTES_MIN).unwrap().unwrap();
            buffer.fill(7);
            let (hasher, _) = queue.update(Hasher::new(), buffer, 0..BYTES_MIN).await;
            assert_eq!(hasher.finish(), Hash::of(&[7; BYTES_MIN]));
        });
        // The third is the one in which it was found to be hashed.
        assert_eq!(turns.get(), 3);
    }
}
