//! Which request comes next, and whether its reply is right.

use crate::body::{BODY_BYTES_MAX, BODY_BYTES_MIN, Body, Noise};
use crate::connection::ReplyBody;
use crate::name::Name;
use crate::names::NamePool;
use crate::plan::{Operation, Plan, Shares, Sizes, Workload};
use crate::reply::ReplyHead;
use crate::request::{Naming, Request};
use crate::tally::FailureKind;

/// Size classes: 4 KiB, 8 KiB … 512 KiB.
const SIZE_CLASSES: u32 = 8;

/// What one thread chooses requests from.
pub(crate) struct Stock {
    workload: Workload,
    sizes: Sizes,
    naming: Naming,
    verify: bool,
    /// Whether names of what is stored are of use.
    keeps_names: bool,
    /// Of bodies.
    seed: u64,
    next_number: u64,
    /// Threads take numbers in turns.
    stride: u64,
    random: fastrand::Rng,
    pub(crate) names: NamePool,
    /// Names that are not to be asked for again, and of what may be there: deleting it has failed, or nobody knows whether it was stored.
    doubtful: Vec<Name>,
}

/// What a good reply says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Bytes of the block that went to or fro.
    pub(crate) bytes: u64,
    stored: Option<Name>,
}

impl Answer {
    /// It is as it should be, and brought nothing.
    pub(crate) const NONE: Answer = Answer { bytes: 0, stored: None };
}

impl Stock {
    /// `body_seed`: see [`Plan::body_seed`].
    pub(crate) fn new(plan: &Plan, body_seed: u64, thread: usize, names: Vec<Name>) -> Stock {
        Stock {
            workload: plan.workload,
            sizes: plan.sizes,
            naming: plan.naming(),
            verify: plan.verify,
            keeps_names: plan.keep_names || plan.workload != Workload::Only(Operation::Put),
            seed: body_seed,
            next_number: thread as u64,
            stride: plan.threads as u64,
            random: fastrand::Rng::with_seed(plan.seed.wrapping_add(thread as u64)),
            names: NamePool::new(names),
            doubtful: Vec::new(),
        }
    }

    /// Names of all that may be there.
    pub(crate) fn take_names(&mut self) -> Vec<Name> {
        let mut names = std::mem::take(&mut self.names).into_names();
        names.append(&mut self.doubtful);
        names
    }

    /// The next request of the load; `None` where no names are left to be deleted.
    pub(crate) fn next(&mut self, noise: &Noise) -> Option<Request> {
        match self.workload {
            Workload::Only(Operation::Put) => Some(self.put(noise)),
            Workload::Only(Operation::Get) => self.names.pick(&mut self.random).map(Request::Get),
            Workload::Only(Operation::Head) => self.names.pick(&mut self.random).map(Request::Head),
            Workload::Only(Operation::Delete) => self.names.take(&mut self.random).map(Request::Delete),
            Workload::Mixed(shares) => Some(self.mixed(shares, noise)),
        }
    }

    /// By chance. Where there is nothing to read or to delete: PUT.
    fn mixed(&mut self, shares: Shares, noise: &Noise) -> Request {
        let drawn = self.random.u32(..shares.get + shares.put + shares.delete);
        let other = if drawn < shares.get {
            self.names.begin_reading(&mut self.random).map(Request::Get)
        } else if drawn < shares.get + shares.delete {
            self.names.take(&mut self.random).map(Request::Delete)
        } else {
            None
        };
        other.unwrap_or_else(|| self.put(noise))
    }

    /// A PUT of a body that was never used before.
    pub(crate) fn put(&mut self, noise: &Noise) -> Request {
        let number = self.next_number;
        self.next_number += self.stride;
        let body = Body { seed: self.seed, number, length: self.length() };
        let name = match self.naming {
            Naming::Server => None,
            Naming::Hash => Some(noise.hash(body)),
            Naming::Number => Some(Name::numbered(body)),
        };
        Request::Put(body, name)
    }

    fn length(&mut self) -> usize {
        match self.sizes {
            Sizes::Fixed(bytes) => bytes,
            Sizes::AllClasses => {
                let most = BODY_BYTES_MAX >> self.random.u32(..SIZE_CLASSES);
                // The smallest class takes all that is smaller, too.
                let least = if most == BODY_BYTES_MAX >> (SIZE_CLASSES - 1) { BODY_BYTES_MIN } else { most / 2 + 1 };
                self.random.usize(least..=most)
            }
        }
    }

