//! The HTTP contract sentence by sentence, and attacks on it, as bytes over raw sockets against a real server.
//!
//! Each case is a request as it is written on the wire and what must come back. Behind every reply after which the connection is to
//! go on another request follows, so that a server that has misread where a request ends is found out.
//!
//! | file | one idea |
//! | --- | --- |
//! | `case` | a request as it is written, and what must come back |
//! | `blocks`, `conditions`, `ranges`, `names`, `service` | the contract |
//! | `framing`, `attacks` | where requests end, and attacks on that |

mod attacks;
mod blocks;
mod case;
mod conditions;
mod framing;
mod names;
mod ranges;
mod service;

use self::case::{Case, Fixture};
use crate::support::{Server, check, directory};
use std::collections::{BTreeMap, BTreeSet};

/// Fewer would mean that some were lost.
const CASES_MIN: usize = 200;

#[test]
fn every_sentence_of_the_contract_and_every_attack() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "2"]);
    let fixture = Fixture::store(&server);
    let tables: [fn(&Fixture) -> Vec<Case>; 7] =
        [blocks::cases, ranges::cases, conditions::cases, framing::cases, attacks::cases, names::cases, service::cases];
    let cases: Vec<_> = tables.iter().flat_map(|cases| cases(&fixture)).collect();
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());
    let failures: Vec<_> = cases.iter().filter_map(|case| case.run(&server).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    println!("{} cases", cases.len());
    fixture.is_unharmed(&server);
    let data = server.data.clone();
    server.stop();
    check(&data);
}

/// The same for what is only told where it is configured: which pages in browsers may use the server.
#[test]
fn pages_in_browsers_are_answered_as_configured() {
    let directory = directory();
    let all = Server::start(&directory.path().join("all"), &["--cors-origin", "*"]);
    run(&all, &service::cors_for_all(&Fixture::store(&all)));
    let some = Server::start(&directory.path().join("some"), &["--cors-origin", "https://a.example, http://b:8080"]);
    run(&some, &service::cors_for_some(&Fixture::store(&some)));
}

/// The description for programs names just the methods that there are.
#[test]
fn the_openapi_document_names_the_methods_that_are_offered() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &[]);
    let fixture = Fixture::store(&server);
    let mut client = server.connect();
    let document = client.request("GET", "/-/openapi.yaml", &[], b"").text();
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut path = String::new();
    for line in document.lines() {
        if let Some(rest) = line.strip_prefix("  /").and_then(|line| line.strip_suffix(':')) {
            path = format!("/{rest}");
        } else if let Some(method) = line.strip_prefix("    ").and_then(|line| line.strip_suffix(':'))
            && ["get", "head", "put", "post", "delete", "options", "patch", "trace"].contains(&method)
        {
            described.entry(path.clone()).or_default().insert(method.to_uppercase());
        }
    }
    assert_eq!(described.len(), 9);
    for (path, methods) in described {
        let reply = client.request("OPTIONS", &path.replace("{hash}", &fixture.digits), &[], b"");
        assert_eq!(reply.status, 204, "{path}");
        let offered = reply.header("allow").split(", ").map(str::to_owned);
        assert_eq!(offered.collect::<BTreeSet<_>>(), methods, "{path}");
    }
}

fn run(server: &Server, cases: &[Case]) {
    let failures: Vec<_> = cases.iter().filter_map(|case| case.run(server).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Ranges and conditions on every path that reads take: with blocks that are verified, and with memory instead of the page cache.
#[test]
fn ranges_are_the_same_where_every_block_is_verified() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--verify-reads", "all"]);
    let fixture = Fixture::store(&server);
    run(&server, &ranges::cases(&fixture));
    ranges::every_path(&server, &fixture);
}

#[test]
fn ranges_are_the_same_from_memory_page_cache_and_disk() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &[]);
    ranges::every_path(&server, &Fixture::store(&server));
}
