//! Tokens and rights, against a real server: every endpoint with every right; reading tokens again; what the log says and does not.

use crate::support::{Client, Reply, Server, directory, name, program};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RIGHTS: [&str; 4] = ["read", "write", "delete", "admin"];
/// A token that no file has.
const UNKNOWN: &str = "buddy_0000000000000000000000000000000000000000000000000000000000000000";

/// Draws a token as an operator does; returns it and its line.
fn draw(name: &str, rights: &str) -> (String, String) {
    let output = program().args(["token", name, "--rights", rights]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let [token, line] = lines[..] else { panic!("{text}") };
    assert!(!line.contains(token.trim_start_matches("buddy_")), "the line does not have the token");
    (token.to_owned(), line.to_owned())
}

/// Writes a file with tokens; returns its path.
fn write_file(directory: &Path, lines: &[&str]) -> PathBuf {
    let path = directory.join("tokens.toml");
    std::fs::write(&path, format!("# Tokens\n{}\n", lines.join("\n"))).unwrap();
    path
}

fn start(directory: &Path, tokens: &Path, options: &[&str]) -> Server {
    let options = [&["--tokens", tokens.to_str().unwrap(), "--workers", "2"], options].concat();
    Server::start(&directory.join("data"), &options)
}

fn ask(client: &mut Client, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> Reply {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut headers: Vec<&str> = authorization.iter().map(String::as_str).collect();
    if path == "/-/missing" {
        headers.push("Content-Type: text/plain");
    }
    client.request(method, path, &headers, body)
}

/// Every endpoint, and the right that it needs; `None`: nothing.
fn endpoints(block: &str) -> Vec<(&'static str, String, Option<&'static str>)> {
    let mut all = vec![
        ("GET", block.to_owned(), Some("read")),
        ("HEAD", block.to_owned(), Some("read")),
        ("PUT", block.to_owned(), Some("write")),
        ("PUT", "/".to_owned(), Some("write")),
        ("POST", "/".to_owned(), Some("write")),
        ("DELETE", block.to_owned(), Some("delete")),
        ("OPTIONS", block.to_owned(), None),
        ("OPTIONS", "*".to_owned(), None),
        ("POST", "/-/missing".to_owned(), Some("read")),
        ("GET", "/-/health".to_owned(), None),
        ("HEAD", "/-/ready".to_owned(), None),
        ("GET", "/-/nothing".to_owned(), Some("admin")),
        ("DELETE", "/-/stats".to_owned(), Some("admin")),
        ("GET", "/a/b".to_owned(), Some("read")),
        ("GET", "/abc".to_owned(), Some("read")),
    ];
    for path in ["/-/stats", "/-/metrics", "/-/blocks", "/-/blocks?nonsense", "/-/openapi.yaml"] {
        all.extend([("GET", path.to_owned(), Some("admin")), ("HEAD", path.to_owned(), Some("admin"))]);
    }
    all
}

fn assert_challenged(reply: &Reply, error: Option<&str>, what: &str) {
    assert_eq!(reply.status, 401, "{what}");
    let challenge = reply.header("www-authenticate");
    assert!(challenge.starts_with("Bearer realm="), "{what}: {challenge}");
    assert_eq!(challenge.contains("invalid_token"), error.is_some(), "{what}: {challenge}");
}

#[test]
fn every_endpoint_with_every_right_and_no_bad_and_good_tokens() {
    let directory = directory();
    let drawn: Vec<_> = RIGHTS.iter().map(|right| (*right, draw(right, right))).collect();
    let (powerless, powerless_line) = draw("powerless", "none");
    let mut lines: Vec<&str> = drawn.iter().map(|(_, (_, line))| line.as_str()).collect();
    lines.push(&powerless_line);
    let server = start(directory.path(), &write_file(directory.path(), &lines), &[]);
    let body = b"a block".to_vec();
    let block = format!("/{}", name(&body));
    let write = drawn[1].1.0.clone();
    let mut client = server.connect();
    for (method, path, needed) in endpoints(&block) {
        let sent: &[u8] = if matches!(method, "PUT" | "POST") && path != "/-/missing" { &body } else { b"" };
        let mut check = |token: Option<&str>| {
            assert!(ask(&mut client, "PUT", "/", Some(&write), &body).status < 300, "what may be deleted is there");
            ask(&mut client, method, &path, token, sent)
        };
        for (right, (token, _)) in &drawn {
            let what = format!("{method} {path} with {right}");
            let reply = check(Some(token));
            if needed.is_none_or(|needed| needed == *right) {
                assert!(!matches!(reply.status, 401 | 403), "{what}: {}", reply.status);
            } else {
                let challenge = "Bearer realm=\"buddy-blocks\", error=\"insufficient_scope\"";
                assert_eq!((reply.status, reply.header("www-authenticate")), (403, challenge), "{what}");
            }
        }
        let what = format!("{method} {path}");
        match needed {
            None => assert!([None, Some(UNKNOWN)].into_iter().all(|token| check(token).status < 300), "{what}"),
            Some(_) => {
                assert_challenged(&check(None), None, &what);
                assert_challenged(&check(Some(UNKNOWN)), Some("invalid_token"), &what);
                // One digit away from one that is known.
                let near = format!("{}{}", &write[..write.len() - 1], if write.ends_with('0') { '1' } else { '0' });
                assert_challenged(&check(Some(&near)), Some("invalid_token"), &what);
                assert_eq!(check(Some(&powerless)).status, 403, "{what}");
            }
        }
    }
    assert_eq!(ask(&mut client, "PATCH", &block, None, b"").status, 401, "who may do nothing learns nothing");
    assert_eq!(ask(&mut client, "PATCH", &block, Some(&write), b"").status, 405);
    let log = server.log();
    for secret in drawn.iter().map(|(_, (token, _))| token.as_str()).chain([UNKNOWN, &powerless]) {
        assert!(!log.contains(secret.trim_start_matches("buddy_")), "a token is in the log");
    }
    server.stop();
}

#[test]
fn a_refused_write_is_refused_before_its_body_is_sent() {
    let directory = directory();
    let (token, line) = draw("reader", "read");
    let server = start(directory.path(), &write_file(directory.path(), &[&line]), &[]);
    for (authorization, status) in [(String::new(), 401), (format!("Authorization: Bearer {token}\r\n"), 403)] {
        let mut client = server.connect();
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: a\r\n{authorization}Expect: 100-continue\r\nContent-Length: 500000\r\n\r\n"
        );
        client.send(head.as_bytes());
        let reply = client.read_reply(false).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (status, "close"));
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
    server.stop();
}

#[test]
fn other_ways_to_bring_a_token_are_none_and_nothing_of_them_is_logged() {
    let directory = directory();
    let (token, line) = draw("all", "read,write,delete,admin");
    let server = start(directory.path(), &write_file(directory.path(), &[&line]), &[]);
    let mut client = server.connect();
    for path in [
        format!("/-/stats?access_token={token}"),
        format!("/-/stats?token={token}#{token}"),
        format!("/{token}"),
        format!("/-/{token}"),
        format!("http://x:{token}@host/-/stats"),
    ] {
        assert_challenged(&client.request("GET", &path, &[], b""), None, &path);
    }
    for header in [
        format!("Authorization: Basic {token}"),
        format!("Authorization: {token}"),
        format!("Authorization: Bearer {token}, Bearer {token}"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}"),
        format!("Authorization: Bearer \"{token}\""),
    ] {
        assert_challenged(&client.request("GET", "/-/stats", &[&header], b""), Some("invalid_token"), &header);
    }
    for header in [format!("Cookie: token={token}"), format!("X-Token: {token}")] {
        assert_challenged(&client.request("GET", "/-/stats", &[&header], b""), None, &header);
    }
    let log = server.stop();
    assert!(!log.contains(token.trim_start_matches("buddy_")), "{log}");
    assert_eq!(log.matches("a request was refused").count(), 12, "{log}");
}

#[test]
fn a_refused_request_leaves_a_line_in_the_log() {
    let directory = directory();
    let (token, line) = draw("backup", "read,write");
    let server = start(directory.path(), &write_file(directory.path(), &[&line]), &[]);
    let mut client = server.connect();
    let peer = client.stream.local_addr().unwrap();
    let block = format!("/{}", name(b"x"));
    assert_eq!(ask(&mut client, "DELETE", &block, Some(&token), b"").status, 403);
    assert_eq!(ask(&mut client, "PUT", "/", None, b"x").status, 401);
    assert_eq!(ask(&mut client, "GET", "/made/up", Some(UNKNOWN), b"").status, 401);
    let log = server.stop();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a request was refused")).collect();
    let expected = [
        format!(
            "\"peer\":\"{peer}\",\"method\":\"DELETE\",\"path\":\"{block}\",\"token\":\"backup\",\"reason\":\"missing_right\""
        ),
        format!("\"peer\":\"{peer}\",\"method\":\"PUT\",\"path\":\"/\",\"reason\":\"no_token\""),
        format!("\"peer\":\"{peer}\",\"method\":\"GET\",\"path\":\"(unknown)\",\"reason\":\"bad_token\""),
    ];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.contains(expected), "{line}\n{expected}");
    }
}

