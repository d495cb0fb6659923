//! Where a request begins and ends, and whether another may follow (RFC 9112).

use super::case::{Case, DIGITS, Fixture, ask, case, chunked, send};
use crate::support::name;

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    let mut cases = persistence();
    cases.extend(bodies_that_mean_nothing(fixture));
    cases.extend(expectations());
    cases.extend(pipelines(fixture));
    cases.extend(heads());
    cases
}

fn persistence() -> Vec<Case> {
    let get = |version: &str, fields: &str| format!("GET /-/health HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
    vec![
        case("HTTP/1.1 goes on", get("1.1", ""), 200).lacks("connection"),
        case("unless the client is done", get("1.1", "Connection: close\r\n"), 200).closes(),
        case("however it writes that", get("1.1", "connection: Foo , CLOSE\r\n"), 200).closes(),
        case("or spreads it over fields", get("1.1", "Connection: foo\r\nConnection: close\r\n"), 200).closes(),
        case("close is stronger than keep-alive", get("1.1", "Connection: keep-alive, close\r\n"), 200).closes(),
        case("HTTP/1.0 ends", get("1.0", ""), 200).closes(),
        case("unless the client wants to go on", get("1.0", "Connection: Keep-Alive\r\n"), 200)
            .has("connection", "keep-alive"),
        case("HTTP/1.0 needs no host", "GET /-/health HTTP/1.0\r\n\r\n", 200).closes(),
        case("but has one at most", "GET /-/health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400).closes(),
        case("what is asked for is ended after the refusal too", ask("GET", "/abc", &["Connection: close"]), 400)
            .closes(),
        case("a refusal alone ends nothing", ask("GET", "/abc", &[]), 400).lacks("connection"),
        case("the body of a refused request is passed over", send("PUT", "/abc", &[], &[b'x'; 60_000]), 400),
        case("in chunks, too", chunked("PUT", "/abc", "1\r\nx\r\n0\r\n\r\n"), 400).lacks("connection"),
        case(
            "but not a large one",
            chunked("PUT", "/abc", &format!("10001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x10001))),
            400,
        )
        .closes(),
    ]
}

/// Bodies of requests that have no use for one (RFC 9110 section 9.3.1).
fn bodies_that_mean_nothing(fixture: &Fixture) -> Vec<Case> {
    const EXPECT: &str = "Expect: 100-continue";
    let chunks = |fields: &[&str], chunks: &str| {
        let head = ask("GET", "/-/health", &[&["Transfer-Encoding: chunked"], fields].concat());
        [head, chunks.as_bytes().to_vec()].concat()
    };
    let too_large = "too large to be passed over";
    vec![
        case("it is passed over", send("GET", "/-/health", &[], &[b'x'; 60_000]), 200),
        case("as are chunks", chunks(&[], "1\r\nx\r\n0\r\n\r\n"), 200),
        case("also where it could have waited", send("GET", "/-/health", &[EXPECT], b"at once"), 200),
        case("of DELETE, too", send("DELETE", &format!("/{}", fixture.absent), &[EXPECT], b"at once"), 404),
        case("in chunks, too", chunks(&[EXPECT], "1\r\nx\r\n0\r\n\r\n"), 200),
        case("who waits to send it gets 100 Continue", ask("GET", "/-/health", &[EXPECT, "Content-Length: 5"]), 100)
            .and_then_body(b"later", 200),
        case("for chunks of it, too", chunks(&[EXPECT], ""), 100).and_then_body(b"1\r\nx\r\n0\r\n\r\n", 200),
        case("a large one is not passed over", send("GET", "/-/health", &[], &[b'x'; 65_537]), 400)
            .says(too_large)
            .closes(),
        case("nor waited for", ask("GET", "/-/health", &[EXPECT, "Content-Length: 65537"]), 400)
            .says(too_large)
            .closes(),
        case("nor in chunks", chunks(&[], &format!("10001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x10001))), 400)
            .says(too_large)
            .closes(),
        case("a bad chunk is called one", chunks(&[], "zz\r\n"), 400).says("malformed chunk").closes(),
    ]
}

fn expectations() -> Vec<Case> {
    let put = |fields: &[&str]| ask("PUT", "/", fields);
    vec![
        case("who waits for 100 Continue gets it", put(&["Expect: 100-continue", "Content-Length: 5"]), 100)
            .lacks("date")
            .and_then_body(b"later", 200),
        case("in any case of letters", put(&["Expect: 100-Continue", "Content-Length: 5"]), 100)
            .and_then_body(b"later", 200),
        case("for chunks too", put(&["Expect: 100-continue", "Transfer-Encoding: chunked"]), 100)
            .and_then_body(b"1\r\nx\r\n0\r\n\r\n", 200),
        case("who does not wait needs none", send("PUT", "/", &["Expect: 100-continue"], b"at once"), 200),
        case("other expectations cannot be met", put(&["Expect: tea", "Content-Length: 1"]), 417).closes(),
        case("nor this one and others", put(&["Expect: 100-continue, tea", "Content-Length: 1"]), 417).closes(),
        case(
            "what is refused from the head asks for no body",
            ask("PUT", "/abc", &["Expect: 100-continue", "Content-Length: 5"]),
            400,
        )
        .closes(),
        case(
            "of what is refused a body that has come is passed over",
            send("PUT", "/abc", &["Expect: 100-continue"], b"at once"),
            400,
        )
        .lacks("connection"),
        case("a refusal of HEAD has no body", ask("HEAD", "/-/health", &["Expect: tea"]), 417).closes(),
        case("whatever is wrong with it", ask("HEAD", "/-/health", &["Content-Length: x"]), 400).closes(),
        case("too much is refused before it is sent", put(&["Expect: 100-continue", "Content-Length: 600000"]), 413)
            .closes(),
        case(
            "HTTP/1.0 knows no expectations",
            "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
            200,
        )
        .closes(),
        case(
            "a request without a body has nothing to wait for",
            ask("GET", "/-/health", &["Expect: 100-continue"]),
            200,
        ),
    ]
}

fn pipelines(fixture: &Fixture) -> Vec<Case> {
    let get = ask("GET", &format!("/{}", fixture.digits), &[]);
    let gets = get.repeat(40);
    let mut many = case("forty requests at once are answered", gets, 200).body(DIGITS);
    for _ in 1..40 {
        many = many.then(200);
    }
    let mixed = [
        send("PUT", "/", &[], b"1"),
        chunked("POST", "/", "1\r\n2\r\n0\r\n\r\n"),
        ask("GET", "/abc", &[]),
        ask("OPTIONS", "/", &["Content-Length: 0"]),
    ]
    .concat();
    vec![
        many,
        case("requests of all kinds are answered in order", [mixed, get.clone()].concat(), 200)
            .body(name(b"1"))
            .then(201)
            .then(400)
            .then(204)
            .then(200),
        case(
            "what follows the last request is not answered",
            [ask("GET", "/-/health", &["Connection: close"]), get].concat(),
            200,
        )
        .closes(),
    ]
}

fn heads() -> Vec<Case> {
    let fields = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    let get = |fields: &str| format!("GET /-/health HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long = |bytes: usize| get(&format!("Long: {}\r\n", "x".repeat(bytes)));
    vec![
        case("empty lines before a request are passed over", format!("\r\n\r\n{}", get("")), 200),
        case("fields that nobody knows are ignored", get("Foo: bar\r\nX-Y: z\r\n"), 200),
        case("a field may be empty", get("Foo:\r\n"), 200),
        case("spaces around a value are passed over", get("Content-Length: \t 0 \t\r\n"), 200),
        case("names of fields are read in any case", "GET /-/health HTTP/1.1\r\nhOST: a\r\n\r\n", 200),
        case("a host may be empty", "GET /-/health HTTP/1.1\r\nHost:\r\n\r\n", 200),
        case("or an address of any kind", "GET /-/health HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
        case("sixty-four fields are read", get(&fields(63)), 200),
        case("sixty-five are too many", get(&fields(64)), 431).closes(),
        case("a head of 16 KiB is read", long(16 * 1024 - 60), 200),
        case("a longer one is not", long(16 * 1024), 431).says("16384 bytes").closes(),
        case("nor one that never ends", format!("GET / HTTP/1.1\r\nLong: {}", "x".repeat(20_000)), 431).closes(),
        case("nor a target of that length", format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), 431).closes(),
        case("a length may have leading zeros", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0001\r\n\r\nx", 200),
    ]
}
