//! JSON as people like to read it: over several lines, and its fields in the order of their names.
//!
//! It is written in one line first, and laid out from there: these files are not the ones that must be fast.

use super::escape::unescape;
use crate::options::{OptionError, Options, flag, flag_or};

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Layout {
    /// A field a line, as Jackson does it.
    pretty: bool,
    /// Fields in the order of their names.
    sorted: bool,
}

/// How JSON is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonWriting {
    /// Fields that are null are written too.
    pub null_fields: bool,
    /// In ASCII, with escapes for what is not.
    ascii: bool,
    layout: Layout,
}

/// The names of its options.
pub const WRITE_KNOWN: &[&str] = &[
    "pretty",
    "sortKeys",
    "ignoreNullFields",
    "writeNonAsciiCharacterAsCodePoint",
];

impl JsonWriting {
    /// Reads options by name; `owner` is told in errors.
    pub fn parse(owner: &str, options: &Options) -> Result<Self, OptionError> {
        Ok(JsonWriting {
            null_fields: !flag_or(options, owner, "ignoreNullFields", true)?,
            ascii: flag(options, owner, "writeNonAsciiCharacterAsCodePoint")?,
            layout: Layout {
                pretty: flag(options, owner, "pretty")?,
                sorted: flag(options, owner, "sortKeys")?,
            },
        })
    }

    /// True if JSON stays as it is.
    pub fn is_plain(&self) -> bool {
        !self.ascii && self.layout == Layout::default()
    }

    /// Appends `json`, a value in one line without blanks.
    pub fn push(&self, out: &mut String, json: &str) {
        let mut laid_out = String::new();
        let json = match self.layout == Layout::default() {
            true => json,
            false => {
                self.layout.push(&mut laid_out, json);
                &laid_out
            }
        };
        match self.ascii {
            true => push_ascii(out, json),
            false => out.push_str(json),
        }
    }
}

impl Layout {
    /// Appends `json`, a value in one line without blanks.
    fn push(self, out: &mut String, json: &str) {
        self.value(out, json, 0);
    }

    /// Appends the value that `json` begins with, and tells where it ends. `depth` objects are around it.
    fn value(self, out: &mut String, json: &str, depth: usize) -> usize {
        match json.as_bytes().first() {
            Some(b'{') => self.object(out, json, depth),
            Some(b'[') => self.array(out, json, depth),
            Some(b'"') => {
                let end = string_end(json);
                out.push_str(&json[..end]);
                end
            }
            _ => {
                let end = json.find([',', ']', '}']).unwrap_or(json.len());
                out.push_str(&json[..end]);
                end
            }
        }
    }

    fn object(self, out: &mut String, json: &str, depth: usize) -> usize {
        let mut fields: Vec<(&str, String)> = Vec::new();
        let mut at = 1;
        while json.as_bytes()[at] != b'}' {
            at += usize::from(json.as_bytes()[at] == b',');
            let name = &json[at..at + string_end(&json[at..])];
            at += name.len() + 1;
            let mut value = String::new();
            at += self.value(&mut value, &json[at..], depth + 1);
            fields.push((name, value));
        }
        if self.sorted {
            fields
                .sort_by_cached_key(|(name, _)| unescaped(name).encode_utf16().collect::<Vec<_>>());
        }
        out.push('{');
        for (number, (name, value)) in fields.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            self.line(out, depth + 1);
            out.push_str(name);
            out.push_str(if self.pretty { " : " } else { ":" });
            out.push_str(value);
        }
        match fields.is_empty() {
            true => out.push_str(if self.pretty { " " } else { "" }),
            false => self.line(out, depth),
        }
        out.push('}');
        at + 1
    }

    fn array(self, out: &mut String, json: &str, depth: usize) -> usize {
        let blank = if self.pretty { " " } else { "" };
        out.push('[');
        let mut at = 1;
        while json.as_bytes()[at] != b']' {
            if json.as_bytes()[at] == b',' {
                out.push(',');
                at += 1;
            }
            out.push_str(blank);
            at += self.value(out, &json[at..], depth);
        }
        out.push_str(blank);
        out.push(']');
        at + 1
    }

    fn line(self, out: &mut String, depth: usize) {
        if self.pretty {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    }
}

/// Where the string ends that `json` begins with.
fn string_end(json: &str) -> usize {
    let mut escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

fn unescaped(name: &str) -> String {
    let mut text = Vec::new();
    unescape(&name.as_bytes()[1..name.len() - 1], &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Escapes what is not ASCII; in JSON it can only be within strings.
fn push_ascii(out: &mut String, text: &str) {
    let mut units = [0; 2];
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pretty: bool, sorted: bool, json: &str, expected: &str) {
        let mut out = String::new();
        Layout { pretty, sorted }.push(&mut out, json);
        assert_eq!(out, expected);
    }

    /// What Spark writes of the same rows.
    #[test]
    fn values_are_laid_out_as_spark_does() {
        let row =
            r#"{"n":1,"s":"b\"q","st":{"z":1,"a":[1,2]},"m":{"k2":2,"k1":1},"arr":[{"y":1}]}"#;
        check(
            true,
            false,
            row,
            "{\n  \"n\" : 1,\n  \"s\" : \"b\\\"q\",\n  \"st\" : {\n    \"z\" : 1,\n    \"a\" : [ 1, 2 ]\n  },\n  \"m\" : \
             {\n    \"k2\" : 2,\n    \"k1\" : 1\n  },\n  \"arr\" : [ {\n    \"y\" : 1\n  } ]\n}",
        );
        check(
            false,
            true,
            row,
            r#"{"arr":[{"y":1}],"m":{"k1":1,"k2":2},"n":1,"s":"b\"q","st":{"a":[1,2],"z":1}}"#,
        );
        check(
            true,
            false,
            r#"{"st":{"a":[]},"m":{},"arr":[]}"#,
            "{\n  \"st\" : {\n    \"a\" : [ ]\n  },\n  \"m\" : { },\n  \"arr\" : [ ]\n}",
        );
        check(true, true, "{}", "{ }");
        check(
            true,
            true,
            r#"{"c":{"x":{"y":1}},"a":[[1,2],[]]}"#,
            "{\n  \"a\" : [ [ 1, 2 ], [ ] ],\n  \"c\" : {\n    \"x\" : {\n      \"y\" : 1\n    }\n  }\n}",
        );
        check(
            true,
            true,
            r#"{"arr":[{"y":1,"x":null}]}"#,
            "{\n  \"arr\" : [ {\n    \"x\" : null,\n    \"y\" : 1\n  } ]\n}",
        );
        check(
            false,
            true,
            r#"{"q\\":"{,]","a\"":-1.5}"#,
            r#"{"a\"":-1.5,"q\\":"{,]"}"#,
        );
    }
}
