//! The journal: one preallocated file, written in a circle, that makes a batch durable with one sequential write.
//!
//! `frame` is its format, `circle` its space, `replay` how it is followed at opening, `window` how it is read then. Writing frames is the
//! controller's.
//! `fuzzing`: what must hold for any bytes.

mod circle;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod replay;
mod window;

pub(crate) use circle::Circle;
pub use frame::{
    FRAME_BYTES_MAX, Frame, FrameError, FrameHeader, JournalRecord, UnknownContent, decode_frame, encode_frame,
    frame_bytes,
};
pub(crate) use frame::{REMOVAL_BYTES, fitting, frame_bytes_of};
