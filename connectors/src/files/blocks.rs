//! Reads the lines of a split in blocks: whole lines, about a megabyte at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use highwater_text::options::{OptionError, Options};

use super::codec::Codec;
use super::encoding::Encoding;
use super::error::FileError;
use super::listing::{inode, modified_us};
use super::split::FileSplit;
use highwater_text::lines::{LineEnd, line_separator, whole_lines};
use highwater_text::options::{flag, invalid};

const BLOCK_BYTES: usize = 1 << 20;
/// What the rows of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lines.
    Lines(LineEnd),
    /// Lines, of which several may be one row: the decoder finds out.
    Records,
    /// The whole file.
    Whole,
}

/// How the text of a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextRules {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
}

impl Default for TextRules {
    fn default() -> Self {
        TextRules {
            shape: Shape::Lines(LineEnd::Any),
            encoding: Encoding::Utf8,
        }
    }
}

impl TextRules {
    /// What the options of `format` say.
    pub(super) fn parse(owner: &str, format: &str, options: &Options) -> Result<Self, OptionError> {
        let whole = match format {
            "text" => flag(options, owner, "wholetext")?,
            "json" => flag(options, owner, "multiLine")?,
            _ => false,
        };
        let records = format == "csv" && flag(options, owner, "multiLine")?;
        let line_end = match line_separator(owner, format, options)? {
            None => LineEnd::Any,
            Some(value) if whole || records => {
                let reason = "rows are not lines: remove it, or the option that says so";
                return Err(invalid(owner, "lineSep", &value, reason));
            }
            Some(separator) => LineEnd::Just(separator.into_bytes()),
        };
        let mut encoding = Encoding::Utf8;
        for name in ["charset", "encoding"] {
            if let Some(value) = options.get(name) {
                encoding = Encoding::parse(value).ok_or_else(|| {
                    let reason = "it is an encoding like UTF-8, UTF-16, ISO-8859-1 or windows-1252";
                    invalid(owner, name, value, reason)
                })?;
            }
        }
        let shape = match (whole, records) {
            (true, _) => Shape::Whole,
            (_, true) => Shape::Records,
            _ => Shape::Lines(line_end),
        };
        Ok(TextRules { shape, encoding })
    }

    /// Whether a part of a file can be read without what comes before it.
    pub(super) fn can_be_cut(&self) -> bool {
        *self == TextRules::default()
    }
}

/// A line must fit in memory, and in an Arrow column.
const LINE_BYTES_MAX: usize = 128 << 20;

/// The lines of one split.
pub(super) struct Blocks {
    path: String,
    input: Box<dyn Read + Send>,
    shape: Shape,
    codec: Option<Codec>,
    buffer: Vec<u8>,
    /// The unread bytes of the buffer; those up to `whole` are whole lines.
    from: usize,
    to: usize,
    whole: usize,
    ended: bool,
    /// What ended it, if that is no end: told behind the lines ahead of it.
    failed: Option<FileError>,
}

/// Opens the file of a split; `None` if it is gone and that is fine.
pub(super) fn open(split: &FileSplit, ignore_missing: bool) -> Result<Option<File>, FileError> {
    let file = match File::open(&split.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match ignore_missing {
                true => Ok(None),
                false => Err(FileError::Vanished {
                    path: split.path.clone(),
                }),
            };
        }
        Err(source) => return Err(read_error(split, source)),
    };
    let metadata = file
        .metadata()
        .map_err(|source| read_error(split, source))?;
    if metadata.is_dir() {
        return Err(FileError::IsDirectory {
            path: split.path.clone(),
        });
    }
    let (path, was, now) = (split.path.clone(), split.size, metadata.len());
    // One that is longer must be the one that was planned, grown. One as long may have been put back by a copy.
    let other = split.inode != 0 && split.inode != inode(&metadata);
    let other = other && modified_us(&metadata).is_ok_and(|time| time != split.modified);
    let changed = match now {
        _ if now < was => FileError::Shrank { path, was, now },
        _ if now > was && other => FileError::Replaced { path, was, now },
        _ => {
            let again =
                split.inode != 0 && modified_us(&metadata).is_ok_and(|time| time != split.modified);
            if again && split.to == was {
                tracing::warn!(
                    "file \"{path}\" was written again since the epoch that reads it was planned ({was} bytes then, {now} \
                     now): its first {was} bytes are read, and if rows in them are others now, output and state no longer \
                     agree; write files elsewhere and move them in when they are whole"
                );
            }
            return Ok(Some(file));
        }
    };
    match ignore_missing {
        true => Ok(None),
        false => Err(changed),
    }
}

fn read_error(split: &FileSplit, source: io::Error) -> FileError {
    FileError::Read {
        path: split.path.clone(),
        source,
    }
}

fn damaged(path: &str, codec: Codec, source: io::Error) -> FileError {
    FileError::Compressed {
        path: path.into(),
        codec: codec.name(),
        source,
    }
}

impl Blocks {
    pub(super) fn new(
        mut file: File,
        split: &FileSplit,
        rules: &TextRules,
    ) -> Result<Self, FileError> {
        let failed = |source| read_error(split, source);
        // An empty file has no header that could be damaged, whatever it is called.
        let codec = Codec::of(&split.path).filter(|_| split.size > 0);
        let input: Box<dyn Read + Send> = match codec {
            Some(codec) => {
                let input = codec.open(file.take(split.size));
                let input = input.map_err(|source| damaged(&split.path, codec, source))?;
                input.ok_or_else(|| FileError::Codec {
                    path: split.path.clone(),
                    codec: codec.name().into(),
                })?
            }
            None => {
                let from = line_start(&mut file, split.from, split.size).map_err(failed)?;
                let to = line_start(&mut file, split.to, split.size).map_err(failed)?;
                file.seek(SeekFrom::Start(from)).map_err(failed)?;
                Box::new(file.take(to.saturating_sub(from)))
            }
        };
        let mut blocks = Blocks {
            path: split.path.clone(),
            input: rules.encoding.open(input),
            shape: rules.shape.clone(),
            codec,
            buffer: Vec::new(),
            from: 0,
            to: 0,
            whole: 0,
            ended: false,
            failed: None,
        };
        if split.from == 0 {
            blocks.fill()?;
            if blocks.buffer[..blocks.to].starts_with(b"\xef\xbb\xbf") {
                blocks.from = 3;
            }
        }
        Ok(blocks)
    }

