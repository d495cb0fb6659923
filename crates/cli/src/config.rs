//! What `serve` starts with: options from the command line, variables and a file together, checked. What nothing sets has the defaults of
//! [`Settings`] and [`HttpLimits`].

use crate::Failure;
use crate::access::AccessConfig;
use crate::options::{
    DataSyncOption, DurabilityOption, LogFormat, LookupOption, NewSpaceOption, RightsOption, ServeArguments,
    ServeOptions, VerifyReadsOption,
};
use crate::values::{Addresses, Bytes, Span, UnixMode};
use buddy_ring::{Address, ListenOptions};
use buddy_server::cors::Cors;
use buddy_server::{HttpLimits, Listeners, TlsFiles};
use buddy_store::memory;
use buddy_store::settings::{DataSync, Durability, JOURNAL_BYTES_MIN, LookupPath, NewSpace, Settings, VerifyReads};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::new(format!("config: {}: {error}", path.display())))?;
    parse_file(&text, path)
}

/// Reads the text of the file at `path`.
pub(crate) fn parse_file(text: &str, path: &Path) -> Result<ServeOptions, Failure> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        let message = error.message().replace('\n', " ");
        Failure::new(format!("{}, line {line}: {message}", path.display()))
    })
}

impl ServeOptions {
    pub(crate) fn into_config(self) -> Result<ServeConfig, Failure> {
        let (listeners, access) = (self.listeners()?, self.access());
        open_to_anybody(&listeners).try_for_each(|(option, address)| access.allow_listening(option, address))?;
        refuse_repeated(&listeners)?;
        Ok(ServeConfig {
            listeners,
            settings: self.settings()?,
            limits: self.limits()?,
            access,
            data: self.data.unwrap_or_else(|| PathBuf::from("buddy-data")),
            log_level: self.log_level.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let defaults = Settings::default();
        Ok(Settings {
            workers: within("workers", self.workers.unwrap_or(cores), 1, 1024)?,
            durability: match self.durability {
                Some(DurabilityOption::Relaxed) => Durability::Relaxed,
                _ => Durability::Sync,
            },
            data_sync: self.data_sync.map(|way| match way {
                DataSyncOption::Write => DataSync::PerWrite,
                DataSyncOption::Frame => DataSync::PerFrame,
            }),
            new_space: self.new_space.map(|what| match what {
                NewSpaceOption::Zeros => NewSpace::Zeros,
                NewSpaceOption::Unwritten => NewSpace::Unwritten,
            }),
            reads_at_once: self.reads_at_once.map(|reads| within("reads-at-once", reads, 1, 65_536)).transpose()?,
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
                let by_memory = || Settings::checkpoint_names_for(memory::bytes());
                within("checkpoint-names", self.checkpoint_names.unwrap_or_else(by_memory), 64, 16 << 20)?
            },
            recent_reads: Settings::recent_reads_for(memory::bytes()),
            journal_bytes: journal_size(self.journal_size)?,
            lock_timeout: self.lock_timeout.map_or(defaults.lock_timeout, |span| span.0),
            busy_poll: span_within("busy-poll", self.busy_poll, defaults.busy_poll, Duration::ZERO, BUSY_POLL_MAX)?,
            ..defaults
        })
    }

    fn limits(&self) -> Result<HttpLimits, Failure> {
        let defaults = HttpLimits::default();
        let body_timeout = span("body-timeout", self.body_timeout, defaults.body_timeout)?;
        Ok(HttpLimits {
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
                congestion_control: self.congestion_control.clone(),
                unix_mode: self.unix_mode.map_or(defaults.listen.unix_mode, |UnixMode(mode)| mode),
            },
            cors: cors(self.cors_origin.as_deref())?,
            ..defaults
        })
    }

    fn access(&self) -> AccessConfig {
        AccessConfig {
            tokens: self.tokens.clone(),
            anonymous: self.anonymous.map(|RightsOption(rights)| rights),
            append_only: self.append_only.unwrap_or(false),
            insecure_listen: self.insecure_listen.unwrap_or(false),
        }
    }

    /// Where to listen: on one address of this machine where nothing is said, and nowhere without TLS where only that was asked for.
    fn listeners(&self) -> Result<Listeners, Failure> {
        let default = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 10_001)));
        let plain = self.listen.clone().map(|Addresses(addresses)| addresses);
        let files = (self.tls_certificate.clone(), self.tls_key.clone(), self.tls_client_ca.clone());
        let Some(Addresses(tls)) = self.listen_tls.clone() else {
            if files != (None, None, None) {
                return Err(Failure::new("tls-certificate, tls-key and tls-client-ca need listen-tls".to_owned()));
            }
            return Ok(Listeners { plain: plain.unwrap_or_else(|| vec![default]), tls: None });
        };
        let (Some(certificate), Some(key), client_ca) = files else {
            return Err(Failure::new("listen-tls needs tls-certificate and tls-key".to_owned()));
        };
        let tls = (tls, TlsFiles { certificate, key, client_ca });
        Ok(Listeners { plain: plain.unwrap_or_default(), tls: Some(tls) })
    }
}

