//! What two programs might read differently, so that one smuggles a request past the other, and what is simply broken. Each must be
//! refused, and the connection must end: nothing that follows is taken for a request.

use super::case::{Case, Fixture, case};
use crate::support::name;

pub fn cases(_fixture: &Fixture) -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(chunks());
    cases.extend(heads());
    cases.extend(request_lines());
    cases
}

/// What would be found stored if the second request were taken for one.
const SMUGGLED: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nsmuggled";

fn put(fields: &str, body: &str) -> String {
    format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{SMUGGLED}")
}

fn lengths() -> Vec<Case> {
    let refused = |sentence: &str, fields: &str, status: u16| case(sentence, put(fields, "0\r\n\r\n"), status).closes();
    vec![
        refused("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        refused("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        refused("a length of nothing and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
        refused("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        refused("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        refused("a list of lengths", "Content-Length: 5, 5\r\n", 400),
        refused("a length with a sign", "Content-Length: +5\r\n", 400),
        refused("a negative length", "Content-Length: -5\r\n", 400),
        refused("a length in hex", "Content-Length: 0x5\r\n", 400),
        refused("a length with a point", "Content-Length: 5.0\r\n", 400),
        refused("a length with a space within", "Content-Length: 1 5\r\n", 400),
        refused("a length in quotes", "Content-Length: \"5\"\r\n", 400),
        refused("a length of no digits", "Content-Length:\r\n", 400),
        refused("digits of another script", "Content-Length: \u{0665}\r\n", 400),
        refused("a length of 2^64 + 5", "Content-Length: 18446744073709551621\r\n", 413),
        refused("a length of forty digits", &format!("Content-Length: {}\r\n", "9".repeat(40)), 413),
        refused("a coding that is not known", "Transfer-Encoding: gzip\r\n", 501),
        refused("chunks within a coding", "Transfer-Encoding: gzip, chunked\r\n", 501),
        refused("a coding over chunks", "Transfer-Encoding: chunked, gzip\r\n", 501),
        refused("chunks twice", "Transfer-Encoding: chunked, chunked\r\n", 501),
        refused("chunks in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        refused(
            "another coding in a second field",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            501,
        ),
        refused("almost chunked", "Transfer-Encoding: xchunked\r\n", 501),
        refused("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n", 501),
        refused("chunked with a parameter", "Transfer-Encoding: chunked;a=b\r\n", 501),
        refused("chunked behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", 400),
        refused("an empty coding", "Transfer-Encoding:\r\n", 501),
        refused("an unknown coding and a length", "Transfer-Encoding: x\r\nContent-Length: 5\r\n", 501),
        case(
            "chunks in HTTP/1.0",
            format!("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            400,
        )
        .closes(),
        case("what may be the body of a write without a length is no request", put("", ""), 411).closes(),
    ]
}

fn chunks() -> Vec<Case> {
    let refused =
        |sentence: &str, chunks: &str| case(sentence, put("Transfer-Encoding: chunked\r\n", chunks), 400).closes();
    let huge = "f".repeat(16);
    vec![
        refused("a chunk without a size", "\r\n\r\n"),
        refused("a size that is no number", "g\r\nx\r\n0\r\n\r\n"),
        refused("a size with a sign", "+1\r\nx\r\n0\r\n\r\n"),
        refused("a negative size", "-1\r\nx\r\n0\r\n\r\n"),
        refused("a size with a prefix", "0x1\r\nx\r\n0\r\n\r\n"),
        refused("a size behind a space", " 1\r\nx\r\n0\r\n\r\n"),
        refused("a size before a space", "1 \r\nx\r\n0\r\n\r\n"),
        refused("a size of more than 64 bits", &format!("{huge}1\r\nx\r\n0\r\n\r\n")),
        case(
            "a size of 64 bits",
            put("Transfer-Encoding: chunked\r\n", &format!("{huge}\r\n{}", "x".repeat(600_000))),
            413,
        )
        .closes(),
        refused("a size that ends in a line feed", "1\nx\r\n0\r\n\r\n"),
        refused("a size that ends in a carriage return", "1\rx\r\n0\r\n\r\n"),
        refused("an extension that ends in a line feed", "1;a\nx\r\n0\r\n\r\n"),
        refused("data that are longer than their size", "1\r\nxy\r\n0\r\n\r\n"),
        refused("data that end in a line feed", "1\r\nx\n0\r\n\r\n"),
        refused("a last chunk that ends in a line feed", "1\r\nx\r\n0\n\r\n"),
        refused("trailers that end in a line feed", "0\r\nA: b\n\r\n"),
        refused("an end that is a line feed", "0\r\n\n"),
        refused("a carriage return in a trailer", "0\r\nA: b\rc\r\n\r\n"),
        refused("an extension without end", &format!("1;{}", "a".repeat(2000))),
        refused("trailers without end", &format!("0\r\n{}", "A: b\r\n".repeat(3000))),
    ]
}

fn heads() -> Vec<Case> {
    let refused = |sentence: &str, fields: &str| case(sentence, put(fields, ""), 400).closes();
    let host = |sentence: &str, host: &str| {
        case(sentence, format!("GET /-/health HTTP/1.1\r\n{host}\r\n{SMUGGLED}"), 400).closes()
    };
    vec![
        refused("a folded line", "A: b\r\n c: d\r\nContent-Length: 0\r\n"),
        refused("a line folded with a tab", "A: b\r\n\tc\r\nContent-Length: 0\r\n"),
        refused("a folded length", "Content-Length:\r\n 5\r\n"),
        refused("a folded first line", " A: b\r\nContent-Length: 0\r\n"),
        refused("a space before a colon", "Content-Length : 0\r\n"),
        refused("a tab before a colon", "Transfer-Encoding\t: chunked\r\n"),
        refused("a space in a name", "Content Length: 0\r\n"),
        refused("a name of nothing", ": a\r\nContent-Length: 0\r\n"),
        refused("a line without a colon", "nonsense\r\nContent-Length: 0\r\n"),
        refused("a name with a control character", "A\x01: b\r\nContent-Length: 0\r\n"),
        refused("a zero in a name", "A\0: b\r\nContent-Length: 0\r\n"),
        refused("a zero in a value", "A: b\0c\r\nContent-Length: 0\r\n"),
        refused("a carriage return in a value", "A: b\rContent-Length: 0\r\n"),
        refused("a line that ends in a line feed", "A: b\nContent-Length: 0\r\n"),
        refused("lines that end in a line feed", "A: b\nContent-Length: 0\n"),
        refused("a delete character in a value", "A: \x7f\r\nContent-Length: 0\r\n"),
        case("a head that ends in a line feed", format!("GET / HTTP/1.1\r\nHost: a\r\n\n{SMUGGLED}"), 400).closes(),
        case("a head of line feeds", format!("GET / HTTP/1.1\nHost: a\n\n{SMUGGLED}"), 400).closes(),
        case("a line feed before a request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400).closes(),
        host("no host", ""),
        host("two hosts", "Host: a\r\nHost: b\r\n"),
        host("the same host twice", "Host: a\r\nHost: a\r\n"),
        host("a host with a path", "Host: a/b\r\n"),
        host("a host with a space", "Host: a b\r\n"),
        host("a host with a user", "Host: user@a\r\n"),
        host("a host that is no text", "Host: \u{fffd}\r\n"),
        case("an absolute target has a host too", "GET http://a/-/health HTTP/1.1\r\n\r\n", 400).closes(),
    ]
}

fn request_lines() -> Vec<Case> {
    let hash = name(b"0123456789");
    let refused = |sentence: &str, line: &str, status: u16| {
        case(sentence, format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}"), status).closes()
    };
    vec![
        refused("HTTP/2", "GET / HTTP/2.0", 505),
        refused("HTTP/3.0", "GET / HTTP/3.0", 505),
        refused("HTTP/1.2", "GET / HTTP/1.2", 505),
        refused("http in lower case", "GET / http/1.1", 505),
        refused("no version", "GET /", 400),
        refused("HTTP/0.9", "GET /\r\n", 400),
        refused("a version of nothing", "GET / HTTP/", 505),
        refused("two spaces", "GET  / HTTP/1.1", 400),
        refused("a space before the method", " GET / HTTP/1.1", 400),
        refused("a tab for a space", "GET\t/ HTTP/1.1", 400),
        refused("a space in the target", &format!("GET /{hash} /x HTTP/1.1"), 505),
        refused("a space behind the version", "GET / HTTP/1.1 ", 400),
        refused("a method that is no token", "GE(T / HTTP/1.1", 400),
        refused("a method with a zero", "GE\0T / HTTP/1.1", 400),
        refused("a zero in the target", "GET /\0 HTTP/1.1", 400),
        refused("a carriage return in the target", "GET /\rX HTTP/1.1", 400),
        case("the beginning of TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"[..], 400).closes(),
        case("the preface of HTTP/2", &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], 505).closes(),
        case("zeros", &[0; 100][..], 400).closes(),
    ]
}
