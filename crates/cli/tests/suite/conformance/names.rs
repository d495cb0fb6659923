//! Which names are missing, which there are.

use super::case::{Case, Fixture, ask, case, send};
use crate::support::name;

const TEXT: &str = "Content-Type: text/plain";
const RAW: &str = "Content-Type: application/octet-stream";

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    let mut cases = missing(fixture);
    cases.extend(bad_names(fixture));
    cases.extend(listing(fixture));
    cases
}

fn raw(names: &[&str]) -> Vec<u8> {
    let bytes = |name: &&str| buddy_store::Hash::from_hex(name.as_bytes()).unwrap().as_bytes().to_vec();
    names.iter().flat_map(bytes).collect()
}

fn missing(fixture: &Fixture) -> Vec<Case> {
    let (digits, empty, absent) = (&*fixture.digits, &*fixture.empty, &*fixture.absent);
    let other = &*name(b"absent too");
    let post = |fields: &[&str], body: &[u8]| send("POST", "/-/missing", fields, body);
    let text = |names: &[&str]| names.iter().map(|name| format!("{name}\n")).collect::<String>();
    let many: Vec<String> = (0..16_384u32).map(|number| name(&number.to_le_bytes())).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        case(
            "names that are not stored are answered in their order",
            post(&[TEXT], text(&[other, digits, absent, empty]).as_bytes()),
            200,
        )
        .body(text(&[other, absent]))
        .has("content-type", "text/plain")
        .has("cache-control", "no-store"),
        case("as often as they are asked for", post(&[TEXT], text(&[absent, absent]).as_bytes()), 200)
            .body(text(&[absent, absent])),
        case("where all are stored nothing is answered", post(&[TEXT], text(&[digits, empty]).as_bytes()), 200)
            .body(b""),
        case("who asks for nothing gets nothing", post(&[TEXT], b""), 200).body(b""),
        case("the last line need not end", post(&[TEXT], absent.as_bytes()), 200).body(text(&[absent])),
        case("lines may end in CRLF", post(&[TEXT], format!("{absent}\r\n{digits}\r\n").as_bytes()), 200)
            .body(text(&[absent])),
        case("empty lines are passed over", post(&[TEXT], format!("\n{absent}\n\n\r\n").as_bytes()), 200)
            .body(text(&[absent])),
        case("names are read in either case", post(&[TEXT], text(&[&absent.to_uppercase()]).as_bytes()), 200)
            .body(text(&[absent])),
        case(
            "a type may have parameters",
            post(&["Content-Type: Text/Plain; charset=us-ascii"], absent.as_bytes()),
            200,
        )
        .body(text(&[absent])),
        case("raw names are answered raw", post(&[RAW], &raw(&[other, digits, absent])), 200)
            .body(raw(&[other, absent]))
            .has("content-type", "application/octet-stream"),
        case("raw nothing is nothing", post(&[RAW], b""), 200).body(b""),
        case(
            "names may come in chunks",
            {
                let half = &absent[..32];
                let rest = &absent[32..];
                let head = ask("POST", "/-/missing", &[TEXT, "Transfer-Encoding: chunked"]);
                [head, format!("20\r\n{half}\r\n20\r\n{rest}\r\n0\r\n\r\n").into_bytes()].concat()
            },
            200,
        )
        .body(text(&[absent])),
        case("16,384 names may be asked for at once", post(&[TEXT], text(&many).as_bytes()), 200).body(text(&many)),
        case(
            "raw ones from the head too",
            ask("POST", "/-/missing", &[RAW, "Content-Length: 524320", "Expect: 100-continue"]),
            413,
        )
        .closes(),
        case("raw too", post(&[RAW], &raw(&many)), 200).body(raw(&many)),
        case(
            "who waits for 100 Continue gets it",
            ask("POST", "/-/missing", &[RAW, "Expect: 100-continue", "Content-Length: 32"]),
            100,
        )
        .and_then_body(raw(&[absent]), 200),
    ]
}

