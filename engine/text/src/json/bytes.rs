//! Strings of a column under construction.

use arrow::array::{StringArray, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};

use super::escape::unescape;
use super::scan::{Cursor, Text};

/// Byte strings end to end.
pub(super) struct Bytes {
    pub(super) offsets: Vec<i32>,
    pub(super) bytes: Vec<u8>,
}

impl Bytes {
    pub(super) fn new() -> Self {
        Bytes {
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }

    /// Ends the value whose bytes were appended.
    #[inline(always)]
    pub(super) fn end(&mut self) {
        // The decoder takes less than 2 GiB of text between two flushes, and no value is longer than its text.
        self.offsets.push(self.bytes.len() as i32);
    }

    /// Appends the content of a JSON string.
    #[inline(always)]
    pub(super) fn push_text(&mut self, cursor: &Cursor<'_>, text: Text) {
        let raw = &cursor.text[text.start..text.end];
        // A copy of fixed length, of which too much is cut off again, takes no call and no branch on the length.
        let len = self.bytes.len() + raw.len();
        let rest = &cursor.text[text.start..];
        if text.escaped {
            unescape(raw, &mut self.bytes);
        } else if let (..=32, Some(block)) = (raw.len(), rest.first_chunk::<32>()) {
            self.bytes.extend_from_slice(block);
            self.bytes.truncate(len);
        } else {
            self.bytes.extend_from_slice(raw);
        }
        self.end();
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(self.offsets[len] as usize);
    }

    /// Hands over what was built and starts anew with as much room.
    pub(super) fn take(&mut self) -> (OffsetBuffer<i32>, arrow::buffer::Buffer) {
        let room = (room_for(self.offsets.len()), room_for(self.bytes.len()));
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(room.0));
        self.offsets.push(0);
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(room.1));
        (OffsetBuffer::new(offsets.into()), bytes.into())
    }
}

/// Takes a vector out and leaves one with as much room.
pub(super) fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = room_for(values.len());
    std::mem::replace(values, Vec::with_capacity(room))
}

/// The next batch has about as many values as this one; a little more must not double the room.
fn room_for(len: usize) -> usize {
    len + len / 8
}

/// So much of a batch tells how much of it is not ASCII.
const SAMPLE_BYTES: usize = 4096;

/// Text is checked to be UTF-8 here, once for a batch. A value that is none gets U+FFFD for each bad sequence, as
/// Java reads it.
pub(super) fn string_array(bytes: &mut Bytes, nulls: Option<NullBuffer>) -> StringArray {
    let (offsets, bytes) = bytes.take();
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let foreign = sample.iter().filter(|byte| !byte.is_ascii()).count();
    if foreign <= sample.len() / 32
        && let Ok(array) = StringArray::try_new(offsets.clone(), bytes.clone(), nulls.clone())
    {
        return array;
    }
    // Where much is not ASCII, a check by vectors and a copy take less than the check that comes with `try_new`.
    let text = simdutf8::basic::from_utf8(&bytes).ok();
    let mut builder = StringBuilder::with_capacity(offsets.len(), bytes.len());
    for (row, ends) in offsets.windows(2).enumerate() {
        let range = ends[0] as usize..ends[1] as usize;
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            builder.append_null();
        } else if let Some(value) = text.and_then(|text| text.get(range.clone())) {
            builder.append_value(value);
        } else {
            builder.append_value(String::from_utf8_lossy(&bytes[range]));
        }
    }
    builder.finish()
}
