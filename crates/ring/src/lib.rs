//! A single-threaded executor on one io_uring.
//!
//! Operations are futures that own what the kernel works on: a future that is dropped in flight leaves its
//! buffer behind with the ring, which frees it when the kernel is done (see [`operation`](self)). This crate knows
//! threads, files, sockets and time; it knows nothing of blocks or HTTP.
//!
//! | module | one idea |
//! | --- | --- |
//! | `runtime` | the loop: poll what is ready, run the hooks, enter the kernel, sleep |
//! | `config` | what a ring may be told when it is set up |
//! | `setup` | creating an io_uring, and why it cannot be created |
//! | `hooks` | what runs in every turn |
//! | `shuffle` | the order of tasks in a simulation |
//! | `task` | tasks, their wakers and the queue of those that are ready |
//! | `busy_poll` | whether to look again for a moment before sleeping |
//! | `remote` | waking a ring from another thread, only when it sleeps |
//! | `sync` | what threads share, from the standard library or from loom |
//! | `timer` | sleeping, timeouts, and deadlines that cost nothing to move |
//! | `driver` | the submission and completion queues and the slots of operations in flight |
//! | `operation` | one operation in flight as a future that owns its buffers |
//! | `buffer` | page-aligned buffers from a bounded pool |
//! | `chunk` | memory for the large ones, in huge pages |
//! | `file` | reading, writing and flushing files |
//! | `listener`, `unix_socket` | listening and accepting |
//! | `socket` | receiving, sending, sending a file's pages |
//! | `pipe` | sending many pages of a file at once |
//! | `connect` | connecting to somebody who listens |
//! | `traffic` | how many bytes went through sockets |
//! | `wait_line` | first come, first served for what there is only so much of |
//! | `outcomes` | results that tasks wait for, each under a key of its own |
//! | `uncancelled` | what is carried out even where nobody waits for it any more |
//! | `receive` | buffers that the kernel picks only when bytes have arrived |

mod buffer;
mod busy_poll;
mod chunk;
mod config;
mod connect;
mod driver;
mod file;
mod hooks;
mod listener;
mod operation;
mod outcomes;
mod pipe;
mod receive;
mod remote;
mod runtime;
mod setup;
mod shuffle;
mod socket;
mod sync;
mod task;
mod timer;
mod traffic;
mod uncancelled;
mod unix_socket;
mod wait_line;

pub use buffer::{Buffer, BufferPool, PAGE_BYTES};
pub use config::{BUSY_POLL_DEFAULT, RingConfig};
pub use file::{File, Guarded};
pub use listener::{Address, AddressError, ListenError, ListenOptions, Listener};
pub use operation::IoBuffer;
pub use outcomes::{Outcome, Outcomes};
pub use pipe::Pipe;
pub use receive::{ReceiveBuffers, ReceivedChunk};
pub use remote::Remote;
pub use runtime::{Ring, Runtime};
pub use setup::SetupError;
pub use socket::{PeerProcess, SendAmount, Socket, is_interruption};
pub use task::JoinHandle;
pub use timer::{Deadline, Elapsed, Limited, Sleep};
pub use uncancelled::Uncancelled;
pub use wait_line::WaitLine;
