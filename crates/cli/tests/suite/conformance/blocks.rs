//! Storing, reading and removing blocks.

use super::case::{Case, DIGITS, Fixture, ask, case, chunked, send};
use crate::support::{bytes, name};

pub fn cases(fixture: &Fixture) -> Vec<Case> {
    [storing(), storing_by_name(), digests(), reading(fixture), targets(fixture), removing(fixture)].concat_cases()
}

/// `concat` for cases, which are not cloned.
pub trait ConcatCases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> ConcatCases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

fn storing() -> Vec<Case> {
    let (new, again) = (bytes(100, 999), bytes(101, 999));
    let tag = |body: &[u8]| format!("\"{}\"", name(body));
    vec![
        case("PUT / answers 200 with the name and nothing else", send("PUT", "/", &[], b"a"), 200)
            .body(name(b"a"))
            .has("content-type", "text/plain")
            .has("content-length", "64"),
        case("PUT / of what is there answers the same", send("PUT", "/", &[], b"a"), 200).body(name(b"a")),
        case("PUT / names what was stored in ETag", send("PUT", "/", &[], b"b"), 200).has("etag", tag(b"b")),
        case("PUT / of nothing stores the empty block", send("PUT", "/", &[], b""), 200).body(name(b"")),
        case("POST / of a new block answers 201 and where it is", send("POST", "/", &[], &new), 201)
            .body(name(&new))
            .has("location", format!("/{}", name(&new))),
        case("POST / of a block that is there answers 200", send("POST", "/", &[], &new), 200)
            .has("location", format!("/{}", name(&new))),
        case("bodies may come in chunks", chunked("POST", "/", "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"), 201)
            .body(name(b"abcdefg")),
        case("a chunked body may be empty", chunked("PUT", "/", "0\r\n\r\n"), 200).body(name(b"")),
        case("trailers are ignored", chunked("PUT", "/", "1\r\nx\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n"), 200)
            .body(name(b"x")),
        case("chunk extensions are ignored", chunked("PUT", "/", "1;a=b;c=\"d\"\r\nx\r\n0;e\r\n\r\n"), 200)
            .body(name(b"x")),
        case("a chunk's size may have leading zeros", chunked("PUT", "/", "0001\r\nx\r\n000\r\n\r\n"), 200)
            .body(name(b"x")),
        case("a body of the largest size is stored", send("PUT", "/", &[], &bytes(9, 524_288)), 200),
        case("one byte more is refused from the head alone", ask("PUT", "/", &["Content-Length: 524289"]), 413)
            .says("524289 bytes")
            .closes(),
        case("a query is ignored", send("PUT", "/?x=y", &[], b"q"), 200).body(name(b"q")),
        case("what a body is called does not matter", send("PUT", "/", &["Content-Type: text/html"], b"a"), 200),
        case("a part of something is not a block", send("PUT", "/", &["Content-Range: bytes 0-1/9"], b"ab"), 400)
            .says("Content-Range"),
        case("a write without a length is refused", ask("PUT", "/", &[]), 411).closes(),
        case("POST / without a length is refused", ask("POST", "/", &[]), 411).closes(),
        case("POST / of a second new block is told so", send("POST", "/", &[], &again), 201).has("etag", tag(&again)),
    ]
}

fn storing_by_name() -> Vec<Case> {
    let path = |body: &[u8]| format!("/{}", name(body));
    vec![
        case("PUT /{hash} of a new block answers 201", send("PUT", &path(b"named"), &[], b"named"), 201)
            .body(name(b"named")),
        case("PUT /{hash} of what is there answers 200", send("PUT", &path(b"named"), &[], b"named"), 200),
        case("a name may be in upper case", send("PUT", &path(b"named").to_uppercase(), &[], b"named"), 200)
            .body(name(b"named")),
        case("a body with another hash answers 422", send("PUT", &path(b"named"), &[], b"other"), 422)
            .says(name(b"other")),
        case("and nothing is stored", ask("GET", &path(b"other"), &[]), 404),
        case("in chunks too", chunked("PUT", &path(b"chunks"), "6\r\nchunks\r\n0\r\n\r\n"), 201),
        case("the hash of chunks is checked", chunked("PUT", &path(b"chunks"), "1\r\nx\r\n0\r\n\r\n"), 422),
        case("a name that is none is refused", send("PUT", "/abc", &[], b"abc"), 400).says("64 hex digits"),
        case("a name that is too long is refused", send("PUT", &format!("{}0", path(b"x")), &[], b"x"), 400)
            .says("65 characters"),
    ]
}

fn digests() -> Vec<Case> {
    let right = "Repr-Digest: sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:";
    let wrong = "Repr-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    let put = |field: &str| send("PUT", "/", &[field], DIGITS);
    vec![
        case("a body with the digest that it has to have is stored", put(right), 200).body(name(DIGITS)),
        case("one with another is not", put(wrong), 422).says("Repr-Digest"),
        case("digests of other kinds are nobody's to check", put("Repr-Digest: sha-512=:AAAA:, md5=:AAAA:"), 200),
        case("of several digests the one that can be checked is", put(&format!("{wrong}, md5=:AAAA:")), 422),
        case("a digest that is none is refused", put("Repr-Digest: sha-256=:AAAA:"), 400).closes(),
        case("a field that is no dictionary is refused", put("Repr-Digest: sha-256=:AA"), 400).closes(),
        case(
            "chunked bodies are compared too",
            [ask("POST", "/", &["Transfer-Encoding: chunked", wrong]), b"1\r\nx\r\n0\r\n\r\n".to_vec()].concat(),
            422,
        ),
    ]
}

