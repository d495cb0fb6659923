//! What is to be measured.

use crate::body::{BODY_BYTES_MAX, BODY_BYTES_MIN};
use crate::name::Name;
use crate::processes;
use crate::request::Naming;
use crate::target::Target;
use crate::template::Template;
use crate::token::Token;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Connections and idle connections, each.
const CONNECTIONS_MAX: usize = 60_000;
const THREADS_MAX: usize = 256;
const RATE_MAX: f64 = 100e6;
/// Each thread has at most this much of the load, warm-up included.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Storing a new block.
    Put,
    /// Reading a block.
    Get,
    /// Asking for a block without reading it.
    Head,
    /// Removing a block, each once.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::Delete => "delete",
        })
    }
}

/// Of how many requests together how many are GET, PUT and DELETE: `70/25/5`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    pub(crate) get: u32,
    pub(crate) put: u32,
    pub(crate) delete: u32,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { get: 70, put: 25, delete: 5 }
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Shares, String> {
        let numbers: Result<Vec<u32>, _> = text.split('/').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([get, put, delete])
                if [get, put, delete].iter().all(|share| **share <= 1_000_000) && get + put + delete > 0 =>
            {
                Ok(Shares { get: *get, put: *put, delete: *delete })
            }
            _ => Err(format!("\"{text}\" is not the shares of GET, PUT and DELETE: write 70/25/5")),
        }
    }
}

/// Which requests are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// One kind.
    Only(Operation),
    /// GET, PUT and DELETE, by chance.
    Mixed(Shares),
}

/// How large bodies are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// All of one size, in bytes.
    Fixed(usize),
    /// Each size class (4 KiB, 8 KiB … 512 KiB) equally often, and within a class each length.
    AllClasses,
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Where blocks lie there; `None`: as Buddy Blocks has it, `PUT /` and `GET /{name}`.
    pub template: Option<Template>,
    /// Which requests.
    pub workload: Workload,
    /// How large bodies are.
    pub sizes: Sizes,
    /// Connections that send requests.
    pub connections: usize,
    /// Connections beside them that do nothing.
    pub idle_connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long before that nothing is measured.
    pub warm_up: Duration,
    /// Requests a second; `None`: as fast as replies come.
    pub rate: Option<f64>,
    /// After which a request has failed.
    pub timeout: Duration,
    /// Whether bodies and names are compared with what was stored.
    pub verify: bool,
    /// Names to read and delete; where there are none, as many blocks as below are stored first.
    pub names: Vec<Name>,
    /// Blocks that are stored first.
    pub blocks: usize,
    /// Whether the names of all that is stored at the end are wanted.
    pub keep_names: bool,
    /// Decides bodies and the order of requests.
    pub seed: u64,
    /// Sent with every request.
    pub token: Option<Token>,
    /// Processes of the server.
    pub pids: Vec<u32>,
    /// TCP congestion control of what is sent; `None`: the system's.
    pub congestion_control: Option<String>,
}

/// Why something cannot be measured.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PlanError {
    /// A number that is too small or too large.
    #[error("{what} is {value}: it must be between {least} and {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: String,
        /// The least it may be.
        least: String,
        /// The most it may be.
        most: String,
    },
    /// A process that is not there.
    #[error("pid {0}: there is no such process")]
    Process(u32),
    /// A name from which the body cannot be made again.
    #[error(
        "the name {0} does not say which body it is of, as names of {{name}} do: leave --verify out, or use {{hash}}"
    )]
    Bodiless(Name),
}

