//! `GET /-/blocks`: the blocks that are stored, in the order of their names, a page at a time.

use crate::connection::{Connection, GoesOn};
use crate::holders::Room;
use crate::lines;
use crate::request::Head;
use crate::request_error::RequestError;
use crate::target::ListQuery;
use crate::upload_memory::{Claim, take_buffer};
use buddy_store::{DamagedRows, Hash, Listed, Listing};

/// Answers with a page.
pub(crate) async fn answer(connection: &mut Connection, head: &Head, query: ListQuery) -> Result<GoesOn, RequestError> {
    // What is listed counts as memory that is given back where others wait for it. It is not that of replies: no block waits behind a list
    // that is read slowly.
    let mut room = take_buffer(connection, query.limit * size_of::<Listed>()).await?;
    let worker = &connection.worker;
    let listing = worker.session.list(query.after, query.limit).await;
    let Listing { blocks: listed, damaged } = listing.map_err(|error| connection.failed(error))?;
    if let DamagedRows { count, first: Some(error) } = damaged {
        worker.failures.not_listed(worker.ring.now(), count, &error);
    }
    let claim = Claim::new(connection, Room::Fixed, &room);
    claim.shrink(&mut room, listed.len() * size_of::<Listed>());
    let bytes = listed.iter().map(line_bytes).sum();
    let sending = lines::send(connection, head, bytes, listed.len(), |number, target| {
        if let Some(block) = listed.get(number) {
            claim.advanced(line_bytes(block));
            write(block, target);
        }
    });
    claim.while_held(sending).await
}

fn write(block: &Listed, target: &mut Vec<u8>) {
    target.extend_from_slice(&block.hash.to_hex());
    target.push(b' ');
    target.extend_from_slice(itoa::Buffer::new().format(block.length).as_bytes());
    target.push(b'\n');
}

fn line_bytes(block: &Listed) -> usize {
    Hash::HEX_DIGITS + itoa::Buffer::new().format(block.length).len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_it_is_said_to_be() {
        for length in [0, 9, 10, 524_288] {
            let (block, mut line) = (Listed { hash: Hash::of(b"x"), length }, Vec::new());
            write(&block, &mut line);
            assert_eq!(line.len(), line_bytes(&block));
            assert_eq!(String::from_utf8(line).unwrap(), format!("{} {length}\n", block.hash));
        }
    }
}
