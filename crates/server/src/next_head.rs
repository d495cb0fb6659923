//! Receiving the head of a connection's next request, and what it may turn out to be instead.

use crate::asker::Asker;
use crate::connection::Connection;
use crate::request::{Head, parse_head};
use crate::status::{Problem, Status};
use std::time::Duration;

/// What the next request's head turned out to be.
pub(crate) enum NextHead {
    Head(Head),
    Refused(RefusedHead),
    /// The client has ended the connection, or was idle for too long.
    Ended,
}

/// What cannot be taken for a request.
pub(crate) struct RefusedHead {
    pub(crate) problem: Problem,
    is_head: bool,
    origin: Option<Box<[u8]>>,
}

impl RefusedHead {
    /// Refuses what has arrived.
    fn new(problem: Problem, bytes: &[u8]) -> RefusedHead {
        let Asker { is_head, origin } = Asker::of_refused(bytes);
        RefusedHead { problem, is_head, origin: origin.map(Into::into) }
    }

    /// Who is told.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { is_head: self.is_head, origin: self.origin.as_deref() }
    }
}

/// Why no more of a head was received.
enum HeadEnd {
    Broken,
    TooSlow,
}

/// Where the last line ends of what was read so far, if there is one; `None`: nothing was.
type ReadTo = Option<Option<usize>>;

impl Connection {
    /// Receives until a head is complete.
    pub(crate) async fn next_head(&mut self) -> NextHead {
        let (head_timeout, idle_timeout) = (self.worker.limits.head_timeout, self.worker.limits.idle_timeout);
        self.input.skip_empty_lines();
        let mut begun = self.has_begun();
        let mut read_to = None;
        self.deadline.set(if begun { head_timeout } else { idle_timeout });
        loop {
            if begun {
                if let Some(next) = self.read_head(&mut read_to) {
                    return next;
                }
            } else if self.worker.phase.is_draining() {
                return NextHead::Ended;
            }
            match self.receive_head_part(begun).await {
                Ok(true) => {
                    self.input.skip_empty_lines();
                    let begins = self.has_begun();
                    if begins != begun {
                        self.deadline.set(if begins { head_timeout } else { idle_timeout });
                        begun = begins;
                    }
                }
                Err(HeadEnd::TooSlow) if begun => {
                    return NextHead::Refused(RefusedHead::new(head_too_slow(head_timeout), self.input.unused()));
                }
                Ok(false) | Err(HeadEnd::Broken | HeadEnd::TooSlow) => return NextHead::Ended,
            }
        }
    }

    /// Whether bytes of a head have arrived, be they in a record of TLS that is not complete: from then on its sender holds memory.
    fn has_begun(&self) -> bool {
        !self.input.unused().is_empty() || self.stream.holds_part()
    }

    /// Reads the head in what has arrived; `None` where it is not complete. Who sends byte by byte has it read once a line, not once a byte.
    fn read_head(&mut self, read_to: &mut ReadTo) -> Option<NextHead> {
        let bytes_max = self.worker.limits.head_bytes_max;
        let unused = self.input.unused();
        let read_before = read_to.replace(memchr::memrchr(b'\n', unused));
        if read_before == *read_to && unused.len() <= bytes_max {
            return None;
        }
        match parse_head(unused) {
            Ok(Some(head)) if head.bytes <= bytes_max => {
                self.input.use_up(head.bytes);
                Some(NextHead::Head(head))
            }
            Ok(None) if unused.len() <= bytes_max => None,
            Ok(_) => Some(NextHead::Refused(RefusedHead::new(head_too_large(bytes_max), unused))),
            Err(problem) => Some(NextHead::Refused(RefusedHead::new(problem, unused))),
        }
    }

    async fn receive_head_part(&mut self, begun: bool) -> Result<bool, HeadEnd> {
        if !begun {
            self.worker.connections.set_idle(self.key, true);
        }
        let (input, stream, buffers) = (&mut self.input, &self.stream, &self.worker.receive_buffers);
        let receiving = async {
            if !begun {
                if !stream.arrival(buffers).await? {
                    return Ok(false);
                }
                if stream.holds_part() {
                    return Ok(true);
                }
            }
            input.receive(buffers, stream).await
        };
        let received = self.deadline.limit(receiving).await;
        if !begun {
            self.worker.connections.set_idle(self.key, false);
        }
        match received {
            Ok(Ok(more)) => Ok(more),
            Ok(Err(_)) => Err(HeadEnd::Broken),
            Err(_) => Err(HeadEnd::TooSlow),
        }
    }
}

fn head_too_large(limit: usize) -> Problem {
    Problem::fatal(
        Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
        format!("the head of the request is larger than {limit} bytes"),
    )
}

fn head_too_slow(timeout: Duration) -> Problem {
    let seconds = timeout.as_secs_f32();
    Problem::fatal(Status::REQUEST_TIMEOUT, format!("the head of the request was not complete after {seconds} s"))
}
