//! What a worker saw counts for the controller only while nothing moved.
//!
//! Real: [`Names`] with its look-up, [`PendingNames`] and its verdicts. Modelled: the index, and the controller's steps. The worker
//! looks the name up while the controller makes its first `meets` steps; then its request is judged; then come the others.

use super::index::{Index, Reader};
use super::{model, name, occupied, record};
use crate::controller::{OccupyVerdict, PendingNames, ReleaseVerdict};
use crate::names::{Generation, NameState, Names};
use crate::record::Record;
use loom::sync::mpsc;
use loom::thread;
use std::sync::Arc;

enum Request {
    Occupy { seen: u64 },
    Release { record: Record, seen: u64 },
    Done,
}

struct Controller {
    names: Arc<Names>,
    index: Arc<Index>,
    pending: PendingNames,
    sealed: Option<Arc<Generation>>,
    /// What the name is, once all that is applied is durable.
    truth: Option<Record>,
}

#[derive(Clone, Copy)]
enum Step {
    Apply(NameState),
    Publish(NameState),
    Seal,
    Commit,
    Drop,
}

impl Controller {
    fn make(&mut self, step: Step) {
        match step {
            Step::Apply(state) => {
                self.truth = state.record();
                self.pending.apply(name(1), state, 1);
            }
            Step::Publish(state) => {
                assert!(self.names.load().active().insert(&name(1), state));
                self.pending.published(&name(1), 1);
            }
            Step::Seal => self.sealed = self.names.seal(2),
            Step::Commit => self.index.commit(self.sealed.as_ref().unwrap()),
            Step::Drop => self.names.drop_sealed(),
        }
    }

    /// True where the worker need not look again. What is said must be true.
    fn judge(&self, request: &Request) -> bool {
        let stages = self.names.load();
        match request {
            Request::Occupy { seen } => match self.pending.judge_occupy(&stages, &name(1), *seen) {
                OccupyVerdict::Create => assert_eq!(self.truth, None, "a second time"),
                OccupyVerdict::Exists(_) => assert!(self.truth.is_some()),
                OccupyVerdict::Retry => return false,
            },
            Request::Release { record, seen } => match self.pending.judge_release(&stages, &name(1), *record, *seen) {
                ReleaseVerdict::Remove(record) => assert_eq!(self.truth, Some(record), "not what it leads to"),
                ReleaseVerdict::Absent(_) => assert_eq!(self.truth, None),
                ReleaseVerdict::Retry => return false,
            },
            Request::Done => {}
        }
        true
    }
}

/// A worker that removes the name where it finds it, and creates it where it does not. Looks again while it is told to.
fn work(names: &Names, index: &Arc<Index>, requests: &mpsc::Sender<Request>, answers: &mpsc::Receiver<bool>) {
    let mut reader = Reader::new(index);
    loop {
        let (found, seen) = names.look_up(&name(1), |seen| reader.block(seen)).unwrap();
        requests.send(found.map_or(Request::Occupy { seen }, |record| Request::Release { record, seen })).unwrap();
        if answers.recv().unwrap() {
            requests.send(Request::Done).unwrap();
            return;
        }
    }
}

fn run(first: u64, steps: &[Step]) {
    let steps: Arc<[Step]> = steps.into();
    for meets in 0..=steps.len() {
        let steps = Arc::clone(&steps);
        model(move || {
            let (names, index) = (Arc::new(Names::new(2)), Index::new(first));
            let (sender, requests) = mpsc::channel();
            let (answers, receiver) = mpsc::channel();
            let worker = thread::spawn({
                let (names, index) = (Arc::clone(&names), Arc::clone(&index));
                move || work(&names, &index, &sender, &receiver)
            });
            let truth = (first > 0).then(|| record(first));
            let mut controller = Controller { names, index, pending: PendingNames::default(), sealed: None, truth };
            let (before, after) = steps.split_at(meets);
            before.iter().for_each(|step| controller.make(*step));
            let judged = controller.judge(&requests.recv().unwrap());
            answers.send(judged).unwrap();
            after.iter().for_each(|step| controller.make(*step));
            loop {
                let request = requests.recv().unwrap();
                if matches!(request, Request::Done) {
                    break;
                }
                answers.send(controller.judge(&request)).unwrap();
            }
            worker.join().unwrap();
        });
    }
}

#[test]
fn a_name_that_others_create_meanwhile() {
    let created = occupied(1);
    run(0, &[Step::Apply(created), Step::Publish(created), Step::Seal, Step::Commit, Step::Drop]);
}

#[test]
fn a_name_that_others_remove_meanwhile() {
    let removed = NameState::Removed;
    run(1, &[Step::Apply(removed), Step::Publish(removed), Step::Seal, Step::Commit, Step::Drop]);
}

#[test]
fn a_name_that_others_remove_and_create_meanwhile() {
    let [removed, created] = [NameState::Removed, occupied(2)];
    let steps = [
        Step::Apply(removed),
        Step::Publish(removed),
        Step::Seal,
        Step::Apply(created),
        Step::Commit,
        Step::Drop,
        Step::Publish(created),
        Step::Seal,
        Step::Commit,
        Step::Drop,
    ];
    run(1, &steps);
}
