//! A real client of rustls, blocking in a thread of its own, against a stream on a ring.

use super::{TlsError, TlsFiles, TlsSettings, TlsStream, load};
use buddy_ring::{BufferPool, ReceiveBuffers, Ring, RingConfig, Runtime, Socket, is_interruption};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tempfile::TempDir;

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for `localhost` and its key, in files.
struct Identity {
    directory: TempDir,
    certificate: rcgen::Certificate,
}

impl Identity {
    fn new() -> Identity {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Identity::of(cert, &signing_key)
    }

    fn of(certificate: rcgen::Certificate, key: &KeyPair) -> Identity {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("certificate.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Identity { directory, certificate }
    }

    fn files(&self) -> TlsFiles {
        let path = |name: &str| self.directory.path().join(name);
        TlsFiles { certificate: path("certificate.pem"), key: path("key.pem"), client_ca: None }
    }

    fn client_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

/// Runs `client` in a thread on one end of a connection, and `server` on the other.
fn converse<T: Send + 'static>(
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
    server: impl AsyncFnOnce(Socket, ReceiveBuffers),
) -> T {
    converse_on_ring(client, async |_, socket, buffers| server(socket, buffers).await)
}

/// The same, where the server needs the ring, too.
fn converse_on_ring<T: Send + 'static>(
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
    server: impl AsyncFnOnce(Ring, Socket, ReceiveBuffers),
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || client(TcpStream::connect(address).unwrap()));
    let accepted = listener.accept().unwrap().0;
    let runtime = Runtime::new(RingConfig::default()).unwrap();
    let ring = runtime.ring();
    let buffers = ReceiveBuffers::new(&ring, 8, 8192).unwrap();
    let socket = Socket::new(&ring, accepted.into());
    runtime.block_on(server(ring, socket, buffers));
    thread.join().unwrap()
}

