//! Real clients against the real server: curl, Python's `requests` and `http.client`, Node's `fetch`, and an nginx between. Who is not
//! installed is skipped, and the test says so; `.ci/run` installs all of them and sets `BUDDY_TEST_ALL_CLIENTS`, with which nobody may
//! be missing.

use crate::support::{Client, Server, bytes, check, directory, name};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program at `path` if it runs. Without it the test ends, unless all are required.
fn find(client: &str, path: impl AsRef<Path>, version: &str) -> Option<PathBuf> {
    let path = path.as_ref();
    let ran = Command::new(path).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if ran.is_ok_and(|status| status.success()) {
        return Some(path.to_owned());
    }
    let required = std::env::var_os("BUDDY_TEST_ALL_CLIENTS").is_some();
    assert!(!required, "{client} is not there");
    println!("skipped: {client} is not installed");
    None
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/clients").join(name)
}

/// Runs a client, which ends with an error where it saw something that must not be.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
}

/// A server that is checked when the clients are done with it.
fn with_server(work: impl FnOnce(&Server)) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "2"]);
    work(&server);
    let data = server.data.clone();
    server.stop();
    check(&data);
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn curl() {
    let Some(_) = find("curl", "curl", "--version") else { return };
    with_server(|server| {
        let mut command = Command::new("bash");
        command.arg(script("curl.sh")).arg(url(server.address));
        run(command);
    });
}

#[test]
fn python_http_client() {
    let Some(python) = find("Python", "python3", "--version") else { return };
    with_server(|server| {
        let mut command = Command::new(python);
        command.arg(script("http_client.py")).arg(url(server.address));
        run(command);
    });
}

#[test]
fn python_requests() {
    // As .ci/run installs it, in an environment of its own.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let own = workspace.join("target/clients/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    let has_requests = Command::new(&python).args(["-c", "import requests"]).stderr(Stdio::null()).status();
    let path = if has_requests.is_ok_and(|status| status.success()) { python } else { PathBuf::from("no-such-python") };
    let Some(python) = find("Python with requests", path, "--version") else { return };
    with_server(|server| {
        let mut command = Command::new(python);
        command.arg(script("with_requests.py")).arg(url(server.address));
        run(command);
    });
}

#[test]
fn node_fetch() {
    let Some(node) = find("Node", "node", "--version") else { return };
    with_server(|server| {
        let mut command = Command::new(node);
        command.arg(script("fetch.mjs")).arg(url(server.address));
        run(command);
    });
}

/// An nginx of this test's own. Ended when dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Passes everything on to `upstream`, over connections that it keeps.
    fn start(program: &Path, directory: &Path, upstream: SocketAddr) -> Nginx {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let here = directory.display();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             client_max_body_size 1m;\n\
             upstream store {{ server {upstream}; keepalive 8; }}\n\
             server {{ listen {free};\n\
              location / {{ proxy_pass http://store; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}\n\
              location /unbuffered/ {{ proxy_pass http://store/; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               proxy_request_buffering off; proxy_buffering off; }} }} }}\n"
        );
        let path = directory.join("nginx.conf");
        std::fs::write(&path, configuration).unwrap();
        let child = Command::new(program).arg("-p").arg(directory).arg("-c").arg(&path).spawn().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(free).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Nginx { child, address: free }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its workers.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn behind_nginx() {
    let on_path = ["nginx", "/usr/sbin/nginx"].into_iter().find(|path| Command::new(path).arg("-v").output().is_ok());
    let Some(nginx) = find("nginx", on_path.unwrap_or("nginx"), "-v") else { return };
    with_server(|server| {
        let directory = directory();
        let nginx = Nginx::start(&nginx, directory.path(), server.address);
        let mut client = Client::connect(nginx.address);
        for (number, size) in [0, 1, 4096, 100_000, 524_288].into_iter().enumerate() {
            let body = bytes(number as u64, size);
            for prefix in ["", "/unbuffered"] {
                let path = format!("{prefix}/{}", name(&body));
                let stored = client.request("PUT", &format!("{prefix}/"), &[], &body);
                assert_eq!((stored.status, stored.text()), (200, name(&body)));
                assert!(client.request("GET", &path, &[], b"").body == body);
                let tag = format!("If-None-Match: \"{}\"", name(&body));
                assert_eq!(client.request("GET", &path, &[&tag], b"").status, 304);
                assert_eq!(client.request("HEAD", &path, &[], b"").header("content-length"), size.to_string());
                if size > 10 {
                    let part = client.request("GET", &path, &["Range: bytes=3-9"], b"");
                    assert_eq!((part.status, &part.body[..]), (206, &body[3..10]));
                }
                let chunked = client.put_chunked("PUT", &format!("{prefix}/"), &body, 10_000);
                assert_eq!(chunked.text(), name(&body));
            }
        }
        assert_eq!(client.request("PUT", "/unbuffered/abc", &[], &bytes(9, 100_000)).status, 400);
        assert_eq!(Client::connect(nginx.address).request("GET", "/-/health", &[], b"").text(), "ok\n");
    });
}
