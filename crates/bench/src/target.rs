//! Where the server is.

use http::Uri;
use http::uri::Authority;
use std::net::{SocketAddr, ToSocketAddrs};

/// A server, and the path under which everything lies there.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) url: String,
    /// Those of the host, in the order in which the system would have them tried; at least one.
    pub(crate) addresses: Vec<SocketAddr>,
    /// For the `Host` field.
    pub(crate) host: String,
    /// Without a slash at its end.
    pub(crate) prefix: String,
}

/// Why there is no server to be found there.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No URL at all.
    #[error("\"{0}\" is not a URL: write http://host:port")]
    Url(String),
    /// Another scheme.
    #[error("{0}: only http:// is spoken")]
    Scheme(String),
    /// No number, or too large.
    #[error("{0}: what follows the host is not a port: a number up to 65535")]
    Port(String),
    /// A query would stand before the path of a block.
    #[error("{0}: a target has no query")]
    Query(String),
    /// The host has no address.
    #[error("{url}: {source}")]
    Resolve {
        /// As it was given.
        url: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Target {
    /// Finds the addresses of the host of a URL.
    ///
    /// # Errors
    ///
    /// [`TargetError`]
    pub fn resolve(url: &str) -> Result<Target, TargetError> {
        let uri: Uri = url.parse().map_err(|_| TargetError::Url(url.to_owned()))?;
        let authority = uri.authority().filter(|_| uri.scheme().is_some());
        let authority = authority.ok_or_else(|| TargetError::Url(url.to_owned()))?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(TargetError::Scheme(url.to_owned()));
        }
        if uri.query().is_some() {
            return Err(TargetError::Query(url.to_owned()));
        }
        let failed = |source| TargetError::Resolve { url: url.to_owned(), source };
        let port = port(authority).ok_or_else(|| TargetError::Port(url.to_owned()))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
        if addresses.is_empty() {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Target { url: url.to_owned(), addresses, host: authority.as_str().to_owned(), prefix })
    }
}

/// 80 where there is none. [`Authority::port`] says the same of none and of one that makes no sense.
fn port(authority: &Authority) -> Option<u16> {
    let Some((_, port)) = authority.as_str().strip_prefix(authority.host())?.split_once(':') else { return Some(80) };
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::resolve("http://127.0.0.1:10001").unwrap();
        assert_eq!((target.addresses, target.prefix.as_str()), (vec!["127.0.0.1:10001".parse().unwrap()], ""));
        let target = Target::resolve("http://[::1]/bucket/").unwrap();
        assert_eq!((target.addresses, target.prefix.as_str()), (vec!["[::1]:80".parse().unwrap()], "/bucket"));
        assert_eq!(target.host, "[::1]");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |url: &str| Target::resolve(url).unwrap_err().to_string();
        for url in ["", "127.0.0.1:10001", "/path", "http://", "nonsense here"] {
            assert!(error(url).contains("write http://host:port"), "{url}: {}", error(url));
        }
        assert!(error("https://localhost/").contains("only http://"));
        assert!(error("http://me@localhost/").contains("only http://"));
        assert!(error("http://localhost/?a=b").contains("no query"));
        for url in [
            "http://127.0.0.1:100001",
            "http://localhost:abc/",
            "http://127.0.0.1:",
            "http://[::1]:/",
            "http://[::1]:+80",
        ] {
            assert!(error(url).contains("not a port") || error(url).contains("write http"), "{url}: {}", error(url));
        }
    }
}
