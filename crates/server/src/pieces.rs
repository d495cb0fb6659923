//! A body that is not a block, piece by piece as it arrives. It holds no buffer while it waits.

use crate::body::{begin, too_slow};
use crate::chunked::ChunkedDecoder;
use crate::connection::Connection;
use crate::pace::Pace;
use crate::request::{BodyFraming, Head};
use crate::request_error::RequestError;
use crate::status::{Problem, Status};
use crate::upload_memory::Claim;
use buddy_ring::is_interruption;

/// What is left of a body.
pub(crate) struct Pieces<'a> {
    left: Left,
    pace: Pace,
    received: usize,
    /// What who receives them holds meanwhile.
    claim: Option<&'a Claim>,
}

enum Left {
    Bytes(u64),
    Chunks(ChunkedDecoder),
}

impl<'a> Pieces<'a> {
    /// Begins with the body of a request, which may have up to `bytes_max`. Waits for its first byte, after telling a client that waits
    /// for it to go on.
    pub(crate) async fn begin(
        connection: &mut Connection,
        head: &Head,
        bytes_max: usize,
    ) -> Result<Pieces<'a>, RequestError> {
        let left = match head.body {
            BodyFraming::None => Left::Bytes(0),
            BodyFraming::Length(length) => Left::Bytes(length),
            BodyFraming::Chunked => Left::Chunks(ChunkedDecoder::default()),
        };
        if !matches!(left, Left::Bytes(0)) {
            begin(connection, head).await?;
        }
        Ok(Pieces { left, pace: Pace::of_body(&connection.worker, bytes_max), received: 0, claim: None })
    }

    /// Has the pieces end where `claim` is to give way.
    pub(crate) fn hold(&mut self, claim: &'a Claim) {
        self.claim = Some(claim);
    }

    /// Calls `take` with the next piece. False where there is none. What `take` refuses ends the request.
    pub(crate) async fn next(
        &mut self,
        connection: &mut Connection,
        take: impl FnOnce(&[u8]) -> Result<(), Problem>,
    ) -> Result<bool, RequestError> {
        loop {
            let unused = connection.input.unused();
            let (used, data) = match &mut self.left {
                Left::Bytes(0) => return Ok(false),
                Left::Chunks(decoder) if decoder.is_done() => return Ok(false),
                Left::Bytes(left) => {
                    let here = unused.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= here as u64;
                    (here, 0..here)
                }
                Left::Chunks(decoder) => decoder.decode(unused).map_err(|error| {
                    RequestError::before_body(Problem::fatal(Status::BAD_REQUEST, error.to_string()))
                })?,
            };
            let data = unused.get(data).unwrap_or_default();
            if !data.is_empty() {
                self.received += data.len();
                let taken = take(data);
                connection.input.use_up(used);
                return match taken {
                    Ok(()) => Ok(true),
                    Err(problem) => Err(RequestError::before_body(Problem { ends_connection: true, ..problem })),
                };
            }
            connection.input.use_up(used);
            self.receive(connection).await?;
        }
    }

    async fn receive(&mut self, connection: &mut Connection) -> Result<(), RequestError> {
        if matches!(&self.left, Left::Chunks(decoder) if decoder.is_done()) {
            return Ok(());
        }
        if let Some(claim) = &self.claim {
            claim.moved(self.received);
            claim.go_on(self.received)?;
        }
        let input = &mut connection.input;
        let receiving = input.receive(&connection.worker.receive_buffers, &connection.stream);
        match self.pace.limit(&connection.deadline, receiving).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Err(error)) if is_interruption(&error) => Ok(()),
            Ok(_) => Err(RequestError::Broken),
            Err(_) => Err(too_slow(connection, self.received)),
        }
    }
}
