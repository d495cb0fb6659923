//! Everything that `serve` can be told: on the command line, in `BUDDY_…` variables, in a file. One precedence, in that order.
//!
//! The same struct is read from all three. What nothing sets has the defaults of [`Settings`] and [`HttpLimits`].

use crate::Failure;
use crate::access::AccessConfig;
use crate::values::{Addresses, Bytes, Span, UnixMode};
use buddy_ring::{Address, ListenOptions};
use buddy_server::access::{Rights, RightsError};
use buddy_server::cors::Cors;
use buddy_server::{HttpLimits, Listeners, TlsFiles};
use buddy_store::extent::SIZE_CLASSES;
use buddy_store::settings::{DataSync, Durability, JOURNAL_BYTES_MIN, LookupPath, Settings, VerifyReads};
use clap::{Args, ValueEnum};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Serve a store over HTTP.
///
/// Every option can also be given as a variable (`--sync-interval` as `BUDDY_SYNC_INTERVAL`) or in a TOML file (as
/// `sync-interval = "1s"`). The command line wins over variables, variables win over the file. Sizes are bytes or `64KiB`, `10GB` …;
/// times are `1s`, `500ms` …
#[derive(Args)]
pub(crate) struct ServeArguments {
    /// File with options, in TOML
    #[arg(long, env = "BUDDY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: ServeOptions,
}

