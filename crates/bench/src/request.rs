//! Requests as bytes.

use crate::body::{Body, COPIED_BYTES_MAX, Noise};
use crate::name::Name;
use crate::target::Target;
use crate::template::Template;
use crate::token::Token;
use std::io::Write;

/// Who names a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Naming {
    /// The server: `PUT /` is answered with the name.
    Server,
    /// The client, by the body's SHA-256.
    Hash,
    /// The client, as it likes.
    Number,
}

/// A method with the name that it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// None where the server names the block.
    Put(Body, Option<Name>),
    Get(Name),
    Head(Name),
    Delete(Name),
}

/// Writes requests for one target.
pub(crate) struct RequestWriter {
    prefix: String,
    template: Template,
    /// What follows the path, up to the last line.
    after_path: String,
}

impl RequestWriter {
    pub(crate) fn new(target: &Target, template: Template, token: Option<&Token>) -> RequestWriter {
        let mut after_path = format!(" HTTP/1.1\r\nHost: {}\r\n", target.host);
        if let Some(token) = token {
            after_path.extend(["Authorization: Bearer ", token.secret(), "\r\n"]);
        }
        RequestWriter { prefix: target.prefix.clone(), template, after_path }
    }

    /// The path of a request.
    fn write_path(&self, name: Option<Name>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        match name {
            None => out.push(b'/'),
            Some(name) => self.template.write(name, out),
        }
    }

    /// Writes `request` to `out`, but for the tail of a large body.
    pub(crate) fn write<'a>(&self, request: Request, noise: &'a Noise, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        out.clear();
        let (method, name) = request.parts();
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        self.write_path(name, out);
        out.extend_from_slice(self.after_path.as_bytes());
        let Request::Put(body, _) = request else {
            out.extend_from_slice(b"\r\n");
            return None;
        };
        // Writing to a vector does not fail.
        let _ = write!(out, "Content-Length: {}\r\n\r\n", body.length);
        out.extend_from_slice(&body.stamp());
        if body.length <= COPIED_BYTES_MAX {
            out.extend_from_slice(noise.of(body));
            return None;
        }
        Some(noise.of(body))
    }

    /// Method and path, for people.
    pub(crate) fn describe(&self, request: Request) -> String {
        let (method, name) = request.parts();
        let mut path = Vec::new();
        self.write_path(name, &mut path);
        format!("{method} {}", String::from_utf8_lossy(&path))
    }
}

impl Request {
    fn parts(self) -> (&'static str, Option<Name>) {
        match self {
            Request::Put(_, name) => ("PUT", name),
            Request::Get(name) => ("GET", Some(name)),
            Request::Head(name) => ("HEAD", Some(name)),
            Request::Delete(name) => ("DELETE", Some(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(url: &str, template: &str, request: Request) -> (String, bool) {
        let writer = RequestWriter::new(&Target::resolve(url).unwrap(), template.parse().unwrap(), None);
        let mut out = b"left over".to_vec();
        let has_tail = writer.write(request, &Noise::new(), &mut out).is_some();
        (String::from_utf8_lossy(&out).into_owned(), has_tail)
    }

    #[test]
    fn requests_have_what_a_server_needs() {
        let name = Name::hash_of(&[b"hello"]);
        let (text, has_tail) = written("http://127.0.0.1:8080/base/", "/{shard:2}/{name}", Request::Get(name));
        assert_eq!(text, format!("GET /base/2c/{name} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"));
        assert!(!has_tail);
        let (text, _) = written("http://127.0.0.1:8080", "/{name}", Request::Delete(name));
        assert!(text.starts_with(&format!("DELETE /{name} ")));
    }

    #[test]
    fn small_bodies_are_copied_and_large_ones_have_a_tail() {
        let body = Body::new(1, 2, 4096).unwrap();
        let noise = Noise::new();
        let writer = RequestWriter::new(&Target::resolve("http://127.0.0.1").unwrap(), Template::plain(), None);
        let mut out = Vec::new();
        assert_eq!(writer.write(Request::Put(body, None), &noise, &mut out), None);
        let head = b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4096\r\n\r\n";
        assert!(noise.is(body, out.strip_prefix(&head[..]).unwrap()));
        let body = Body::new(1, 2, COPIED_BYTES_MAX + 1).unwrap();
        let tail = writer.write(Request::Put(body, None), &noise, &mut out).unwrap();
        assert!(out.ends_with(&body.stamp()));
        assert_eq!(tail, noise.of(body));
        assert_eq!(writer.describe(Request::Put(body, None)), "PUT /");
    }
}
