//! Sending what a connection answers: small replies whole, others a piece at a time, as long as the client takes some every so often.

use crate::asker::Asker;
use crate::connection::{Broken, Connection, GoesOn};
use crate::limits::WHOLE_SEND_BYTES_MAX;
use crate::pace::Pace;
use crate::reply::{Persistence, ReplyContext};
use crate::request::Head;
use buddy_ring::{IoBuffer, SendAmount};
use std::future::Future;
use std::ops::{DerefMut, Range};
use std::pin::{Pin, pin};

impl Connection {
    /// Sends a small reply to a request that was read to its end; `write` writes it.
    pub(crate) async fn reply(
        &self,
        head: &Head,
        write: impl FnOnce(&mut Vec<u8>, ReplyContext<'_>),
    ) -> Result<GoesOn, Broken> {
        let persistence = self.persistence(head);
        self.reply_with(persistence, Asker::of(head), write).await?;
        Ok(persistence.into())
    }

    /// Sends a small reply, after which the connection goes on as `persistence` says.
    pub(crate) async fn reply_with(
        &self,
        persistence: Persistence,
        asker: Asker<'_>,
        write: impl FnOnce(&mut Vec<u8>, ReplyContext<'_>),
    ) -> Result<(), Broken> {
        let mut scratch = self.worker.scratch.take();
        self.with_context(persistence, asker, |context| write(&mut scratch, context));
        let length = scratch.len();
        let scratch = self.send(scratch, 0..length, false).await?;
        self.worker.scratch.give(scratch);
        Ok(())
    }

    /// Works with what all replies to one request have in common.
    pub(crate) fn with_context<T>(
        &self,
        persistence: Persistence,
        asker: Asker<'_>,
        work: impl FnOnce(ReplyContext<'_>) -> T,
    ) -> T {
        let is_private = self.worker.state.access().keeps_blocks_private();
        let cors = self.worker.limits.cors.fields(asker.origin);
        self.worker.date.with(|date| {
            let (is_head, replied) = (asker.is_head, Some(&self.replied));
            work(ReplyContext { date, persistence, is_head, cors, is_private, replied })
        })
    }

    /// Sends a range of a buffer. The client must take some of it every so often, and all of it in time.
    pub(crate) fn send<B>(&self, buffer: B, range: Range<usize>, more: bool) -> impl Future<Output = Result<B, Broken>>
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let pace = Pace::of_reply(&self.worker, range.len());
        self.send_piece(buffer, range, more, pace)
    }

    /// As [`Connection::send`], for a piece of a reply that has all of it as much time as `pace` says.
    pub(crate) async fn send_piece<B>(
        &self,
        buffer: B,
        range: Range<usize>,
        more: bool,
        pace: Pace,
    ) -> Result<B, Broken>
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let (mut buffer, mut range) = (buffer, range);
        let amount = if range.len() <= WHOLE_SEND_BYTES_MAX { SendAmount::All } else { SendAmount::Some };
        while !range.is_empty() {
            let sending = self.stream.send(buffer, range.clone(), amount, more);
            let (sent, returned) = self.while_client_takes(&pace, pin!(sending)).await?;
            buffer = returned;
            match sent {
                Ok(sent) if sent > 0 => range.start += sent,
                _ => return Err(Broken),
            }
        }
        Ok(buffer)
    }

    /// Runs an operation that waits for the client to take bytes, as long as it takes some every so often. An operation may take
    /// longer than that: what counts is whether fewer bytes are on their way than before.
    pub(crate) async fn while_client_takes<F: Future>(
        &self,
        pace: &Pace,
        mut operation: Pin<&mut F>,
    ) -> Result<F::Output, Broken> {
        let mut unconfirmed = None;
        loop {
            if let Ok(output) = pace.limit(&self.deadline, operation.as_mut()).await {
                return Ok(output);
            }
            let now = self.stream.unconfirmed_bytes();
            if pace.is_over() || now.is_none() || now == unconfirmed {
                return Err(Broken);
            }
            unconfirmed = now;
        }
    }
}