    /// Whole lines that were not consumed yet; empty at the end.
    pub(super) fn lines(&mut self) -> Result<&[u8], FileError> {
        while self.from >= self.whole && !self.ended {
            self.fill()?;
        }
        if self.from >= self.whole
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        Ok(&self.buffer[self.from.min(self.whole)..self.whole])
    }

    /// The lines that `lines` gave, and whether they are the last.
    pub(super) fn at_hand(&self) -> (&[u8], bool) {
        (
            &self.buffer[self.from.min(self.whole)..self.whole],
            self.ended && self.failed.is_none(),
        )
    }

    /// Reads on, though there are lines left: they are not enough for a row.
    pub(super) fn more(&mut self) -> Result<(), FileError> {
        match (self.ended, self.failed.take()) {
            (false, _) => self.fill(),
            (true, None) => Ok(()),
            (true, Some(error)) => Err(error),
        }
    }

    /// The first `bytes` of `lines` are done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.from += bytes;
    }

    /// Reads one more block behind what is unread.
    fn fill(&mut self) -> Result<(), FileError> {
        self.buffer.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        let searched = self.to;
        if searched > LINE_BYTES_MAX {
            return Err(FileError::LineTooLong {
                path: self.path.clone(),
                bytes_max: LINE_BYTES_MAX,
            });
        }
        // A line longer than a block is searched again each time: read more, so that this stays linear.
        let block = match self.codec {
            None => BLOCK_BYTES.max(searched),
            Some(_) => BLOCK_BYTES.max(searched) / 4,
        };
        self.buffer.resize(searched + block, 0);
        while self.to < self.buffer.len() {
            match self.input.read(&mut self.buffer[self.to..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(bytes) => self.to += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.ended = true;
                    self.failed = Some(match self.codec {
                        Some(codec) => damaged(&self.path, codec, source),
                        None => FileError::Read {
                            path: self.path.clone(),
                            source,
                        },
                    });
                    break;
                }
            }
        }
        self.whole = match self.ended && self.failed.is_none() {
            true => self.to,
            false => match &self.shape {
                Shape::Lines(end) => end.whole(&self.buffer[..self.to]),
                Shape::Records => whole_lines(&self.buffer[..self.to]),
                Shape::Whole => 0,
            },
        };
        Ok(())
    }
}

/// Where the first line starts at or behind `at`. Two splits that meet at `at` agree on it, so each line belongs to
/// exactly one of them.
fn line_start(file: &mut File, at: u64, size: u64) -> io::Result<u64> {
    if at == 0 || at >= size {
        return Ok(at.min(size));
    }
    let mut position = at - 1;
    file.seek(SeekFrom::Start(position))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = file.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(size);
        }
        if let Some(end) = memchr::memchr2(b'\n', b'\r', &buffer[..bytes]) {
            let mut behind = position + end as u64 + 1;
            if buffer[end] == b'\r' {
                let mut next = [0];
                file.seek(SeekFrom::Start(behind))?;
                if file.read(&mut next)? == 1 && next[0] == b'\n' {
                    behind += 1;
                }
            }
            return Ok(behind.min(size));
        }
        position += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use highwater_text::lines::Lines;

    /// All lines of a file, read in ranges that meet at `cuts`.
    fn read(path: &std::path::Path, cuts: &[u64]) -> Vec<Vec<u8>> {
        let size = fs::metadata(path).unwrap().len();
        let mut found = Vec::new();
        let bounds: Vec<u64> = [&[0], cuts, &[size]].concat();
        for pair in bounds.windows(2) {
            let split = FileSplit {
                path: path.to_str().unwrap().into(),
                modified: 0,
                size,
                inode: 0,
                from: pair[0],
                to: pair[1],
                partition: Vec::new(),
            };
            let file = open(&split, false).unwrap().unwrap();
            let mut blocks = Blocks::new(file, &split, &TextRules::default()).unwrap();
            loop {
                let lines = blocks.lines().unwrap();
                if lines.is_empty() {
                    break;
                }
                let bytes = lines.len();
                found.extend(Lines::new(lines).map(<[u8]>::to_vec));
                blocks.consume(bytes);
            }
        }
        found
    }

    #[test]
    fn every_line_belongs_to_exactly_one_range() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for text in ["a\nbb\r\nccc\r\rd\n\ne", "no end", "\n\n", "\r\n\r\n"] {
            fs::write(&path, text).unwrap();
            let whole: Vec<&[u8]> = Lines::new(text.as_bytes()).collect();
            for first in 0..=text.len() as u64 {
                for second in first..=text.len() as u64 {
                    assert_eq!(
                        read(&path, &[first, second]),
                        whole,
                        "{text:?} {first} {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn lines_longer_than_a_block_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let long = "x".repeat(3 * BLOCK_BYTES + 5);
        fs::write(&path, format!("a\n{long}\nb\n")).unwrap();
        let lines = read(&path, &[]);
        assert_eq!(
            lines.iter().map(Vec::len).collect::<Vec<_>>(),
            [1, long.len(), 1]
        );
    }
}
