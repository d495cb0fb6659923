//! Certificates for tests, and a client that speaks TLS, or anything else that can be read and written.

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for `localhost` and its key, in the files that a server is told of.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Identity {
    pub fn new() -> Identity {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Identity::of(&cert, &signing_key)
    }

    /// One that was valid once.
    pub fn expired() -> Identity {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let key = KeyPair::generate().unwrap();
        Identity::of(&parameters.self_signed(&key).unwrap(), &key)
    }

    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Identity {
        Identity {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Puts both into files of a directory, in the place of others.
    pub fn write_to(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let paths = (directory.join("certificate.pem"), directory.join("key.pem"));
        std::fs::write(&paths.0, &self.certificate_pem).unwrap();
        std::fs::write(&paths.1, &self.key_pem).unwrap();
        paths
    }

    /// What a client trusts who trusts this certificate alone. Clients with the same one resume each other's sessions.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsClient {
    over(TcpStream::connect(address).unwrap(), config)
}

/// TLS over a connection.
pub fn over(socket: TcpStream, config: &Arc<ClientConfig>) -> TlsClient {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket)
}

/// Sends a request and reads the reply: its status and body.
pub fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<(u16, Vec<u8>)> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length =
        head.split_once("content-length: ").map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut reply = vec![0; if status == 204 || method == "HEAD" { 0 } else { length }];
    stream.read_exact(&mut reply)?;
    Ok((status, reply))
}
