//! A load generator: keep-alive connections on an io_uring of their own, cheap bodies, and an honest clock.
//!
//! It must cost less than what it measures: a request is one operation to send, one to receive; bodies are cut from one random
//! buffer and told apart by a stamp; what nobody looks at is thrown away by the kernel. It knows HTTP and no store.
//!
//! | module | one idea |
//! | --- | --- |
//! | `plan` | what is to be measured, checked |
//! | `target` | where the server is |
//! | `template` | paths of blocks |
//! | `name` | names of blocks: given by the server, hashed, or numbered |
//! | `body` | unique incompressible bodies that can be told again from their number |
//! | `names` | names to be read and deleted, stored before or from a file, and the file that they are saved to |
//! | `token` | who asks |
//! | `request` | requests as bytes |
//! | `reply` | heads of replies |
//! | `connection` | one request and its reply |
//! | `work` | which request comes next, and whether its reply is right |
//! | `client` | a connection's loop: pace, choose, exchange, record |
//! | `pace` | when requests are to start, as fast as replies come or at a rate |
//! | `tally` | what happened: latencies, bytes, failures |
//! | `worker` | a thread: its ring, its connections, its names |
//! | `run` | threads, phases, sampling |
//! | `processes` | CPU and memory of processes, from `/proc` |
//! | `report` | the result, as a table and for JSON |

mod body;
mod client;
mod connection;
mod name;
mod names;
mod pace;
mod plan;
mod processes;
mod reply;
mod report;
mod request;
mod run;
mod tally;
mod target;
mod template;
mod token;
mod work;
mod worker;

pub use body::{BODY_BYTES_MAX, BODY_BYTES_MIN};
pub use name::Name;
pub use names::{NamesError, NamesFile, read_names};
pub use plan::{Operation, Plan, PlanError, Shares, Sizes, Workload};
pub use report::Report;
pub use run::{BenchError, Outcome, Progress, random_seed, run};
pub use target::{Target, TargetError};
pub use template::{Template, TemplateError};
pub use token::{Token, TokenError};
