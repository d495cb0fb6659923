//! `buddy-blocks bench`

use crate::values::{Bytes, Span};
use crate::{Failure, Outcome, output};
use buddy_bench::{
    Name, NamesFile, Operation, Plan, Progress, Report, Shares, Sizes, Target, Template, Token, Workload,
};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Descriptors beside those of connections: rings, the noise, files of names.
const OTHER_DESCRIPTORS: u64 = 64;
const DESCRIPTORS_PER_THREAD: u64 = 8;
const WARM_UP: Duration = Duration::from_secs(1);

/// Send requests to a server and measure it.
///
/// Sends to Buddy Blocks, or with --path to any server that takes PUT and GET of a path. What PUT stores stays there: with
/// --save-names and then --op delete --names it can be removed. The exit status is 1 where requests failed, 2 where what is asked for makes no
/// sense. Sizes are bytes or `64KiB` …; times are `1s`, `500ms` …
#[derive(Args)]
pub(crate) struct BenchArguments {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10001")]
    target: String,
    /// Where blocks lie on another server: `{name}` is chosen by the client, `{hash}` the SHA-256 of the body, `{shard:N}` its first
    /// N digits, as in `/{shard:2}/{name}` [default: PUT /, whose answer is the name, and then /{name}]
    #[arg(long, value_name = "TEMPLATE")]
    path: Option<Template>,
    /// Which requests
    #[arg(long, value_name = "OPERATION", default_value = "put")]
    op: OperationOption,
    /// Shares of GET, PUT and DELETE for --op mixed [default: 70/25/5]
    #[arg(long, value_name = "N/N/N")]
    mix: Option<Shares>,
    /// Size of bodies, 16 to 524288 bytes, or `mix`: each size class from 4 KiB to 512 KiB equally often
    #[arg(long, value_name = "SIZE", default_value = "4096")]
    size: SizeOption,
    /// Connections at a time, kept alive
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Connections beside them that do nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,
    /// Threads of the generator, which share the connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// How long to measure: a number of seconds, or a time
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_seconds)]
    seconds: Span,
    /// How long to send before that without measuring [default: 1s; 0 with --op delete, which the warm-up would leave no names]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    warm_up: Option<Span>,
    /// Send so many requests a second, and count latency from when each was due [default: as fast as replies come]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// After which a request has failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_seconds)]
    timeout: Span,
    /// Compare what GET answers with what was stored, and the names that PUT answers with the bodies
    #[arg(long)]
    verify: bool,
    /// File with names to read or delete, one a line [default: blocks that are stored first]
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Write the names of what is stored at the end to this file, which is replaced when they are written
    #[arg(long, value_name = "FILE")]
    save_names: Option<PathBuf>,
    /// Blocks to store first, where there are no --names to read or delete
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    blocks: usize,
    /// Decides bodies and order: the same again, of which PUT stores nothing new; with other --names other bodies [default: by chance]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// File with a token, which is sent with every request
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Report CPU and memory of this process, too; give it more than once for several
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// TCP congestion control of what is sent [default: the system's]
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// [`Workload`], as it is written.
#[derive(Clone, Copy, ValueEnum)]
enum OperationOption {
    Put,
    Get,
    Head,
    Delete,
    Mixed,
}

impl OperationOption {
    /// Where none is given. What is deleted before the measurement is not there for it.
    fn warm_up(self) -> Duration {
        if matches!(self, OperationOption::Delete) { Duration::ZERO } else { WARM_UP }
    }
}

/// [`Sizes`], as they are written.
#[derive(Clone, Copy)]
struct SizeOption(Sizes);

impl FromStr for SizeOption {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeOption, String> {
        if text == "mix" {
            return Ok(SizeOption(Sizes::AllClasses));
        }
        let bytes: Bytes = text.parse().map_err(|error| format!("{error}, or mix"))?;
        Ok(SizeOption(Sizes::Fixed(usize::try_from(bytes.0).unwrap_or(usize::MAX))))
    }
}

/// A number of seconds, or a time with its unit.
fn parse_seconds(text: &str) -> Result<Span, String> {
    match text.parse::<f64>() {
        Ok(seconds) => {
            Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| format!("\"{text}\" is not a number of seconds"))
        }
        Err(_) => text.parse(),
    }
}