    /// What is to become of the body of the reply to `request`.
    pub(crate) fn wanted(&self, request: Request) -> ReplyBody {
        match request {
            Request::Head(_) => ReplyBody::None,
            Request::Get(_) if self.verify => ReplyBody::Kept,
            _ => ReplyBody::Counted,
        }
    }

    /// Whether a reply is right. `body` is there where [`Stock::wanted`] asked for it, or where it is small.
    pub(crate) fn judge(
        &self,
        request: Request,
        head: ReplyHead,
        body: Option<&[u8]>,
        noise: &Noise,
    ) -> Result<Answer, FailureKind> {
        if !head.is_success() {
            return Err(FailureKind::Status(head.status));
        }
        match request {
            Request::Put(sent, name) => {
                let stored = match name {
                    Some(name) => name,
                    None => body.and_then(Name::from_hex).ok_or(FailureKind::WrongName)?,
                };
                if self.verify && name.is_none() && stored != noise.hash(sent) {
                    return Err(FailureKind::WrongName);
                }
                Ok(Answer { bytes: sent.length as u64, stored: Some(stored) })
            }
            Request::Get(name) => {
                if self.verify && !body.is_some_and(|body| self.is_content(name, body, noise)) {
                    return Err(FailureKind::WrongBody);
                }
                Ok(Answer { bytes: head.body_bytes as u64, stored: None })
            }
            Request::Head(_) | Request::Delete(_) => Ok(Answer::NONE),
        }
    }

    /// Whether `bytes` are what was stored as `name`.
    fn is_content(&self, name: Name, bytes: &[u8], noise: &Noise) -> bool {
        match self.naming {
            Naming::Server | Naming::Hash => Name::hash_of(&[bytes]) == name,
            Naming::Number => name.numbered_body().is_some_and(|body| noise.is(body, bytes)),
        }
    }

    /// To be called for a request from [`Stock::next`] of which nobody waited for the end: what it was to delete, or to store, may be
    /// there.
    pub(crate) fn abandon(&mut self, request: Request, noise: &Noise) {
        match request {
            Request::Delete(name) => self.doubtful.push(name),
            _ => self.doubt(request, noise),
        }
    }

    /// To be called for a request that has failed, though the server may have done it: what PUT was to store may be there.
    pub(crate) fn doubt(&mut self, request: Request, noise: &Noise) {
        if self.keeps_names
            && let Request::Put(body, name) = request
        {
            // The server would have named it by its body, which is hashed only here: it happens seldom.
            self.doubtful.push(name.unwrap_or_else(|| noise.hash(body)));
        }
    }

