//! Text in other encodings than UTF-8, turned into it while it is read.
//!
//! Bytes that mean nothing become U+FFFD, as Java reads them.

use std::io::{self, Read};

use encoding_rs::{Decoder, UTF_16BE};

const READ_BYTES: usize = 64 << 10;

/// How text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    #[default]
    Utf8,
    /// Each byte is the character of its number.
    Latin1,
    /// The same, but only up to 127.
    Ascii,
    /// The byte order mark tells the order; without one the higher byte comes first.
    Utf16,
    Other(&'static encoding_rs::Encoding),
}

impl Encoding {
    /// The encoding that a name of Java's or the web's means, if it is built.
    pub(super) fn parse(name: &str) -> Option<Encoding> {
        let name = name.trim().to_ascii_lowercase();
        Some(match name.as_str() {
            "utf-8" | "utf8" => Encoding::Utf8,
            // To the web these are all windows-1252; to Java they are not.
            "iso-8859-1" | "iso8859-1" | "iso8859_1" | "iso_8859-1" | "latin1" | "l1" => {
                Encoding::Latin1
            }
            "us-ascii" | "ascii" => Encoding::Ascii,
            "utf-16" | "utf16" => Encoding::Utf16,
            "cp1252" => Encoding::Other(encoding_rs::WINDOWS_1252),
            _ => {
                let found = encoding_rs::Encoding::for_label(name.as_bytes())?;
                match found.name() {
                    // Names that the web maps to "nothing can be read".
                    "replacement" | "x-user-defined" => return None,
                    _ => Encoding::Other(found),
                }
            }
        })
    }

    /// `input` as UTF-8.
    pub(super) fn open(self, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        let decoder = match self {
            Encoding::Utf8 => return input,
            Encoding::Latin1 | Encoding::Ascii => None,
            Encoding::Utf16 => Some(UTF_16BE.new_decoder()),
            Encoding::Other(other) => Some(other.new_decoder_with_bom_removal()),
        };
        Box::new(Transcoder {
            input,
            ascii: self == Encoding::Ascii,
            decoder,
            raw: vec![0; READ_BYTES],
            text: String::with_capacity(4 * READ_BYTES),
            at: 0,
            ended: false,
        })
    }
}

struct Transcoder {
    input: Box<dyn Read + Send>,
    ascii: bool,
    /// None for single bytes.
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    text: String,
    at: usize,
    ended: bool,
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !self.ended {
            self.text.clear();
            self.at = 0;
            let bytes = self.input.read(&mut self.raw)?;
            self.ended = bytes == 0;
            let raw = &self.raw[..bytes];
            match &mut self.decoder {
                // The text has room for every character at its longest.
                Some(decoder) => {
                    let _ = decoder.decode_to_string(raw, &mut self.text, self.ended);
                }
                None => self.text.extend(raw.iter().map(|byte| match self.ascii {
                    true if *byte > 0x7f => '\u{fffd}',
                    _ => char::from(*byte),
                })),
            }
        }
        let bytes = (self.text.len() - self.at).min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.text.as_bytes()[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: &str, bytes: &[u8], expected: &str) {
        let encoding = Encoding::parse(encoding).unwrap();
        let mut text = String::new();
        let input = Box::new(io::Cursor::new(bytes.to_vec()));
        encoding.open(input).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected, "{encoding:?}");
    }

    #[test]
    fn text_is_read_as_it_is_encoded() {
        check("UTF-8", "Zürich".as_bytes(), "Zürich");
        check("latin1", b"Z\xfcrich \x80", "Zürich \u{80}");
        check("windows-1252", b"Z\xfcrich \x80", "Zürich €");
        check("US-ASCII", b"Z\xfcrich", "Z\u{fffd}rich");
        check("UTF-16LE", b"Z\0\xfc\0", "Zü");
        check("UTF-16BE", b"\0Z\0\xfc", "Zü");
        check("UTF-16", b"\0Z\0\xfc", "Zü");
        check("UTF-16", b"\xff\xfeZ\0\xfc\0", "Zü");
        check("Shift_JIS", b"\x93\xfa\x96\x7b", "日本");
        check("GBK", b"\xc4\xe3", "你");
    }

    #[test]
    fn long_texts_keep_every_character() {
        let long = "añ日𝄞".repeat(100_000);
        let units: Vec<u8> = long.encode_utf16().flat_map(u16::to_le_bytes).collect();
        check("utf-16le", &units, &long);
        check("iso-8859-1", &vec![0xe9; 200_000], &"é".repeat(200_000));
        // Half a character at the end.
        check("utf-16le", b"Z\0\xfc", "Z\u{fffd}");
    }

    #[test]
    fn what_is_not_built_is_none() {
        for name in ["UTF-32", "EBCDIC", "", "iso-2022-kr"] {
            assert_eq!(Encoding::parse(name), None, "{name}");
        }
    }
}