macro_rules! serve_options {
    ($($(#[$attribute:meta])* $name:ident: $type:ty,)*) => {
        /// Options of `serve`, each perhaps set.
        #[derive(Args, Deserialize, Default)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub(crate) struct ServeOptions {
            $($(#[$attribute])* pub(crate) $name: Option<$type>,)*
        }

        impl ServeOptions {
            /// What is set here, and for the rest what is set there.
            pub(crate) fn or(self, other: ServeOptions) -> ServeOptions {
                ServeOptions { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

serve_options! {
    /// Addresses to listen on, with commas between them: `127.0.0.1:10001`, `[::1]:10001`, `unix:/run/buddy.socket`
    /// [default: 127.0.0.1:10001, where nothing is said of TLS]
    #[arg(long, env = "BUDDY_LISTEN", value_name = "ADDRESS,…")]
    listen: Addresses,
    /// Addresses to listen on for TLS (1.3 and 1.2), with commas between them
    #[arg(long, env = "BUDDY_LISTEN_TLS", value_name = "ADDRESS,…")]
    listen_tls: Addresses,
    /// The server's certificate in PEM, followed by those between it and its root; read again on SIGHUP, as is the key
    #[arg(long, env = "BUDDY_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: PathBuf,
    /// The certificate's private key in PEM
    #[arg(long, env = "BUDDY_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,
    /// Certificates in PEM, of which one must have signed the certificate that every client of TLS then has to show
    #[arg(long, env = "BUDDY_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: PathBuf,
    /// Permissions of Unix sockets, in octal [default: 0660]
    #[arg(long, env = "BUDDY_UNIX_MODE", value_name = "MODE")]
    unix_mode: UnixMode,
    /// File with tokens, a line for each as `buddy-blocks token` prints it; read again on SIGHUP [default: no tokens, and whoever
    /// can reach the server may use it]
    #[arg(long, env = "BUDDY_TOKENS", value_name = "FILE")]
    tokens: PathBuf,
    /// What may be done without a token: read, write, delete, admin, several with commas between them, or none [default: all of
    /// it where no tokens are configured, none where they are]
    #[arg(long, env = "BUDDY_ANONYMOUS", value_name = "RIGHT,…")]
    anonymous: RightsOption,
    /// Nobody may delete a block
    #[arg(long, env = "BUDDY_APPEND_ONLY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    append_only: bool,
    /// Listen where others can reach the server although no tokens are configured
    #[arg(long, env = "BUDDY_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_listen: bool,
    /// Directory of the store, created where it is missing [default: ./buddy-data]
    #[arg(long, env = "BUDDY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Threads that serve [default: one a core]
    #[arg(long, env = "BUDDY_WORKERS", value_name = "N")]
    workers: usize,
    /// When a write is answered: `sync`, when it is on stable storage; `relaxed`, when it is written (a power cut loses at
    /// most the last sync interval) [default: sync]
    #[arg(long, env = "BUDDY_DURABILITY", value_name = "MODE")]
    durability: DurabilityOption,
    /// How blocks get to stable storage when durability is `sync`: by each `write`, or by a flush beside each journal `frame`;
    /// the latter is better where a flush takes time [default: what a measurement at opening says]
    #[arg(long, env = "BUDDY_DATA_SYNC", value_name = "WAY")]
    data_sync: DataSyncOption,
    /// How often writes are flushed when durability is relaxed [default: 1s]
    #[arg(long, env = "BUDDY_SYNC_INTERVAL", value_name = "TIME")]
    sync_interval: Span,
    /// The data file grows to at most this; further blocks are refused [default: as far as the disk goes]
    #[arg(long, env = "BUDDY_CAPACITY", value_name = "SIZE")]
    capacity: Bytes,
    /// Which blocks are hashed before they are sent, so that none is sent that is not what was stored: `off`, `sampled` (one in
    /// 64), `all` [default: off]
    #[arg(long, env = "BUDDY_VERIFY_READS", value_name = "WHICH")]
    verify_reads: VerifyReadsOption,
    /// Read every block in the background, so much a second, and take damaged ones out of service; 0: not at all [default: 0]
    #[arg(long, env = "BUDDY_SCRUB_RATE", value_name = "SIZE")]
    scrub_rate: Bytes,
    /// Who looks names up: each `worker` by itself, or the `controller` (slower, for comparison) [default: worker]
    #[arg(long, env = "BUDDY_LOOKUP", value_name = "WHO")]
    lookup: LookupOption,
    /// Blank extents that each worker keeps at hand at least, for 4k,8k,16k,32k,64k,128k,256k,512k; demand raises it
    /// [default: 16,4,4,2,2,2,2,2]
    #[arg(long, env = "BUDDY_POOL_TARGETS", value_name = "N,…", value_parser = parse_pool_targets)]
    pool_targets: PoolTargets,
    /// Names that a checkpoint gathers [default: 65536]
    #[arg(long, env = "BUDDY_CHECKPOINT_NAMES", value_name = "N")]
    checkpoint_names: usize,
    /// Size of the journal of a new store [default: 1/128 of the file system, 4MiB to 256MiB]
    #[arg(long, env = "BUDDY_JOURNAL_SIZE", value_name = "SIZE")]
    journal_size: Bytes,
    /// How long to wait for another process to let go of the store [default: 10s]
    #[arg(long, env = "BUDDY_LOCK_TIMEOUT", value_name = "TIME")]
    lock_timeout: Span,
    /// Memory for bodies and replies, for each worker [default: 32MiB]
    #[arg(long, env = "BUDDY_BUFFER_MEMORY", value_name = "SIZE")]
    buffer_memory: Bytes,
    /// Buffers of 8 KiB into which each worker receives requests [default: 64]
    #[arg(long, env = "BUDDY_RECEIVE_BUFFERS", value_name = "N")]
    receive_buffers: u16,
    /// Connections at a time [default: 16384]
    #[arg(long, env = "BUDDY_MAX_CONNECTIONS", value_name = "N")]
    max_connections: usize,
    /// Connections at a time from one IPv4 address, or one /64 of IPv6 [default: no limit]
    #[arg(long, env = "BUDDY_MAX_CONNECTIONS_PER_PEER", value_name = "N")]
    max_connections_per_peer: usize,
    /// Requests after which a connection is closed [default: no limit]
    #[arg(long, env = "BUDDY_MAX_REQUESTS_PER_CONNECTION", value_name = "N")]
    max_requests_per_connection: u64,
    /// Size of a request's head [default: 16KiB]
    #[arg(long, env = "BUDDY_MAX_HEAD_SIZE", value_name = "SIZE")]
    max_head_size: Bytes,
    /// Time in which a request's head must arrive [default: 10s]
    #[arg(long, env = "BUDDY_HEAD_TIMEOUT", value_name = "TIME")]
    head_timeout: Span,
    /// Time without progress after which a body or a reply is given up [default: 30s]
    #[arg(long, env = "BUDDY_BODY_TIMEOUT", value_name = "TIME")]
    body_timeout: Span,
    /// A body or a reply that moves more slowly than so much a second, on the whole, is given up [default: 4KiB]
    #[arg(long, env = "BUDDY_MIN_TRANSFER_RATE", value_name = "SIZE")]
    min_transfer_rate: Bytes,
    /// Time after which an idle connection is closed [default: 60s]
    #[arg(long, env = "BUDDY_IDLE_TIMEOUT", value_name = "TIME")]
    idle_timeout: Span,
    /// Time that requests under way have to finish when the server stops [default: 30s]
    #[arg(long, env = "BUDDY_DRAIN_TIMEOUT", value_name = "TIME")]
    drain_timeout: Span,
    /// Pages in browsers that may use the server, by origin (`https://example.org`), several with commas between them, or `*`
    /// for all [default: none]
    #[arg(long, env = "BUDDY_CORS_ORIGIN", value_name = "ORIGIN,…")]
    cors_origin: String,
    /// TCP congestion control of connections [default: the system's]
    #[arg(long, env = "BUDDY_CONGESTION_CONTROL", value_name = "NAME")]
    congestion_control: String,
    /// Least important messages that are logged: error, warn, info, debug, trace [default: info]
    #[arg(long, env = "BUDDY_LOG_LEVEL", value_name = "LEVEL")]
    log_level: String,
    /// How messages are logged [default: text]
    #[arg(long, env = "BUDDY_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
}

/// [`Durability`], as it is written.
#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DurabilityOption {
    Sync,
    Relaxed,
}

/// [`DataSync`], as it is written.
#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DataSyncOption {
    Write,
    Frame,
}

/// [`VerifyReads`], as it is written.
#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerifyReadsOption {
    Off,
    Sampled,
    All,
}

/// [`LookupPath`], as it is written.
#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LookupOption {
    Worker,
    Controller,
}

/// How messages are logged.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// [`Rights`], as they are written.
#[derive(Clone, Copy)]
pub(crate) struct RightsOption(Rights);

impl FromStr for RightsOption {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<RightsOption, RightsError> {
        text.parse().map(RightsOption)
    }
}

impl<'de> Deserialize<'de> for RightsOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RightsOption, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A number of extents for each size class.
pub(crate) type PoolTargets = [u32; SIZE_CLASSES];

pub(crate) fn parse_pool_targets(text: &str) -> Result<PoolTargets, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| format!("\"{text}\" is not {SIZE_CLASSES} numbers with commas between them"))
}

/// What `serve` starts with.
pub(crate) struct ServeConfig {
    pub(crate) listeners: Listeners,
    pub(crate) data: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) limits: HttpLimits,
    pub(crate) access: AccessConfig,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
}

impl ServeArguments {
    /// Everything together, with defaults, checked.
    pub(crate) fn into_config(self) -> Result<ServeConfig, Failure> {
        let file = match &self.config {
            None => ServeOptions::default(),
            Some(path) => read_file(path)?,
        };
        self.options.or(file).into_config()
    }
}

fn read_file(path: &Path) -> Result<ServeOptions, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    parse_file(&text, path)
}