    /// To be called when a request from [`Stock::next`] is over. Returns what it was.
    pub(crate) fn settle(&mut self, request: Request, outcome: Result<Answer, FailureKind>) -> Operation {
        if self.keeps_names
            && let Some(stored) = outcome.ok().and_then(|answer| answer.stored)
        {
            self.names.add(stored);
        }
        match request {
            Request::Put(..) => Operation::Put,
            Request::Head(_) => Operation::Head,
            Request::Delete(name) => {
                if outcome.is_err_and(|kind| kind != FailureKind::Status(404)) {
                    self.doubtful.push(name);
                }
                Operation::Delete
            }
            Request::Get(name) => {
                if matches!(self.workload, Workload::Mixed(_)) {
                    self.names.end_reading(name);
                }
                Operation::Get
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    const OK: ReplyHead = ReplyHead { status: 200, head_bytes: 100, body_bytes: 4096, keeps_alive: true };

    fn stock(workload: Workload, change: impl Fn(&mut Plan)) -> Stock {
        let mut plan = plan(workload);
        change(&mut plan);
        Stock::new(&plan, plan.body_seed(), 0, (0..10).map(|number: u8| Name::hash_of(&[&[number]])).collect())
    }

    #[test]
    fn a_mixed_load_has_its_shares_and_deletes_nothing_twice() {
        let noise = Noise::new();
        let shares = "70/25/5".parse().unwrap();
        let mut stock = stock(Workload::Mixed(shares), |_| {});
        let mut counts = [0_usize; 4];
        let mut deleted = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let request = stock.next(&noise).unwrap();
            if let Request::Delete(name) = request {
                assert!(deleted.insert(name));
            }
            if let Request::Get(name) = request {
                assert!(!deleted.contains(&name));
            }
            let stored = match request {
                Request::Put(body, _) => Some(noise.hash(body)),
                _ => None,
            };
            let operation = stock.settle(request, Ok(Answer { bytes: 0, stored }));
            counts[operation as usize] += 1;
        }
        assert!(counts[Operation::Get as usize].abs_diff(7000) < 300, "{counts:?}");
        assert!(counts[Operation::Put as usize].abs_diff(2500) < 300, "{counts:?}");
        assert!(counts[Operation::Delete as usize].abs_diff(500) < 100, "{counts:?}");
        assert_eq!(stock.names.len(), 10 + counts[Operation::Put as usize] - counts[Operation::Delete as usize]);
    }

    #[test]
    fn what_may_be_there_is_named_and_not_asked_for() {
        let noise = Noise::new();
        for (template, keep_names) in [(None, true), (Some("/{name}".parse().unwrap()), true), (None, false)] {
            let mut stock = stock(Workload::Only(Operation::Put), |plan| {
                (plan.template, plan.keep_names) = (template.clone(), keep_names);
            });
            let requests = [stock.put(&noise), stock.put(&noise)];
            stock.doubt(requests[0], &noise);
            stock.abandon(requests[1], &noise);
            assert_eq!(stock.names.len(), 10);
            let stored = requests.map(|request| match request {
                Request::Put(body, name) => name.unwrap_or(noise.hash(body)),
                _ => panic!("not a PUT"),
            });
            assert_eq!(stock.take_names()[10..], if keep_names { &stored[..] } else { &[] }[..]);
        }
    }

    #[test]
    fn deleting_ends_with_the_names() {
        let noise = Noise::new();
        let mut stock = stock(Workload::Only(Operation::Delete), |_| {});
        assert_eq!(std::iter::from_fn(|| stock.next(&noise)).count(), 10);
    }

    #[test]
    fn sizes_of_a_mix_are_of_every_class() {
        let noise = Noise::new();
        let mut stock = stock(Workload::Only(Operation::Put), |plan| plan.sizes = Sizes::AllClasses);
        let mut classes = [0; 8];
        for _ in 0..8000 {
            let Request::Put(body, None) = stock.put(&noise) else { panic!("not a PUT") };
            assert!((BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body.length));
            classes[body.length.div_ceil(4096).next_power_of_two().trailing_zeros() as usize] += 1;
        }
        assert!(classes.iter().all(|count| (800..1200).contains(count)), "{classes:?}");
    }

    #[test]
    fn a_wrong_reply_is_found() {
        let noise = Noise::new();
        let mut stock = stock(Workload::Only(Operation::Put), |plan| plan.verify = true);
        let request = stock.put(&noise);
        let Request::Put(body, _) = request else { panic!("not a PUT") };
        let name = noise.hash(body);
        let judge = |stock: &Stock, request, head, bytes: &[u8]| stock.judge(request, head, Some(bytes), &noise);
        assert_eq!(judge(&stock, request, OK, &name.to_hex()), Ok(Answer { bytes: 4096, stored: Some(name) }));
        let other = Name::hash_of(&[b"other"]);
        assert_eq!(judge(&stock, request, OK, &other.to_hex()), Err(FailureKind::WrongName));
        assert_eq!(judge(&stock, request, OK, b"stored"), Err(FailureKind::WrongName));
        let full = ReplyHead { status: 507, ..OK };
        assert_eq!(judge(&stock, request, full, b""), Err(FailureKind::Status(507)));
        let mut bytes = [&body.stamp()[..], noise.of(body)].concat();
        assert_eq!(judge(&stock, Request::Get(name), OK, &bytes), Ok(Answer { bytes: 4096, stored: None }));
        assert_eq!(judge(&stock, Request::Get(other), OK, &bytes), Err(FailureKind::WrongBody));
        stock.naming = Naming::Number;
        let Request::Put(_, Some(numbered)) = stock.put(&noise) else { panic!("not a PUT") };
        assert_eq!(judge(&stock, Request::Get(numbered), OK, &bytes), Err(FailureKind::WrongBody), "the one before");
        let numbered = Name::numbered(body);
        assert!(judge(&stock, Request::Get(numbered), OK, &bytes).is_ok());
        bytes[4095] ^= 1;
        assert_eq!(judge(&stock, Request::Get(numbered), OK, &bytes), Err(FailureKind::WrongBody));
    }
}