/// The addresses at which nobody has to show a certificate, each with the option that names it.
fn open_to_anybody(listeners: &Listeners) -> impl Iterator<Item = (&'static str, &Address)> {
    let tls = listeners.tls.iter().filter(|(_, files)| files.client_ca.is_none()).flat_map(|(addresses, _)| addresses);
    listeners.plain.iter().map(|address| ("listen", address)).chain(tls.map(|address| ("listen-tls", address)))
}

/// The second of two sockets for the same address could not be had, but only once the store is open.
fn refuse_repeated(listeners: &Listeners) -> Result<(), Failure> {
    let addresses: Vec<_> = listeners.addresses().collect();
    for (number, address) in addresses.iter().enumerate() {
        if let Some(other) = addresses.iter().take(number).find(|before| address.overlaps(before)) {
            return Err(Failure::new(if address == other {
                format!("{address} is to be listened on twice")
            } else {
                format!("{other} and {address} cannot both be listened on: they overlap")
            }));
        }
    }
    Ok(())
}

/// A size between two limits.
fn size<T: TryFrom<u64>>(name: &str, size: Option<Bytes>, default: T, least: u64, most: u64) -> Result<T, Failure> {
    let Some(Bytes(bytes)) = size else { return Ok(default) };
    T::try_from(within(name, bytes, least, most)?)
        .map_err(|_| Failure::new(format!("{name} is {bytes}: it is too large")))
}

fn cors(origins: Option<&str>) -> Result<Cors, Failure> {
    let origins = origins.into_iter().flat_map(|origins| origins.split(',').map(str::trim));
    Cors::new(origins).map_err(|error| Failure::new(format!("cors-origin: {error}")))
}

/// Polling for longer than this would be what sleeping is for.
const BUSY_POLL_MAX: Duration = Duration::from_millis(1);

/// A number between two limits.
fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, least: T, most: T) -> Result<T, Failure> {
    if value < least || value > most {
        return Err(Failure::new(format!("{name} is {value}: it must be between {least} and {most}")));
    }
    Ok(value)
}

/// A time that is neither nothing nor for ever.
fn span(name: &str, span: Option<Span>, default: Duration) -> Result<Duration, Failure> {
    span_within(name, span, default, Duration::from_millis(1), Duration::from_secs(24 * 60 * 60))
}