fn connect(config: ClientConfig, socket: TcpStream) -> Client {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// Bytes that do not repeat soon.
fn body(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

/// Receives `body` in two ways and sends it back in pieces, then says goodbye and hears it.
async fn echo(socket: Socket, config: &TlsSettings, buffers: ReceiveBuffers, length: usize) {
    let stream = TlsStream::new(socket, config).unwrap();
    stream.shake_hands(config, &buffers).await.unwrap();
    let mut received = stream.receive_waiting(&buffers).await.unwrap();
    let pool = BufferPool::new(2 << 20);
    let mut buffer = pool.take(length).await.unwrap();
    while received.len() < length {
        stream.readable().await.unwrap();
        let (count, returned) = stream.receive(buffer, 0..length - received.len()).await;
        buffer = returned;
        received.extend_from_slice(&buffer[..count.unwrap()]);
    }
    assert!(received == body(length));
    buffer[..length].copy_from_slice(&received);
    let mut range = 0..length;
    while !range.is_empty() {
        let (sent, returned) = stream.send(buffer, range.clone(), range.start == 0).await;
        buffer = returned;
        range.start += sent.unwrap();
    }
    // What was to wait for more goes out with the goodbye.
    stream.say_goodbye().await;
    let (end, _) = stream.receive(vec![0; 10], 0..10).await;
    assert_eq!(end.unwrap(), 0);
}

#[test]
fn bodies_of_any_size_go_there_and_back() {
    let identity = Identity::new();
    let config = load(&identity.files()).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for length in [1, 5000, 16_384, 65_536, 65_537, 524_288] {
            let client_config = identity.client_config(&[version]);
            let negotiated = converse(
                move |socket| {
                    let mut client = connect(client_config, socket);
                    client.write_all(&body(length)).unwrap();
                    let mut back = Vec::new();
                    client.read_to_end(&mut back).unwrap();
                    assert!(back == body(length), "ended by a goodbye");
                    client.conn.send_close_notify();
                    client.flush().unwrap();
                    (client.conn.protocol_version(), client.conn.alpn_protocol().map(<[u8]>::to_vec))
                },
                async |socket, buffers| echo(socket, &config, buffers, length).await,
            );
            let expected = if version.version == ProtocolVersion::TLSv1_3 {
                ProtocolVersion::TLSv1_3
            } else {
                ProtocolVersion::TLSv1_2
            };
            assert_eq!(negotiated, (Some(expected), Some(b"http/1.1".to_vec())));
        }
    }
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert() {
    let identity = Identity::new();
    let config = load(&identity.files()).unwrap();
    let answer = converse(
        |mut socket| {
            socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).unwrap();
            answer
        },
        async |socket, buffers| {
            let stream = TlsStream::new(socket, &config).unwrap();
            assert!(stream.shake_hands(&config, &buffers).await.is_err());
        },
    );
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
}

#[test]
fn a_client_that_goes_in_the_middle_is_the_end_of_the_stream() {
    let identity = Identity::new();
    let config = load(&identity.files()).unwrap();
    let client_config = identity.client_config(&[&rustls::version::TLS13]);
    converse(
        move |socket| {
            let mut client = connect(client_config, socket);
            client.write_all(b"half a req").unwrap();
            // Ends without a farewell of TLS, and reads what is there: else the end is a reset.
            client.sock.shutdown(Shutdown::Write).unwrap();
            client.sock.read_to_end(&mut Vec::new()).unwrap();
        },
        async |socket, buffers| {
            let stream = TlsStream::new(socket, &config).unwrap();
            stream.shake_hands(&config, &buffers).await.unwrap();
            assert_eq!(stream.receive_waiting(&buffers).await.unwrap(), b"half a req");
            assert!(stream.receive_waiting(&buffers).await.unwrap().is_empty());
        },
    );
}

#[test]
fn clients_must_show_a_certificate_where_that_is_asked_for() {
    let identity = Identity::new();
    let files = TlsFiles { client_ca: Some(identity.files().certificate), ..identity.files() };
    let config = load(&files).unwrap();
    let client_config = identity.client_config(&[&rustls::version::TLS12]);
    converse(
        move |socket| assert!(connect(client_config, socket).write_all(b"x").is_err()),
        async |socket, buffers| {
            assert!(TlsStream::new(socket, &config).unwrap().shake_hands(&config, &buffers).await.is_err());
        },
    );
}

/// A record that is not encrypted (RFC 8446 section 5.1).
fn record(content_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[content_type, 3, 1], &length[..], payload].concat()
}

#[test]
fn a_handshake_that_goes_on_and_on_is_ended() {
    let identity = Identity::new();
    let config = load(&identity.files()).unwrap();
    // A ClientHello that is to be 60,000 bytes long, but for its last ones.
    let hello = [&[1, 0, 0xea, 0x60, 3, 3][..], &[b'a'; 50_000]].concat();
    let records: Vec<u8> = hello.chunks(16_384).flat_map(|payload| record(22, payload)).collect();
    converse(
        move |mut socket| {
            // What is ended early takes no more.
            let _ = socket.write_all(&records);
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        },
        async |socket, buffers| {
            let error = TlsStream::new(socket, &config).unwrap().shake_hands(&config, &buffers).await.unwrap_err();
            assert_eq!(error.to_string(), "the handshake is larger than 20480 bytes");
        },
    );
}

#[test]
fn long_chains_of_clients_are_taken_where_certificates_are_asked_for() {
    let identity = Identity::new();
    let files = TlsFiles { client_ca: Some(identity.files().certificate), ..identity.files() };
    let config = load(&files).unwrap();
    let chain = vec![identity.certificate.der().clone(); 60];
    assert!(chain.iter().map(|certificate| certificate.len()).sum::<usize>() > 20_480);
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let client_config = builder.with_client_auth_cert(chain, key).unwrap();
    converse(
        move |socket| {
            let mut client = connect(client_config, socket);
            client.write_all(&body(1)).unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
        },
        async |socket, buffers| echo(socket, &config, buffers, 1).await,
    );
}

