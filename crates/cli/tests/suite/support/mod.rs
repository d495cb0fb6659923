//! A real server process, and a plain client that says exactly what it sends and gets.

pub mod history;
pub mod load;
pub mod logged_disks;
pub mod loop_device;
pub mod narrow_network;
pub mod oracle;
pub mod tls;
pub mod write_log;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A process that is to end and has not after this long never will.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// What is waited for and has not come after this long never will.
const COMES_WITHIN: Duration = Duration::from_secs(30);

pub const BLOCK_BYTES_MAX: usize = 524_288;

/// The program under test, as a command without `BUDDY_…` variables.
pub fn program() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_buddy-blocks")))
}

/// The program under a limit of the shell, like `-f 100`.
pub fn program_under(limit: &str) -> Command {
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]).arg(program().get_program());
    command
}

/// Takes away what the environment says to the program.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BUDDY_")) {
        command.env_remove(name);
    }
    command
}

/// A directory for a store on a real disk, where there is one: `/tmp` may be memory.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A server process. Killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// All of them, as they were announced; the first is that of TCP.
    pub addresses: Vec<String>,
    pub data: PathBuf,
    log: Arc<Mutex<String>>,
    /// Reads the log to its end.
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a port of the system's choice.
    pub fn start(data: &Path, options: &[&str]) -> Server {
        Server::try_start(data, options).unwrap_or_else(|log| panic!("the server did not start: {log}"))
    }

    /// Starts a server, or returns what it said when it ended.
    pub fn try_start(data: &Path, options: &[&str]) -> Result<Server, String> {
        Server::start_or_end(data, options).map_err(|(_, log)| log)
    }

    /// Starts a server, or returns how it ended and what it said.
    pub fn start_or_end(data: &Path, options: &[&str]) -> Result<Server, (ExitStatus, String)> {
        Server::start_from(&mut program(), data, options)
    }

    /// Starts a server that dies when it has come to a crash point as often as said, and once more.
    pub fn try_start_dying(data: &Path, options: &[&str], point: &str, times_before: u32) -> Result<Server, String> {
        let mut program = program();
        program.env("FAILPOINTS", format!("{point}={times_before}*off->return"));
        Server::start_from(&mut program, data, options).map_err(|(_, log)| log)
    }

    /// Starts a server with a certain command, or returns how it ended and what it said.
    pub fn start_from(program: &mut Command, data: &Path, options: &[&str]) -> Result<Server, (ExitStatus, String)> {
        let mut child = program
            .args(["serve", "--log-format", "json", "--data"])
            .arg(data)
            .args(if options.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"][..] })
            // Stores of tests are small and many.
            .args(if options.contains(&"--journal-size") { &[][..] } else { &["--journal-size", "8MiB"][..] })
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    log.lock().unwrap().push_str(&format!("{line}\n"));
                    if let Some(addresses) = field(&line, "address") {
                        let _ = sender.send(addresses.split(", ").map(str::to_owned).collect::<Vec<_>>());
                    }
                }
            }
        });
        match receiver.recv_timeout(Duration::from_secs(60)) {
            Ok(addresses) => {
                let address = addresses[0].parse().unwrap();
                Ok(Server { child, address, addresses, data: data.to_owned(), log, reader: Some(reader) })
            }
            Err(_) => {
                // Where it has ended, as it should have, this changes nothing.
                let _ = child.kill();
                let status = child.wait().unwrap();
                reader.join().unwrap();
                Err((status, log.lock().unwrap().clone()))
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as `kill -9` does, and returns at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        while began.elapsed() < ENDS_WITHIN {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The last lines may still be on their way.
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Who is served by it meanwhile must end, too.
        self.child.kill().unwrap();
        panic!("{:?}, killed after {ENDS_WITHIN:?}: {}", self.child.wait(), self.log());
    }

    /// Stops in order.
    pub fn stop(self) -> String {
        self.signal("-TERM");
        self.stop_when_told()
    }

    /// Waits for the end of a process that was told to stop in order.
    pub fn stop_when_told(mut self) -> String {
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A number of `/-/stats`.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.connect().request("GET", "/-/stats", &[], b"");
        number(&stats.text(), name)
    }

    /// Waits until a number of `/-/stats` is as expected.
    pub fn wait_for_stat(&self, name: &str, expected: impl Fn(u64) -> bool) -> u64 {
        wait_for(name, || Some(self.stat(name)).filter(|value| expected(*value)))
    }

    /// Waits until a worker receives the body of a request: it has read the head, and has taken a buffer.
    pub fn wait_for_body(&self) {
        wait_for("a body", || {
            let metrics = self.connect().request("GET", "/-/metrics", &[], b"");
            (metrics.sum_of("buddy_buffer_bytes{use=\"uploads\"}") > 0).then_some(())
        });
    }

    /// Waits until the log says something.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is something, but not for ever.
pub fn wait_for<T>(what: &str, attempt: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(began.elapsed() < COMES_WITHIN, "{what}: not as expected after {COMES_WITHIN:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The text of a field of a line of JSON.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// A number in a JSON text.
pub fn number(json: &str, name: &str) -> u64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Runs `check --verify` on a stopped store: everything must agree.
pub fn check(data: &Path) -> String {
    let output = check_output(data);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

pub fn check_output(data: &Path) -> Output {
    program().args(["check", "--verify", "--json", "--lock-timeout", "10s", "--data"]).arg(data).output().unwrap()
}

/// A reply as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// It brings this block.
    pub fn assert_block(&self, body: &[u8]) {
        assert!(self.status == 200 && self.body == body, "{}: {} bytes, or others", self.status, body.len());
    }

    /// What a reply of `/-/metrics` says of all series that begin so, added up.
    pub fn sum_of(&self, series: &str) -> u64 {
        let text = self.text();
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::new(TcpStream::connect(address).unwrap())
    }

    pub fn new(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let reader = BufReader::with_capacity(64 * 1024, stream.try_clone().unwrap());
        Client { stream, reader }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a request with `Content-Length`, or without a body where it is empty and the method has none.
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.exchange(method, path, headers, body).unwrap_or_else(|reason| {
            panic!("{method} {path} from {:?}: the connection broke: {reason}", self.stream.local_addr());
        })
    }

    pub fn try_request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Option<Reply> {
        self.exchange(method, path, headers, body).ok()
    }

    fn exchange(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Reply, String> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if matches!(method, "PUT" | "POST") || !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).map_err(|error| format!("while sending: {error}"))?;
        self.receive_reply(method == "HEAD")
    }

    /// Stores a new block under its name.
    pub fn put_block(&mut self, body: &[u8]) {
        assert_eq!(self.request("PUT", &format!("/{}", name(body)), &[], body).status, 201);
    }

    /// Gets a block, which must be there.
    pub fn get_block(&mut self, body: &[u8]) {
        let reply = self.request("GET", &format!("/{}", name(body)), &[], b"");
        reply.assert_block(body);
    }

    /// Sends a block in chunks of the given sizes, over and over.
    pub fn put_chunked(&mut self, method: &str, path: &str, body: &[u8], chunk_bytes: usize) -> Reply {
        let mut bytes =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(chunk_bytes.max(1)) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        self.send(&bytes);
        self.read_reply(false).expect("the connection broke")
    }

    /// Reads a reply; `None` where the connection ended before one began.
    pub fn read_reply(&mut self, is_head: bool) -> Option<Reply> {
        self.receive_reply(is_head).ok()
    }

    fn receive_reply(&mut self, is_head: bool) -> Result<Reply, String> {
        let broken = |error: std::io::Error| error.to_string();
        let mut line = String::new();
        if self.reader.read_line(&mut line).map_err(broken)? == 0 {
            return Err("ended by the server".to_owned());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{line:?} in the place of a status line"))?;
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).map_err(broken)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if is_head || status == 204 || status < 200 { 0 } else { length }];
        self.reader.read_exact(&mut body).map_err(broken)?;
        Ok(Reply { status, headers, body })
    }

    /// True where the server has ended the connection and nothing is left to be read.
    pub fn is_at_end(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }
}

/// Waits until no thread of a server runs that was sent SIGSTOP.
pub fn wait_until_stopped(server: &Server) {
    let is_stopped = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("stat")).unwrap().rsplit(") ").next().unwrap().starts_with('T')
    };
    let tasks = || std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    wait_for("a stop", || tasks().all(|task| is_stopped(task.unwrap())).then_some(()));
}

/// A client with little room for what it does not read.
pub fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket.into()
}

/// Bytes that differ with `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// The name of a block.
pub fn name(bytes: &[u8]) -> String {
    buddy_store::Hash::of(bytes).to_string()
}

/// An environment variable as a number, for longer runs by command.
pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

pub fn memory_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("RssAnon:") + field("RssShmem:")
}
