//! The bytes of a run in a file, the same for a run that left memory and one in a checkpoint.
//!
//! ```text
//! header   magic, version
//! blocks   one after another, each a multiple of 8 bytes
//! footer   epochs, number of value columns; per block: offset, length, checksum, rows, size, first and last key
//! trailer  offset, length and checksum of the footer; magic
//! ```
//!
//! Numbers are little-endian words of 8 bytes unless they are the offsets of keys. The footer's checksum covers those
//! of the blocks, so it stands for the whole file; whoever opens one reads the header and the end, and a block when it
//! is wanted. Version 1 had one checksum and no footer, and was never part of a checkpoint.

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::block::{Block, prefix};
use super::store::RunFile;
use crate::{OperatorError, failure, keys, memory, wire};

/// First bytes of a file: a name and the version of the format.
const HEADER: [u8; 8] = *b"hw-run\x00\x02";
/// Last bytes of a file.
const END: [u8; 8] = *b"\x02hw-done";
/// Three words and the magic.
const TRAILER_BYTES: u64 = 32;
/// How much is read at first of the end of a file: the footer of some hundred blocks.
const TAIL_BYTES: u64 = 64 << 10;

/// What the footer says of one block.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) checksum: u64,
    pub(crate) rows: usize,
    /// About how many bytes the block takes in memory.
    pub(crate) size: usize,
    pub(crate) first: Box<[u8]>,
    pub(crate) last: Box<[u8]>,
    /// Prefix of the last key.
    pub(crate) last_prefix: u64,
    /// True if not every row counts +1.
    pub(crate) signed: bool,
}

/// Puts a file together; the caller writes the bytes out, in the order in which it gets them.
pub(crate) struct Layout {
    at: u64,
    entries: Vec<Entry>,
}

impl Layout {
    /// A new file and its first bytes.
    pub(crate) fn begin() -> (Self, &'static [u8]) {
        let layout = Layout {
            at: HEADER.len() as u64,
            entries: Vec::new(),
        };
        (layout, &HEADER)
    }

    /// The bytes of the next block.
    pub(crate) fn block(&mut self, block: &Block) -> Result<Vec<u8>, OperatorError> {
        let bytes = encode_block(block)?;
        let last = block.len() - 1;
        self.add(Entry {
            offset: 0,
            length: bytes.len(),
            checksum: keys::hash_bytes(0, &bytes),
            rows: block.len(),
            size: block.size(),
            first: block.key(0).into(),
            last: block.key(last).into(),
            last_prefix: block.prefixes[last],
            signed: block.diffs.is_some(),
        });
        Ok(bytes)
    }

    /// The next block is one of another file: its bytes, as they are, follow.
    pub(crate) fn add(&mut self, mut entry: Entry) {
        entry.offset = self.at;
        self.at += entry.length as u64;
        self.entries.push(entry);
    }

    /// The last bytes, and the checksum that stands for the file.
    pub(crate) fn finish(&self, lower: u64, upper: u64, columns: usize) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        let mut word = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
        word(lower);
        word(upper);
        word(columns as u64);
        word(self.entries.len() as u64);
        for entry in &self.entries {
            let mut word = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
            word(entry.offset);
            word(entry.length as u64);
            word(entry.checksum);
            word(entry.rows as u64);
            word(entry.size as u64);
            word(u64::from(entry.signed));
            word(entry.first.len() as u64);
            word(entry.last.len() as u64);
            bytes.extend_from_slice(&entry.first);
            bytes.extend_from_slice(&entry.last);
        }
        let (length, checksum) = (bytes.len() as u64, keys::hash_bytes(0, &bytes));
        for word in [self.at, length, checksum] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&END);
        (bytes, checksum)
    }

    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// What a file's end says.
pub(crate) struct Footer {
    pub(crate) lower: u64,
    pub(crate) upper: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) checksum: u64,
}