/// What is interrupted goes on, as if nothing had happened; records that were not sent are gone.
#[test]
fn records_that_were_not_sent_end_a_connection() {
    let identity = Identity::new();
    let config = load(&identity.files()).unwrap();
    let client_config = identity.client_config(&[&rustls::version::TLS13]);
    let (told, waits) = mpsc::channel();
    converse_on_ring(
        move |socket| {
            let mut client = connect(client_config, socket);
            client.conn.complete_io(&mut client.sock).unwrap();
            waits.recv().unwrap();
            client.write_all(b"x").unwrap();
            // Reads nothing, and goes when the server does.
            assert!(waits.recv().is_err());
        },
        async |ring, socket, buffers| {
            let told = told;
            let stream = TlsStream::new(socket.clone(), &config).unwrap();
            stream.shake_hands(&config, &buffers).await.unwrap();
            // What was taken here may go on to the client, and make room for more.
            while socket.try_send(&[0; 4096], false).is_ok() {
                while socket.try_send(&[0; 4096], false).is_ok() {}
                ring.sleep(Duration::from_millis(100)).await;
            }
            stream.send(vec![0; 10], 0..10, true).await.0.unwrap();
            told.send(()).unwrap();
            let interrupting = ring.spawn({
                let (ring, socket) = (ring.clone(), socket.clone());
                async move {
                    loop {
                        ring.sleep(Duration::from_millis(5)).await;
                        socket.interrupt();
                    }
                }
            });
            let received = loop {
                match stream.receive(vec![0; 10], 0..10).await.0 {
                    Err(error) if is_interruption(&error) => {}
                    received => break received,
                }
            };
            drop(interrupting);
            assert_eq!(received.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let (sent, _) = stream.send(vec![0; 10], 0..10, false).await;
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        },
    );
}

#[track_caller]
fn refused(files: &TlsFiles, why: &str) {
    let error = load(files).map(drop).unwrap_err().to_string();
    assert!(error.contains(why) && error.lines().count() == 1, "{error}");
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let (identity, other) = (Identity::new(), Identity::new());
    let files = identity.files();
    refused(&TlsFiles { key: other.files().key, ..files.clone() }, "does not belong to the certificate in");
    refused(&TlsFiles { key: files.certificate.clone(), ..files.clone() }, "there is no private key in it");
    refused(&TlsFiles { certificate: files.key.clone(), ..files.clone() }, "there is no certificate in it");
    let encrypted = identity.files();
    std::fs::write(
        &encrypted.key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    refused(&encrypted, "is encrypted: write it without a passphrase");
    let missing = TlsFiles { certificate: Path::new("/nowhere/at-all.pem").to_owned(), ..files.clone() };
    refused(&missing, "/nowhere/at-all.pem: it cannot be read");
    std::fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    refused(&files, "it is no certificate");
}

/// One that is valid in these years.
fn valid(from: i32, until: i32) -> Identity {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = date_time_ymd(from, 1, 1);
    parameters.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    Identity::of(parameters.self_signed(&key).unwrap(), &key)
}

#[test]
fn a_certificate_that_is_not_valid_now_is_refused_by_name() {
    for (from, until) in [(2001, 2002), (2199, 2200)] {
        let error = load(&valid(from, until).files()).map(drop).unwrap_err();
        assert!(matches!(error, TlsError::NotValidNow { .. }), "{error}");
        assert!(error.to_string().contains(&from.to_string()), "{error}");
    }
}

/// Clients pass over one that is not valid in the rest of a chain where another way leads to a root.
#[test]
fn only_the_certificate_of_the_server_itself_has_to_be_valid_now() {
    let (identity, expired) = (Identity::new(), valid(2001, 2002));
    let chain = [identity.certificate.pem(), expired.certificate.pem()].concat();
    std::fs::write(identity.files().certificate, chain).unwrap();
    load(&identity.files()).map(drop).unwrap();
    let chain = [expired.certificate.pem(), identity.certificate.pem()].concat();
    std::fs::write(expired.files().certificate, chain).unwrap();
    assert!(matches!(load(&expired.files()).map(drop).unwrap_err(), TlsError::NotValidNow { .. }));
}