/// A time between two limits.
fn span_within(
    name: &str,
    span: Option<Span>,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, Failure> {
    let Some(Span(span)) = span else { return Ok(default) };
    if span < least || span > most {
        let [span, least, most] = [span, least, most].map(humantime::format_duration);
        return Err(Failure::new(format!("{name} is {span}: it must be between {least} and {most}")));
    }
    Ok(span)
}

/// A store needs at least a macroblock.
fn capacity(capacity: Option<Bytes>) -> Result<Option<u64>, Failure> {
    const LEAST: u64 = 1 << 20;
    let Some(Bytes(bytes)) = capacity else { return Ok(None) };
    if bytes < LEAST {
        return Err(Failure::new(format!("capacity is {bytes} bytes: it must be at least {LEAST}, one macroblock")));
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
    use crate::options::parse_pool_targets;

    #[test]
    fn a_file_is_read_and_what_it_does_not_know_is_refused() {
        let options: ServeOptions = toml::from_str(
            "listen = \"0.0.0.0:1\"\ninsecure-listen = true\nanonymous = \"read,write\"\nsync-interval = \"250ms\"\ncapacity = \"10GB\"\njournal-size = 8388608\n\
             durability = \"relaxed\"\nbusy-poll = \"0s\"\nreads-at-once = 12\npool-targets = [1,2,3,4,5,6,7,8]",
        )
        .unwrap();
        let config = options.into_config().unwrap();
        assert_eq!(config.listeners.plain, ["0.0.0.0:1".parse().unwrap()]);
        assert_eq!(config.access.anonymous.map(|rights| rights.to_string()).as_deref(), Some("read,write"));
        assert_eq!(config.settings.capacity_bytes, Some(10_000_000_000));
        assert_eq!(config.settings.durability, Durability::Relaxed);
        assert_eq!(config.settings.busy_poll, Duration::ZERO);
        assert_eq!(config.settings.reads_at_once, Some(12));
        assert_eq!(config.settings.pool_targets, [1, 2, 3, 4, 5, 6, 7, 8]);
        let unknown = toml::from_str::<ServeOptions>("lisen = \"x\"").err().unwrap().to_string();
        assert!(unknown.contains("lisen") && unknown.contains("listen"), "{unknown}");
        assert!(toml::from_str::<ServeOptions>("capacity = \"lots\"").is_err());
    }

    #[test]
    fn pool_targets_in_a_file_are_a_list_or_a_text() {
        let targets = |value: &str| {
            toml::from_str::<ServeOptions>(&format!("pool-targets = {value}")).map(|options| options.pool_targets)
        };
        for value in ["[16,4,4,2,2,2,2,1]", "\"16,4,4,2,2,2,2,1\""] {
            assert_eq!(targets(value).unwrap(), Some([16, 4, 4, 2, 2, 2, 2, 1]), "{value}");
        }
        for value in ["[1,2]", "\"1,2\"", "[1,2,3,4,5,6,7,8,9]", "[1,2,3,4,5,6,7,-8]", "8"] {
            let said = targets(value).unwrap_err().to_string();
            assert!(value.contains('-') || said.contains("8 numbers"), "{value}: {said}");
        }
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
        let second = Span(Duration::from_secs(1));
        assert!(refused(ServeOptions { busy_poll: Some(second), ..none() }).contains("between 0s and 1ms"));
        assert!(refused(ServeOptions { reads_at_once: Some(0), ..none() }).contains("between 1 and 65536"));
        assert!(refused(ServeOptions { capacity: Some(Bytes(5)), ..none() }).contains("capacity is 5 bytes"));
        assert!(refused(ServeOptions { journal_size: Some(Bytes(5)), ..none() }).contains("journal-size is 5"));
        assert!(refused(ServeOptions { buffer_memory: Some(Bytes(5)), ..none() }).contains("buffer-memory is 5"));
        assert!(refused(ServeOptions { max_head_size: Some(Bytes(5)), ..none() }).contains("max-head-size is 5"));
        assert!(refused(ServeOptions { max_connections_per_peer: Some(0), ..none() }).contains("peer is 0"));
        let twice = Some("127.0.0.1:7,unix:/a,127.0.0.1:7".parse().unwrap());
        assert!(refused(ServeOptions { listen: twice, ..none() }).contains("127.0.0.1:7 is to be listened on twice"));
        assert!(
            ServeOptions { listen: Some("127.0.0.1:0,127.0.0.1:0".parse().unwrap()), ..none() }.into_config().is_ok()
        );
        let in_one = |listen: &str| {
            let listen = Some(listen.parse().unwrap());
            refused(ServeOptions { listen, insecure_listen: Some(true), ..none() })
        };
        assert!(in_one("127.0.0.1:7,0.0.0.0:7").contains("127.0.0.1:7 and 0.0.0.0:7 cannot both be"));
        assert!(in_one("[::]:7,[::1]:7").contains("[::]:7 and [::1]:7 cannot both be"));
        assert!(in_one("unix:a,unix:./a").contains("unix:a and unix:./a cannot both be"));
        for different in ["127.0.0.1:7,127.0.0.2:7", "127.0.0.1:7,[::]:7", "0.0.0.0:7,[::]:7", "127.0.0.1:7,0.0.0.0:8"]
        {
            let different = Some(different.parse().unwrap());
            let options = ServeOptions { listen: different, insecure_listen: Some(true), ..none() };
            assert!(options.into_config().is_ok());
        }
        let origins = Some("https://a, b".to_owned());
        assert!(refused(ServeOptions { cors_origin: origins, ..none() }).contains("cors-origin: \"b\" is not"));
        let others = Some("0.0.0.0:1".parse().unwrap());
        assert!(refused(ServeOptions { listen: others, ..none() }).contains("--insecure-listen"));
        let through_tls = |client_ca: Option<&str>| ServeOptions {
            listen_tls: Some("0.0.0.0:1".parse().unwrap()),
            tls_certificate: Some(PathBuf::from("a")),
            tls_key: Some(PathBuf::from("b")),
            tls_client_ca: client_ca.map(PathBuf::from),
            ..none()
        };
        assert!(refused(through_tls(None)).contains("listen-tls is 0.0.0.0:1, which others can reach"));
        assert!(through_tls(Some("c")).into_config().is_ok(), "nobody without a certificate can do anything");
        let plain = Some("0.0.0.0:2".parse().unwrap());
        assert!(refused(ServeOptions { listen: plain, ..through_tls(Some("c")) }).contains("listen is 0.0.0.0:2"));
        assert!(toml::from_str::<ServeOptions>("anonymous = \"everything\"").is_err());
        assert!(parse_pool_targets("1,2").unwrap_err().contains("8 numbers"));
    }
}