/// Reads the text of the file at `path`.
pub(crate) fn parse_file(text: &str, path: &Path) -> Result<ServeOptions, Failure> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        let message = error.message().replace('\n', " ");
        Failure(format!("{}, line {line}: {message}", path.display()))
    })
}

impl ServeOptions {
    pub(crate) fn into_config(mut self) -> Result<ServeConfig, Failure> {
        let listeners = self.take_listeners()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let defaults = Settings::default();
        let settings = Settings {
            workers: within("workers", self.workers.unwrap_or(cores), 1, 1024)?,
            durability: match self.durability {
                Some(DurabilityOption::Relaxed) => Durability::Relaxed,
                _ => Durability::Sync,
            },
            data_sync: self.data_sync.map(|way| match way {
                DataSyncOption::Write => DataSync::PerWrite,
                DataSyncOption::Frame => DataSync::PerFrame,
            }),
            sync_interval: span("sync-interval", self.sync_interval, defaults.sync_interval)?,
            verify_reads: match self.verify_reads {
                Some(VerifyReadsOption::All) => VerifyReads::All,
                Some(VerifyReadsOption::Sampled) => VerifyReads::Sampled,
                _ => VerifyReads::Off,
            },
            scrub_bytes_per_second: self.scrub_rate.map_or(defaults.scrub_bytes_per_second, |Bytes(bytes)| bytes),
            lookup: match self.lookup {
                Some(LookupOption::Controller) => LookupPath::Controller,
                _ => LookupPath::Worker,
            },
            capacity_bytes: capacity(self.capacity)?,
            pool_targets: self.pool_targets.unwrap_or(defaults.pool_targets),
            checkpoint_names: {
                let names = self.checkpoint_names.unwrap_or(defaults.checkpoint_names);
                within("checkpoint-names", names, 64, 16 << 20)?
            },
            journal_bytes: journal_size(self.journal_size)?,
            lock_timeout: self.lock_timeout.map_or(defaults.lock_timeout, |span| span.0),
            ..defaults
        };
        let defaults = HttpLimits::default();
        let body_timeout = span("body-timeout", self.body_timeout, defaults.body_timeout)?;
        let limits = HttpLimits {
            head_timeout: span("head-timeout", self.head_timeout, defaults.head_timeout)?,
            body_timeout,
            send_timeout: body_timeout,
            idle_timeout: span("idle-timeout", self.idle_timeout, defaults.idle_timeout)?,
            drain_timeout: span("drain-timeout", self.drain_timeout, defaults.drain_timeout)?,
            connections_max: {
                let connections = self.max_connections.unwrap_or(defaults.connections_max);
                within("max-connections", connections, 1, 1 << 20)?
            },
            connections_per_peer_max: {
                let connections = self.max_connections_per_peer;
                connections.map(|count| within("max-connections-per-peer", count, 1, 1 << 20)).transpose()?
            },
            requests_per_connection_max: {
                let requests = self.max_requests_per_connection;
                requests.map(|count| within("max-requests-per-connection", count, 1, u64::MAX)).transpose()?
            },
            head_bytes_max: size("max-head-size", self.max_head_size, defaults.head_bytes_max, 1 << 10, 64 << 10)?,
            bytes_per_second_min: {
                let default = defaults.bytes_per_second_min;
                size("min-transfer-rate", self.min_transfer_rate, default, 1, 1 << 30)?
            },
            buffer_bytes_max: buffer_memory(self.buffer_memory, defaults.buffer_bytes_max)?,
            receive_buffers: {
                let buffers = self.receive_buffers.unwrap_or(defaults.receive_buffers);
                within("receive-buffers", buffers, 1, 32_768)?
            },
            listen: ListenOptions {
                congestion_control: self.congestion_control,
                unix_mode: self.unix_mode.map_or(defaults.listen.unix_mode, |UnixMode(mode)| mode),
            },
            cors: cors(self.cors_origin.as_deref())?,
            ..defaults
        };
        let access = AccessConfig {
            tokens: self.tokens,
            anonymous: self.anonymous.map(|RightsOption(rights)| rights),
            append_only: self.append_only.unwrap_or(false),
            insecure_listen: self.insecure_listen.unwrap_or(false),
        };
        listeners.addresses().try_for_each(|address| access.allow_listening(address))?;
        Ok(ServeConfig {
            listeners,
            data: self.data.unwrap_or_else(|| PathBuf::from("buddy-data")),
            settings,
            limits,
            access,
            log_level: self.log_level.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

impl ServeOptions {
    /// Where to listen: on one address of this machine where nothing is said, and nowhere without TLS where only that was asked for.
    fn take_listeners(&mut self) -> Result<Listeners, Failure> {
        let default = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 10_001)));
        let plain = self.listen.take().map(|Addresses(addresses)| addresses);
        let files = (self.tls_certificate.take(), self.tls_key.take(), self.tls_client_ca.take());
        let Some(Addresses(tls)) = self.listen_tls.take() else {
            if files != (None, None, None) {
                return Err(Failure("tls-certificate, tls-key and tls-client-ca need listen-tls".to_owned()));
            }
            return Ok(Listeners { plain: plain.unwrap_or_else(|| vec![default]), tls: None });
        };
        let (Some(certificate), Some(key), client_ca) = files else {
            return Err(Failure("listen-tls needs tls-certificate and tls-key".to_owned()));
        };
        let tls = (tls, TlsFiles { certificate, key, client_ca });
        Ok(Listeners { plain: plain.unwrap_or_default(), tls: Some(tls) })
    }
}

/// A size between two limits.
fn size<T: TryFrom<u64>>(name: &str, size: Option<Bytes>, default: T, least: u64, most: u64) -> Result<T, Failure> {
    let Some(Bytes(bytes)) = size else { return Ok(default) };
    T::try_from(within(name, bytes, least, most)?).map_err(|_| Failure(format!("{name} is {bytes}: it is too large")))
}

fn cors(origins: Option<&str>) -> Result<Cors, Failure> {
    let origins = origins.into_iter().flat_map(|origins| origins.split(',').map(str::trim));
    Cors::new(origins).map_err(|error| Failure(format!("cors-origin: {error}")))
}

/// A number between two limits.
fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, least: T, most: T) -> Result<T, Failure> {
    if value < least || value > most {
        return Err(Failure(format!("{name} is {value}: it must be between {least} and {most}")));
    }
    Ok(value)
}