/// Measures a server.
pub(crate) fn run(arguments: BenchArguments) -> Outcome {
    let (json, save_names) = (arguments.json, arguments.save_names.clone());
    let plan = arguments.into_plan()?;
    plan.check().map_err(Failure::usage)?;
    allow_connections(&plan)?;
    let names_file = save_names.as_deref().map(NamesFile::create).transpose().map_err(Failure::from_display)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal finds the flag set, and ends the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop)).map_err(Failure::from_display)?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::from_display)?;
    }
    let bar = ProgressBar::no_length();
    let outcome = buddy_bench::run(plan, stop, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    // What was stored can be removed, even if nothing was measured. An older file is only replaced by something.
    let is_worth_saving = outcome.report.is_ok() || !outcome.names.is_empty();
    let measured = outcome.report.map_err(Failure::from_display);
    let measured = measured.and_then(|report| print(&report, json).map(|()| report.is_success()));
    if let Some(Err(error)) = names_file.filter(|_| is_worth_saving).map(|file| file.write(&outcome.names)) {
        // Neither costs anybody the other.
        if let Err(failure) = measured {
            output::complain(failure);
        }
        return Err(Failure::from_display(error));
    }
    Ok(if measured? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl BenchArguments {
    fn into_plan(self) -> Result<Plan, Failure> {
        if self.mix.is_some() && !matches!(self.op, OperationOption::Mixed) {
            return Err(Failure::usage("--mix is for --op mixed"));
        }
        let names: Vec<Name> = match &self.names {
            Some(path) => buddy_bench::read_names(path).map_err(Failure::from_display)?,
            None => Vec::new(),
        };
        Ok(Plan {
            target: Target::resolve(&self.target).map_err(Failure::usage)?,
            template: self.path,
            workload: match self.op {
                OperationOption::Put => Workload::Only(Operation::Put),
                OperationOption::Get => Workload::Only(Operation::Get),
                OperationOption::Head => Workload::Only(Operation::Head),
                OperationOption::Delete => Workload::Only(Operation::Delete),
                OperationOption::Mixed => Workload::Mixed(self.mix.unwrap_or_default()),
            },
            sizes: self.size.0,
            connections: self.connections,
            idle_connections: self.idle,
            threads: self.threads,
            duration: self.seconds.0,
            warm_up: self.warm_up.map_or(self.op.warm_up(), |given| given.0),
            rate: self.rate,
            timeout: self.timeout.0,
            verify: self.verify,
            names,
            blocks: self.blocks,
            keep_names: self.save_names.is_some(),
            seed: self.seed.unwrap_or_else(buddy_bench::random_seed),
            token: self.token_file.as_deref().map(Token::read).transpose().map_err(Failure::from_display)?,
            pids: self.pid,
            congestion_control: self.congestion_control,
        })
    }
}

/// Raises the limit of open files where that is needed.
fn allow_connections(plan: &Plan) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let connections = plan.connections + plan.idle_connections;
    let needed = connections as u64 + OTHER_DESCRIPTORS + DESCRIPTORS_PER_THREAD * plan.threads as u64;
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum }).map_err(|_| {
        let allowed = limit.maximum.unwrap_or(u64::MAX);
        Failure::new(format!("{connections} connections need {needed} open files; the limit (ulimit -Hn) is {allowed}"))
    })
}

/// A line on standard error, where somebody looks at it.
fn show(bar: &ProgressBar, progress: Progress) {
    let (template, position, length) = match progress {
        Progress::Storing(stored, total) => ("storing {wide_bar} {human_pos}/{human_len} blocks", stored, total),
        Progress::Load { elapsed, total, requests, failures } => {
            let rate = requests as f64 / elapsed.as_secs_f64().max(0.001);
            bar.set_message(format!("{rate:.0} requests/s, {failures} failed"));
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            ("{wide_bar} {msg}", ms(elapsed), ms(total))
        }
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(length);
    bar.set_position(position);
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json { output::print_json(report) } else { output::print(&report.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_seconds_are_read_as_people_write_them() {
        let size = |text: &str| text.parse::<SizeOption>().map(|size| size.0);
        assert_eq!(size("mix"), Ok(Sizes::AllClasses));
        assert_eq!(size("4KiB"), Ok(Sizes::Fixed(4096)));
        assert!(size("all").unwrap_err().contains("or mix"));
        assert_eq!(parse_seconds("2.5"), Ok(Span(Duration::from_millis(2500))));
        assert_eq!(parse_seconds("250ms"), Ok(Span(Duration::from_millis(250))));
        for text in ["-1", "NaN", "inf", "soon"] {
            assert!(parse_seconds(text).unwrap_err().contains(text));
        }
    }
}
