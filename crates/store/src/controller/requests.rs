//! One batch of requests: sorted by kind into arrays that keep their capacity, then applied. Releases come first, because they
//! make room, then occupies, then what became of writes, then allocations.

use super::in_flight::Change;
use super::naming::{OccupyVerdict, ReleaseVerdict};
use super::ports::WorkerId;
use super::space::AllocationRequest;
use super::{Controller, State};
use crate::extent::{Extent, ExtentRun};
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::IndexError;
use crate::journal;
use crate::messages::{Refusal, Reply, Request, RequestId, WriteFailure, WriteNumber};
use crate::record::Record;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Requests that wait are looked at this often, to refuse those that have waited too long.
const DEFERRED_INTERVAL: Duration = Duration::from_millis(250);

/// A request that names a block: `Occupy` or `Release`.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    pub(super) worker: WorkerId,
    pub(super) id: RequestId,
    hash: Hash,
    pub(super) record: Record,
    seen: u64,
    /// Of an `Occupy`: the write that was on its way when it was sent.
    pub(super) write: Option<WriteNumber>,
}

/// A request that waits for a checkpoint.
pub(super) struct Deferred {
    pub(super) naming: Naming,
    kind: DeferredKind,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DeferredKind {
    Occupy,
    Release,
}

/// The requests of one turn.
#[derive(Default)]
pub(super) struct Batch {
    releases: Vec<Naming>,
    occupies: Vec<Naming>,
    written: Vec<(WorkerId, WriteNumber, Option<WriteFailure>)>,
    allocations: Vec<AllocationRequest>,
    returns: Vec<(WorkerId, RequestId, Vec<ExtentRun>)>,
    suspects: Vec<(WorkerId, RequestId, Extent)>,
    damaged: Vec<Naming>,
    lookups: Vec<(WorkerId, RequestId, Hash)>,
}

impl Batch {
    fn push(&mut self, worker: WorkerId, request: Request, now: Instant) {
        match request {
            Request::Allocate { id, class, count, whole } => {
                self.allocations.push(AllocationRequest { worker, id, class, count, whole, since: now });
            }
            Request::Occupy { id, hash, record, seen, write } => {
                self.occupies.push(Naming { worker, id, hash, record, seen, write });
            }
            Request::Written { write, failure } => self.written.push((worker, write, failure)),
            Request::Release { id, hash, record, seen } => {
                self.releases.push(Naming { worker, id, hash, record, seen, write: None });
            }
            Request::Locate { id, hash } => self.lookups.push((worker, id, hash)),
            Request::Return { id, runs, .. } => self.returns.push((worker, id, runs)),
            Request::Suspect { id, extent } => self.suspects.push((worker, id, extent)),
            Request::Quarantine { id, hash, record, seen } => {
                self.damaged.push(Naming { worker, id, hash, record, seen, write: None });
            }
            // The port has taken note.
            Request::Detach => {}
        }
    }
}

impl<F: BlockFile> Controller<F> {
    /// One turn: takes what is there and applies it.
    pub(super) fn cycle(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let batch = &mut state.batch;
        let now = self.ring.now();
        let taken = state.ports.take(|worker, request| batch.push(worker, request, now));
        if taken.requests == 0 {
            return;
        }
        self.shared.statistics.batch_requests.record(taken.requests);
        state.space.recall.answered(taken.recalls_answered);
        let mut batch = std::mem::take(&mut state.batch);
        for (worker, id, runs) in batch.returns.drain(..) {
            state.space.take_back(runs);
            state.ports.send(worker, Reply::Taken { id });
        }
        for (worker, id, extent) in batch.suspects.drain(..) {
            self.suspect(extent);
            state.ports.send(worker, Reply::Taken { id });
        }
        for naming in batch.damaged.drain(..) {
            self.quarantine(state, naming);
        }
        for naming in batch.releases.drain(..) {
            self.release(state, naming);
        }
        for naming in batch.occupies.drain(..) {
            self.occupy(state, naming);
        }
        for (worker, write, failure) in batch.written.drain(..) {
            self.written(state, worker, write, failure);
        }
        for request in batch.allocations.drain(..) {
            self.allocate(state, request);
        }
        for (worker, id, hash) in batch.lookups.drain(..) {
            self.locate(state, worker, id, hash);
        }
        state.batch = batch;
        self.publish_if_whole(state);
        self.settle(state);
    }