/// A time that is neither nothing nor for ever.
fn span(name: &str, span: Option<Span>, default: Duration) -> Result<Duration, Failure> {
    const LEAST: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_secs(24 * 60 * 60);
    let Some(Span(span)) = span else { return Ok(default) };
    if span < LEAST || span > MOST {
        let span = humantime::format_duration(span);
        return Err(Failure(format!("{name} is {span}: it must be between 1ms and 1day")));
    }
    Ok(span)
}

/// A store needs at least a macroblock.
fn capacity(capacity: Option<Bytes>) -> Result<Option<u64>, Failure> {
    const LEAST: u64 = 1 << 20;
    let Some(Bytes(bytes)) = capacity else { return Ok(None) };
    if bytes < LEAST {
        return Err(Failure(format!("capacity is {bytes} bytes: it must be at least {LEAST}, one macroblock")));
    }
    Ok(Some(bytes))
}

fn journal_size(size: Option<Bytes>) -> Result<Option<u64>, Failure> {
    const MOST: u64 = 1 << 40;
    size.map(|Bytes(bytes)| within("journal-size", bytes, JOURNAL_BYTES_MIN, MOST)).transpose()
}

/// Two blocks must fit.
fn buffer_memory(size: Option<Bytes>, default: usize) -> Result<usize, Failure> {
    const LEAST: u64 = 2 << 20;
    let Some(Bytes(bytes)) = size else { return Ok(default) };
    let bytes = within("buffer-memory", bytes, LEAST, 1 << 40)?;
    usize::try_from(bytes).map_err(Failure::from_display)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_what_it_does_not_know_is_refused() {
        let options: ServeOptions = toml::from_str(
            "listen = \"0.0.0.0:1\"\ninsecure-listen = true\nanonymous = \"read,write\"\nsync-interval = \"250ms\"\ncapacity = \"10GB\"\njournal-size = 8388608\n\
             durability = \"relaxed\"\npool-targets = [1,2,3,4,5,6,7,8]",
        )
        .unwrap();
        let config = options.into_config().unwrap();
        assert_eq!(config.listeners.plain, ["0.0.0.0:1".parse().unwrap()]);
        assert_eq!(config.access.anonymous.map(|rights| rights.to_string()).as_deref(), Some("read,write"));
        assert_eq!(config.settings.capacity_bytes, Some(10_000_000_000));
        assert_eq!(config.settings.durability, Durability::Relaxed);
        assert_eq!(config.settings.pool_targets, [1, 2, 3, 4, 5, 6, 7, 8]);
        let unknown = toml::from_str::<ServeOptions>("lisen = \"x\"").err().unwrap().to_string();
        assert!(unknown.contains("lisen") && unknown.contains("listen"), "{unknown}");
        assert!(toml::from_str::<ServeOptions>("capacity = \"lots\"").is_err());
    }

    #[test]
    fn what_is_set_first_wins() {
        let first = ServeOptions { workers: Some(3), ..ServeOptions::default() };
        let second = ServeOptions { workers: Some(5), receive_buffers: Some(7), ..ServeOptions::default() };
        let merged = first.or(second);
        assert_eq!((merged.workers, merged.receive_buffers), (Some(3), Some(7)));
    }

    #[test]
    fn nonsense_names_the_value_and_the_limit() {
        let refused = |options: ServeOptions| options.into_config().err().unwrap().to_string();
        let none = ServeOptions::default;
        assert_eq!(refused(ServeOptions { workers: Some(0), ..none() }), "workers is 0: it must be between 1 and 1024");
        let long = Span(Duration::from_secs(1 << 40));
        assert!(refused(ServeOptions { idle_timeout: Some(long), ..none() }).contains("between 1ms and 1day"));
        assert!(refused(ServeOptions { capacity: Some(Bytes(5)), ..none() }).contains("capacity is 5 bytes"));
        assert!(refused(ServeOptions { journal_size: Some(Bytes(5)), ..none() }).contains("journal-size is 5"));
        assert!(refused(ServeOptions { buffer_memory: Some(Bytes(5)), ..none() }).contains("buffer-memory is 5"));
        assert!(refused(ServeOptions { max_head_size: Some(Bytes(5)), ..none() }).contains("max-head-size is 5"));
        assert!(refused(ServeOptions { max_connections_per_peer: Some(0), ..none() }).contains("peer is 0"));
        let origins = Some("https://a, b".to_owned());
        assert!(refused(ServeOptions { cors_origin: origins, ..none() }).contains("cors-origin: \"b\" is not"));
        let others = Some("0.0.0.0:1".parse().unwrap());
        assert!(refused(ServeOptions { listen: others, ..none() }).contains("--insecure-listen"));
        assert!(toml::from_str::<ServeOptions>("anonymous = \"everything\"").is_err());
        assert!(parse_pool_targets("1,2").unwrap_err().contains("8 numbers"));
    }
}
