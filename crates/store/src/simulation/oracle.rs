//! What must be true of each name, from what clients were told.
//!
//! For every name the oracle keeps the states it may have: stored, not stored, or either. An operation that has begun makes its
//! outcome possible; one that was acknowledged, with no other in the way, makes it certain. A look-up must find what was possible
//! at some time during it; a store that was reopened must find what was possible at the cut.

use std::time::Instant;

/// Number of a block of the workload.
pub(crate) type Key = usize;

/// Which states a name may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Possible {
    pub(crate) stored: bool,
    pub(crate) absent: bool,
}

const STORED: Possible = Possible { stored: true, absent: false };
const ABSENT: Possible = Possible { stored: false, absent: true };

impl Possible {
    fn or(self, other: Possible) -> Possible {
        Possible { stored: self.stored || other.stored, absent: self.absent || other.absent }
    }

    fn allows(self, stored: bool) -> bool {
        if stored { self.stored } else { self.absent }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Put,
    Delete,
}

impl Operation {
    fn outcome(self) -> Possible {
        match self {
            Operation::Put => STORED,
            Operation::Delete => ABSENT,
        }
    }
}

struct Name {
    /// Possible states since the times given, oldest first.
    history: Vec<(Instant, Possible)>,
    /// Changes under way, with the numbers of their beginnings.
    under_way: Vec<(u64, Operation)>,
    /// The last change that ended: number of its end, and what it was.
    ended: Vec<(u64, Operation)>,
}

/// What clients know.
pub(crate) struct Oracle {
    names: Vec<Name>,
    next: u64,
}

impl Oracle {
    /// Nothing is stored.
    pub(crate) fn new(keys: usize, now: Instant) -> Oracle {
        let name = || Name { history: vec![(now, ABSENT)], under_way: Vec::new(), ended: Vec::new() };
        Oracle { names: (0..keys).map(|_| name()).collect(), next: 0 }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A client has begun to change a name.
    pub(crate) fn begin(&mut self, key: Key, operation: Operation, now: Instant) -> u64 {
        let number = self.number();
        let name = &mut self.names[key];
        name.under_way.push((number, operation));
        let possible = name.now().or(operation.outcome());
        name.history.push((now, possible));
        number
    }

    /// A client was told that its change is made.
    pub(crate) fn acknowledged(&mut self, key: Key, begun: u64, operation: Operation, now: Instant) {
        let end = self.number();
        let name = &mut self.names[key];
        name.under_way.retain(|(number, _)| *number != begun);
        name.ended.push((end, operation));
        // Changes that overlapped this one may have come after it.
        let overlapping = name
            .under_way
            .iter()
            .map(|(_, operation)| *operation)
            .chain(name.ended.iter().filter(|(ended, _)| *ended > begun).map(|(_, operation)| *operation));
        let possible = overlapping.fold(operation.outcome(), |possible, other| possible.or(other.outcome()));
        name.history.push((now, possible));
    }

    /// A client was told that its change was not made, or may have been.
    pub(crate) fn failed(&mut self, key: Key, begun: u64, operation: Operation) {
        let end = self.number();
        let name = &mut self.names[key];
        name.under_way.retain(|(number, _)| *number != begun);
        name.ended.push((end, operation));
    }

    /// A look-up that took place since `began` has found the name stored or absent.
    pub(crate) fn looked_up(&self, key: Key, began: Instant, stored: bool) {
        let possible = self.names[key].since(began);
        assert!(possible.allows(stored), "block {key} was found {}, possible was {possible:?}", found(stored));
    }

    /// A store that was reopened has the name stored or absent. `since`: what happened later may have been lost; `None`: nothing
    /// may.
    pub(crate) fn reopened(&mut self, key: Key, since: Option<Instant>, stored: bool, now: Instant) {
        let name = &mut self.names[key];
        let possible = since.map_or(name.now(), |since| name.since(since));
        assert!(
            possible.allows(stored),
            "after reopening block {key} is {}, possible was {possible:?} ({:?})",
            found(stored),
            name.history
        );
        *name = Name {
            history: vec![(now, if stored { STORED } else { ABSENT })],
            under_way: Vec::new(),
            ended: Vec::new(),
        };
    }
}

fn found(stored: bool) -> &'static str {
    if stored { "stored" } else { "absent" }
}

impl Name {
    fn now(&self) -> Possible {
        self.history.last().unwrap().1
    }

    /// States possible at any time since `began`.
    fn since(&self, began: Instant) -> Possible {
        let first = self.history.iter().rposition(|(time, _)| *time < began).unwrap_or(0);
        self.history[first..].iter().fold(self.now(), |possible, (_, other)| possible.or(*other))
    }
}
