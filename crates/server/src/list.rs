//! `GET /-/blocks`: the blocks that are stored, in the order of their names, a page at a time.

use crate::connection::{Connection, GoesOn};
use crate::get;
use crate::lines;
use crate::request::Head;
use crate::request_error::RequestError;
use crate::target::ListQuery;
use buddy_store::{Hash, Listed};

/// Answers with a page.
pub(crate) async fn answer(connection: &Connection, head: &Head, query: ListQuery) -> Result<GoesOn, RequestError> {
    // What is listed counts as memory for replies, so that those who ask for much and read slowly wait for each other.
    let _room = get::reply_buffer(connection, query.limit * size_of::<Listed>()).await?;
    let listed = connection.worker.session.list(query.after, query.limit).await;
    let listed = listed.map_err(|error| RequestError::after_body(error.into()))?;
    let bytes = listed.iter().map(line_bytes).sum();
    lines::send(connection, head, bytes, listed.len(), |number, target| {
        if let Some(block) = listed.get(number) {
            write(block, target);
        }
    })
    .await
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
