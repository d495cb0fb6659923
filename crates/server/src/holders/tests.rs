use super::*;

const KIB: usize = 1024;

/// Holders of 1 MiB, and a clock.
fn holders() -> (Holders, Instant) {
    (Holders::new(1024 * KIB), Instant::now())
}

#[test]
fn a_body_that_moves_keeps_its_room_and_one_that_does_not_shrinks() {
    let (mut holders, start) = holders();
    let fast = holders.insert(10, Room::Elastic, 512 * KIB, start);
    let slow = holders.insert(11, Room::Elastic, 512 * KIB, start);
    let (mut now, mut filled) = (start, 0);
    for step in 0..100 {
        now += STALL / 2;
        filled += STEP_BYTES;
        holders.moved(fast, filled, || now);
        // Some progress is no move.
        holders.moved(slow, step, || now);
        let asked = holders.review(now);
        assert_eq!(asked, if step == 1 { vec![11] } else { vec![] }, "step {step}");
        if let Some((demand, size)) = holders.demand(slow) {
            assert_eq!((demand, size), (Demand::Shrink, 4 * KIB));
            holders.resized(slow, size);
        }
        assert_eq!(holders.demand(fast), None);
    }
    assert_eq!(holders.larger_size(fast, 1, 512 * KIB), 512 * KIB);
    assert_eq!(holders.larger_size(slow, 4 * KIB + 1, 512 * KIB), 8 * KIB, "twice as much each time");
}

#[test]
fn there_is_always_room_to_go_on() {
    let (mut holders, start) = holders();
    for (filled, expected) in [(0, 4), (4 * KIB - 1, 4), (4 * KIB, 8), (100 * KIB, 128), (128 * KIB, 256)] {
        let key = holders.insert(1, Room::Elastic, 512 * KIB, start);
        holders.moved(key, filled, || start);
        holders.review(start + STALL);
        assert_eq!(holders.demand(key), Some((Demand::Shrink, expected * KIB)));
        holders.remove(key);
    }
}

#[test]
fn slow_ones_that_have_more_than_half_are_ended_the_longest_still_first() {
    let (mut holders, start) = holders();
    // None of them can shrink.
    let keys: Vec<_> = (0..6)
        .map(|number| {
            let room = if number % 2 == 0 { Room::Elastic } else { Room::Fixed };
            let key = holders.insert(number, room, 128 * KIB, start);
            holders.moved(key, 100 * KIB, || start + Duration::from_millis(10 * (6 - number as u64)));
            key
        })
        .collect();
    let mut asked = holders.review(start + Duration::from_secs(1));
    asked.sort_unstable();
    assert_eq!(asked, [4, 5]);
    assert_eq!(holders.demand(keys[5]), Some((Demand::End, 128 * KIB)));
    assert!(holders.review(start + Duration::from_secs(2)).is_empty(), "who is ended counts no more");
    holders.remove(keys[4]);
    holders.remove(keys[5]);
    assert!(holders.review(start + Duration::from_secs(3)).is_empty(), "half of the memory is theirs");
}

#[test]
fn who_waits_is_not_judged_counts_as_slow_and_holds_at_most_half() {
    let (mut holders, start) = holders();
    let waiting: Vec<_> = (0..5).map(|number| holders.insert(number, Room::Elastic, 128 * KIB, start)).collect();
    let begun: Vec<_> = waiting.iter().map(|key| holders.begin_waiting(*key)).collect();
    assert_eq!(begun, [true, true, true, true, false]);
    holders.moved(waiting[4], 100 * KIB, || start);
    let later = start + Duration::from_secs(1);
    assert_eq!(holders.review(later), [4], "those in line have half already");
    assert_eq!(holders.demand(waiting[4]), Some((Demand::End, 128 * KIB)));
    assert_eq!(holders.demand(waiting[0]), None);
    holders.end_waiting(waiting[0], later);
    assert_eq!(holders.larger_size(waiting[0], 1, 512 * KIB), 512 * KIB, "waiting has not made it slow");
    assert!(holders.review(later).is_empty());
}
