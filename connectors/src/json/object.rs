//! The fields of one object under construction: a row, or a struct within it.
//!
//! Rows of one source look alike: the same fields in the same order, spelled the same way. So every field remembers
//! its bytes from quote to colon and which field follows it. If the bytes at the cursor are the ones expected, or
//! those a few fields on (the ones between are absent), the field is known by a comparison; only else is its name
//! read and looked up.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;
use wide::u8x16;

use super::column::{Column, Context};
use super::names::Names;
use super::scan::{Cursor, Scan, unescape};

/// So many field names that nobody wants are remembered; data with more (ids as names) is looked up each time.
const UNKNOWN_MAX: usize = 1024;
/// So many expected fields may be absent before the name is looked up.
const ABSENT_MAX: usize = 3;

/// The bytes of a field name, in a form that is compared with what stands somewhere in no time.
struct Spelling {
    bytes: Vec<u8>,
    /// The first 16 of them, and where they are.
    head: u8x16,
    mask: u8x16,
}

impl Spelling {
    fn new(bytes: &[u8]) -> Self {
        let mut head = [0; 16];
        let mut mask = [0; 16];
        for (at, byte) in bytes.iter().take(16).enumerate() {
            head[at] = *byte;
            mask[at] = 0xff;
        }
        Spelling {
            bytes: bytes.to_vec(),
            head: u8x16::new(head),
            mask: u8x16::new(mask),
        }
    }

    /// Whether `text` starts with it.
    #[inline(always)]
    fn starts(&self, text: &[u8]) -> bool {
        match text.first_chunk::<16>() {
            Some(head) => {
                (u8x16::new(*head) & self.mask)
                    .simd_eq(self.head)
                    .to_bitmask()
                    == 0xffff
                    && (self.bytes.len() <= 16 || text[16..].starts_with(&self.bytes[16..]))
            }
            None => !self.bytes.is_empty() && text.starts_with(&self.bytes),
        }
    }

    /// What nothing starts with.
    fn none() -> Self {
        Spelling {
            bytes: Vec::new(),
            head: u8x16::splat(1),
            mask: u8x16::splat(0),
        }
    }
}

/// A field that was met, or that the schema has.
struct Seen {
    /// Its bytes from the opening quote to behind the colon.
    spelled: Spelling,
    /// Its column, if somebody wants it.
    column: Option<usize>,
    /// What is expected after it.
    next: usize,
}

pub(super) struct Object {
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
    /// The first one stands for the opening brace and is never met.
    seen: Vec<Seen>,
    /// The places in `seen` by name.
    names: Names,
    seen_max: usize,
}

impl Object {
    pub(super) fn new(fields: &Fields) -> Result<Self, DataType> {
        let mut object = Object {
            columns: Vec::with_capacity(fields.len()),
            rows: 0,
            seen: vec![Seen {
                spelled: Spelling::none(),
                column: None,
                next: 0,
            }],
            names: Names::new(),
            seen_max: fields.len() + UNKNOWN_MAX,
        };
        for field in fields {
            let name = field.name().as_bytes();
            let column = Some(object.columns.len());
            object.columns.push(Column::new(field.data_type())?);
            match object.names.get(name) {
                // Of columns of one name the last one gets the values.
                Some(at) => object.seen[at].column = column,
                None => {
                    let last = object.seen.len() - 1;
                    let at = object.remember(name, &[b"\"", name, b"\":"].concat(), column);
                    object.seen[last].next = at;
                }
            }
        }
        Ok(object)
    }

    fn remember(&mut self, name: &[u8], spelled: &[u8], column: Option<usize>) -> usize {
        let at = self.seen.len();
        self.seen.push(Seen {
            spelled: Spelling::new(spelled),
            column,
            next: 0,
        });
        self.names.insert(name, at);
        at
    }

