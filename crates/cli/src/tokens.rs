//! The file with tokens, and `buddy-blocks token`, which draws one for it.
//!
//! The file is TOML, a line for each token: its name, its rights, and the SHA-256 of the token, which itself is nowhere written. What is
//! wrong with a file is said without repeating any of its values: somebody may have put the token in their place.

use crate::{Failure, Outcome, output};
use buddy_server::access::{Rights, Token, TokenDigest, new_token};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use toml::{Table, Value};

/// Tokens in a file. Each is compared with all before it when the file is read.
const TOKENS_MAX: usize = 1024;

/// Draw a token: print it, once, and the line for the file that `serve --tokens` names.
#[derive(Args)]
pub(crate) struct TokenArguments {
    /// What the token is called, in the file and in the log
    pub(crate) name: String,
    /// What it allows: read, write, delete, admin, several with commas between them
    #[arg(long, value_name = "RIGHT,…")]
    pub(crate) rights: Rights,
}

/// Draws a token.
pub(crate) fn run(arguments: &TokenArguments) -> Outcome {
    let token = new_token().map_err(|error| Failure::new(format!("there are no random numbers to be had: {error}")))?;
    let digest = TokenDigest::of(token.as_bytes());
    let entry = Token::new(&arguments.name, digest, arguments.rights).map_err(Failure::from_display)?;
    output::print(&format!(
        "# The token, for the client; it is not shown again:\n{token}\n# The line for the file with tokens:\n{}\n",
        line(&entry, arguments.rights)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn line(token: &Token, rights: Rights) -> String {
    format!("{} = {{ rights = \"{rights}\", sha256 = \"{}\" }}", token.name(), token.digest().to_hex())
}

/// Reads the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<Token>, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::new(format!("tokens: {}: {error}", path.display())))?;
    parse(&text).map_err(|reason| Failure::new(format!("tokens: {}: {reason}", path.display())))
}

/// Reads the text of a file with tokens.
pub(crate) fn parse(text: &str) -> Result<Vec<Token>, String> {
    let table: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        format!("line {line} is not TOML, or names a token a second time")
    })?;
    if table.len() > TOKENS_MAX {
        return Err(format!("there are {} tokens: at most {TOKENS_MAX} may be", table.len()));
    }
    let mut tokens: Vec<Token> = Vec::new();
    for (number, (name, entry)) in (1..).zip(&table) {
        let token = parse_entry(number, name, entry)?;
        if let Some(same) = tokens.iter().find(|other| other.digest() == token.digest()) {
            return Err(format!("\"{}\" and \"{}\" are the same token", same.name(), token.name()));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn parse_entry(number: usize, name: &str, entry: &Value) -> Result<Token, String> {
    // Found out before the name is repeated.
    Token::new(name, TokenDigest::of(b""), Rights::NONE).map_err(|error| format!("token {number}: {error}"))?;
    let of_token = |what: &str| format!("token \"{name}\": {what}");
    let form = || of_token("it must read { rights = \"read,write\", sha256 = \"64 hex digits\" }, and nothing else");
    let fields = entry.as_table().ok_or_else(form)?;
    if !fields.keys().all(|key| ["rights", "sha256"].contains(&key.as_str())) {
        return Err(form());
    }
    let text = |key: &str| fields.get(key).and_then(Value::as_str).ok_or_else(form);
    let rights = text("rights")?.parse();
    let rights = rights
        .map_err(|_| of_token("its rights must be read, write, delete, admin, with commas between them, or none"))?;
    let digest = TokenDigest::from_hex(text("sha256")?)
        .ok_or_else(|| of_token("its sha256 must be 64 hex digits, as buddy-blocks token prints them"))?;
    Token::new(name, digest, rights).map_err(|error| of_token(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_printed_is_read_again() {
        let digest = TokenDigest::of(b"x");
        let rights = "read,admin".parse().unwrap();
        let token = Token::new("backup-1", digest, rights).unwrap();
        let text = format!("# comment\n\n{}\n", line(&token, rights));
        let read = parse(&text).unwrap();
        assert_eq!((read.len(), read[0].name(), read[0].digest()), (1, "backup-1", &digest));
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_said_without_what_may_be_a_token() {
        let digest = TokenDigest::of(b"x").to_hex();
        let good = format!("a = {{ rights = \"read\", sha256 = \"{digest}\" }}\n");
        let secret = "buddy_secret";
        for (text, expected) in [
            (format!("a = \"{secret}\""), "token \"a\": it must read"),
            (format!("a = {{ rights = \"read\", token = \"{secret}\" }}"), "token \"a\": it must read"),
            ("a = { rights = \"read\" }".to_owned(), "token \"a\": it must read"),
            (format!("a = {{ rights = \"read\", sha256 = \"{secret}\" }}"), "token \"a\": its sha256"),
            (format!("a = {{ rights = \"{secret}\", sha256 = \"{digest}\" }}"), "token \"a\": its rights"),
            (format!("\"{secret}.b\" = {{ rights = \"read\", sha256 = \"{digest}\" }}"), "token 1: a token's name"),
            (format!("{good}{good}"), "line 2 is not TOML, or names a token a second time"),
            (format!("{good}b{}", &good[1..]), "\"a\" and \"b\" are the same token"),
            (format!("{good}{secret}"), "line 2 is not TOML"),
            (format!("{good}{secret} {secret}"), "line 2 is not TOML"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains(secret), "{text}: {error}");
        }
        let many: String = (0..=TOKENS_MAX).map(|number| format!("t{number} = 1\n")).collect();
        assert!(parse(&many).unwrap_err().contains("at most 1024"));
    }
}
