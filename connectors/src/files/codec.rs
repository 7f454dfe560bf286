//! Compressed files, by the endings that Hadoop knows.
//!
//! `.snappy` and `.lz4` mean Hadoop's own blocks there and the standard frames elsewhere; the first bytes tell which.

use std::io::{self, BufReader, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

/// Blocks longer than this are damage.
const BLOCK_BYTES_MAX: usize = 64 << 20;
const SNAPPY_FRAME: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const LZ4_FRAME: &[u8] = b"\x04\x22\x4d\x18";

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Bzip2,
    Deflate,
    Lz4,
    Snappy,
    Zstd,
    Xz,
}

impl Codec {
    /// The compression that the name of a file tells.
    pub(super) fn of(path: &str) -> Option<Codec> {
        let (_, ending) = path.rsplit_once('.')?;
        Some(match ending {
            "gz" => Codec::Gzip,
            "bz2" => Codec::Bzip2,
            "deflate" => Codec::Deflate,
            "lz4" => Codec::Lz4,
            "snappy" => Codec::Snappy,
            "zst" => Codec::Zstd,
            "xz" => Codec::Xz,
            _ => return None,
        })
    }

    /// For messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Bzip2 => "bzip2",
            Codec::Deflate => "deflate",
            Codec::Lz4 => "lz4",
            Codec::Snappy => "snappy",
            Codec::Zstd => "zstd",
            Codec::Xz => "xz",
        }
    }

    /// What `input` holds; none if that is not built.
    pub(super) fn open(
        self,
        input: impl Read + Send + 'static,
    ) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(Some(match self {
            Codec::Gzip => Box::new(MultiGzDecoder::new(input)),
            Codec::Bzip2 => Box::new(MultiBzDecoder::new(input)),
            Codec::Deflate => Box::new(ZlibDecoder::new(input)),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::new(input)?),
            Codec::Snappy => match peek(input, SNAPPY_FRAME)? {
                (true, input) => Box::new(snap::read::FrameDecoder::new(input)),
                (false, input) => Box::new(HadoopBlocks::new(input, unsnap)),
            },
            Codec::Lz4 => match peek(input, LZ4_FRAME)? {
                (true, input) => Box::new(Frames::new(input)),
                (false, input) => Box::new(HadoopBlocks::new(input, unlz4)),
            },
            Codec::Xz => return Ok(None),
        }))
    }
}

type Peeked<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Whether `input` starts with `magic`; and `input` from its start.
fn peek<R: Read>(mut input: R, magic: &[u8]) -> io::Result<(bool, Peeked<R>)> {
    let mut head = Vec::new();
    input
        .by_ref()
        .take(magic.len() as u64)
        .read_to_end(&mut head)?;
    let is_magic = head == magic;
    Ok((is_magic, io::Cursor::new(head).chain(input)))
}

/// Passes bytes on and knows the first of them that matter, and the last.
struct Ends<R> {
    input: R,
    flags: u8,
    bytes: u64,
    last: [u8; 8],
}

impl<R: Read> Read for Ends<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        for byte in &buffer[..bytes] {
            if self.bytes == LZ4_FRAME.len() as u64 {
                self.flags = *byte;
            }
            self.bytes += 1;
        }
        let tail = &buffer[bytes.saturating_sub(self.last.len())..bytes];
        self.last.rotate_left(tail.len());
        let keep = self.last.len() - tail.len();
        self.last[keep..].copy_from_slice(tail);
        Ok(bytes)
    }
}

/// One frame after the other, to the end. The decoder takes a file that stops between two blocks for a whole one: the
/// mark at the end of the last frame is looked for here.
struct Frames<R: Read>(lz4_flex::frame::FrameDecoder<BufReader<Ends<R>>>);

