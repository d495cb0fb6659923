//! Conditional requests (RFC 9110 section 13).

use super::case::{Case, DIGITS, Fixture, ask, case, send};
use crate::support::name;

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    let mut cases = reading(fixture);
    cases.extend(storing(fixture));
    cases.extend(removing());
    cases
}

fn reading(fixture: &Fixture) -> Vec<Case> {
    let (path, absent) = (format!("/{}", fixture.digits), format!("/{}", fixture.absent));
    let own = format!("\"{}\"", fixture.digits);
    let get = |fields: &[&str]| ask("GET", &path, fields);
    let had = |sentence: &str, request: Vec<u8>| {
        case(sentence, request, 304)
            .has("etag", own.clone())
            .has("cache-control", "public, max-age=31536000, immutable")
            .lacks("content-length")
            .lacks("content-type")
    };
    let none_match = |value: &str| format!("If-None-Match: {value}");
    let must_match = |value: &str| format!("If-Match: {value}");
    vec![
        had("who has the block is told so", get(&[&none_match(&own)])),
        had("HEAD too", ask("HEAD", &path, &[&none_match(&own)])),
        had("weak tags are compared weakly", get(&[&none_match(&format!("W/{own}"))])),
        had("one tag of a list suffices", get(&[&none_match(&format!("\"a\", \"b,c\" , {own}"))])),
        had("lists may be spread over fields", get(&[&none_match("\"a\""), &none_match(&own)])),
        had("* is whatever there is", get(&[&none_match("*")])),
        had("before any range is looked at", get(&[&none_match(&own), "Range: bytes=99-"])),
        case("who has another block gets this one", get(&[&none_match("\"a\"")]), 200).body(DIGITS),
        case("a name without quotes is no tag", get(&[&none_match(&fixture.digits)]), 200).body(DIGITS),
        case("tags are compared byte by byte", get(&[&none_match(&own.to_uppercase())]), 200).body(DIGITS),
        case("what is not there is not there", ask("GET", &absent, &[&none_match("*")]), 404),
        case("even for who has it", ask("GET", &absent, &[&none_match(&format!("\"{}\"", fixture.absent))]), 404),
        case("If-Match with the block's tag holds", get(&[&must_match(&own)]), 200).body(DIGITS),
        case("If-Match with * holds", get(&[&must_match("*")]), 200).body(DIGITS),
        case("If-Match with another tag fails", get(&[&must_match("\"a\"")]), 412),
        case("If-Match compares strongly", get(&[&must_match(&format!("W/{own}"))]), 412),
        case("HEAD fails too", ask("HEAD", &path, &[&must_match("\"a\"")]), 412),
        case("If-Match comes before If-None-Match", get(&[&none_match(&own), &must_match("\"a\"")]), 412),
        case("and lets it have its say", get(&[&none_match(&own), &must_match(&own)]), 304),
        case("what is not there answers 404, not 412", ask("GET", &absent, &[&must_match("*")]), 404),
        case("a range of what matches is a range", get(&[&must_match(&own), "Range: bytes=1-1"]), 206).body(b"1"),
        case("dates are ignored: there are none", get(&["If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT"]), 200),
        case("in either direction", get(&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"]), 200),
    ]
}

fn storing(fixture: &Fixture) -> Vec<Case> {
    let path = format!("/{}", fixture.digits);
    let own = format!("\"{}\"", fixture.digits);
    let (new, newer) = (format!("/{}", name(b"new")), format!("/{}", name(b"newer")));
    let put = |fields: &[&str]| send("PUT", &path, fields, DIGITS);
    vec![
        case("PUT unless it is there fails where it is", put(&["If-None-Match: *"]), 412),
        case("PUT unless it is this one fails too", put(&[&format!("If-None-Match: {own}")]), 412),
        case("PUT unless it is another goes on", put(&["If-None-Match: \"a\""]), 200),
        case("PUT where it is this one goes on", put(&[&format!("If-Match: {own}")]), 200),
        case("PUT where it is another fails", put(&["If-Match: \"a\""]), 412),
        case("PUT where it is there fails where it is not", send("PUT", &new, &["If-Match: *"], b"new"), 412),
        case("and nothing was stored", ask("GET", &new, &[]), 404),
        case("PUT unless it is there stores what is not", send("PUT", &newer, &["If-None-Match: *"], b"newer"), 201),
        case("once", send("PUT", &newer, &["If-None-Match: *"], b"newer"), 412),
        case(
            "a condition that fails is told before the body is sent",
            ask("PUT", &newer, &["If-None-Match: *", "Expect: 100-continue", "Content-Length: 5"]),
            412,
        )
        .closes(),
        case(
            "a condition that holds asks for the body",
            send("PUT", &newer, &["If-Match: *", "Expect: 100-continue"], b"newer"),
            200,
        ),
        case("what has no length is refused for that", ask("PUT", &path, &["If-Match: \"a\""]), 411).closes(),
        case("as is what is too large", ask("PUT", &path, &["If-Match: \"a\"", "Content-Length: 524289"]), 413)
            .closes(),
        case("at / there is nothing to match", send("PUT", "/", &["If-Match: *"], b"x"), 412),
        case("and nothing to be unlike", send("PUT", "/", &["If-None-Match: *"], b"x"), 200),
        case("of POST too", send("POST", "/", &["If-Match: \"x\""], b"x"), 412),
    ]
}

fn removing() -> Vec<Case> {
    let path = format!("/{}", name(b"guarded"));
    let own = format!("If-Match: \"{}\"", name(b"guarded"));
    vec![
        case("a block to be removed is stored", send("PUT", &path, &[], b"guarded"), 201),
        case("DELETE where it is another fails", ask("DELETE", &path, &["If-Match: \"a\""]), 412),
        case("DELETE unless it is there fails", ask("DELETE", &path, &["If-None-Match: *"]), 412),
        case("and it is still there", ask("HEAD", &path, &[]), 200),
        case("DELETE where it is this one removes it", ask("DELETE", &path, &[&own]), 204),
        case("and then it is not there, whatever is asked", ask("DELETE", &path, &[&own]), 404),
        case("nor if it should not be", ask("DELETE", &path, &["If-None-Match: *"]), 404),
    ]
}
