//! The fields of one object under construction: a row, or a struct within it.
//!
//! Rows of one source look alike: the same fields in the same order, spelled the same way. So every field remembers
//! its bytes, from behind the comma to its value, and which field follows it. If the bytes at the cursor are the ones
//! expected, or those a few fields on (the ones between are absent), the field is known by a comparison; only else is
//! its name read and looked up.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;
use wide::u8x16;

use super::column::{Column, Context};
use super::escape::unescape;
use super::names::Names;
use super::scan::{Cursor, Scan};
use super::simple::skip_simple;

/// So many field names that nobody wants are remembered; data with more (ids as names) is looked up each time.
const UNKNOWN_MAX: usize = 1024;
/// So many expected fields may be absent before the name is looked up.
const ABSENT_MAX: usize = 3;

/// In place of the column of a field that nobody wants.
const UNWANTED: usize = usize::MAX;

/// The bytes of a field name, in a form that is compared with what stands somewhere in no time.
struct Spelling {
    bytes: Box<[u8]>,
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
            bytes: bytes.into(),
            head: u8x16::new(head),
            mask: u8x16::new(mask),
        }
    }

    /// What follows it, if `text` starts with it.
    #[inline(always)]
    fn behind<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let Some(head) = text.first_chunk::<16>() else {
            return self.behind_at_end(text);
        };
        let same = (u8x16::new(*head) & self.mask).simd_eq(self.head);
        if same.to_bitmask() != 0xffff {
            return None;
        }
        match self.bytes.len() <= 16 {
            true => text.get(self.bytes.len()..),
            false => text[16..].strip_prefix(&self.bytes[16..]),
        }
    }

    #[inline(never)]
    fn behind_at_end<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        // Nothing starts with the one that stands for the brace.
        match self.bytes.is_empty() {
            true => None,
            false => text.strip_prefix(&*self.bytes),
        }
    }

    /// What nothing starts with.
    fn none() -> Self {
        Spelling {
            bytes: Box::default(),
            head: u8x16::splat(1),
            mask: u8x16::splat(0),
        }
    }
}

/// A field that was met, or that the schema has.
struct Seen {
    /// Its bytes, from behind the comma or brace to its value.
    spelled: Spelling,
    /// Its column, or `UNWANTED`.
    column: usize,
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
                column: UNWANTED,
                next: 0,
            }],
            names: Names::new(),
            seen_max: fields.len() + UNKNOWN_MAX,
        };
        for field in fields {
            let name = field.name().as_bytes();
            let column = object.columns.len();
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

    fn remember(&mut self, name: &[u8], spelled: &[u8], column: usize) -> usize {
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
        let mut filled = 0;
        if cursor.peek() == b'"' || !cursor.eat_behind_blanks(b'}') {
            let mut previous = 0;
            let mut rest = cursor.rest();
            loop {
                let mut at = self.seen[previous].next;
                match self.seen[at].spelled.behind(rest) {
                    Some(behind) => rest = behind,
                    None => {
                        cursor.go_to(rest);
                        at = self.look_up(cursor, previous)?;
                        rest = cursor.rest();
                    }
                }
                previous = at;
                let column = self.columns.get_mut(self.seen[at].column);
                let behind = match column {
                    None => skip_simple(rest),
                    Some(column) if column.len == self.rows => {
                        filled += 1;
                        column.read_simple(cursor, context, rest)?
                    }
                    Some(_) => None,
                };
                rest = match behind {
                    Some(behind) => behind,
                    None => {
                        cursor.go_to(rest);
                        self.read_value(cursor, context, depth + 1, at)?;
                        cursor.rest()
                    }
                };
                // What mostly follows, then what may follow.
                match rest {
                    [b',', behind @ ..] => rest = behind,
                    [b'}', behind @ ..] => {
                        cursor.go_to(behind);
                        break;
                    }
                    _ => {
                        cursor.go_to(rest);
                        if !cursor.more(b'}')? {
                            break;
                        }
                        rest = cursor.rest();
                    }
                }
            }
        }
        if filled < self.columns.len() {
            self.append_absent();
        }
        self.rows += 1;
        Ok(())
    }

    #[inline(never)]
    fn append_absent(&mut self) {
        for column in &mut self.columns {
            if column.len == self.rows {
                column.append_null();
            }
        }
    }

    /// Reads any value, of the field at `at`.
    #[inline(never)]
    fn read_value(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        depth: usize,
        at: usize,
    ) -> Scan<()> {
        // The name may have been spelled with fewer blanks before.
        cursor.blanks();
        match self.columns.get_mut(self.seen[at].column) {
            None => cursor.skip(depth),
            Some(column) if column.len == self.rows => {
                if !column.read_other(cursor, context, depth)? {
                    column.append_null();
                }
                Ok(())
            }
            Some(column) => column.read_again(cursor, context, depth),
        }
    }

    /// Goes over the field name at the cursor if it is one that is expected after `previous`.
    #[inline(always)]
    fn expected(&self, cursor: &mut Cursor<'_>, previous: usize) -> Option<usize> {
        let rest = cursor.rest();
        let mut at = previous;
        for _ in 0..=ABSENT_MAX {
            at = self.seen[at].next;
            if let Some(behind) = self.seen[at].spelled.behind(rest) {
                cursor.go_to(behind);
                return Some(at);
            }
        }
        None
    }

    /// Reads the field name at the cursor, to its value, and expects it after `previous` from now on. Answers where it
    /// is in `seen`.
    #[inline(never)]
    fn look_up(&mut self, cursor: &mut Cursor<'_>, previous: usize) -> Scan<usize> {
        if let Some(at) = self.expected(cursor, previous) {
            return Ok(at);
        }
        let mut from = cursor.pos;
        cursor.blanks();
        if cursor.pos > from {
            if let Some(at) = self.expected(cursor, previous) {
                return Ok(at);
            }
            // A line end is a blank in some texts and the end in others.
            if cursor.text[from..cursor.pos]
                .iter()
                .any(|byte| *byte != b' ')
            {
                from = cursor.pos;
            }
        }
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
        let spelled = &cursor.text[from..cursor.pos];
        let plain = || spelled.len() < 256 && spelled.iter().all(|byte| *byte >= b' ');
        let rest = &cursor.text[from..];
        let is_spelled_so = |seen: &Seen| {
            seen.spelled.bytes.len() == spelled.len() && seen.spelled.behind(rest).is_some()
        };
        let known = self.names.get_or(name, |at| is_spelled_so(&self.seen[at]));
        let at = match known {
            Some(at) => at,
            None if self.seen.len() < self.seen_max && plain() => {
                self.remember(name, spelled, UNWANTED)
            }
            // What stands for the brace is not wanted either.
            None => return Ok(0),
        };
        if !is_spelled_so(&self.seen[at]) && plain() {
            self.seen[at].spelled = Spelling::new(spelled);
        }
        let next = self.seen[previous].next;
        if at != previous && self.seen[at].next == 0 {
            // A field that was not met before stands between the two.
            self.seen[at].next = next;
        }
        self.seen[previous].next = at;
        Ok(at)
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
