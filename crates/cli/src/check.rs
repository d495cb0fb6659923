//! `buddy-blocks check`

use crate::values::Span;
use crate::{Failure, Outcome, output};
use buddy_store::check::{CheckProgress, CheckReport};
use buddy_store::quarantine::Quarantined;
use buddy_store::{OpenError, check_store};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a stopped store: do names, pages and files agree?
///
/// Nothing is changed. The exit status is 0 where everything agrees, 1 where anything does not, and 2 where the store cannot be looked
/// at, because there is none, it is in use or of another version, a file is missing or may not be read, or memory is short. The file of `serve --config` is not read: name the directory with --data.
#[derive(Args)]
pub(crate) struct CheckArguments {
    /// Directory of the store
    #[arg(long, env = "BUDDY_DATA", value_name = "DIR", default_value = "buddy-data")]
    data: PathBuf,
    /// Read every block and compare its SHA-256 with its name
    #[arg(long)]
    verify: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// How long to wait for another process to let go of the store
    #[arg(long, value_name = "TIME", default_value = "0s")]
    lock_timeout: Span,
}

#[derive(Serialize)]
struct Json<'a> {
    ok: bool,
    clean: bool,
    blocks: u64,
    bytes_stored: u64,
    bytes_allocated: u64,
    file_bytes: u64,
    journal_changes: usize,
    verified: u64,
    unwritten: u64,
    quarantined: Vec<String>,
    fault_count: u64,
    faults: &'a [String],
}

/// What is printed where there is nothing to be counted.
#[derive(Serialize)]
struct NoReport {
    ok: bool,
    fault_count: u64,
    faults: [String; 1],
}

/// Checks a store.
pub(crate) fn run(arguments: &CheckArguments) -> Outcome {
    let bar = progress_bar(arguments.json);
    let mut show = |progress| match progress {
        CheckProgress::Names(done, total) => advance(&bar, "names", done, total),
        CheckProgress::Verified(done, total) => advance(&bar, "blocks", done, total),
    };
    let checked = check_store(&arguments.data, arguments.lock_timeout.0, arguments.verify, &mut show);
    bar.finish_and_clear();
    let report = match checked {
        Ok(report) => report,
        // Too much does not agree for a report.
        Err(OpenError::Recovery(error)) if !error.is_inconclusive() => {
            let fault = format!("{}: {error}", arguments.data.display());
            output::complain(format_args!("{fault}"));
            if arguments.json {
                output::print_json(&NoReport { ok: false, fault_count: 1, faults: [fault] })?;
            }
            return Ok(ExitCode::FAILURE);
        }
        Err(OpenError::Recovery(error)) => return Err(Failure::new(format!("{}: {error}", arguments.data.display()))),
        Err(error) => return Err(Failure::from_display(error)),
    };
    if arguments.json { output::print_json(&json(&report)) } else { output::print(&text(arguments, &report)) }?;
    Ok(if report.fault_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn quarantined_line(quarantined: &Quarantined) -> String {
    format!("{}, which was block {}", quarantined.extent, quarantined.hash)
}

/// A bar on standard error, where somebody looks at it.
fn progress_bar(hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{msg:8} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn advance(bar: &ProgressBar, what: &'static str, done: u64, total: u64) {
    bar.set_message(what);
    bar.set_length(total);
    bar.set_position(done);
}

fn json(report: &CheckReport) -> Json<'_> {
    Json {
        ok: report.fault_count == 0,
        clean: report.clean,
        blocks: report.totals.block_count(),
        bytes_stored: report.totals.bytes_stored(),
        bytes_allocated: report.totals.bytes_allocated(),
        file_bytes: report.file_bytes,
        journal_changes: report.journal_changes,
        verified: report.verified,
        unwritten: report.unwritten,
        quarantined: report.quarantined.iter().map(quarantined_line).collect(),
        fault_count: report.fault_count,
        faults: &report.faults,
    }
}

fn text(arguments: &CheckArguments, report: &CheckReport) -> String {
    let mut lines: Vec<String> = report.faults.iter().map(|fault| format!("fault: {fault}")).collect();
    let more = report.fault_count - report.faults.len() as u64;
    if more > 0 {
        lines.push(format!("… and {more} more faults"));
    }
    lines.push(format!(
        "{} blocks, {} bytes, in extents of {} bytes, in a file of {} bytes",
        report.totals.block_count(),
        report.totals.bytes_stored(),
        report.totals.bytes_allocated(),
        report.file_bytes
    ));
    if !report.clean {
        lines.push(format!(
            "the store was not stopped in order: {} changes are in its journal, and not in the index yet",
            report.journal_changes
        ));
    }
    if report.unwritten > 0 {
        lines.push(format!(
            "{} blocks that were not known to be durable are not completely written, or damaged: opening removes them",
            report.unwritten
        ));
    }
    lines.extend(
        report.quarantined.iter().map(|quarantined| format!("out of service: {}", quarantined_line(quarantined))),
    );
    if arguments.verify {
        lines.push(format!("{} blocks were read and hashed", report.verified));
    }
    lines.push(match report.fault_count {
        0 => format!("{}: everything agrees", arguments.data.display()),
        count => format!("{}: {count} faults", arguments.data.display()),
    });
    lines.join("\n") + "\n"
}
