//! Sockets: sending, receiving, throwing away, and files that are sent without copying.

use super::{loopback, pair, runtime};
use buddy_ring::{Pipe, SendAmount, Socket, is_interruption};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Reads to the end, but not at once: the socket is full for a while.
fn reads_later(mut peer: TcpStream) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    })
}

#[test]
fn sockets_send_all_and_receive_what_is_there() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, peer) = pair(&ring).await;
        let reader = reads_later(peer);
        let bytes: Vec<u8> = (0..8 << 20).map(|index: u32| index.to_le_bytes()[0] ^ index.to_le_bytes()[2]).collect();
        let (sent, bytes) = socket.send(bytes, 0..8 << 20, SendAmount::All, false).await;
        assert_eq!(sent.unwrap(), 8 << 20);
        socket.finish_sending();
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn what_is_received_counts_however_it_is_received() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        peer.write_all(&[1; 5]).unwrap();
        assert_eq!(socket.receive(vec![0; 5], 0..5).await.0.unwrap(), 5);
        peer.write_all(&[1; 7]).unwrap();
        assert_eq!(socket.receive_later(vec![0; 7], 0..7).await.0.unwrap(), 7);
        assert_eq!(ring.received_bytes(), 12);
    });
}

#[test]
fn connecting_succeeds_or_says_why_not() {
    let runtime = runtime();
    let ring = runtime.ring();
    let listener = std::net::TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.block_on(async {
        let socket = Socket::connect(&ring, address, None).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (sent, _) = socket.send(b"hello".to_vec(), 0..5, SendAmount::All, false).await;
        assert_eq!(sent.unwrap(), 5);
        let mut received = [0; 5];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
        let unknown = Socket::connect(&ring, address, Some("nonsense")).await;
        assert!(unknown.is_err());
        drop(listener);
        let refused = Socket::connect(&ring, address, None).await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn what_is_discarded_is_counted_and_what_follows_is_received() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            peer.write_all(&vec![7; 4 << 20]).unwrap();
            peer.write_all(b"kept").unwrap();
        });
        let (received, buffer) = socket.receive_later(vec![0; 16], 0..16).await;
        let mut left = (4 << 20) - received.unwrap();
        assert_eq!(buffer[0], 7);
        while left > 0 {
            let discarded = socket.discard(left).await.unwrap();
            assert!(discarded > 0 && discarded <= left);
            left -= discarded;
        }
        let (received, buffer) = socket.receive_later(vec![0; 16], 0..16).await;
        assert_eq!(&buffer[..received.unwrap()], b"kept");
        assert_eq!(ring.received_bytes(), (4 << 20) + 4, "what is thrown away was received");
        writer.join().unwrap();
        assert_eq!(socket.discard(16).await.unwrap(), 0, "the end of the stream");
    });
}

#[test]
fn a_file_is_sent_without_copying() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let bytes: Vec<u8> = (0..4 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, peer) = pair(&ring).await;
        let reader = reads_later(peer);
        let mut offset = 0;
        while offset < 4 << 20 {
            let left = (4 << 20) - usize::try_from(offset).unwrap();
            match socket.send_file(std::os::fd::AsFd::as_fd(&file), &mut offset, left) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    socket.writable().await.unwrap();
                }
            }
        }
        socket.finish_sending();
        assert!(reader.join().unwrap() == bytes);
    });
}

/// Pages that a pipe holds reach the socket as they were, whatever becomes of the file; a pipe is filled and emptied in any pieces.
#[test]
fn pages_go_through_a_pipe_uncopied_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let bytes: Vec<u8> = (0..4 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let file = std::os::fd::AsFd::as_fd(&file);
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, peer) = pair(&ring).await;
        let reader = reads_later(peer);
        let mut pipe = Pipe::new(128 << 10).unwrap();
        // Neither end lies at a page.
        let (mut offset, end) = (100, (4 << 20) - 100);
        while offset < end || pipe.held() > 0 {
            let left = usize::try_from(end - offset).unwrap();
            if left > 0
                && pipe.fill(file, &mut offset, left).is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            {
                panic!("it takes no more, or some");
            }
            match socket.send_pipe(&mut pipe, offset < end) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    socket.writable().await.unwrap();
                }
            }
        }
        socket.finish_sending();
        assert!(reader.join().unwrap() == bytes[100..bytes.len() - 100]);
        assert_eq!(pipe.fill(file, &mut (4 << 20), 1).unwrap(), 0, "the end of the file");
    });
}

/// A receive that is interrupted gives its buffer back; what arrives goes to the next, and so it is however the two meet.
#[test]
fn an_interrupted_receive_returns_its_buffer_and_loses_nothing() {
    let runtime = runtime();
    let ring = runtime.ring();
    runtime.block_on(async {
        let (socket, mut peer) = pair(&ring).await;
        // Nothing is in flight: what begins afterwards is not harmed, in the same turn or later.
        socket.interrupt();
        peer.write_all(b"first").unwrap();
        let (received, buffer) = socket.receive(vec![0; 16], 0..16).await;
        assert_eq!(&buffer[..received.unwrap()], b"first");
        let (mut expected, mut arrived, mut interrupted) = (Vec::new(), Vec::new(), 0);
        for round in 0..200_u8 {
            let is_over = Rc::new(Cell::new(false));
            let receiving = ring.spawn({
                let (socket, is_over) = (socket.clone(), Rc::clone(&is_over));
                async move {
                    let result = socket.receive(vec![round; 16], 4..16).await;
                    is_over.set(true);
                    result
                }
            });
            // It has begun, or has not; its bytes are there, come with the interruption, or do not come.
            if round % 2 == 0 {
                ring.next_turn().await;
            }
            if round % 3 == 0 {
                peer.write_all(&[round]).unwrap();
                expected.push(round);
            }
            while !is_over.get() {
                socket.interrupt();
                ring.next_turn().await;
            }
            let (received, buffer) = receiving.await;
            assert_eq!((buffer.len(), &buffer[..4]), (16, &[round; 4][..]), "it is the same buffer");
            match received {
                Ok(count) => arrived.extend_from_slice(&buffer[4..4 + count]),
                Err(error) => {
                    assert!(is_interruption(&error), "{error}");
                    interrupted += 1;
                }
            }
        }
        assert!(interrupted > 0 && !arrived.is_empty(), "{interrupted} {arrived:?}");
        while arrived.len() < expected.len() {
            let (received, buffer) = socket.receive(vec![0; 256], 0..256).await;
            arrived.extend_from_slice(&buffer[..received.unwrap()]);
        }
        assert_eq!(arrived, expected);
    });
}