fn reading(fixture: &Fixture) -> Vec<Case> {
    let digits = format!("/{}", fixture.digits);
    let whole = |sentence: &str, method: &str| {
        case(sentence, ask(method, &digits, &[]), 200)
            .has("etag", format!("\"{}\"", fixture.digits))
            .has("cache-control", "public, max-age=31536000, immutable")
            .has("accept-ranges", "bytes")
            .has("content-type", "application/octet-stream")
            .has("content-length", "10")
            .has("repr-digest", "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:")
            .lacks("content-range")
    };
    vec![
        whole("GET answers the bytes and what is true of them", "GET").body(DIGITS),
        whole("HEAD answers what GET would, without the bytes", "HEAD").body(b""),
        case("a large block is itself", ask("GET", &format!("/{}", name(&fixture.large)), &[]), 200)
            .body(&fixture.large[..]),
        case("the empty block is there", ask("GET", &format!("/{}", fixture.empty), &[]), 200)
            .has("content-length", "0")
            .body(b""),
        case("GET of what is not there answers 404", ask("GET", &format!("/{}", fixture.absent), &[]), 404)
            .says(&fixture.absent)
            .has("cache-control", "no-store"),
        case("HEAD of what is not there answers 404", ask("HEAD", &format!("/{}", fixture.absent), &[]), 404),
        case("a body of GET means nothing", send("GET", &digits, &[], b"GET / HTTP/1.1\r\n\r\n"), 200).body(DIGITS),
        case("a large body of GET is not passed over", ask("GET", &digits, &["Content-Length: 70000"]), 400).closes(),
    ]
}

fn targets(fixture: &Fixture) -> Vec<Case> {
    let hash = &fixture.digits;
    let encoded: String = hash.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let get = |target: &str| ask("GET", target, &[]);
    vec![
        case("a name is read in either case", get(&format!("/{}", hash.to_uppercase())), 200)
            .has("etag", format!("\"{hash}\"")),
        case("a name may be percent-encoded", get(&format!("/{encoded}")), 200).body(DIGITS),
        case("a query is ignored", get(&format!("/{hash}?a=b&c=/d")), 200).body(DIGITS),
        case("an absolute target is read", get(&format!("http://other:80/{hash}")), 200).body(DIGITS),
        case("its scheme may be in upper case", get(&format!("HTTPS://other/{hash}?x")), 200).body(DIGITS),
        case("an absolute target without a host is refused", get(&format!("http:///{hash}")), 400),
        case("nor may it be empty before a port", get(&format!("http://:80/{hash}")), 400),
        case("or behind a user", get(&format!("http://user@/{hash}")), 400),
        case("or between both", get(&format!("http://user@:80/{hash}")), 400),
        case("another scheme is refused", get(&format!("ftp://a/{hash}")), 400),
        case("a target that is no path is refused", get("nonsense"), 400).says("nonsense"),
        case("a target that is an authority is refused", ask("CONNECT", "a:80", &[]), 400),
        case("* is for OPTIONS", get("*"), 400).says("OPTIONS").lacks("allow"),
        case("whatever else is asked of it", ask("PATCH", "*", &[]), 400),
        case("a name of 63 digits is refused", get(&format!("/{}", &hash[1..])), 400).says("64 hex digits"),
        case("a name with a letter that is no digit is refused", get(&format!("/{}g", &hash[1..])), 400),
        case("a name with a slash behind it is another path", get(&format!("/{hash}/")), 404),
        case("a path of two slashes is another path", get(&format!("//{hash}")), 404),
        case("dots lead nowhere", get("/../etc/passwd"), 404),
        case("encoded slashes lead nowhere", get("/..%2f..%2fetc%2fpasswd"), 400),
        case("what is not known under /-/ is not there", get("/-/nothing"), 404).says("/-/nothing"),
        case("bytes that are no text are refused", get("/%ff%00%0d%0a"), 400),
        case("nothing of a name gets into the head", get("/%0d%0aX-Evil:%20yes%0d%0a%0d%0a"), 400).lacks("x-evil"),
        case("GET / is not offered", get("/"), 405).has("allow", "PUT, POST"),
        case("HEAD / is not offered", ask("HEAD", "/", &[]), 405).has("allow", "PUT, POST"),
        case("DELETE / is not offered", ask("DELETE", "/", &[]), 405).has("allow", "PUT, POST"),
        case("POST /{hash} is not offered", send("POST", &format!("/{hash}"), &[], b"x"), 405)
            .has("allow", "GET, HEAD, PUT, DELETE"),
        case("PATCH is not offered", send("PATCH", &format!("/{hash}"), &[], b"x"), 405)
            .has("allow", "GET, HEAD, PUT, DELETE"),
        case("methods are case-sensitive", ask("get", &format!("/{hash}"), &[]), 405),
        case("TRACE is not offered", ask("TRACE", &format!("/{hash}"), &[]), 405),
    ]
}

fn removing(fixture: &Fixture) -> Vec<Case> {
    let path = format!("/{}", name(b"short-lived"));
    vec![
        case("a block to be removed is stored", send("PUT", &path, &[], b"short-lived"), 201),
        case("DELETE answers 204 without a body", ask("DELETE", &path, &[]), 204).lacks("content-length").body(b""),
        case("and what was there is not any more", ask("GET", &path, &[]), 404),
        case("DELETE of what is not there answers 404", ask("DELETE", &path, &[]), 404),
        case("it can be stored again", send("PUT", &path, &[], b"short-lived"), 201),
        case("DELETE of a name that is none is refused", ask("DELETE", "/abc", &[]), 400),
        case("others are not harmed", ask("GET", &format!("/{}", fixture.digits), &[]), 200).body(DIGITS),
    ]
}
