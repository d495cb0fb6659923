//! `POST /-/missing`: which of many names lead nowhere.
//!
//! The names lie in one buffer, 32 bytes each; those that lead somewhere are taken out of it, and what is left is the answer. Other
//! requests are served between a few look-ups and the next.

use crate::asker::Asker;
use crate::connection::{Connection, GoesOn};
use crate::fields::ContentType;
use crate::holders::Room;
use crate::limits::{LINES_PIECE_BYTES as PIECE_BYTES, LOOK_UPS_A_TURN, NAMES_MAX};
use crate::lines;
use crate::name_reader::{NameError, NameForm, NameReader};
use crate::pace::Pace;
use crate::pieces::Pieces;
use crate::reply;
use crate::request::{BodyFraming, Head};
use crate::request_error::RequestError;
use crate::status::{Problem, Status};
use crate::upload_memory::{Claim, take_buffer};
use buddy_ring::Buffer;
use buddy_store::index::IndexError;
use buddy_store::{Hash, StoreError};

/// Bytes of a body that has as many names as there may be, and no empty lines.
const BODY_BYTES_MAX: usize = (Hash::HEX_DIGITS + 2) * NAMES_MAX;
/// The same of names as they are.
const RAW_BODY_BYTES_MAX: usize = Hash::BYTES * NAMES_MAX;

/// Names that were asked for, and the memory that they have.
struct Asked {
    names: Buffer,
    count: usize,
    claim: Claim,
}

/// Answers with the names that are not stored, in the order and form in which they were asked for.
pub(crate) async fn answer(connection: &mut Connection, head: &Head) -> Result<GoesOn, RequestError> {
    let form = form(head)?;
    let Asked { mut names, count, claim } = receive(connection, head, form).await?;
    let missing = retain_missing(connection, &mut names, count, &claim).await?;
    claim.shrink(&mut names, missing * Hash::BYTES);
    match form {
        NameForm::Raw => claim.while_held(send_raw(connection, head, names, missing, &claim)).await,
        NameForm::Text => {
            let bytes = missing * (Hash::HEX_DIGITS + 1);
            let sending = lines::send(connection, head, bytes, missing, |number, target| {
                claim.advanced(Hash::HEX_DIGITS);
                target.extend_from_slice(&name(&names, number).to_hex());
                target.push(b'\n');
            });
            claim.while_held(sending).await
        }
    }
}

/// Sends the first `count` names as they are.
async fn send_raw(
    connection: &Connection,
    head: &Head,
    mut names: Buffer,
    count: usize,
    claim: &Claim,
) -> Result<GoesOn, RequestError> {
    let bytes = count * Hash::BYTES;
    let persistence = connection.persistence(head);
    let mut scratch = connection.worker.scratch.take();
    connection.with_context(persistence, Asker::of(head), |context| {
        reply::content_head(&mut scratch, context, "application/octet-stream", bytes);
    });
    let length = scratch.len();
    let scratch = connection.send(scratch, 0..length, bytes > 0).await?;
    connection.worker.scratch.give(scratch);
    let pace = Pace::of_reply(&connection.worker, bytes);
    for start in (0..bytes).step_by(PIECE_BYTES) {
        let end = bytes.min(start + PIECE_BYTES);
        names = connection.send_piece(names, start..end, end < bytes, pace.clone()).await?;
        claim.advanced(end - start);
    }
    Ok(persistence.into())
}

/// How the names are written, by the type of the body.
fn form(head: &Head) -> Result<NameForm, RequestError> {
    match head.content_type {
        ContentType::Text => Ok(NameForm::Text),
        ContentType::Binary => Ok(NameForm::Raw),
        ContentType::Absent | ContentType::Other => Err(RequestError::before_body(Problem::new(
            Status::UNSUPPORTED_MEDIA_TYPE,
            "names come as text/plain, one a line, or as application/octet-stream, 32 bytes each: say which in Content-Type",
        ))),
    }
}

fn refusal(error: &NameError) -> Problem {
    let status = if *error == NameError::TooMany { Status::CONTENT_TOO_LARGE } else { Status::BAD_REQUEST };
    Problem::new(status, error.to_string())
}

