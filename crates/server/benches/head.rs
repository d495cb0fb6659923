//! What reading a request's head costs, for the heads that clients send.
//!
//! `cargo bench -p buddy-server`
#![allow(clippy::unwrap_used, missing_docs)]

use buddy_server::request::parse_head;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const NAME: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn heads() -> Vec<(&'static str, String)> {
    let browser = "Host: blocks.example:10001\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n\
                   Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n\
                   Referer: http://blocks.example:10001/\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n";
    vec![
        ("GET, short", format!("GET /{NAME} HTTP/1.1\r\nHost: 127.0.0.1:10001\r\n\r\n")),
        ("GET, of a browser", format!("GET /{NAME} HTTP/1.1\r\n{browser}\r\n")),
        ("GET, a range", format!("GET /{NAME} HTTP/1.1\r\nHost: x\r\nRange: bytes=4096-8191\r\n\r\n")),
        ("PUT /", "PUT / HTTP/1.1\r\nHost: 127.0.0.1:10001\r\nContent-Length: 4096\r\n\r\n".to_owned()),
        ("PUT /{hash}", format!("PUT /{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n")),
    ]
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, head) in heads() {
        assert_eq!(parse_head(head.as_bytes()).unwrap().unwrap().bytes, head.len(), "{name}");
        group.bench_with_input(BenchmarkId::from_parameter(name), head.as_bytes(), |bencher, bytes| {
            bencher.iter(|| parse_head(black_box(bytes)));
        });
        let (incomplete, _) = head.as_bytes().split_at(head.len() - 2);
        group.bench_with_input(BenchmarkId::new("incomplete", name), incomplete, |bencher, bytes| {
            bencher.iter(|| parse_head(black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(head, parsing);
criterion_main!(head);
