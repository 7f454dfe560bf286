//! Text in other encodings than UTF-8.
//!
//! What an encoding has no character for becomes a question mark, as Java writes it.

use highwater_text::options::{OptionError, Options};

use highwater_text::options::invalid;

/// How text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutEncoding {
    Utf8,
    Latin1,
    Ascii,
    /// The higher byte comes first, behind a mark that says so.
    Utf16,
    Utf16Be,
    Utf16Le,
    Utf32,
}

impl OutEncoding {
    /// Option `encoding`, or else `charset`.
    pub(super) fn parse(owner: &str, options: &Options) -> Result<Self, OptionError> {
        let given = |name| options.get(name).map(|value| (name, value));
        let Some((name, value)) = given("encoding").or_else(|| given("charset")) else {
            return Ok(OutEncoding::Utf8);
        };
        Ok(match value.trim().to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => OutEncoding::Utf8,
            "iso-8859-1" => OutEncoding::Latin1,
            "us-ascii" => OutEncoding::Ascii,
            "utf-16" => OutEncoding::Utf16,
            "utf-16be" => OutEncoding::Utf16Be,
            "utf-16le" => OutEncoding::Utf16Le,
            "utf-32" => OutEncoding::Utf32,
            _ => {
                let reason = "[INVALID_PARAMETER_VALUE.CHARSET] it is one of iso-8859-1, us-ascii, utf-16, utf-16be, \
                              utf-16le, utf-32 and utf-8";
                return Err(invalid(owner, name, value, reason));
            }
        })
    }

    /// What a file begins with.
    pub(super) fn mark(self) -> &'static [u8] {
        match self {
            OutEncoding::Utf16 => &[0xfe, 0xff],
            _ => &[],
        }
    }

    /// Appends `text`, if it is not to be written as it is.
    pub(super) fn push(self, out: &mut Vec<u8>, text: &str) {
        let up_to = |out: &mut Vec<u8>, last: u8| {
            let byte = |c| u8::try_from(c).ok().filter(|byte| *byte <= last);
            out.extend(text.chars().map(|c| byte(u32::from(c)).unwrap_or(b'?')));
        };
        match self {
            OutEncoding::Utf8 => out.extend_from_slice(text.as_bytes()),
            OutEncoding::Latin1 => up_to(out, 0xff),
            OutEncoding::Ascii => up_to(out, 0x7f),
            OutEncoding::Utf16 | OutEncoding::Utf16Be => {
                text.encode_utf16()
                    .for_each(|unit| out.extend(unit.to_be_bytes()));
            }
            OutEncoding::Utf16Le => {
                text.encode_utf16()
                    .for_each(|unit| out.extend(unit.to_le_bytes()));
            }
            OutEncoding::Utf32 => {
                text.chars()
                    .for_each(|c| out.extend(u32::from(c).to_be_bytes()));
            }
        }
    }
}
