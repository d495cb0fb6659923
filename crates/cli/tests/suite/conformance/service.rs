//! What the server says of itself, which methods there are, and which pages in browsers may use them.

use super::case::{Case, DIGITS, Fixture, ask, case, send};

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    let block = format!("/{}", fixture.digits);
    let options = |target: &str| ask("OPTIONS", target, &[]);
    let mut cases = vec![
        case("it is healthy", ask("GET", "/-/health", &[]), 200).body(b"ok\n").has("cache-control", "no-store"),
        case("HEAD of health is health without its body", ask("HEAD", "/-/health", &[]), 200)
            .has("content-length", "3"),
        case("it is ready", ask("GET", "/-/ready", &[]), 200).body(b"ready\n"),
        case("its figures are JSON", ask("GET", "/-/stats?x", &[]), 200).has("content-type", "application/json"),
        case("HEAD of figures has no figures", ask("HEAD", "/-/stats", &[]), 200).body(b""),
        case("it describes itself", ask("GET", "/-/openapi.yaml", &[]), 200)
            .says("openapi: 3.1")
            .has("content-type", "application/yaml"),
        case("names of its own may be percent-encoded", ask("GET", "/%2d/%68ealth", &[]), 200).body(b"ok\n"),
        case("but not their slashes", ask("GET", "/-%2fhealth", &[]), 400),
        case("DELETE /-/health is not offered", ask("DELETE", "/-/health", &[]), 405).has("allow", "GET, HEAD"),
        case("PUT /-/stats is not offered", send("PUT", "/-/stats", &[], b"x"), 405).has("allow", "GET, HEAD"),
        case("OPTIONS of a block", options(&block), 204)
            .has("allow", "GET, HEAD, PUT, DELETE, OPTIONS")
            .lacks("content-length")
            .lacks("access-control-allow-origin"),
        case("OPTIONS of a block that is not there", options(&format!("/{}", fixture.absent)), 204),
        case("OPTIONS of /", options("/"), 204).has("allow", "PUT, POST, OPTIONS"),
        case("OPTIONS of everything", options("*"), 204).has("allow", "GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        case("OPTIONS of /-/missing", options("/-/missing"), 204).has("allow", "POST, OPTIONS"),
        case("OPTIONS of /-/blocks", options("/-/blocks?x"), 400),
        case("OPTIONS of nothing", options("/-/nothing"), 404),
        case("OPTIONS of a name that is none", options("/abc"), 400),
        case("a body of OPTIONS means nothing", send("OPTIONS", &block, &[], b"x"), 204),
    ];
    cases.extend(without_cors(&block));
    cases
}

fn without_cors(block: &str) -> Vec<Case> {
    let origin = "Origin: https://a.example";
    vec![
        case("origins are nothing to it", ask("GET", block, &[origin]), 200)
            .body(DIGITS)
            .lacks("access-control-allow-origin")
            .lacks("vary"),
        case(
            "browsers that ask are not let in",
            ask("OPTIONS", block, &[origin, "Access-Control-Request-Method: PUT"]),
            204,
        )
        .lacks("access-control-allow-methods"),
    ]
}

const EXPOSED: &str =
    "Accept-Ranges, Allow, Content-Range, Date, ETag, Location, Repr-Digest, Retry-After, WWW-Authenticate";

pub fn cors_for_all(fixture: &Fixture) -> Vec<Case> {
    let block = format!("/{}", fixture.digits);
    let open = |sentence: &str, request: Vec<u8>, status: u16| {
        case(sentence, request, status)
            .has("access-control-allow-origin", "*")
            .has("access-control-expose-headers", EXPOSED)
            .lacks("vary")
    };
    vec![
        open("every page may read", ask("GET", &block, &["Origin: https://a.example"]), 200).body(DIGITS),
        open("and who is no page", ask("GET", &block, &[]), 200),
        open("ranges too", ask("GET", &block, &["Range: bytes=0-0"]), 206),
        open("and what was not modified", ask("GET", &block, &["If-None-Match: *"]), 304),
        open("and refusals", ask("GET", "/abc", &["Origin: null"]), 400),
        open("even of what is no request", b"nonsense\r\n\r\n".to_vec(), 400).closes(),
        open("what is stored", send("PUT", "/", &["Origin: https://a.example"], b"x"), 200),
        open(
            "who asks before is told what there is",
            {
                let asks = ["Origin: https://a.example", "Access-Control-Request-Method: PUT"];
                ask("OPTIONS", &block, &[&asks[..], &["Access-Control-Request-Headers: repr-digest"]].concat())
            },
            204,
        )
        .has("access-control-allow-methods", "GET, HEAD, PUT, DELETE")
        .has(
            "access-control-allow-headers",
            "Authorization, Content-Type, Expect, If-Match, If-None-Match, If-Range, Range, Repr-Digest",
        )
        .has("access-control-max-age", "86400"),
        open("who does not ask is not", ask("OPTIONS", &block, &["Origin: https://a.example"]), 204)
            .lacks("access-control-allow-methods"),
    ]
}

pub fn cors_for_some(fixture: &Fixture) -> Vec<Case> {
    let block = format!("/{}", fixture.digits);
    let asks = "Access-Control-Request-Method: DELETE";
    let closed = |sentence: &str, request: Vec<u8>, status: u16| {
        case(sentence, request, status)
            .has("vary", "Origin")
            .lacks("access-control-allow-origin")
            .lacks("access-control-allow-methods")
    };
    let open = |sentence: &str, fields: &[&str], status: u16, last: &str| {
        let refused = ask("PUT", "/", &[&["Origin: http://b:8080"], fields, &[last]].concat());
        case(sentence, refused, status)
            .has("access-control-allow-origin", "http://b:8080")
            .has("vary", "Origin")
            .closes()
    };
    vec![
        case("a page of that origin may read", ask("GET", &block, &["Origin: https://a.example"]), 200)
            .has("access-control-allow-origin", "https://a.example")
            .has("vary", "Origin"),
        case("and of the other", ask("GET", &block, &["Origin: http://b:8080"]), 200)
            .has("access-control-allow-origin", "http://b:8080"),
        case("and asks before", ask("OPTIONS", &block, &["Origin: http://b:8080", asks]), 204)
            .has("access-control-allow-methods", "GET, HEAD, PUT, DELETE"),
        open("refusals are for it, too", &[], 417, "Expect: tea"),
        open("of what is ambiguous", &["Content-Length: 1"], 400, "Content-Length: 1"),
        open("of a field that is none", &[], 400, "no field"),
        open("of too many fields", &["A: b"; 64], 431, "A: b"),
        open("of a head that is too large", &[], 431, &format!("Long: {}", "x".repeat(16 * 1024))),
        closed("but not for another", ask("PUT", "/", &["Origin: https://c.example", "Expect: tea"]), 417).closes(),
        closed("nor for none", b"nonsense\r\n\r\n".to_vec(), 400).closes(),
        closed("a page of another may not", ask("GET", &block, &["Origin: https://c.example"]), 200).body(DIGITS),
        closed("nor of one that looks like it", ask("GET", &block, &["Origin: https://a.example.org"]), 200),
        closed("nor of another scheme", ask("GET", &block, &["Origin: http://a.example"]), 200),
        closed("nor of another port", ask("GET", &block, &["Origin: http://b"]), 200),
        closed("nor of none", ask("GET", &block, &["Origin: null"]), 200),
        closed("who is no page is told that it matters", ask("GET", &block, &[]), 200),
        closed("who asks before is not let in", ask("OPTIONS", &block, &["Origin: https://c.example", asks]), 204),
    ]
}
