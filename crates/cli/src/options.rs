//! Everything that `serve` can be told: on the command line, in `BUDDY_…` variables, in a file. One precedence, in that order.
//!
//! The same struct is read from all three; [`crate::config`] makes of it what `serve` starts with.

use crate::values::{Addresses, Bytes, Span, UnixMode};
use buddy_server::access::{Rights, RightsError};
use buddy_store::extent::SIZE_CLASSES;
use clap::{Args, ValueEnum};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Addresses to listen on, with commas between them: `127.0.0.1:10001`, `[::1]:10001`, `unix:/run/buddy-blocks/buddy.sock`
    /// [default: 127.0.0.1:10001, where nothing is said of TLS]
    #[arg(long, env = "BUDDY_LISTEN", value_name = "ADDRESS,…")]
    listen: Addresses,
    /// Addresses to listen on for TLS (1.3 and 1.2), with commas between them
    #[arg(long, env = "BUDDY_LISTEN_TLS", value_name = "ADDRESS,…")]
    listen_tls: Addresses,
    /// The server's certificate in PEM, followed by those between it and its root; read again on SIGHUP, as are the key
    /// and `--tls-client-ca`, for connections to come; where one of the three is wrong all stay as they were
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
    /// most the last sync interval and what a flush takes) [default: sync]
    #[arg(long, env = "BUDDY_DURABILITY", value_name = "MODE")]
    durability: DurabilityOption,
    /// How blocks get to stable storage when durability is `sync`: by each `write`, or by a flush for each journal `frame`;
    /// the latter is better where a flush takes time [default: what a measurement at opening says]
    #[arg(long, env = "BUDDY_DATA_SYNC", value_name = "WAY")]
    data_sync: DataSyncOption,
    /// What is done about space that is new to the data file before blocks of less than 512 KiB get there: `zeros` are written ahead of
    /// need, or it is left `unwritten`, which is better where a first write takes little longer than others [default: what a
    /// measurement at opening says]
    #[arg(long, env = "BUDDY_NEW_SPACE", value_name = "WHAT")]
    new_space: NewSpaceOption,
    /// Blocks that a worker has the disk read at a time, past the page cache, at least; of more it has half at a time. 65536: all of them
    /// [default: what a measurement at opening says]
    #[arg(long, env = "BUDDY_READS_AT_ONCE", value_name = "N")]
    reads_at_once: usize,
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
    #[serde(deserialize_with = "read_pool_targets")]
    pool_targets: PoolTargets,
    /// Names that a checkpoint gathers [default: by the memory of the machine, 4096 to 524288]
    #[arg(long, env = "BUDDY_CHECKPOINT_NAMES", value_name = "N")]
    checkpoint_names: usize,
    /// Size of the journal of a new store [default: 1/128 of the file system, 4MiB to 256MiB]
    #[arg(long, env = "BUDDY_JOURNAL_SIZE", value_name = "SIZE")]
    journal_size: Bytes,
    /// How long to wait for another process to let go of the store [default: 10s]
    #[arg(long, env = "BUDDY_LOCK_TIMEOUT", value_name = "TIME")]
    lock_timeout: Span,
    /// Memory for bodies and replies, for each worker [default: 32MiB]
    ///
    /// A quarter is for replies. While others wait for the rest, a body that arrives slowly keeps room only for what has arrived, and
    /// slow ones have at most half.
    #[arg(long, env = "BUDDY_BUFFER_MEMORY", value_name = "SIZE")]
    buffer_memory: Bytes,
    /// How long a thread that has nothing to do looks for work before it sleeps, while it is busy; 0s saves processor time and makes
    /// requests take longer [default: 50us]
    #[arg(long, env = "BUDDY_BUSY_POLL", value_name = "TIME")]
    busy_poll: Span,
    /// Buffers of 8 KiB into which each worker receives requests, rounded up to a power of two [default: 64]
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

/// [`NewSpace`], as it is written.
#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NewSpaceOption {
    Zeros,
    Unwritten,
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
pub(crate) struct RightsOption(pub(crate) Rights);

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

/// In a file they are a list, or a text as on the command line.
struct PoolTargetsVisitor;

impl<'de> Visitor<'de> for PoolTargetsVisitor {
    type Value = PoolTargets;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SIZE_CLASSES} numbers: [16, 4, …] or \"16,4,…\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PoolTargets, E> {
        parse_pool_targets(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<PoolTargets, A::Error> {
        let numbers = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        numbers.try_into().map_err(|numbers: Vec<u32>| A::Error::invalid_length(numbers.len(), &self))
    }
}

fn read_pool_targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PoolTargets>, D::Error> {
    deserializer.deserialize_any(PoolTargetsVisitor).map(Some)
}
