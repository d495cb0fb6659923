//! A request as it is written on the wire, and what must come back.

use crate::support::{Client, Reply, Server, bytes, name};

/// Blocks that are there before any case, and one that is not.
pub struct Fixture {
    pub digits: String,
    pub small: Vec<u8>,
    pub large: Vec<u8>,
    pub empty: String,
    pub absent: String,
}

pub const DIGITS: &[u8] = b"0123456789";

impl Fixture {
    pub fn store(server: &Server) -> Fixture {
        let fixture = Fixture {
            digits: name(DIGITS),
            small: bytes(1, 20_000),
            large: bytes(2, 300_001),
            empty: name(b""),
            absent: name(b"absent"),
        };
        let mut client = server.connect();
        for body in [DIGITS, &fixture.small, &fixture.large, b""] {
            assert_eq!(client.request("PUT", "/", &[], body).status, 200);
        }
        fixture
    }

    /// What was there is there, whatever the cases did.
    pub fn is_unharmed(&self, server: &Server) {
        let mut client = server.connect();
        for body in [DIGITS, &self.small, &self.large, b""] {
            assert!(client.request("GET", &format!("/{}", name(body)), &[], b"").body == body);
        }
        for absent in [&self.absent, &name(b"smuggled")] {
            assert_eq!(client.request("GET", &format!("/{absent}"), &[], b"").status, 404);
        }
    }
}

pub struct Case {
    sentence: String,
    request: Vec<u8>,
    status: u16,
    has: Vec<(&'static str, String)>,
    lacks: Vec<&'static str>,
    body: Option<Vec<u8>>,
    says: Option<String>,
    closes: bool,
    /// Further replies to pipelined requests of the same case.
    then: Vec<u16>,
    /// What is sent after the reply, and the status of the reply to that.
    later: Option<(Vec<u8>, u16)>,
}

/// What must be so (`sentence`) when `request` is sent.
pub fn case(sentence: impl Into<String>, request: impl Into<Vec<u8>>, status: u16) -> Case {
    Case {
        sentence: sentence.into(),
        request: request.into(),
        status,
        has: Vec::new(),
        lacks: Vec::new(),
        body: None,
        says: None,
        closes: false,
        then: Vec::new(),
        later: None,
    }
}

/// A request without a body, with `fields` as lines.
pub fn ask(method: &str, target: &str, fields: &[&str]) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// A request with a body.
pub fn send(method: &str, target: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    [ask(method, target, &[fields, &[&length]].concat()), body.to_vec()].concat()
}

/// A request whose body comes in chunks that are written as they are given.
pub fn chunked(method: &str, target: &str, chunks: &str) -> Vec<u8> {
    [ask(method, target, &["Transfer-Encoding: chunked"]), chunks.as_bytes().to_vec()].concat()
}

impl Case {
    pub fn has(mut self, field: &'static str, value: impl Into<String>) -> Case {
        self.has.push((field, value.into()));
        self
    }

    pub fn lacks(mut self, field: &'static str) -> Case {
        self.lacks.push(field);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Case {
        self.body = Some(body.into());
        self
    }

    /// A part of the body.
    pub fn says(mut self, part: impl Into<String>) -> Case {
        self.says = Some(part.into());
        self
    }

    /// The connection must end after the reply; otherwise it must go on.
    pub fn closes(mut self) -> Case {
        self.closes = true;
        self
    }

    /// One more reply follows.
    pub fn then(mut self, status: u16) -> Case {
        self.then.push(status);
        self
    }

    /// The reply asks for a body: this is sent then, and answered so.
    pub fn and_then_body(mut self, body: impl Into<Vec<u8>>, status: u16) -> Case {
        self.later = Some((body.into(), status));
        self
    }

    pub fn run(&self, server: &Server) -> Result<(), String> {
        let mut client = server.connect();
        client.send(&self.request);
        self.judge(&mut client).map_err(|what| {
            let request = String::from_utf8_lossy(&self.request[..self.request.len().min(300)]).into_owned();
            format!("- {}: {what}\n    {request:?}", self.sentence)
        })
    }

    fn judge(&self, client: &mut Client) -> Result<(), String> {
        let is_head = self.request.starts_with(b"HEAD ");
        let reply = client.read_reply(is_head).ok_or("no reply")?;
        self.judge_reply(&reply, is_head)?;
        for expected in &self.then {
            let status = client.read_reply(false).ok_or("a reply is missing")?.status;
            if status != *expected {
                return Err(format!("then {status} instead of {expected}"));
            }
        }
        if let Some((body, expected)) = &self.later {
            client.send(body);
            let status = client.read_reply(false).ok_or("no reply to the body")?.status;
            if status != *expected {
                return Err(format!("{status} instead of {expected} to the body"));
            }
        }
        if self.closes {
            if reply.header("connection") != "close" {
                return Err("nothing says that the connection ends".to_owned());
            }
            return if client.is_at_end() { Ok(()) } else { Err("the connection goes on".to_owned()) };
        }
        client.send(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.read_reply(false) {
            Some(reply) if reply.text() == "ok\n" => Ok(()),
            Some(reply) => Err(format!("the next reply is {}: {}", reply.status, reply.text())),
            None => Err("the connection has ended".to_owned()),
        }
    }

    fn judge_reply(&self, reply: &Reply, is_head: bool) -> Result<(), String> {
        if reply.status != self.status {
            return Err(format!("{} instead of {}: {}", reply.status, self.status, reply.text()));
        }
        if reply.status != 100 && !reply.header("date").ends_with(" GMT") {
            return Err("a reply without a date".to_owned());
        }
        if reply.status >= 400 {
            judge_problem(reply, is_head)?;
        }
        for (field, value) in &self.has {
            if reply.header(field) != value {
                return Err(format!("{field} is {:?} instead of {value:?}", reply.header(field)));
            }
        }
        for field in &self.lacks {
            if reply.headers.contains_key(*field) {
                return Err(format!("{field}: {}", reply.header(field)));
            }
        }
        if self.body.as_ref().is_some_and(|body| *body != reply.body) {
            return Err(format!("another body, of {} bytes", reply.body.len()));
        }
        match &self.says {
            Some(part) if !reply.text().contains(part) => Err(format!("it does not say {part:?}: {}", reply.text())),
            _ => Ok(()),
        }
    }
}

/// RFC 9457: the status is repeated, and something is said.
fn judge_problem(reply: &Reply, is_head: bool) -> Result<(), String> {
    if reply.header("content-type") != "application/problem+json" {
        return Err(format!("a refusal of type {:?}", reply.header("content-type")));
    }
    if is_head {
        return Ok(());
    }
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
    let is_whole = problem["status"] == reply.status
        && problem["type"] == "about:blank"
        && problem["title"].as_str().is_some_and(|title| !title.is_empty())
        && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty());
    if is_whole { Ok(()) } else { Err(format!("no problem details: {problem}")) }
}