/// Waits until the log has said something so often.
fn wait_for_log(server: &Server, text: &str, times: usize) {
    let began = Instant::now();
    while server.log().matches(text).count() < times {
        assert!(began.elapsed() < Duration::from_secs(30), "\"{text}\" is not in the log: {}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn tokens_are_read_again_under_a_connection_that_is_kept() {
    const REFUSED: &str = "the file with tokens is refused";
    let directory = directory();
    let ((old, old_line), (new, new_line)) = (draw("old", "admin"), draw("new", "admin"));
    let path = write_file(directory.path(), &[&old_line]);
    let server = start(directory.path(), &path, &[]);
    let mut client = server.connect();
    let mut status = |token: &str| ask(&mut client, "GET", "/-/stats", Some(token), b"").status;
    assert_eq!((status(&old), status(&new)), (200, 401));
    write_file(directory.path(), &[&old_line, &new_line]);
    assert_eq!(status(&new), 401, "not before it is told to");
    server.signal("-HUP");
    wait_for_log(&server, "tokens were read again", 1);
    assert_eq!((status(&old), status(&new)), (200, 200));
    // A bad file, and none.
    let leaked = format!("typo = \"{new}\"");
    write_file(directory.path(), &[&leaked]);
    server.signal("-HUP");
    wait_for_log(&server, REFUSED, 1);
    std::fs::remove_file(&path).unwrap();
    server.signal("-HUP");
    wait_for_log(&server, REFUSED, 2);
    assert_eq!((status(&old), status(&new)), (200, 200), "those from before stay");
    write_file(directory.path(), &[&new_line]);
    server.signal("-HUP");
    wait_for_log(&server, "tokens were read again", 2);
    assert_eq!((status(&old), status(&new)), (401, 200), "a token that is gone is no good any more");
    // An editor that empties a file before it writes it is enough: nobody is let in, which is worth a warning.
    write_file(directory.path(), &[]);
    server.signal("-HUP");
    wait_for_log(&server, "there are no tokens in the file with tokens", 1);
    assert_eq!(status(&new), 401);
    let log = server.log();
    let warning = log.lines().find(|line| line.contains("there are no tokens in the file with tokens")).unwrap();
    assert!(warning.contains("\"WARN\""), "{warning}");
    let log = server.stop();
    assert!(log.contains("typo") && !log.contains(new.trim_start_matches("buddy_")), "{log}");
}

#[test]
fn anonymous_rights_and_append_only() {
    let directory = directory();
    let (all, line) = draw("all", "read,write,delete,admin");
    let path = write_file(directory.path(), &[&line]);
    let server = start(directory.path(), &path, &["--anonymous", "read", "--append-only"]);
    let mut client = server.connect();
    let block = format!("/{}", name(b"kept"));
    assert_eq!(ask(&mut client, "PUT", "/", None, b"kept").status, 401);
    assert_eq!(ask(&mut client, "PUT", "/", Some(&all), b"kept").status, 200);
    assert_eq!(ask(&mut client, "GET", &block, None, b"").body, b"kept");
    assert_eq!(ask(&mut client, "GET", &block, Some(UNKNOWN), b"").status, 401, "a bad token is never overlooked");
    assert!(ask(&mut client, "GET", &block, None, b"").header("cache-control").starts_with("public, "));
    let refused = ask(&mut client, "DELETE", &block, Some(&all), b"");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("append-only"), "{}", refused.text());
    assert_eq!(ask(&mut client, "GET", &block, None, b"").status, 200);
    server.stop();
    let server = start(directory.path(), &path, &[]);
    let mut client = server.connect();
    for headers in ["", "Range: bytes=1-", &format!("If-None-Match: \"{}\"", &block[1..])] {
        let bearer = format!("Authorization: Bearer {all}");
        let headers = [&*bearer, headers].into_iter().filter(|header| !header.is_empty()).collect::<Vec<_>>();
        let reply = client.request("GET", &block, &headers, b"");
        assert_eq!(
            reply.header("cache-control"),
            "private, max-age=31536000, immutable",
            "no shared cache may keep it"
        );
    }
    server.stop();
    // Without tokens as well.
    let server = Server::start(&directory.path().join("data"), &["--append-only", "--workers", "1"]);
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "DELETE", &block, None, b"").status, 403);
    assert_eq!(ask(&mut client, "PUT", "/", None, b"more").status, 200);
    server.signal("-HUP");
    wait_for_log(&server, "there is nothing to be read again", 1);
    assert_eq!(ask(&mut client, "GET", "/-/health", None, b"").status, 200);
    server.stop();
}