    /// Why a request cannot be carried out, however long it waits; whether it came just now or has waited already.
    fn refusal(&self, state: &State, kind: DeferredKind) -> Option<Refusal> {
        if self.is_read_only() {
            return Some(Refusal::ReadOnly);
        }
        (kind == DeferredKind::Occupy && !state.index_has_space).then_some(Refusal::NoSpace)
    }

    fn occupy(&self, state: &mut State, naming: Naming) {
        if let Some(refusal) = self.refusal(state, DeferredKind::Occupy) {
            return refuse(state, naming, refusal);
        }
        if let Some(write) = naming.write {
            state.writes.announce(naming.worker, write);
        }
        // Those that wait already come first.
        if !state.deferred.is_empty() || !self.admits_name(state) {
            return self.defer(state, naming, DeferredKind::Occupy);
        }
        self.occupy_now(state, naming);
    }

    fn occupy_now(&self, state: &mut State, naming: Naming) {
        let Naming { worker, id, hash, record, seen, write } = naming;
        let verdict = state.pending.judge_occupy(&self.shared.names.load(), &hash, seen);
        if let Some(write) = write
            && verdict != OccupyVerdict::Create
        {
            state.writes.forget(worker, write);
        }
        match verdict {
            OccupyVerdict::Create => {
                let sequence = state.change(Change::occupy(hash, record));
                if let Some(write) = write {
                    state.writes.became_change(worker, write, sequence);
                }
                if let Some(extent) = record.extent() {
                    state.space.occupy(extent);
                }
                answer_after(state, sequence, worker, Reply::Occupied { id, created: true });
            }
            OccupyVerdict::Exists(sequence) => {
                answer_after(state, sequence, worker, Reply::Occupied { id, created: false });
            }
            OccupyVerdict::Retry => state.ports.send(worker, Reply::Retry { id }),
        }
    }

    fn release(&self, state: &mut State, naming: Naming) {
        if let Some(refusal) = self.refusal(state, DeferredKind::Release) {
            return refuse(state, naming, refusal);
        }
        if !self.admits_removal(state) {
            return self.defer(state, naming, DeferredKind::Release);
        }
        self.release_now(state, naming);
    }

    fn release_now(&self, state: &mut State, naming: Naming) {
        let Naming { worker, id, hash, record, seen, write: _ } = naming;
        let verdict = state.pending.judge_release(&self.shared.names.load(), &hash, record, seen);
        match verdict {
            ReleaseVerdict::Remove(record) if !state.space.can_be_occupied(record.extent()) => {
                refuse_misplaced(state, naming);
            }
            ReleaseVerdict::Remove(record) => {
                let sequence = state.change(Change::remove(hash, record));
                answer_after(state, sequence, worker, Reply::Released { id, existed: true });
            }
            ReleaseVerdict::Absent(sequence) => {
                answer_after(state, sequence, worker, Reply::Released { id, existed: false });
            }
            ReleaseVerdict::Retry => state.ports.send(worker, Reply::Retry { id }),
        }
    }

    /// Takes a damaged block out of service, if its name still leads to it.
    fn quarantine(&self, state: &mut State, naming: Naming) {
        let Naming { worker, id, hash, record, seen, write: _ } = naming;
        if self.is_read_only() {
            return refuse(state, naming, Refusal::ReadOnly);
        }
        if !self.admits_removal(state) {
            return refuse(state, naming, Refusal::Busy);
        }
        match state.pending.judge_release(&self.shared.names.load(), &hash, record, seen) {
            // What is free would be handed out all the same.
            ReleaseVerdict::Remove(present) if !state.space.can_be_occupied(present.extent()) => {
                refuse_misplaced(state, naming);
            }
            ReleaseVerdict::Remove(present) if present == record => {
                tracing::error!(%hash, extent = ?record.extent(), "a block is damaged: its name is removed, its extent taken out of service");
                let sequence = state.change(Change::quarantine(hash, record));
                answer_after(state, sequence, worker, Reply::Taken { id });
            }
            // It was removed, or stored again elsewhere.
            ReleaseVerdict::Remove(_) => state.ports.send(worker, Reply::Taken { id }),
            ReleaseVerdict::Absent(sequence) => answer_after(state, sequence, worker, Reply::Taken { id }),
            ReleaseVerdict::Retry => state.ports.send(worker, Reply::Retry { id }),
        }
    }

    /// Room for one more name: in the active generation, and in the journal beside what is kept for removals.
    fn admits_name(&self, state: &State) -> bool {
        self.unsealed(state) < state.generation_size.limit()
            && state.journal.has_room(state.journal.capacity_bytes() / 16)
    }

