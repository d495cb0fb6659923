//! Gathering changes into frames of the journal, one frame in flight at a time. Pure; writing them is the controller's.

use super::in_flight::{Answer, Change, InFlight, Progress};
use super::ports::WorkerId;
use crate::format::StoreId;
use crate::index::Meta;
use crate::journal::{self, Circle, FRAME_BYTES_MAX, FrameHeader, JournalRecord};
use crate::messages::Reply;

/// A frame to be written.
pub(crate) struct FrameToWrite {
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
    /// It binds a name to bytes.
    pub(crate) names_blocks: bool,
    header: FrameHeader,
    records: Vec<JournalRecord>,
}

/// The journal as its writer sees it.
pub(crate) struct JournalWriter {
    store_id: StoreId,
    epoch: u64,
    circle: Circle,
    /// CRC of the last frame.
    crc: u32,
    /// Changes of no frame yet; the first has `next_sequence`.
    gathered: Vec<Change>,
    gathered_records: Vec<JournalRecord>,
    /// Of those records: each change that is to be gathered asks whether there is room.
    gathered_bytes: usize,
    gathered_answers: Vec<Answer>,
    next_sequence: u64,
    in_flight: Option<InFlight>,
    /// Last sequence number known to be durable with its data.
    durable_sequence: u64,
    /// Position in the journal at which the active generation begins.
    active_from: u64,
}

/// Where a checkpoint that contains everything up to now lets the journal begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Border {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    position: u64,
}

impl JournalWriter {
    /// Continues an empty journal where `meta` says.
    pub(crate) fn new(meta: &Meta) -> JournalWriter {
        let circle = Circle::new(meta.journal_bytes, meta.journal_offset);
        JournalWriter {
            store_id: meta.store_id,
            epoch: meta.epoch,
            circle,
            active_from: circle.head(),
            crc: meta.journal_crc,
            gathered: Vec::new(),
            gathered_records: Vec::new(),
            gathered_bytes: 0,
            gathered_answers: Vec::new(),
            next_sequence: meta.sequence + 1,
            in_flight: None,
            durable_sequence: meta.sequence,
        }
    }

    /// Adds a change; returns its sequence number.
    pub(crate) fn gather(&mut self, change: Change) -> u64 {
        let sequence = self.next_sequence + self.gathered.len() as u64;
        let record = change.journal_record();
        self.gathered_bytes += record.encoded_bytes();
        self.gathered_records.push(record);
        self.gathered.push(change);
        sequence
    }

    /// Keeps a reply until the change `after`, gathered or in flight, is durable. Gives it back where it is already.
    pub(crate) fn answer_after(&mut self, after: u64, worker: WorkerId, reply: Reply) -> Option<Reply> {
        let answer = Answer { after, worker, reply };
        if after >= self.next_sequence {
            self.gathered_answers.push(answer);
            return None;
        }
        match &mut self.in_flight {
            Some(in_flight) if after >= in_flight.first_sequence => {
                in_flight.answers.push(answer);
                None
            }
            _ => Some(answer.reply),
        }
    }

    /// Makes a frame of what was gathered, unless there is nothing, or one is in flight, or the journal has no room.
    pub(crate) fn begin_frame(&mut self) -> Option<FrameToWrite> {
        if self.in_flight.is_some() || self.gathered.is_empty() {
            return None;
        }
        let count = journal::fitting(&self.gathered_records);
        let bytes = journal::frame_bytes(self.gathered_records.get(..count)?);
        let offset = self.circle.place(bytes as u64)?;
        let first_sequence = self.next_sequence;
        self.next_sequence += count as u64;
        let header = FrameHeader {
            store_id: self.store_id,
            epoch: self.epoch,
            first_sequence,
            durable_up_to: self.durable_sequence,
            previous_crc: self.crc,
        };
        let records = take_first(&mut self.gathered_records, count);
        self.gathered_bytes -= records.iter().map(JournalRecord::encoded_bytes).sum::<usize>();
        debug_assert_eq!(
            self.gathered_bytes == 0,
            self.gathered_records.is_empty(),
            "none is counted twice or not at all"
        );
        let changes = take_first(&mut self.gathered, count);
        let next = self.next_sequence;
        let (answers, later) =
            std::mem::take(&mut self.gathered_answers).into_iter().partition(|answer| answer.after < next);
        self.gathered_answers = later;
        let names_blocks = changes.iter().any(Change::names_block);
        self.in_flight = Some(InFlight { changes, first_sequence, names_blocks, answers, progress: Progress::Begun });
        Some(FrameToWrite { offset, bytes, names_blocks, header, records })
    }

