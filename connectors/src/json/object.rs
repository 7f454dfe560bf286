//! The fields of one object under construction: a row, or a struct within it.
//!
//! Rows of one source look alike: the same fields in the same order, spelled the same way. So every field remembers
//! its bytes from quote to colon and which field came after it last time. If the bytes at the cursor are the ones
//! expected, the field is known by one comparison; only else is its name read and looked up.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use super::column::{Column, Context};
use super::scan::{Cursor, Malformed, Scan, unescape};

/// So many different field names are remembered; data with more (ids as names) is looked up each time.
const FIELDS_MAX: usize = 1024;

/// The bytes of a field name, in a form that is compared with what stands somewhere in no time.
struct Spelling {
    bytes: Vec<u8>,
    /// The first 16 of them, and where they are.
    head: u128,
    mask: u128,
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
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
        }
    }

    /// Whether `text` starts with it.
    #[inline(always)]
    fn starts(&self, text: &[u8]) -> bool {
        match text.first_chunk::<16>() {
            Some(head) => {
                u128::from_le_bytes(*head) & self.mask == self.head
                    && (self.bytes.len() <= 16 || text[16..].starts_with(&self.bytes[16..]))
            }
            None => text.starts_with(&self.bytes),
        }
    }
}

/// A field that was met.
struct Seen {
    /// Its bytes from the opening quote to behind the colon.
    spelled: Spelling,
    /// Its column, if somebody wants it.
    column: Option<usize>,
    /// What came after it last time.
    next: usize,
}

pub(super) struct Object {
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
    by_name: HashMap<Box<[u8]>, usize>,
    /// The first one stands for the opening brace and is never met.
    seen: Vec<Seen>,
    seen_by_name: HashMap<Box<[u8]>, usize>,
}

impl Object {
    pub(super) fn new(fields: &Fields) -> Result<Self, DataType> {
        let mut object = Object {
            columns: Vec::with_capacity(fields.len()),
            rows: 0,
            by_name: HashMap::new(),
            seen: vec![Seen {
                spelled: Spelling::new(&[0]),
                column: None,
                next: 0,
            }],
            seen_by_name: HashMap::new(),
        };
        for field in fields {
            object
                .by_name
                .insert(field.name().as_bytes().into(), object.columns.len());
            object.columns.push(Column::new(field.data_type())?);
        }
        Ok(object)
    }

    /// Reads the object whose brace is at the cursor, as one more row. Fields that are absent are null; of a repeated
    /// field the last one counts.
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
                let expected = self.seen[previous].next;
                let field = &self.seen[expected];
                let column = if field.spelled.starts(cursor.rest()) {
                    cursor.pos += field.spelled.bytes.len();
                    cursor.blanks();
                    previous = expected;
                    field.column
                } else {
                    self.look_up(cursor, &mut previous)?
                };
                match column {
                    None => cursor.skip(depth + 1)?,
                    Some(at) => {
                        let column = &mut self.columns[at];
                        match column.len > self.rows {
                            true => column.truncate(self.rows),
                            false => filled += 1,
                        }
                        if !column.read(cursor, context, depth + 1)? {
                            column.append_null();
                        }
                    }
                }
                // What mostly follows, then what may follow.
                match cursor.peek() {
                    b',' => cursor.pos += 1,
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

    /// Reads the field name at the cursor, to behind its colon, and remembers it as what follows `previous`.
    #[cold]
    fn look_up(&mut self, cursor: &mut Cursor<'_>, previous: &mut usize) -> Scan<Option<usize>> {
        cursor.blanks();
        if cursor.at_end() {
            return Err(Malformed("the text ends within an object or array"));
        }
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
        let column = self.by_name.get(name).copied();
        let spelled = &cursor.text[from..cursor.pos];
        let at = match self.seen_by_name.get(name) {
            Some(at) => *at,
            None if self.seen.len() < FIELDS_MAX && spelled.len() < 256 => {
                self.seen.push(Seen {
                    spelled: Spelling::new(spelled),
                    column,
                    next: 0,
                });
                self.seen_by_name.insert(name.into(), self.seen.len() - 1);
                self.seen.len() - 1
            }
            None => {
                *previous = 0;
                return Ok(column);
            }
        };
        if self.seen[at].spelled.bytes != spelled {
            self.seen[at].spelled = Spelling::new(spelled);
        }
        self.seen[*previous].next = at;
        *previous = at;
        Ok(column)
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