/// Reads the header and the end of `file`, whose blocks should have `columns` value columns.
pub(crate) fn open(file: &dyn RunFile, columns: usize) -> Result<Footer, OperatorError> {
    let damaged = |why: &str| damaged(file, why);
    let length = file.len();
    if length < HEADER.len() as u64 + TRAILER_BYTES {
        return Err(damaged("it is too short"));
    }
    let header = read(file, 0, HEADER.len() as u64)?;
    if header[..7] != HEADER[..7] {
        return Err(damaged("it is no file of state"));
    }
    if header[7] != HEADER[7] {
        let (found, known) = (header[7], HEADER[7]);
        return Err(damaged(&format!(
            "it is of version {found} of the format, and this build reads version {known}"
        )));
    }
    let mut tail_start = length - TAIL_BYTES.min(length);
    let mut tail = read(file, tail_start, length - tail_start)?;
    let trailer = tail.len() - TRAILER_BYTES as usize;
    let mut words = Reader(&tail[trailer..]);
    let (start, size, checksum) = (words.word(), words.word(), words.word());
    if words.0 != END {
        return Err(damaged("it ends early"));
    }
    if start < HEADER.len() as u64 || start.checked_add(size) != Some(length - TRAILER_BYTES) {
        return Err(damaged("its trailer is wrong"));
    }
    if start < tail_start {
        tail_start = start;
        tail = read(file, start, length - start)?;
    }
    let from = (start - tail_start) as usize;
    let footer = &tail[from..from + size as usize];
    if keys::hash_bytes(0, footer) != checksum {
        return Err(damaged("the checksum of its footer is wrong"));
    }
    let footer = Footer::parse(footer, start, columns, checksum);
    footer.map_err(|why| damaged(&why))
}

impl Footer {
    fn parse(bytes: &[u8], end: u64, columns: usize, checksum: u64) -> Result<Self, String> {
        let early = || "its footer ends early".to_string();
        let mut reader = Reader(bytes);
        let mut word = || reader.try_word().ok_or_else(early);
        let (lower, upper, found, count) = (word()?, word()?, word()?, word()?);
        if lower >= upper {
            return Err("its epochs are out of order".into());
        }
        if found != columns as u64 {
            return Err(format!(
                "its rows have {found} value columns instead of {columns}"
            ));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut at = HEADER.len() as u64;
        for _ in 0..count {
            let mut word = || reader.try_word().ok_or_else(early);
            let (offset, length, checksum) = (word()?, word()?, word()?);
            let (rows, size, signed) = (word()?, word()?, word()? != 0);
            let (first, last) = (word()?, word()?);
            let mut key = |length: u64| {
                let key = reader.bytes(usize::try_from(length).unwrap_or(usize::MAX));
                key.map(Box::<[u8]>::from).ok_or_else(early)
            };
            let (first, last) = (key(first)?, key(last)?);
            let after = entries.last().is_none_or(|before| before.last < first);
            if offset != at || rows == 0 || last < first || !after {
                return Err("its blocks are out of order".into());
            }
            at = at.saturating_add(length);
            let number = |word: u64| usize::try_from(word).map_err(|_| early());
            entries.push(Entry {
                offset,
                length: number(length)?,
                checksum,
                rows: number(rows)?,
                size: number(size)?,
                last_prefix: prefix(&last),
                first,
                last,
                signed,
            });
        }
        if at != end || !reader.0.is_empty() {
            return Err("its blocks do not add up".into());
        }
        Ok(Footer {
            lower,
            upper,
            entries,
            checksum,
        })
    }
}

pub(crate) fn damaged(file: &dyn RunFile, why: &str) -> OperatorError {
    OperatorError::Damaged {
        file: file.name().to_string(),
        why: why.to_string(),
    }
}

fn read(file: &dyn RunFile, offset: u64, length: u64) -> Result<Bytes, OperatorError> {
    let length = usize::try_from(length).map_err(|_| damaged(file, "it is too long"))?;
    let bytes = file.read_at(offset, length)?;
    if bytes.len() != length {
        return Err(damaged(file, "it ends early"));
    }
    Ok(bytes)
}

/// The bytes of a block of `file`, checked.
pub(crate) fn read_bytes(file: &dyn RunFile, entry: &Entry) -> Result<Bytes, OperatorError> {
    let bytes = read(file, entry.offset, entry.length as u64)?;
    if keys::hash_bytes(0, &bytes) != entry.checksum {
        let why = format!("the checksum of the block at {} is wrong", entry.offset);
        return Err(damaged(file, &why));
    }
    Ok(bytes)
}

/// A block of `file`.
pub(crate) fn read_block(
    file: &dyn RunFile,
    entry: &Entry,
    values: &SchemaRef,
) -> Result<Block, OperatorError> {
    let bytes = read_bytes(file, entry)?;
    let block = failure::guard(|| decode_block(bytes, values)).map_err(|error| {
        let why = format!("the block at {} cannot be read: {error}", entry.offset);
        damaged(file, &why)
    })?;
    let last = block.len() - 1;
    if block.len() != entry.rows || block.key(0) != &*entry.first || block.key(last) != &*entry.last
    {
        let why = format!("the block at {} is not the one it should be", entry.offset);
        return Err(damaged(file, &why));
    }
    Ok(block)
}

/// Four words (rows, bytes of keys, bytes of values, whether there are diffs), then each part from a multiple of 8 on:
/// where keys start, keys, diffs, the values as an Arrow message.
fn encode_block(block: &Block) -> Result<Vec<u8>, OperatorError> {
    let values = wire::try_encode(&block.values)?;
    let value_bytes: usize = values.iter().map(|part| part.len()).sum();
    let diffs = block.diffs.as_deref().unwrap_or_default();
    let length = 32 + block.offsets.len() * 4 + block.bytes.len() + diffs.len() * 8 + value_bytes;
    let mut bytes = Vec::with_capacity(length + 24);
    let signed = usize::from(block.diffs.is_some());
    for word in [block.len(), block.bytes.len(), value_bytes, signed] {
        bytes.extend_from_slice(&(word as u64).to_le_bytes());
    }
    let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0);
    for offset in &block.offsets {
        bytes.extend_from_slice(&offset.to_le_bytes());
    }
    pad(&mut bytes);
    bytes.extend_from_slice(&block.bytes);
    pad(&mut bytes);
    for diff in diffs {
        bytes.extend_from_slice(&diff.to_le_bytes());
    }
    for part in values {
        bytes.extend_from_slice(&part);
    }
    pad(&mut bytes);
    Ok(bytes)
}

