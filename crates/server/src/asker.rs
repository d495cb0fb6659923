//! To whom a reply goes, as far as that changes it. Pure.

use crate::limits::HEADERS_MAX;
use crate::request::{Head, Method};

/// Who a reply is for. By default: somebody of whom nothing is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Asker<'a> {
    /// The request was HEAD: the reply has a body's head and no body (RFC 9110 section 9.3.2).
    pub(crate) is_head: bool,
    /// The page in a browser that sent it belongs to this.
    pub(crate) origin: Option<&'a [u8]>,
}

impl<'a> Asker<'a> {
    /// Who has sent a request.
    pub(crate) fn of(head: &'a Head) -> Asker<'a> {
        Asker { is_head: head.method == Method::Head, origin: head.origin.as_deref() }
    }

    /// Who has sent what cannot be taken for a request, as far as it could be read.
    pub(crate) fn of_refused(bytes: &'a [u8]) -> Asker<'a> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        // What comes before a mistake, or before the end of what has arrived, is known even so.
        let _ = request.parse(bytes);
        let origin = request.headers.iter().rfind(|header| header.name.eq_ignore_ascii_case("origin"));
        Asker { is_head: request.method == Some("HEAD"), origin: origin.map(|header| header.value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_head;

    #[test]
    fn what_comes_before_a_mistake_is_known() {
        let asker = |is_head, origin: &'static str| Asker { is_head, origin: Some(origin.as_bytes()) };
        let of_refused = |text: &'static str| {
            assert!(!matches!(parse_head(text.as_bytes()), Ok(Some(_))), "{text:?} is a request");
            Asker::of_refused(text.as_bytes())
        };
        assert_eq!(of_refused("HEAD / HTTP/1.1\r\nOrigin: a\r\nExpect: tea\r\nHost: a\r\n\r\n"), asker(true, "a"));
        assert_eq!(of_refused("GET / HTTP/1.1\r\nOrigin: a\r\nHost : a\r\n\r\n"), asker(false, "a"));
        assert_eq!(of_refused("HEAD / HTTP/1.1\r\norigin: a\r\nOrigin: b\r\nHost"), asker(true, "b"));
        assert_eq!(of_refused("HEAD / HTTP/2.0\r\n\r\n"), Asker { is_head: true, origin: None });
        for unknown in ["", "HEA", "head / HTTP/1.1\r\n\r\n", "\0Origin: a\r\n\r\n"] {
            assert_eq!(of_refused(unknown), Asker::default());
        }
    }

    #[test]
    fn who_sent_a_request_is_who_would_have_been_refused() {
        for text in ["HEAD / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\nOrigin: c\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let head = parse_head(text.as_bytes()).unwrap().unwrap();
            assert_eq!(Asker::of_refused(text.as_bytes()), Asker::of(&head));
        }
    }
}