#[test]
fn refusals_are_counted() {
    let directory = directory();
    let (all, line) = draw("all", "read,write,delete,admin");
    let server = start(directory.path(), &write_file(directory.path(), &[&line]), &["--append-only"]);
    let mut client = server.connect();
    let block = format!("/{}", name(b"x"));
    ask(&mut client, "GET", &block, None, b"");
    ask(&mut client, "GET", &block, None, b"");
    ask(&mut client, "GET", &block, Some(UNKNOWN), b"");
    ask(&mut client, "DELETE", &block, Some(&all), b"");
    let metrics = ask(&mut client, "GET", "/-/metrics", Some(&all), b"").text();
    for (reason, count) in [("no_token", 2), ("bad_token", 1), ("missing_right", 0), ("append_only", 1)] {
        let line = format!("buddy_access_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    server.stop();
}

/// What a server that must not start says.
fn refused_to_start(directory: &Path, options: &[&str]) -> String {
    let output = program().args(["serve", "--data"]).arg(directory.join("data")).args(options).output().unwrap();
    assert!(!output.status.success(), "it started with {options:?}");
    assert!(!directory.join("data").exists(), "and nothing was opened");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn without_tokens_others_are_not_listened_to_unless_told() {
    let directory = directory();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let error = refused_to_start(directory.path(), &["--listen", address]);
        assert!(error.contains("--tokens") && error.contains("--insecure-listen"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let missing = refused_to_start(directory.path(), &["--listen", "0.0.0.0:0", "--tokens", "/nowhere/tokens"]);
    assert!(missing.contains("/nowhere/tokens"), "{missing}");
    let (token, _) = draw("x", "read");
    let leaked = write_file(directory.path(), &[&format!("x = \"{token}\"")]);
    let error = refused_to_start(directory.path(), &["--tokens", leaked.to_str().unwrap()]);
    assert!(error.contains("token \"x\"") && !error.contains(&token), "{error}");
}