    /// Reads the object whose brace is at the cursor, as one more row. Fields that are absent are null; of a repeated
    /// field the last one counts that has the type of its column.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        depth: usize,
    ) -> Scan<()> {
        cursor.deeper(depth)?;
        cursor.pos += 1;
        cursor.blanks();
        let mut filled = 0;
        if !cursor.eat(b'}') {
            let mut previous = 0;
            loop {
                let column = match self.expected(cursor, previous) {
                    Some(at) => {
                        previous = at;
                        self.seen[at].column
                    }
                    None => self.look_up(cursor, &mut previous)?,
                };
                match column {
                    None => cursor.skip(depth + 1)?,
                    Some(at) => {
                        let column = &mut self.columns[at];
                        if column.len > self.rows {
                            column.read_again(cursor, context, depth + 1)?;
                        } else {
                            filled += 1;
                            if !column.read(cursor, context, depth + 1)? {
                                column.append_null();
                            }
                        }
                    }
                }
                // What mostly follows, then what may follow.
                match cursor.peek() {
                    b',' => {
                        cursor.pos += 1;
                        cursor.blanks();
                    }
                    _ if cursor.more(b'}')? => {}
                    _ => break,
                }
            }
        }
        if filled < self.columns.len() {
            for column in &mut self.columns {
                if column.len == self.rows {
                    column.append_null();
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Goes over the field name at the cursor if it is one that is expected after `previous`.
    #[inline(always)]
    fn expected(&self, cursor: &mut Cursor<'_>, previous: usize) -> Option<usize> {
        let mut at = previous;
        for _ in 0..=ABSENT_MAX {
            at = self.seen[at].next;
            let spelled = &self.seen[at].spelled;
            if spelled.starts(cursor.rest()) {
                cursor.pos += spelled.bytes.len();
                cursor.blanks();
                return Some(at);
            }
        }
        None
    }

    /// Reads the field name at the cursor, to behind its colon, and expects it after `previous` from now on.
    #[inline(never)]
    fn look_up(&mut self, cursor: &mut Cursor<'_>, previous: &mut usize) -> Scan<Option<usize>> {
        cursor.blanks();
        let from = cursor.pos;
        let text = cursor.key()?;
        let raw = &cursor.text[text.start..text.end];
        let mut unescaped = Vec::new();
        let name = match text.escaped {
            false => raw,
            true => {
                unescape(raw, &mut unescaped);
                &unescaped
            }
        };
        // The blanks behind the colon are not part of it: they are gone over anyway.
        let spelled = &cursor.text[from..cursor.pos];
        let spelled = spelled.trim_ascii_end();
        // A line end may be within: it is a blank in some texts and the end in others.
        let plain = spelled.len() < 256 && spelled.iter().all(|byte| *byte >= b' ');
        let rest = &cursor.text[from..];
        let is_spelled_so =
            |seen: &Seen| seen.spelled.bytes.len() == spelled.len() && seen.spelled.starts(rest);
        let known = self.names.get_or(name, |at| is_spelled_so(&self.seen[at]));
        let at = match known {
            Some(at) => at,
            None if self.seen.len() < self.seen_max && plain => self.remember(name, spelled, None),
            None => {
                *previous = 0;
                return Ok(None);
            }
        };
        if plain && !is_spelled_so(&self.seen[at]) {
            self.seen[at].spelled = Spelling::new(spelled);
        }
        let next = self.seen[*previous].next;
        if at != *previous && self.seen[at].next == 0 {
            // A field that was not met before stands between the two.
            self.seen[at].next = next;
        }
        self.seen[*previous].next = at;
        *previous = at;
        Ok(self.seen[at].column)
    }

    pub(super) fn append_nulls(&mut self) {
        for column in &mut self.columns {
            // A malformed row may have left a value in some columns already.
            column.truncate(self.rows);
            column.append_null();
        }
        self.rows += 1;
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.rows = self.rows.min(rows);
    }

    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.rows = 0;
        self.columns.iter_mut().map(Column::finish).collect()
    }
}