fn bad_names(fixture: &Fixture) -> Vec<Case> {
    let absent = &*fixture.absent;
    let post = |fields: &[&str], body: &[u8]| send("POST", "/-/missing", fields, body);
    let lines = format!("{absent}\n").repeat(16_385);
    vec![
        case("a name that is none is told with its line", post(&[TEXT], format!("{absent}\nabc\n").as_bytes()), 400)
            .says("line 2: ")
            .closes(),
        case("a name that is cut at the end too", post(&[TEXT], format!("{absent}\n{}", &absent[1..]).as_bytes()), 400)
            .says("line 2: "),
        case("a line that never ends is refused", post(&[TEXT], &[b'a'; 5000]), 400).closes(),
        case("raw names of 32 bytes each", post(&[RAW], &[7; 33]), 400).says("1 bytes"),
        case("more than 16,384 are too many", post(&[TEXT], lines.as_bytes()), 413).says("16384").closes(),
        case("raw too", post(&[RAW], &[7; 32 * 16_385]), 413).closes(),
        case(
            "what has more than that is refused from the head",
            ask("POST", "/-/missing", &[TEXT, "Content-Length: 2000000"]),
            413,
        )
        .closes(),
        case(
            "empty lines without end are too many too",
            {
                let head = ask("POST", "/-/missing", &[TEXT, "Transfer-Encoding: chunked"]);
                [head, format!("200000\r\n{}", "\n".repeat(0x20_0000)).into_bytes()].concat()
            },
            413,
        )
        .closes(),
        case("names of another type are not read", post(&["Content-Type: application/json"], b"[]"), 415),
        case("nor of none", post(&[], absent.as_bytes()), 415).says("Content-Type"),
        case("names need a length", ask("POST", "/-/missing", &[TEXT]), 411).closes(),
        case("GET /-/missing is not offered", ask("GET", "/-/missing", &[]), 405).has("allow", "POST"),
        case("PUT /-/missing is not offered", send("PUT", "/-/missing", &[], b""), 405).has("allow", "POST"),
    ]
}

fn listing(fixture: &Fixture) -> Vec<Case> {
    let list = |query: &str| ask("GET", &format!("/-/blocks{query}"), &[]);
    let line = format!("{} 10\n", fixture.digits);
    let before = {
        // The name before it, if any block had that.
        let (head, last) = fixture.digits.split_at(63);
        let digit = u8::from_str_radix(last, 16).unwrap().checked_sub(1).unwrap();
        format!("{head}{digit:x}")
    };
    vec![
        case("blocks are listed with their lengths", list(""), 200)
            .says(&*line)
            .has("content-type", "text/plain")
            .has("cache-control", "no-store"),
        case("the empty one too", list("?limit=10000"), 200).says(format!("{} 0\n", fixture.empty)),
        case("from behind a name on, so many", list(&format!("?after={before}&limit=1")), 200).body(line),
        case("a name may be in upper case", list(&format!("?limit=1&after={}", "F".repeat(64))), 200).body(b""),
        case("behind the last there is nothing", list(&format!("?after={}", "f".repeat(64))), 200).body(b""),
        case("from no name on is from the first", list("?after=&limit=10000"), 200).says(&fixture.digits),
        case("HEAD answers what GET would", ask("HEAD", "/-/blocks?limit=1", &[]), 200).body(b""),
        case("a list of none is refused", list("?limit=0"), 400).says("between 1 and 10000"),
        case("as is one of too many", list("?limit=10001"), 400).says("10001"),
        case("or of a word", list("?limit=all"), 400).says("\\\"all\\\""),
        case("a name that is none is refused", list("?after=abc"), 400).says("64 hex digits"),
        case("what is not known is refused", list("?offset=1"), 400).says("offset"),
        case("what is given twice is refused", list("?limit=1&limit=2"), 400).says("twice"),
        case("POST /-/blocks is not offered", send("POST", "/-/blocks", &[], b""), 405).has("allow", "GET, HEAD"),
    ]
}
