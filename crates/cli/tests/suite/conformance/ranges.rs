//! Ranges of bytes (RFC 9110 section 14).

use super::case::{Case, DIGITS, Fixture, ask, case};
use crate::support::{Server, bytes, name};

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    let path = format!("/{}", fixture.digits);
    let get = |range: &str| ask("GET", &path, &[range]);
    let part = |sentence: &str, range: &str, at: std::ops::Range<usize>| {
        case(sentence, get(range), 206)
            .has("content-range", format!("bytes {}-{}/10", at.start, at.end - 1))
            .has("content-length", at.len().to_string())
            .has("etag", format!("\"{}\"", fixture.digits))
            .has("accept-ranges", "bytes")
            .has("content-type", "application/octet-stream")
            .has("cache-control", "public, max-age=31536000, immutable")
            .has("repr-digest", "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:")
            .body(&DIGITS[at])
    };
    let whole = |sentence: &str, range: &str| case(sentence, get(range), 200).lacks("content-range").body(DIGITS);
    let none = |sentence: &str, range: &str| case(sentence, get(range), 416).has("content-range", "bytes */10");
    let mut cases = vec![
        part("a-b are both ends", "Range: bytes=2-5", 2..6),
        part("one byte is a range", "Range: bytes=0-0", 0..1),
        part("a- goes to the end", "Range: bytes=7-", 7..10),
        part("0- is everything, as a part", "Range: bytes=0-", 0..10),
        part("-n is the end", "Range: bytes=-3", 7..10),
        part("-n of more than there is is everything", "Range: bytes=-30", 0..10),
        part("an end behind the end is the end", "Range: bytes=8-99999999999999999999999", 8..10),
        part("the unit is read in either case", "Range: BYTES=1-2", 1..3),
        part("spaces around a range are passed over", "Range: bytes= 1-2 ", 1..3),
        part("empty elements of a list are passed over", "Range: bytes=,1-2,", 1..3),
        whole("several ranges are answered with everything", "Range: bytes=0-1,3-4"),
        whole("several ranges of which one is behind the end too", "Range: bytes=0-1,30-40"),
        whole("two fields are two ranges", "Range: bytes=0-1\r\nRange: bytes=0-1"),
        whole("a range whose end lies before its beginning is ignored", "Range: bytes=5-2"),
        whole("another unit is ignored", "Range: lines=1-2"),
        whole("a range without a number is ignored", "Range: bytes=-"),
        whole("a range without a dash is ignored", "Range: bytes=1"),
        whole("a range without anything is ignored", "Range: bytes="),
        whole("a field without anything is ignored", "Range:"),
        whole("signs are no digits", "Range: bytes=+1-2"),
        whole("hex digits are no digits", "Range: bytes=0x1-2"),
        whole("a range with a space within is ignored", "Range: bytes=1 -2"),
        none("a beginning behind the end cannot be satisfied", "Range: bytes=10-"),
        none("nor one far behind it", "Range: bytes=4294967296-4294967300"),
        none("nor the last no bytes", "Range: bytes=-0"),
        case("HEAD has no ranges", ask("HEAD", &path, &["Range: bytes=2-5"]), 200)
            .has("content-length", "10")
            .lacks("content-range"),
        case(
            "a range of what is not there answers 404",
            ask("GET", &format!("/{}", fixture.absent), &["Range: bytes=0-1"]),
            404,
        ),
        case(
            "a range of the empty block cannot be satisfied",
            ask("GET", &format!("/{}", fixture.empty), &["Range: bytes=0-"]),
            416,
        )
        .has("content-range", "bytes */0"),
        case(
            "the end of the empty block is the empty block",
            ask("GET", &format!("/{}", fixture.empty), &["Range: bytes=-1"]),
            200,
        )
        .body(b""),
    ];
    let own = format!("If-Range: \"{}\"", fixture.digits);
    let weak = format!("If-Range: W/\"{}\"", fixture.digits);
    cases.extend([
        part("If-Range with the block's tag lets the range stand", &format!("Range: bytes=2-5\r\n{own}"), 2..6),
        part("in any order", &format!("{own}\r\nRange: bytes=2-5"), 2..6),
        whole("If-Range with another tag does not", "Range: bytes=2-5\r\nIf-Range: \"x\""),
        whole("nor with a weak one", &format!("Range: bytes=2-5\r\n{weak}")),
        whole("nor with a date: there are none", "Range: bytes=2-5\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT"),
        whole("a range that is stale cannot fail", "Range: bytes=99-\r\nIf-Range: \"x\""),
        whole("If-Range alone means nothing", &own),
    ]);
    cases
}

/// Ranges of blocks of all sizes, small and large ranges, cold and warm: the first read of a range is from the disk, the second from
/// the page cache.
pub fn every_path(server: &Server, fixture: &Fixture) {
    let mut client = server.connect();
    let mut random = fastrand::Rng::with_seed(4711);
    let mut blocks = vec![fixture.small.clone(), fixture.large.clone()];
    blocks.extend([4096, 4097, 32_768, 32_769, 70_000, 524_288].map(|size| bytes(u64::from(random.u32(..)), size)));
    for body in &blocks {
        let path = format!("/{}", name(body));
        assert_eq!(client.request("PUT", "/", &[], body).status, 200);
        for _ in 0..12 {
            let start = random.usize(..body.len());
            let end = match random.u8(..3) {
                0 => body.len(),
                1 => (start + random.usize(1..5000)).min(body.len()),
                _ => random.usize(start + 1..=body.len()),
            };
            let range = format!("Range: bytes={start}-{}", end - 1);
            for _ in 0..2 {
                let reply = client.request("GET", &path, &[&range], b"");
                assert_eq!(reply.status, 206, "{range} of {}", body.len());
                assert!(reply.body == body[start..end], "{range} of {}", body.len());
            }
        }
        assert!(client.request("GET", &path, &[], b"").body == *body);
    }
}