fn decode_block(block: Bytes, schema: &SchemaRef) -> Result<Block, OperatorError> {
    let wrong = |why: &str| OperatorError::Other(why.into());
    let early = || wrong("it ends early");
    let mut reader = Reader(&block);
    let mut length = || {
        let word = reader.try_word().ok_or_else(early)?;
        usize::try_from(word).map_err(|_| early())
    };
    let (rows, key_bytes, value_bytes, signed) = (length()?, length()?, length()?, length()?);
    let part = |reader: &mut Reader<'_>, count: usize, size: usize| {
        let length = count.saturating_mul(size);
        let start = block.len() - reader.0.len();
        let padded = length.checked_next_multiple_of(8);
        reader.bytes(padded.unwrap_or(usize::MAX))?;
        Some(start..start + length)
    };
    let mut part = |count, size| part(&mut reader, count, size).ok_or_else(early);
    let offsets = part(rows.saturating_add(1), 4)?;
    let keys = part(key_bytes, 1)?;
    let diffs = part(if signed == 0 { 0 } else { rows }, 8)?;
    let message = part(value_bytes, 1)?;
    let offsets = block[offsets].as_chunks::<4>().0.iter();
    let offsets: Vec<u32> = offsets.map(|word| u32::from_le_bytes(*word)).collect();
    let fits = rows > 0 && offsets[0] == 0 && offsets[rows] as usize == key_bytes;
    if !fits || !offsets.is_sorted() {
        return Err(wrong("its keys do not add up"));
    }
    let bytes = block[keys].to_vec();
    let diffs = (signed != 0).then(|| {
        let words = block[diffs].as_chunks::<8>().0.iter();
        words.map(|word| i64::from_le_bytes(*word)).collect()
    });
    // The columns share the block's bytes; a block is held and let go as a whole.
    let values = wire::decode_buffer(Buffer::from(block.slice(message)), rows as u64, schema)?;
    let key = |row: usize| &bytes[offsets[row] as usize..offsets[row + 1] as usize];
    let prefixes: Vec<u64> = (0..rows).map(|row| prefix(key(row))).collect();
    let ordered = |row: &usize| {
        let before = row - 1;
        prefixes[before] < prefixes[*row]
            || (prefixes[before] == prefixes[*row] && key(before) < key(*row))
    };
    if !(1..rows).all(|row| ordered(&row)) {
        return Err(wrong("its keys are out of order"));
    }
    Ok(Block {
        row_bytes: 12 + (bytes.len() + memory::size_of(&values)) / rows,
        prefixes,
        offsets,
        bytes,
        values,
        diffs,
        charge: None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn try_word(&mut self) -> Option<u64> {
        let bytes = self.bytes(8)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Where the length is known.
    fn word(&mut self) -> u64 {
        self.try_word().unwrap_or(0)
    }
}
