//! `buddy-blocks`: a content-addressed block store for Linux. The whole program; its `main.rs` only calls [`main`].
//!
//! | module | one idea |
//! | --- | --- |
//! | `options`, `values` | what `serve` can be told, and how it is written |
//! | `config` | what is made of it |
//! | `environment` | variables that nothing reads are mistakes |
//! | `serve`, `check`, `bench` | the commands |
//! | `access`, `tokens` | who may do what; the command `token` |
//! | `logging`, `output` | messages for the operator; what commands print |
//! | `bus_error` | what is said when the index cannot be read any more |
//! | `fuzzing` | what must hold for any configuration |

mod access;
mod bench;
mod bus_error;
mod check;
mod config;
mod environment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod logging;
mod options;
mod output;
mod serve;
mod tokens;
mod values;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;

/// A content-addressed block store: send up to 512 KiB over HTTP, get back its SHA-256; with that name anyone gets the
/// bytes back.
#[derive(Parser)]
#[command(name = "buddy-blocks", version, max_term_width = 120, allow_negative_numbers = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<options::ServeArguments>),
    Check(check::CheckArguments),
    Bench(Box<bench::BenchArguments>),
    Token(tokens::TokenArguments),
}

impl Command {
    /// The exit status where it could not do what it was asked to.
    fn failure(&self) -> ExitCode {
        match self {
            // A store that does not agree has 1.
            Command::Check(_) => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    // Programs that are built for tests can be told where to die.
    let _crash_points = fail::has_failpoints().then(fail::FailScenario::setup);
    outlive_file_size_limits();
    bus_error::explain();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    let failure = arguments.command.as_ref().map_or(ExitCode::FAILURE, Command::failure);
    let outcome = match arguments.command {
        None => show_help(),
        Some(Command::Serve(arguments)) => serve::run(*arguments),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(*arguments),
        Some(Command::Token(arguments)) => tokens::run(&arguments),
    };
    logging::finish();
    outcome.unwrap_or_else(|reason| {
        output::complain(&reason);
        if reason.is_usage { ExitCode::from(USAGE) } else { failure }
    })
}

/// A file that may not become larger (`ulimit -f`) is an error to be told, like a full disk, and not the end.
fn outlive_file_size_limits() {
    // A handler that sets a flag nobody looks at: it only keeps the signal from killing.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Why a command did not do what it was asked to, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Failure {
    reason: String,
    /// It was asked for what makes no sense.
    is_usage: bool,
}

impl Failure {
    fn new(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), is_usage: false }
    }

    fn from_display(error: impl std::fmt::Display) -> Failure {
        Failure::new(error.to_string())
    }

    /// What was asked for makes no sense.
    fn usage(error: impl std::fmt::Display) -> Failure {
        Failure { reason: error.to_string(), is_usage: true }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Help and version as they are; what is wrong with a command line in one line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Where nobody reads the help there is nobody to tell.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or(&text).replace("error: ", "");
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    output::complain(format_args!("{what} (see --help)"));
    ExitCode::from(USAGE)
}

/// Exit status for a command line that makes no sense, and for a store that cannot be looked at.
const USAGE: u8 = 2;

fn show_help() -> Outcome {
    Arguments::command().print_help().map_err(Failure::from_display)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
