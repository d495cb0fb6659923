//! Long replies made of lines, written a piece at a time: a client that reads slowly holds one piece, not all of them.

use crate::asker::Asker;
use crate::connection::{Connection, GoesOn};
use crate::limits::LINES_PIECE_BYTES;
use crate::pace::Pace;
use crate::reply;
use crate::request::{Head, Method};
use crate::request_error::RequestError;

/// Sends `count` lines of `bytes` bytes in all; `write` writes the one of a number.
pub(crate) async fn send(
    connection: &Connection,
    head: &Head,
    bytes: usize,
    count: usize,
    mut write: impl FnMut(usize, &mut Vec<u8>),
) -> Result<GoesOn, RequestError> {
    let persistence = connection.persistence(head);
    let mut piece = connection.worker.scratch.take();
    connection.with_context(persistence, Asker::of(head), |context| {
        reply::content_head(&mut piece, context, "text/plain", bytes);
    });
    let pace = Pace::of_reply(&connection.worker, bytes);
    let count = if head.method == Method::Head { 0 } else { count };
    for number in 0..count {
        write(number, &mut piece);
        if piece.len() >= LINES_PIECE_BYTES {
            let length = piece.len();
            piece = connection.send_piece(piece, 0..length, number + 1 < count, pace.clone()).await?;
            piece.clear();
        }
    }
    if !piece.is_empty() {
        let length = piece.len();
        piece = connection.send_piece(piece, 0..length, false, pace).await?;
    }
    connection.worker.scratch.give(piece);
    Ok(persistence.into())
}
