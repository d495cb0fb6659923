//! Who may do what, as `serve` is told: read at the start, and again on SIGHUP.

use crate::{Failure, tokens};
use buddy_ring::Address;
use buddy_server::access::{Access, Policy, Rights};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What `serve` is told about access.
#[derive(Clone, Debug)]
pub(crate) struct AccessConfig {
    /// The file with tokens.
    pub(crate) tokens: Option<PathBuf>,
    /// What may be done without a token, where that is said.
    pub(crate) anonymous: Option<Rights>,
    /// Nobody may delete.
    pub(crate) append_only: bool,
    /// Others may reach the server although there are no tokens.
    pub(crate) insecure_listen: bool,
}

impl AccessConfig {
    /// Refuses an address, given by `option`, that others can reach where nothing keeps them from anything.
    pub(crate) fn allow_listening(&self, option: &str, address: &Address) -> Result<(), Failure> {
        // Who may use a Unix socket is said by its permissions.
        let is_reachable = matches!(address, Address::Tcp(address) if !is_loopback(address.ip()));
        if self.tokens.is_some() || self.insecure_listen || !is_reachable {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{option} is {address}, which others can reach, and there are no tokens: name a file of them with --tokens (`buddy-blocks \
             token` draws one), or let anybody who can reach it use the store with --insecure-listen"
        )))
    }

    fn policy(&self) -> Result<(Policy, Option<usize>), Failure> {
        let tokens = self.tokens.as_deref().map(tokens::read).transpose()?;
        let count = tokens.as_ref().map(Vec::len);
        Ok((Policy::new(tokens, self.anonymous, self.append_only), count))
    }

    /// Reads the file with tokens, if there is to be one.
    pub(crate) fn open(&self) -> Result<Arc<Access>, Failure> {
        let (policy, tokens) = self.policy()?;
        match tokens {
            Some(0) => warn_of_no_tokens(),
            Some(tokens) => tracing::info!(tokens, "tokens were read"),
            None if self.insecure_listen => {
                tracing::warn!("anybody who can reach the server may use it: no tokens are configured")
            }
            None => {}
        }
        Ok(Arc::new(Access::new(policy)))
    }

    /// Reads it again; false where there is none. What is wrong with it leaves everything as it is.
    pub(crate) fn reload(&self, access: &Access) -> bool {
        match self.policy() {
            Ok((policy, Some(tokens))) => {
                access.replace(policy);
                match tokens {
                    0 => warn_of_no_tokens(),
                    _ => tracing::info!(tokens, "tokens were read again"),
                }
            }
            Ok((_, None)) => return false,
            Err(error) => {
                tracing::error!(%error, "the file with tokens is refused: those that were read before stay in force");
            }
        }
        true
    }
}

/// A file that is being written may be empty for a moment: whoever reads it then lets nobody in, and should hear of it.
fn warn_of_no_tokens() {
    tracing::warn!("there are no tokens in the file with tokens");
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tokens: bool, insecure_listen: bool) -> AccessConfig {
        let tokens = tokens.then(|| PathBuf::from("tokens"));
        AccessConfig { tokens, anonymous: None, append_only: false, insecure_listen }
    }

    #[test]
    fn without_tokens_only_this_machine_is_listened_to() {
        let allowed =
            |config: &AccessConfig, address: &str| config.allow_listening("listen", &address.parse().unwrap());
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/x"] {
            assert!(allowed(&config(false, false), address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1"] {
            let error = allowed(&config(false, false), address).unwrap_err().to_string();
            assert!(
                error.contains(address) && error.contains("--tokens") && error.contains("--insecure-listen"),
                "{error}"
            );
            assert!(allowed(&config(true, false), address).is_ok() && allowed(&config(false, true), address).is_ok());
        }
    }
}