    /// Encodes a frame from [`JournalWriter::begin_frame`] into `target`. The next frame will chain to it.
    pub(crate) fn encode(&mut self, frame: &FrameToWrite, target: &mut [u8]) {
        self.crc = journal::encode_frame(&frame.header, &frame.records, target);
    }

    /// The frame in flight is written; what it names may still be on its way.
    pub(crate) fn frame_is_written(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.progress = Progress::Written;
        }
    }

    /// Of the frame in flight, if that is written and not being flushed: its last sequence number, and whether it names blocks.
    pub(crate) fn written_frame(&self) -> Option<(u64, bool)> {
        let frame = self.in_flight.as_ref().filter(|frame| frame.progress == Progress::Written)?;
        Some((frame.last_sequence(), frame.names_blocks))
    }

    /// The frame in flight is being flushed, with all that it names.
    pub(crate) fn begin_flush(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.progress = Progress::Flushing;
        }
    }

    /// The change `sequence`, which is gathered or in flight.
    pub(crate) fn change(&self, sequence: u64) -> Option<Change> {
        let (changes, first) = match &self.in_flight {
            Some(in_flight) if sequence < self.next_sequence => (&in_flight.changes, in_flight.first_sequence),
            _ => (&self.gathered, self.next_sequence),
        };
        changes.get(usize::try_from(sequence.checked_sub(first)?).ok()?).copied()
    }

    /// Takes the replies that wait for the change `sequence`.
    pub(crate) fn take_answers(&mut self, sequence: u64) -> Vec<(WorkerId, Reply)> {
        let in_flight =
            self.in_flight.iter_mut().flat_map(|frame| frame.answers.extract_if(.., |answer| answer.after == sequence));
        let gathered = self.gathered_answers.extract_if(.., |answer| answer.after == sequence);
        in_flight.chain(gathered).map(|answer| (answer.worker, answer.reply)).collect()
    }

    /// The frame in flight is as durable as it is to be, with all that it names.
    pub(crate) fn end_frame(&mut self) -> Option<InFlight> {
        self.in_flight.take()
    }

    /// Everything that waited for a frame, when none will be written any more.
    pub(crate) fn give_up(&mut self) -> Vec<(WorkerId, Reply)> {
        let in_flight = self.in_flight.take().into_iter().flat_map(|frame| frame.answers);
        let answers = in_flight.chain(std::mem::take(&mut self.gathered_answers));
        let answers = answers.map(|answer| (answer.worker, answer.reply)).collect();
        self.gathered.clear();
        self.gathered_records.clear();
        self.gathered_bytes = 0;
        answers
    }

    /// Everything up to `sequence` is durable with its data.
    pub(crate) fn set_durable(&mut self, sequence: u64) {
        self.durable_sequence = self.durable_sequence.max(sequence);
    }

    pub(crate) fn durable_sequence(&self) -> u64 {
        self.durable_sequence
    }

    /// The border behind the last written frame, where a new generation begins. Only while no frame is in flight.
    pub(crate) fn begin_generation(&mut self) -> Border {
        debug_assert!(self.in_flight.is_none(), "a border lies between frames");
        self.active_from = self.circle.head();
        Border {
            sequence: self.next_sequence - 1,
            offset: self.circle.head_offset(),
            crc: self.crc,
            position: self.circle.head(),
        }
    }

    /// A checkpoint up to `border` is durable: what lies before it is free.
    pub(crate) fn release(&mut self, border: &Border) {
        self.circle.release(border.position);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn store_id(&self) -> StoreId {
        self.store_id
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.gathered.is_empty()
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Changes that wait for the next frame.
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.len()
    }

    /// Changes that are not published yet.
    pub(crate) fn unpublished(&self) -> usize {
        self.gathered.len() + self.in_flight.as_ref().map_or(0, |frame| frame.changes.len())
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.circle.used()
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.circle.capacity()
    }

    /// Bytes written since the active generation began.
    pub(crate) fn active_bytes(&self) -> u64 {
        self.circle.head() - self.active_from
    }

    /// Room for one more change, with `reserve` bytes left over: what was gathered, one frame more, and what a frame may leave
    /// unused at the end of the file.
    pub(crate) fn has_room(&self, reserve: u64) -> bool {
        let gathered = journal::frame_bytes_of(self.gathered_bytes) as u64;
        self.circle.used() + gathered + 2 * FRAME_BYTES_MAX as u64 + reserve <= self.circle.capacity()
    }
}