/// Receives the names.
async fn receive(connection: &mut Connection, head: &Head, form: NameForm) -> Result<Asked, RequestError> {
    let bytes_max = if form == NameForm::Raw { RAW_BODY_BYTES_MAX } else { BODY_BYTES_MAX };
    let length = match head.body {
        BodyFraming::None => {
            let detail = "names need Content-Length or Transfer-Encoding: chunked";
            return Err(RequestError::before_body(Problem::fatal(Status::LENGTH_REQUIRED, detail)));
        }
        BodyFraming::Length(length) if length <= bytes_max as u64 => usize::try_from(length).unwrap_or(0),
        BodyFraming::Length(length) => {
            let detail = format!("a body of {length} bytes has more than {NAMES_MAX} names");
            return Err(RequestError::before_body(Problem::fatal(Status::CONTENT_TOO_LARGE, detail)));
        }
        BodyFraming::Chunked => usize::MAX,
    };
    let bytes_per_name = if form == NameForm::Raw { Hash::BYTES } else { Hash::HEX_DIGITS };
    let names_max = length.div_ceil(bytes_per_name).min(NAMES_MAX);
    let mut pieces = Pieces::begin(connection, head, BODY_BYTES_MAX).await?;
    let buffer = take_buffer(connection, names_max * Hash::BYTES).await?;
    let claim = Claim::new(connection, Room::Fixed, &buffer);
    pieces.hold(&claim);
    let mut names = Names { reader: NameReader::new(form), buffer, count: 0, bytes: 0 };
    while pieces.next(connection, |piece| names.take(piece)).await? {}
    // What follows is the next request's: it must not hold a buffer that others need while this one is answered.
    connection.input.release_buffer();
    let (names, count) = names.finish().map_err(RequestError::after_body)?;
    Ok(Asked { names, count, claim })
}

/// Names that arrive.
struct Names {
    reader: NameReader,
    buffer: Buffer,
    count: usize,
    bytes: usize,
}

impl Names {
    fn take(&mut self, piece: &[u8]) -> Result<(), Problem> {
        self.bytes += piece.len();
        // Empty lines are passed over, but not for ever.
        if self.bytes > BODY_BYTES_MAX {
            return Err(refusal(&NameError::TooMany));
        }
        let (buffer, count) = (&mut self.buffer, &mut self.count);
        self.reader.take(piece, |name| put(buffer, count, &name)).map_err(|error| refusal(&error))
    }

    /// The names, and how many there are.
    fn finish(self) -> Result<(Buffer, usize), Problem> {
        let Names { reader, mut buffer, mut count, .. } = self;
        reader.finish(|name| put(&mut buffer, &mut count, &name)).map_err(|error| refusal(&error))?;
        Ok((buffer, count))
    }
}

fn put(buffer: &mut Buffer, count: &mut usize, name: &Hash) {
    if let Some(place) = buffer.get_mut(*count * Hash::BYTES..(*count + 1) * Hash::BYTES) {
        place.copy_from_slice(name.as_bytes());
    }
    *count += 1;
}

fn name(buffer: &Buffer, number: usize) -> Hash {
    let bytes = buffer.get(number * Hash::BYTES..).and_then(|rest| rest.first_chunk());
    Hash::from_bytes(bytes.copied().unwrap_or_default())
}

/// Keeps those of the first `count` names that lead nowhere, in their order; returns how many.
async fn retain_missing(
    connection: &Connection,
    names: &mut Buffer,
    count: usize,
    claim: &Claim,
) -> Result<usize, RequestError> {
    let worker = &connection.worker;
    let mut missing = 0;
    for number in 0..count {
        if number % LOOK_UPS_A_TURN == LOOK_UPS_A_TURN - 1 {
            worker.ring.next_turn().await;
            // It is not the client that takes this time.
            claim.advanced(PIECE_BYTES);
        }
        let name = name(names, number);
        if !is_known_to_be_stored(connection, &name).await? {
            put(names, &mut missing, &name);
        }
    }
    Ok(missing)
}

/// Of a name that only a damaged row of the index could tell of nobody knows. A client that takes it for stored may lose its block; one that
/// sends the block is told, and the others of its names have their answer.
async fn is_known_to_be_stored(connection: &Connection, name: &Hash) -> Result<bool, RequestError> {
    let worker = &connection.worker;
    match worker.session.is_stored(name).await {
        Err(StoreError::Index(error @ IndexError::Damaged(_))) => {
            worker.failures.taken_for_missing(worker.ring.now(), &error);
            Ok(false)
        }
        known => known.map_err(|error| connection.failed(error)),
    }
}