    /// Room for one more removal.
    fn admits_removal(&self, state: &State) -> bool {
        // Each block that is still being written may have to be taken back.
        let reserve = state.writes.changes() * journal::REMOVAL_BYTES;
        self.unsealed(state) < state.generation_size.changes_max() && state.journal.has_room(reserve as u64)
    }

    /// Changes that are, or will be, in the active generation.
    pub(super) fn unsealed(&self, state: &State) -> usize {
        self.shared.names.load().active().len() + state.journal.unpublished()
    }

    fn defer(&self, state: &mut State, naming: Naming, kind: DeferredKind) {
        state.deferred.push_back(Deferred { naming, kind, since: self.ring.now() });
    }

    /// Applies requests that waited, as far as there is room again; refuses those that waited too long.
    pub(super) fn admit_deferred(self: &Rc<Self>, state: &mut State) {
        if state.deferred.is_empty() {
            return;
        }
        let now = self.ring.now();
        for _ in 0..state.deferred.len() {
            let Some(deferred) = state.deferred.pop_front() else { break };
            let admitted = match deferred.kind {
                DeferredKind::Occupy => self.admits_name(state),
                DeferredKind::Release => self.admits_removal(state),
            };
            if let Some(refusal) = self.refusal(state, deferred.kind) {
                refuse(state, deferred.naming, refusal);
            } else if admitted && deferred.kind == DeferredKind::Occupy {
                self.occupy_now(state, deferred.naming);
            } else if admitted {
                self.release_now(state, deferred.naming);
            } else if now.saturating_duration_since(deferred.since) >= self.settings.busy_timeout {
                refuse(state, deferred.naming, Refusal::Busy);
            } else {
                state.deferred.push_back(deferred);
            }
        }
        if !state.deferred.is_empty() {
            self.settle_after(DEFERRED_INTERVAL, state, |timers| &mut timers.deferred, |_| {});
        }
    }

    fn allocate(&self, state: &mut State, request: AllocationRequest) {
        if self.is_read_only() {
            let failed = Reply::Failed { id: request.id, refusal: Refusal::ReadOnly };
            return state.ports.send(request.worker, failed);
        }
        if !allocate_now(state, request) {
            state.space.starved.push_back(request);
        }
    }

    /// Looks up what is published; asks the locator for the rest.
    fn locate(self: &Rc<Self>, state: &mut State, worker: WorkerId, id: RequestId, hash: Hash) {
        let stages = self.shared.names.load();
        let seen = stages.dropped();
        if let Some(found) = stages.get(&hash) {
            return state.ports.send(worker, Reply::Located { id, record: found.record(), seen });
        }
        let Some(locator) = &self.locator else {
            return state.ports.send(worker, Reply::Failed { id, refusal: Refusal::Index });
        };
        let found = locator.start(hash);
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                let reply = match found.await {
                    Ok(Ok(record)) => Reply::Located { id, record, seen },
                    Ok(Err(IndexError::Damaged(_))) => Reply::Failed { id, refusal: Refusal::DamagedIndex },
                    _ => Reply::Failed { id, refusal: Refusal::Index },
                };
                let mut state = controller.state.borrow_mut();
                state.ports.send(worker, reply);
                state.ports.wake(&controller.ring);
            })
            .detach();
    }
}

/// Gives extents to a request, if there are any.
pub(super) fn allocate_now(state: &mut State, request: AllocationRequest) -> bool {
    let AllocationRequest { worker, id, class, count, whole, since: _ } = request;
    let runs = state.space.allocate(class, count, whole);
    let any = !runs.is_empty();
    if any {
        state.ports.send(worker, Reply::Allocated { id, runs });
    }
    any
}

/// Answers when the change `after` is durable: now, if it is.
pub(super) fn answer_after(state: &mut State, after: u64, worker: WorkerId, reply: Reply) {
    if let Some(reply) = state.journal.answer_after(after, worker, reply) {
        state.ports.send(worker, reply);
    }
}

/// Of a block whose record contradicts what the allocator knows.
fn refuse_misplaced(state: &mut State, naming: Naming) {
    tracing::error!(hash = %naming.hash, "the index is damaged: it says that a block lies where none can be");
    refuse(state, naming, Refusal::Index);
}

fn refuse(state: &mut State, naming: Naming, refusal: Refusal) {
    if let Some(write) = naming.write {
        state.writes.forget(naming.worker, write);
    }
    state.ports.send(naming.worker, Reply::Failed { id: naming.id, refusal });
}