/// Takes the first `count` elements; cheap where that is all of them. There is room for as many to come.
fn take_first<T>(from: &mut Vec<T>, count: usize) -> Vec<T> {
    if count >= from.len() {
        return std::mem::replace(from, Vec::with_capacity(from.len()));
    }
    let rest = from.split_off(count);
    std::mem::replace(from, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use crate::journal::decode_frame;
    use crate::record::Record;

    fn change(number: u64) -> Change {
        Change::occupy(Hash::of(&number.to_le_bytes()), Record::EMPTY)
    }

    fn writer(capacity: u64) -> JournalWriter {
        JournalWriter::new(&Meta {
            store_id: [3; 16],
            epoch: 5,
            sequence: 100,
            journal_bytes: capacity,
            journal_offset: 4096,
            journal_crc: 77,
            clean: false,
            totals: crate::index::Totals::default(),
        })
    }

    fn written(writer: &mut JournalWriter) -> (u64, crate::journal::Frame) {
        let frame = writer.begin_frame().unwrap();
        let mut bytes = vec![0; frame.bytes];
        writer.encode(&frame, &mut bytes);
        (frame.offset, decode_frame(&bytes).unwrap())
    }

    #[test]
    fn frames_chain_and_answers_wait_for_the_frame_they_depend_on() {
        let mut writer = writer(1 << 20);
        assert_eq!(writer.gather(change(1)), 101);
        assert!(writer.answer_after(101, 0, Reply::Taken { id: 1 }).is_none());
        let (offset, first) = written(&mut writer);
        assert_eq!((offset, first.header.first_sequence, first.header.previous_crc), (4096, 101, 77));
        assert_eq!(first.header.durable_up_to, 100);
        assert_eq!(writer.gather(change(2)), 102);
        assert!(writer.answer_after(102, 0, Reply::Taken { id: 2 }).is_none());
        assert!(writer.answer_after(101, 1, Reply::Taken { id: 3 }).is_none(), "of the frame in flight");
        assert!(writer.begin_frame().is_none(), "one frame in flight at a time");
        let ended = writer.end_frame().unwrap();
        assert_eq!(ended.last_sequence(), 101);
        writer.set_durable(101);
        let answered: Vec<_> = ended.into_answers().map(|(worker, reply)| (worker, reply.id().unwrap())).collect();
        assert_eq!(answered, [(0, 1), (1, 3)]);
        assert!(writer.answer_after(101, 0, Reply::Taken { id: 4 }).is_some(), "durable already");
        let (_, second) = written(&mut writer);
        assert_eq!((second.header.previous_crc, second.header.durable_up_to), (first.crc, 101));
        let _ = writer.end_frame();
        assert_eq!(
            writer.begin_generation(),
            Border { sequence: 102, offset: 12_288, crc: second.crc, position: 12_288 }
        );
    }

    #[test]
    fn more_changes_than_a_frame_holds_go_into_the_next() {
        let mut writer = writer(1 << 20);
        for number in 0..8000 {
            let sequence = writer.gather(change(number));
            assert!(writer.answer_after(sequence, 0, Reply::Taken { id: 0 }).is_none());
        }
        let mut changes = 0;
        for _ in 0..2 {
            let (_, frame) = written(&mut writer);
            assert_eq!(frame.header.first_sequence, 101 + changes);
            let records = frame.records.unwrap().len();
            changes += records as u64;
            assert_eq!(writer.end_frame().unwrap().into_answers().count(), records);
        }
        assert_eq!(changes, 8000);
        assert!(writer.is_idle());
    }

    #[test]
    fn a_full_journal_takes_no_frame_until_a_checkpoint_frees_it() {
        let mut writer = writer(8192);
        writer.gather(change(1));
        let _ = written(&mut writer);
        let _ = writer.end_frame();
        let border = writer.begin_generation();
        writer.gather(change(2));
        let _ = written(&mut writer);
        let _ = writer.end_frame();
        writer.gather(change(3));
        assert!(writer.begin_frame().is_none());
        assert!(!writer.has_room(0));
        writer.release(&border);
        let (offset, _) = written(&mut writer);
        assert_eq!(offset, 4096);
    }
}
