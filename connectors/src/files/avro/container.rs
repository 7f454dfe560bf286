//! What is around the rows: a header that tells schema and codec, then blocks, each followed by the file's mark.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Take};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::AvroError;

const MAGIC: &[u8] = b"Obj\x01";
/// What a block may become when it is decompressed. Writers make blocks of kilobytes.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Copy)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

/// A file, read block after block.
pub(super) struct Container {
    input: BufReader<Take<File>>,
    /// Bytes of the file that are left.
    left: u64,
    size: u64,
    schema: String,
    codec: Codec,
    mark: [u8; 16],
}

/// Rows, decompressed.
#[derive(Default)]
pub(super) struct Block {
    /// Rows that were not decoded yet.
    pub(super) rows: usize,
    pub(super) bytes: Vec<u8>,
    at: u64,
}

impl Block {
    pub(super) fn damaged(&self, what: String) -> AvroError {
        AvroError::Block { at: self.at, what }
    }
}

impl Container {
    /// Reads the header of a file of `size` bytes; what is behind them is not read.
    pub(super) fn open(file: File, size: u64) -> Result<Container, AvroError> {
        let mut container = Container {
            input: BufReader::with_capacity(64 << 10, file.take(size)),
            left: size,
            size,
            schema: String::new(),
            codec: Codec::Null,
            mark: [0; 16],
        };
        if container.take(4).ok().as_deref() != Some(MAGIC) {
            return Err(AvroError::Damaged(
                "it does not start as Avro files do".into(),
            ));
        }
        container.header().map_err(|error| match error {
            AvroError::Damaged(what) => AvroError::Damaged(format!("its header: {what}")),
            other => other,
        })?;
        Ok(container)
    }

    /// The schema of a row, as JSON.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    fn header(&mut self) -> Result<(), AvroError> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                self.long()?;
                count = count.saturating_neg();
            }
            for _ in 0..count {
                let key = self.bytes()?;
                let value = self.bytes()?;
                match key.as_slice() {
                    b"avro.schema" => {
                        self.schema = String::from_utf8(value)
                            .map_err(|_| AvroError::Schema("it is not UTF-8".into()))?;
                    }
                    b"avro.codec" => {
                        self.codec = match value.as_slice() {
                            b"null" | b"" => Codec::Null,
                            b"deflate" => Codec::Deflate,
                            b"snappy" => Codec::Snappy,
                            b"zstandard" => Codec::Zstandard,
                            other => {
                                let name = String::from_utf8_lossy(other).into_owned();
                                return Err(AvroError::Codec(name));
                            }
                        };
                    }
                    _ => {}
                }
            }
        }
        let mark = self.take(16)?;
        self.mark.copy_from_slice(&mark);
        match self.schema.is_empty() {
            true => Err(AvroError::Schema("there is none".into())),
            false => Ok(()),
        }
    }

    /// The next block; `None` at the end of the file.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, AvroError> {
        if self.left == 0 {
            return Ok(None);
        }
        let at = self.size - self.left;
        let block = self.block(at).map_err(|error| match error {
            AvroError::Damaged(what) => AvroError::Block { at, what },
            other => other,
        });
        block.map(Some)
    }

    fn block(&mut self, at: u64) -> Result<Block, AvroError> {
        let rows = self.long()?;
        let rows =
            usize::try_from(rows).map_err(|_| AvroError::Damaged(format!("it has {rows} rows")))?;
        let bytes = self.bytes()?;
        if self.take(16)? != self.mark {
            let what = "the mark behind it is not the file's".into();
            return Err(AvroError::Damaged(what));
        }
        let bytes = decompress(self.codec, bytes)?;
        // Rows without bytes are records of nothing but nulls; more of them than a batch counts are damage.
        if bytes.is_empty() && rows > i32::MAX as usize {
            return Err(AvroError::Damaged(format!("it has {rows} rows of nothing")));
        }
        Ok(Block { rows, bytes, at })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, AvroError> {
        let len = self.long()?;
        let len = u64::try_from(len)
            .map_err(|_| AvroError::Damaged(format!("{len} is no number of bytes")))?;
        self.take(len)
    }

    fn take(&mut self, len: u64) -> Result<Vec<u8>, AvroError> {
        if len > self.left {
            return Err(AvroError::Damaged(format!(
                "the file ends within it: {} bytes are left of {len}",
                self.left
            )));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), AvroError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.left -= bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(AvroError::Damaged("the file ends within it".into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A number: seven bits a byte, the lowest first, with the sign in the lowest of all.
    fn long(&mut self) -> Result<i64, AvroError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if self.left == 0 {
                return Err(AvroError::Damaged("the file ends within it".into()));
            }
            self.fill(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(AvroError::Damaged("a number in it has no end".into()))
    }
}

fn decompress(codec: Codec, bytes: Vec<u8>) -> Result<Vec<u8>, AvroError> {
    let damaged = |error: &dyn std::fmt::Display| {
        AvroError::Damaged(format!("it cannot be decompressed: {error}"))
    };
    let mut out = Vec::new();
    match codec {
        Codec::Null => return Ok(bytes),
        Codec::Deflate => {
            let mut input = DeflateDecoder::new(bytes.as_slice()).take(BLOCK_BYTES_MAX + 1);
            input.read_to_end(&mut out).map_err(|e| damaged(&e))?;
        }
        Codec::Zstandard => {
            let input = zstd::Decoder::new(bytes.as_slice()).map_err(|e| damaged(&e))?;
            let mut input = input.take(BLOCK_BYTES_MAX + 1);
            input.read_to_end(&mut out).map_err(|e| damaged(&e))?;
        }
        Codec::Snappy => {
            // The checksum of what it becomes is behind it.
            let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
                return Err(damaged(&"it has no checksum"));
            };
            let len = snap::raw::decompress_len(body).map_err(|e| damaged(&e))?;
            if len as u64 <= BLOCK_BYTES_MAX {
                let mut decoder = snap::raw::Decoder::new();
                out = decoder.decompress_vec(body).map_err(|e| damaged(&e))?;
                let mut crc = Crc::new();
                crc.update(&out);
                if crc.sum() != u32::from_be_bytes(*sum) {
                    return Err(damaged(&"its checksum differs"));
                }
                return Ok(out);
            }
            return Err(damaged(&"it is larger than 1 GiB"));
        }
    }
    match out.len() as u64 > BLOCK_BYTES_MAX {
        true => Err(damaged(&"it is larger than 1 GiB")),
        false => Ok(out),
    }
}
