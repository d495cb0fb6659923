//! Files: what is written is read back, and any number of operations may be asked for at once.

use super::{open, runtime};
use buddy_ring::{Buffer, BufferPool, File, RingConfig, Runtime};

#[test]
fn files_are_written_flushed_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let ring = runtime.ring();
    let pool = BufferPool::new(1 << 20);
    runtime.block_on(async {
        let file = File::new(&ring, open(&directory.path().join("file")));
        let mut buffer = pool.take(8192).await.unwrap();
        buffer.fill(7);
        let (written, _) = file.write_at(buffer, 0..8192, 4096, true).await;
        assert_eq!(written.unwrap(), 8192);
        let parts: Vec<(Buffer, usize)> = (0..3u8)
            .map(|part| {
                let mut buffer = pool.try_take(4096).unwrap().unwrap();
                buffer.fill(part);
                (buffer, 4096)
            })
            .collect();
        let (written, parts) = file.write_vectored_at(parts, 0, false).await;
        assert_eq!((written.unwrap(), parts.len()), (12_288, 3));
        file.flush().await.unwrap();
        let (read, buffer) = file.read_at(pool.take(16_384).await.unwrap(), 0..16_384, 0).await;
        assert_eq!(read.unwrap(), 12_288);
        assert!(buffer[..4096].iter().all(|byte| *byte == 0) && buffer[8192..12_288].iter().all(|byte| *byte == 2));
        let (refused, _) = file.read_at(buffer, 0..16_385, 0).await;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    });
}

#[test]
fn more_operations_than_the_queue_holds_all_complete() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RingConfig { submission_entries: 4, ..RingConfig::default() }).unwrap();
    let ring = runtime.ring();
    runtime.block_on(async {
        let file = File::new(&ring, open(&directory.path().join("file")));
        let tasks: Vec<_> = (0..500u64)
            .map(|index| {
                let file = file.clone();
                ring.spawn(async move {
                    let byte = index.to_le_bytes()[0];
                    file.write_at(vec![byte; 100], 0..100, index * 100, false).await.0.unwrap();
                    let (read, buffer) = file.read_at(vec![0; 100], 0..100, index * 100).await;
                    read.unwrap() == 100 && buffer.iter().all(|read| *read == byte)
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await);
        }
        assert!(ring.tasks() <= 1, "only the ring's own task is left");
    });
}