impl<R: Read> Frames<R> {
    fn new(input: R) -> Self {
        let ends = Ends {
            input,
            flags: 0,
            bytes: 0,
            last: [0xff; 8],
        };
        Frames(lz4_flex::frame::FrameDecoder::new(BufReader::new(ends)))
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::BufRead;
        loop {
            match self.0.read(buffer)? {
                0 if !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() => {}
                0 if !buffer.is_empty() => {
                    let ends = self.0.get_ref().get_ref();
                    // A checksum of the whole may follow the mark.
                    let mark = match ends.flags & 0b100 {
                        0 => &ends.last[4..],
                        _ => &ends.last[..4],
                    };
                    return match mark == [0; 4] {
                        true => Ok(0),
                        false => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                }
                bytes => return Ok(bytes),
            }
        }
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn unsnap(bytes: &[u8], room: usize) -> io::Result<Vec<u8>> {
    if snap::raw::decompress_len(bytes).map_err(damaged)? > room {
        return Err(damaged("a block is longer than it says"));
    }
    snap::raw::Decoder::new()
        .decompress_vec(bytes)
        .map_err(damaged)
}

fn unlz4(bytes: &[u8], room: usize) -> io::Result<Vec<u8>> {
    lz4_flex::block::decompress(bytes, room).map_err(damaged)
}

/// Hadoop's blocks: the length of what a block holds, then pieces, each with its own length before it, until the block
/// is full. Lengths are four bytes, the highest first.
struct HadoopBlocks<R> {
    input: R,
    decompress: fn(&[u8], usize) -> io::Result<Vec<u8>>,
    /// What the block at hand holds beyond `piece`.
    left: usize,
    piece: io::Cursor<Vec<u8>>,
}

impl<R: Read> HadoopBlocks<R> {
    fn new(input: R, decompress: fn(&[u8], usize) -> io::Result<Vec<u8>>) -> Self {
        HadoopBlocks {
            input,
            decompress,
            left: 0,
            piece: io::Cursor::default(),
        }
    }

    /// None at the end.
    fn length(&mut self) -> io::Result<Option<usize>> {
        let mut bytes = [0; 4];
        match self.input.read(&mut bytes[..1])? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut bytes[1..])?,
        }
        let length = u32::from_be_bytes(bytes) as usize;
        match length > BLOCK_BYTES_MAX {
            true => Err(damaged(format!("a block of {length} bytes"))),
            false => Ok(Some(length)),
        }
    }
}

impl<R: Read> Read for HadoopBlocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let bytes = self.piece.read(buffer)?;
            if bytes > 0 || buffer.is_empty() {
                return Ok(bytes);
            }
            while self.left == 0 {
                match self.length()? {
                    None => return Ok(0),
                    Some(length) => self.left = length,
                }
            }
            let length = self.length()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut bytes = vec![0; length];
            self.input.read_exact(&mut bytes)?;
            let piece = (self.decompress)(&bytes, self.left)?;
            if piece.is_empty() {
                return Err(damaged("an empty piece"));
            }
            self.left -= piece.len();
            self.piece = io::Cursor::new(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text() -> Vec<u8> {
        (0..10_000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect()
    }

    /// As Hadoop writes it: pieces of 10,000 bytes, three to a block.
    fn hadoop(compress: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        for block in text().chunks(30_000) {
            out.extend((block.len() as u32).to_be_bytes());
            for piece in block.chunks(10_000) {
                let piece = compress(piece);
                out.extend((piece.len() as u32).to_be_bytes());
                out.extend(piece);
            }
        }
        out
    }

    fn written<W: Write>(mut writer: W, finish: fn(W) -> Vec<u8>) -> Vec<u8> {
        writer.write_all(&text()).unwrap();
        finish(writer)
    }

    /// Read whole, twice over where files may be put together, cut anywhere, and with a byte changed.
    fn check(ending: &str, bytes: Vec<u8>, joins: bool) {
        let codec = Codec::of(&format!("part.json.{ending}")).unwrap();
        let read = |bytes: Vec<u8>| -> io::Result<Vec<u8>> {
            let mut found = Vec::new();
            let input = codec.open(io::Cursor::new(bytes))?;
            input.unwrap().read_to_end(&mut found)?;
            Ok(found)
        };
        assert!(read(bytes.clone()).unwrap() == text(), "{ending}");
        if joins {
            let twice = read([bytes.clone(), bytes.clone()].concat()).unwrap();
            assert!(twice == [text(), text()].concat(), "{ending}");
        }
        for cut in [bytes.len() / 3, bytes.len() - 1] {
            let cut = read(bytes[..cut].to_vec());
            assert!(cut.is_err(), "{ending} cut is no whole file");
        }
        for at in (0..bytes.len()).step_by(997) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            let _ = read(changed); // an error or other bytes, never a panic
        }
    }

    #[test]
    fn every_codec_is_read() {
        use flate2::Compression;
        let fast = Compression::fast;
        let gz = flate2::write::GzEncoder::new(Vec::new(), fast());
        check("gz", written(gz, |w| w.finish().unwrap()), true);
        let zlib = flate2::write::ZlibEncoder::new(Vec::new(), fast());
        check("deflate", written(zlib, |w| w.finish().unwrap()), false);
        let bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        check("bz2", written(bz2, |w| w.finish().unwrap()), true);
        let zst = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        check("zst", written(zst, |w| w.finish().unwrap()), true);
        let lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        check("lz4", written(lz4, |w| w.finish().unwrap()), true);
        check("lz4", hadoop(lz4_flex::block::compress), true);
        let snappy = snap::write::FrameEncoder::new(Vec::new());
        let framed = written(snappy, |w| w.into_inner().unwrap());
        check("snappy", framed, true);
        let raw = |piece: &[u8]| snap::raw::Encoder::new().compress_vec(piece).unwrap();
        check("snappy", hadoop(raw), true);
    }

    #[test]
    fn other_endings_are_plain_and_xz_is_not_built() {
        assert_eq!(Codec::of("a.json"), None);
        assert_eq!(Codec::of("gz"), None);
        let xz = Codec::of("a.xz").unwrap();
        assert!(xz.open(io::empty()).unwrap().is_none());
    }
}
