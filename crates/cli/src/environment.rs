//! `BUDDY_…` variables: one that nothing reads is a mistake that would otherwise go unseen; but for those with which Kubernetes tells every
//! container of a namespace where a service named `buddy` is.

use crate::Failure;
use clap::Command;
use std::ffi::OsString;

const PREFIX: &str = "BUDDY_";
/// `BUDDY_SERVICE_HOST`, `BUDDY_SERVICE_PORT_HTTP`, `BUDDY_PORT`, `BUDDY_PORT_10001_TCP_ADDR` …
const OF_A_SERVICE: [&str; 2] = ["BUDDY_SERVICE_", "BUDDY_PORT"];

/// Refuses `BUDDY_…` variables that no option of `command` reads.
pub(crate) fn refuse_unknown(command: &Command, set: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    // Names that are no text are not ours.
    for name in set.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(PREFIX)) {
        if !known.contains(&name.as_str()) && !OF_A_SERVICE.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Failure::new(format!("the variable {name} is unknown: see buddy-blocks serve --help")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ServeArguments;
    use clap::Args;

    #[test]
    fn known_variables_pass_and_others_are_named() {
        let command = ServeArguments::augment_args(Command::new("serve"));
        let refuse = |names: &[&str]| refuse_unknown(&command, names.iter().map(OsString::from));
        assert!(refuse(&["PATH", "BUDDY_LISTEN", "BUDDY_CONFIG", "BUDDY_SYNC_INTERVAL"]).is_ok());
        assert!(refuse(&["BUDDY_SERVICE_HOST", "BUDDY_PORT", "BUDDY_PORT_10001_TCP_ADDR"]).is_ok());
        let error = refuse(&["BUDDY_LISTEN", "BUDDY_LISEN"]).unwrap_err().to_string();
        assert!(error.contains("BUDDY_LISEN"), "{error}");
    }

    /// Each option of the file has a variable and a flag of the same name.
    #[test]
    fn every_option_has_its_variable() {
        let command = ServeArguments::augment_args(Command::new("serve"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            let expected = format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), expected);
        }
    }
}
