//! Heads of replies (RFC 9112): what is needed to find the end of one and to judge it.

/// Fields that a head may have.
const FIELDS_MAX: usize = 64;

/// The head of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReplyHead {
    pub(crate) status: u16,
    /// Where the head ends, interim replies before it included.
    pub(crate) head_bytes: usize,
    pub(crate) body_bytes: usize,
    /// Whether another request may follow on the connection.
    pub(crate) keeps_alive: bool,
}

impl ReplyHead {
    pub(crate) fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Reads a head; `None` where more of it has to arrive. `to_head`: the request was HEAD, so there is no body.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(bytes: &[u8], to_head: bool) -> Result<Option<ReplyHead>, &'static str> {
    let mut start = 0;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut reply = httparse::Response::new(&mut fields);
        let parsed = reply.parse(bytes.get(start..).unwrap_or_default()).map_err(|_| "not an HTTP reply")?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        start += length;
        // 100 and its like: the reply itself follows.
        if reply.code.is_some_and(|status| (100..200).contains(&status)) {
            continue;
        }
        return finish(&reply, start, to_head).map(Some);
    }
}

fn finish(reply: &httparse::Response<'_, '_>, head_bytes: usize, to_head: bool) -> Result<ReplyHead, &'static str> {
    let status = reply.code.unwrap_or(0);
    let (mut asks_to_keep, mut closes) = (reply.version == Some(1), false);
    let mut length = None;
    for field in reply.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).ok().map(str::trim);
            let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let value = digits.and_then(|digits| digits.parse().ok()).ok_or("a Content-Length that is no number")?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err("two different Content-Lengths");
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            // A list (RFC 9110, section 7.6.1), of which "close" counts, whatever stands beside it.
            for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                closes |= option.eq_ignore_ascii_case(b"close");
                asks_to_keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("a reply in chunks (Transfer-Encoding), which are not read");
        }
    }
    let body_bytes =
        if to_head || status == 204 || status == 304 { 0 } else { length.ok_or("a reply without Content-Length")? };
    Ok(ReplyHead { status, head_bytes, body_bytes, keeps_alive: asks_to_keep && !closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> ReplyHead {
        parse(text.as_bytes(), false).unwrap().unwrap()
    }

    #[test]
    fn every_prefix_of_a_head_is_incomplete() {
        let text = "HTTP/1.1 201 Created\r\nServer: x\r\ncontent-LENGTH: 64\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end], false), Ok(None));
        }
        let expected = ReplyHead { status: 201, head_bytes: text.len(), body_bytes: 64, keeps_alive: true };
        assert_eq!(head(&format!("{text}abc")), expected);
        assert!(expected.is_success());
    }

    #[test]
    fn some_replies_have_no_body() {
        assert_eq!(head("HTTP/1.1 204 No Content\r\n\r\n").body_bytes, 0);
        assert_eq!(head("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n").body_bytes, 0);
        let to_head = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n", true).unwrap().unwrap();
        assert_eq!(to_head.body_bytes, 0);
    }

    #[test]
    fn interim_replies_are_passed_over() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(parse(interim.as_bytes(), false), Ok(None));
        let text = format!("{interim}HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n");
        assert_eq!((head(&text).status, head(&text).head_bytes), (404, text.len()));
        assert!(!head(&text).is_success());
    }

    #[test]
    fn who_closes_says_so() {
        let with = |version: &str, field: &str| {
            head(&format!("HTTP/{version} 200 OK\r\n{field}Content-Length: 0\r\n\r\n")).keeps_alive
        };
        assert!(
            with("1.1", "") && with("1.1", "Connection: Keep-Alive\r\n") && with("1.0", "Connection: keep-alive\r\n")
        );
        assert!(!with("1.1", "connection: CLOSE\r\n") && !with("1.0", ""));
        for field in [
            "Connection: foo, close\r\n",
            "Connection: Upgrade,Close \r\n",
            "Connection: close\r\nConnection: keep-alive\r\n",
        ] {
            assert!(!with("1.1", field), "{field}");
        }
        assert!(with("1.0", "Connection: foo, Keep-Alive\r\n") && with("1.1", "Connection: disclose\r\n"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let error = |text: &str| parse(text.as_bytes(), false).unwrap_err();
        assert_eq!(error("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not an HTTP reply");
        assert!(error("HTTP/1.1 200 OK\r\n\r\n").contains("without Content-Length"));
        assert!(error("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").contains("chunks"));
        for length in ["-1", "+1", "x", "", "99999999999999999999999"] {
            assert!(error(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).contains("no number"));
        }
        assert!(error("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").contains("two different"));
    }
}
