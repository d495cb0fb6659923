//! What it costs to find out whether a request may be answered, by how many tokens there are and by how much of the token that it brings
//! is that of one which is known. Times of tokens that are refused must be the same, whatever they share with a good one.
//!
//! `cargo bench -p buddy-server --bench access`
#![allow(clippy::unwrap_used, missing_docs)]

use buddy_server::access::{Credentials, Need, Policy, Right, Rights, Token, TokenDigest};
use buddy_server::request::parse_head;
use buddy_store::Hash;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Requests of each kind: so many different tokens, one after the other, so that no figure hangs on the place of one in a table.
const REQUESTS: usize = 64;
const TOKEN_COUNTS: [usize; 3] = [1, 100, 10_000];

/// Bytes of a token.
const TOKEN_BYTES: usize = 70;
/// Kinds of tokens, and how many of their first bytes they share with one that is known.
const KINDS: [(&str, usize); 5] = [
    ("good", TOKEN_BYTES),
    ("shares 0 bytes", 0),
    ("shares 8 bytes", 8),
    ("shares 31 bytes", 31),
    ("shares all bytes but one", TOKEN_BYTES - 1),
];

/// A token as the program draws them.
fn token(number: usize) -> String {
    format!("buddy_{}", Hash::of(&number.to_le_bytes()))
}

/// One that has exactly its first `shared` bytes from `known`. The rest, if there is any, is another for each `request`.
fn sharing(known: String, shared: usize, request: usize) -> String {
    let other = token(usize::MAX - request);
    let mut bytes = known.into_bytes();
    assert_eq!(bytes.len(), TOKEN_BYTES);
    for (at, (byte, other)) in bytes.iter_mut().zip(other.bytes()).enumerate().skip(shared) {
        *byte = if at > shared || *byte != other { other } else { *byte ^ 1 };
    }
    String::from_utf8(bytes).unwrap()
}

fn policy(tokens: usize) -> Policy {
    let rights: Rights = [Right::Read].into_iter().collect();
    let known =
        |number: usize| Token::new(&number.to_string(), TokenDigest::of(token(number).as_bytes()), rights).unwrap();
    Policy::new(Some((0..tokens).map(known).collect()), None, false)
}

fn head(token: &str) -> String {
    format!("GET /{} HTTP/1.1\r\nHost: 127.0.0.1:10001\r\nAuthorization: Bearer {token}\r\n\r\n", Hash::of(b""))
}

fn checking(criterion: &mut Criterion) {
    for tokens in TOKEN_COUNTS {
        let policy = policy(tokens);
        let mut group = criterion.benchmark_group(format!("access, tokens: {tokens}"));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        for (name, shared) in KINDS {
            let heads: Vec<_> =
                (0..REQUESTS).map(|number| head(&sharing(token(number * tokens / REQUESTS), shared, number))).collect();
            let needs_read = Need::One(Right::Read);
            let check = |credentials: &Credentials| policy.check(credentials, needs_read).is_ok();
            let parse = |head: &str| parse_head(head.as_bytes()).unwrap().unwrap().credentials;
            let credentials: Vec<_> = heads.iter().map(|head| parse(head)).collect();
            assert!(credentials.iter().all(|credentials| check(credentials) == (name == "good")), "{name}");
            group.bench_function(BenchmarkId::new("check", name), |bencher| {
                let mut next = credentials.iter().cycle();
                bencher.iter(|| next.next().map(|credentials| check(black_box(credentials))));
            });
            group.bench_function(BenchmarkId::new("head and check", name), |bencher| {
                let mut next = heads.iter().cycle();
                bencher.iter(|| next.next().map(|head| check(&parse(black_box(head)))));
            });
        }
        group.finish();
    }
}

criterion_group!(access, checking);
criterion_main!(access);
