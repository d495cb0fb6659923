//! `BUDDY_…` variables: one that nothing reads is a mistake that would otherwise go unseen; but for those with which Kubernetes tells every
//! container of a namespace where a service is whose name begins with `buddy`.

use crate::Failure;
use clap::Command;
use std::ffi::OsString;

const PREFIX: &str = "BUDDY_";

/// Whether it is one of those that tell where a service is: `BUDDY_SERVICE_HOST`, `BUDDY_BLOCKS_SERVICE_PORT_HTTP`, `BUDDY_PORT`,
/// `BUDDY_BLOCKS_PORT_10001_TCP_ADDR` …
fn is_of_a_service(name: &str) -> bool {
    let of_a_port = |(_, rest): (&str, &str)| {
        let protocol = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        protocol.len() < rest.len() && ["_TCP", "_UDP", "_SCTP"].iter().any(|known| protocol.starts_with(known))
    };
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.rsplit_once("_PORT_").is_some_and(of_a_port)
}

/// Refuses `BUDDY_…` variables that no option of `command` reads.
pub(crate) fn refuse_unknown(command: &Command, set: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    // Names that are no text are not ours.
    for name in set.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(PREFIX)) {
        if !known.contains(&name.as_str()) && !is_of_a_service(&name) {
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
        for service in ["BUDDY", "BUDDY_BLOCKS", "BUDDY_PORT_OF_CALL"] {
            for rest in
                ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_10001_TCP", "PORT_1_UDP_ADDR"]
            {
                let name = format!("{service}_{rest}");
                assert!(refuse(&[&name]).is_ok(), "{name}");
            }
        }
        assert!(refuse(&["BUDDY_PORTS"]).is_err() && refuse(&["BUDDY_PORT_TCP"]).is_err());
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