impl Plan {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    ///
    /// [`PlanError`]
    pub fn check(&self) -> Result<(), PlanError> {
        within("connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("idle", self.idle_connections, 0, CONNECTIONS_MAX)?;
        within("threads", self.threads, 1, THREADS_MAX.min(self.connections))?;
        if let Sizes::Fixed(bytes) = self.sizes {
            within("size", bytes, BODY_BYTES_MIN, BODY_BYTES_MAX)?;
        }
        time("seconds", self.duration, Duration::from_millis(1), DURATION_MAX)?;
        time("warm-up", self.warm_up, Duration::ZERO, DURATION_MAX)?;
        time("timeout", self.timeout, Duration::from_millis(1), TIMEOUT_MAX)?;
        if let Some(rate) = self.rate.filter(|rate| !(0.001..=RATE_MAX).contains(rate)) {
            return Err(range("rate", rate, 0.001, RATE_MAX));
        }
        if self.workload != Workload::Only(Operation::Put) {
            let (what, count) =
                if self.names.is_empty() { ("blocks", self.blocks) } else { ("the number of names", self.names.len()) };
            within(what, count, self.threads, usize::MAX)?;
        }
        if let Some(name) = self.bodiless() {
            return Err(PlanError::Bodiless(name));
        }
        match self.pids.iter().find(|pid| !processes::exists(**pid)) {
            Some(pid) => Err(PlanError::Process(*pid)),
            None => Ok(()),
        }
    }

    /// A name that is to be read, and compared with a body that nobody knows.
    fn bodiless(&self) -> Option<Name> {
        let is_compared = self.naming() == Naming::Number && self.compares();
        self.names.iter().copied().find(|name| is_compared && name.numbered_body().is_none())
    }

    /// The seed of bodies. Bodies are told apart by their seed and number, so with the seed of the run that has stored the given names they
    /// would be the same again: what is given has a part in it.
    pub(crate) fn body_seed(&self) -> u64 {
        if self.names.is_empty() {
            return self.seed;
        }
        Name::hash_of_names(self.seed, &self.names).first_number()
    }

    /// How many blocks are to be stored before the load begins.
    pub(crate) fn blocks_to_store(&self) -> usize {
        if self.workload == Workload::Only(Operation::Put) || !self.names.is_empty() { 0 } else { self.blocks }
    }

    /// Whether the load has replies that are compared with something.
    pub(crate) fn compares(&self) -> bool {
        let names_are_answers = self.naming() == Naming::Server;
        self.verify
            && match self.workload {
                Workload::Only(Operation::Get) => true,
                Workload::Only(Operation::Put) => names_are_answers,
                Workload::Only(Operation::Head | Operation::Delete) => false,
                Workload::Mixed(shares) => shares.get > 0 || names_are_answers,
            }
    }

    pub(crate) fn naming(&self) -> Naming {
        match &self.template {
            None => Naming::Server,
            Some(template) if template.is_hash() => Naming::Hash,
            Some(_) => Naming::Number,
        }
    }
}

fn within(what: &'static str, value: usize, least: usize, most: usize) -> Result<(), PlanError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(range(what, value, least, most)) }
}

fn time(what: &'static str, value: Duration, least: Duration, most: Duration) -> Result<(), PlanError> {
    let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(range(what, seconds(value), seconds(least), seconds(most)))
    }
}

fn range<T: ToString>(what: &'static str, value: T, least: T, most: T) -> PlanError {
    PlanError::Range { what, value: value.to_string(), least: least.to_string(), most: most.to_string() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(workload: Workload) -> Plan {
        Plan {
            target: Target::resolve("http://127.0.0.1:1").unwrap(),
            template: None,
            workload,
            sizes: Sizes::Fixed(4096),
            connections: 4,
            idle_connections: 0,
            threads: 1,
            duration: Duration::from_secs(1),
            warm_up: Duration::ZERO,
            rate: None,
            timeout: Duration::from_secs(1),
            verify: false,
            names: Vec::new(),
            blocks: 10,
            keep_names: false,
            seed: 1,
            token: None,
            pids: Vec::new(),
            congestion_control: None,
        }
    }

    #[test]
    fn shares_are_three_numbers() {
        assert_eq!("70/25/5".parse(), Ok(Shares { get: 70, put: 25, delete: 5 }));
        for text in ["", "70/25", "70/25/5/1", "0/0/0", "-1/2/3", "a/b/c", "9999999/1/1"] {
            assert!(text.parse::<Shares>().unwrap_err().contains("write 70/25/5"), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_value_and_the_limit() {
        let refuse = |change: fn(&mut Plan)| {
            let mut plan = plan(Workload::Only(Operation::Get));
            assert_eq!(plan.check(), Ok(()));
            change(&mut plan);
            plan.check().unwrap_err().to_string()
        };
        assert_eq!(refuse(|plan| plan.connections = 0), "connections is 0: it must be between 1 and 60000");
        assert_eq!(refuse(|plan| plan.threads = 5), "threads is 5: it must be between 1 and 4");
        assert_eq!(refuse(|plan| plan.sizes = Sizes::Fixed(15)), "size is 15: it must be between 16 and 524288");
        assert!(refuse(|plan| plan.duration = Duration::ZERO).contains("seconds is 0 s"));
        assert!(refuse(|plan| plan.timeout = Duration::MAX).contains("timeout"));
        assert!(refuse(|plan| plan.rate = Some(f64::NAN)).contains("rate is NaN"));
        assert!(refuse(|plan| plan.rate = Some(0.0)).contains("rate is 0"));
        assert!(refuse(|plan| plan.blocks = 0).contains("blocks is 0"));
        assert!(
            refuse(|plan| (plan.threads, plan.names) = (2, vec![Name::hash_of(&[])])).contains("number of names is 1")
        );
        assert!(refuse(|plan| plan.pids = vec![u32::MAX]).contains("no such process"));
    }
}
