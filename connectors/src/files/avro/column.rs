//! Values of one column, from the bytes of rows to Arrow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, ListArray, MapArray, NullArray,
    NullBufferBuilder, PrimitiveBuilder, StringBuilder, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, FieldRef, Fields, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};

use super::shape::Shape;

/// Bytes of rows, read from the front. What is asked for is there, or it is an error.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Cursor { rest }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(format!(
                "it ends within a row: {} bytes are left of {len}",
                self.rest.len()
            )),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("so many were taken"))
    }

    fn long(&mut self) -> Read<i64> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("a number in a row has no end".into())
    }

    fn int(&mut self) -> Read<i32> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| format!("{value} is no int"))
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.long()?;
        self.take(usize::try_from(len).map_err(|_| format!("{len} is no number of bytes"))?)
    }

    fn text(&mut self) -> Read<&'a str> {
        let bytes = self.bytes()?;
        simdutf8::basic::from_utf8(bytes).map_err(|_| "a string is not UTF-8".into())
    }

    fn branch(&mut self, branches: usize) -> Read<usize> {
        let branch = self.long()?;
        match usize::try_from(branch) {
            Ok(at) if at < branches => Ok(at),
            _ => Err(format!("there is no branch {branch} of a union")),
        }
    }

    /// Items come in blocks; 0 is behind the last one. A negative count is followed by the bytes that they take.
    fn items(&mut self) -> Read<Option<(u64, Option<usize>)>> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count > 0).then_some((count as u64, None)));
        }
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| format!("{len} is no number of bytes"))?;
        Ok(Some((count.unsigned_abs(), Some(len))))
    }
}

/// Passes over a value.
pub(super) fn skip(shape: &Shape, cursor: &mut Cursor<'_>) -> Read<()> {
    match shape {
        Shape::Null => {}
        Shape::Boolean => drop(cursor.take(1)?),
        Shape::Int | Shape::Long | Shape::Enum(_) | Shape::Date | Shape::Timestamp { .. } => {
            cursor.long()?;
        }
        Shape::Float => drop(cursor.take(4)?),
        Shape::Double => drop(cursor.take(8)?),
        Shape::Bytes | Shape::String | Shape::Decimal { bytes: None, .. } => {
            cursor.bytes()?;
        }
        Shape::Fixed(len)
        | Shape::Decimal {
            bytes: Some(len), ..
        } => drop(cursor.take(*len)?),
        Shape::Array(items) => skip_items(cursor, |cursor| skip(items, cursor))?,
        Shape::Map(values) => skip_items(cursor, |cursor| {
            cursor.bytes()?;
            skip(values, cursor)
        })?,
        Shape::Record(fields) => {
            for (_, shape) in fields {
                skip(shape, cursor)?;
            }
        }
        Shape::Union(branches) => {
            let at = cursor.branch(branches.len())?;
            skip(&branches[at], cursor)?;
        }
    }
    Ok(())
}

fn skip_items<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>) -> Read<()>,
) -> Read<()> {
    while let Some((count, len)) = cursor.items()? {
        if let Some(len) = len {
            cursor.take(len)?;
            continue;
        }
        for _ in 0..count {
            let before = cursor.left();
            each(cursor)?;
            if cursor.left() == before {
                break; // items of nothing: so are all
            }
        }
    }
    Ok(())
}

/// What a branch of a union of one type holds.
#[derive(Clone, Copy)]
pub(super) enum Branch {
    Null,
    Value,
    /// In a union with `double`.
    Float,
}

/// The values of a column, so far.
pub(super) enum Column {
    Null(usize),
    Boolean(BooleanBuilder),
    Int(PrimitiveBuilder<Int32Type>),
    Long(PrimitiveBuilder<Int64Type>),
    Float(PrimitiveBuilder<Float32Type>),
    Double(PrimitiveBuilder<Float64Type>),
    Bytes(BinaryBuilder),
    String(StringBuilder),
    Fixed(BinaryBuilder, usize),
    Enum(StringBuilder, Arc<[String]>),
    /// Its precision, and how many bytes a value takes if that is fixed.
    Decimal(Decimal128Builder, u8, Option<usize>),
    Date(PrimitiveBuilder<Date32Type>),
    /// What its numbers are multiplied with.
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>, i64),
    List(Ends, FieldRef, Box<Column>),
    Map(Ends, FieldRef, StringBuilder, Box<Column>),
    Struct(NullBufferBuilder, Fields, Vec<Column>),
    Union(Vec<Branch>, Box<Column>),
    /// Per branch, which member it is.
    Members(Vec<Option<usize>>, NullBufferBuilder, Fields, Vec<Column>),
}

/// So many items may take no bytes.
const NOTHING_MAX: u64 = 1 << 16;

/// Where the items of each row end.
pub(super) struct Ends {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Ends {
    fn new() -> Self {
        Ends {
            offsets: vec![0],
            nulls: NullBufferBuilder::new(0),
        }
    }

    /// Reads the items of a row.
    fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        mut each: impl FnMut(&mut Cursor<'_>) -> Read<()>,
    ) -> Read<()> {
        let mut end = *self.offsets.last().expect("it starts with 0");
        while let Some((count, _)) = cursor.items()? {
            // Items take a byte at least, but for those of nothing: no count makes us build what no file holds.
            if count > (cursor.left() as u64).max(NOTHING_MAX) {
                return Err(format!("{count} items are more than there are bytes"));
            }
            let after = i32::try_from(count).ok().and_then(|n| end.checked_add(n));
            let after = after.ok_or("a list has more items than a column has room for")?;
            while end < after {
                each(cursor)?;
                end += 1;
            }
        }
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        let end = *self.offsets.last().expect("it starts with 0");
        self.offsets.push(end);
        self.nulls.append_null();
    }

    fn offsets(&mut self) -> OffsetBuffer<i32> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}

impl Column {
    /// An empty one.
    pub(super) fn new(shape: &Shape) -> Column {
        match shape {
            Shape::Null => Column::Null(0),
            Shape::Boolean => Column::Boolean(BooleanBuilder::new()),
            Shape::Int => Column::Int(PrimitiveBuilder::new()),
            Shape::Long => Column::Long(PrimitiveBuilder::new()),
            Shape::Float => Column::Float(PrimitiveBuilder::new()),
            Shape::Double => Column::Double(PrimitiveBuilder::new()),
            Shape::Bytes => Column::Bytes(BinaryBuilder::new()),
            Shape::String => Column::String(StringBuilder::new()),
            Shape::Fixed(len) => Column::Fixed(BinaryBuilder::new(), *len),
            Shape::Enum(symbols) => Column::Enum(StringBuilder::new(), Arc::clone(symbols)),
            Shape::Decimal {
                precision, bytes, ..
            } => {
                let builder = Decimal128Builder::new().with_data_type(shape.data_type());
                Column::Decimal(builder, *precision, *bytes)
            }
            Shape::Date => Column::Date(PrimitiveBuilder::new()),
            Shape::Timestamp { millis, .. } => {
                let builder = PrimitiveBuilder::new().with_data_type(shape.data_type());
                Column::Timestamp(builder, if *millis { 1000 } else { 1 })
            }
            Shape::Array(items) => match shape.data_type() {
                DataType::List(field) => {
                    Column::List(Ends::new(), field, Box::new(Column::new(items)))
                }
                _ => unreachable!("an array becomes a list"),
            },
            Shape::Map(values) => match shape.data_type() {
                DataType::Map(entries, _) => {
                    let values = Box::new(Column::new(values));
                    Column::Map(Ends::new(), entries, StringBuilder::new(), values)
                }
                _ => unreachable!("a map becomes a map"),
            },
            Shape::Record(fields) => {
                let columns = fields.iter().map(|(_, shape)| Column::new(shape));
                Column::Struct(
                    NullBufferBuilder::new(0),
                    struct_fields(shape),
                    columns.collect(),
                )
            }
            Shape::Union(branches) => Column::of_union(shape, branches),
        }
    }

    fn of_union(shape: &Shape, branches: &[Shape]) -> Column {
        if let Some(one) = Shape::one_of(branches) {
            let branch = |branch: &Shape| match branch {
                Shape::Null => Branch::Null,
                Shape::Float if one == Shape::Double => Branch::Float,
                _ => Branch::Value,
            };
            let column = Box::new(Column::new(&one));
            return Column::Union(branches.iter().map(branch).collect(), column);
        }
        let mut members = Vec::new();
        let places = branches.iter().map(|branch| {
            (*branch != Shape::Null).then(|| {
                members.push(Column::new(branch));
                members.len() - 1
            })
        });
        let places = places.collect();
        let nulls = NullBufferBuilder::new(0);
        Column::Members(places, nulls, struct_fields(shape), members)
    }

    /// Takes a value.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        match self {
            Column::Null(rows) => *rows += 1,
            Column::Boolean(values) => match cursor.array()? {
                [0] => values.append_value(false),
                [1] => values.append_value(true),
                [other] => return Err(format!("{other} is no boolean")),
            },
            Column::Int(values) => values.append_value(cursor.int()?),
            Column::Long(values) => values.append_value(cursor.long()?),
            Column::Float(values) => values.append_value(f32::from_le_bytes(cursor.array()?)),
            Column::Double(values) => values.append_value(f64::from_le_bytes(cursor.array()?)),
            Column::Bytes(values) => values.append_value(cursor.bytes()?),
            Column::String(values) => values.append_value(cursor.text()?),
            Column::Fixed(values, len) => values.append_value(cursor.take(*len)?),
            Column::Enum(values, symbols) => {
                values.append_value(&symbols[cursor.branch(symbols.len())?])
            }
            Column::Decimal(values, precision, len) => {
                let bytes = match len {
                    Some(len) => cursor.take(*len)?,
                    None => cursor.bytes()?,
                };
                let value = big_endian(bytes)
                    .filter(|value| value.unsigned_abs() < 10u128.pow(u32::from(*precision)));
                values.append_value(value.ok_or("a decimal has too many digits")?);
            }
            Column::Date(values) => values.append_value(cursor.int()?),
            Column::Timestamp(values, factor) => {
                let us = cursor.long()?.checked_mul(*factor);
                values.append_value(us.ok_or("a timestamp is too far away")?);
            }
            Column::List(ends, _, items) => ends.read(cursor, |cursor| items.read(cursor))?,
            Column::Map(ends, _, keys, values) => ends.read(cursor, |cursor| {
                keys.append_value(cursor.text()?);
                values.read(cursor)
            })?,
            Column::Struct(nulls, _, columns) => {
                for column in columns {
                    column.read(cursor)?;
                }
                nulls.append_non_null();
            }
            Column::Union(branches, column) => {
                match (branches[cursor.branch(branches.len())?], column.as_mut()) {
                    (Branch::Null, column) => column.push_null(),
                    (Branch::Float, Column::Double(values)) => {
                        values.append_value(f64::from(f32::from_le_bytes(cursor.array()?)));
                    }
                    (_, column) => column.read(cursor)?,
                }
            }
            Column::Members(places, nulls, _, members) => {
                let chosen = places[cursor.branch(places.len())?];
                for (at, member) in members.iter_mut().enumerate() {
                    match chosen == Some(at) {
                        true => member.read(cursor)?,
                        false => member.push_null(),
                    }
                }
                nulls.append(chosen.is_some());
            }
        }
        Ok(())
    }

    fn push_null(&mut self) {
        match self {
            Column::Null(rows) => *rows += 1,
            Column::Boolean(values) => values.append_null(),
            Column::Int(values) => values.append_null(),
            Column::Long(values) => values.append_null(),
            Column::Float(values) => values.append_null(),
            Column::Double(values) => values.append_null(),
            Column::Bytes(values) | Column::Fixed(values, _) => values.append_null(),
            Column::String(values) | Column::Enum(values, _) => values.append_null(),
            Column::Decimal(values, ..) => values.append_null(),
            Column::Date(values) => values.append_null(),
            Column::Timestamp(values, _) => values.append_null(),
            Column::List(ends, ..) | Column::Map(ends, ..) => ends.push_null(),
            Column::Struct(nulls, _, columns) | Column::Members(_, nulls, _, columns) => {
                columns.iter_mut().for_each(Column::push_null);
                nulls.append_null();
            }
            Column::Union(_, column) => column.push_null(),
        }
    }

    /// The values so far; it starts anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Column::Boolean(values) => Arc::new(values.finish()),
            Column::Int(values) => Arc::new(values.finish()),
            Column::Long(values) => Arc::new(values.finish()),
            Column::Float(values) => Arc::new(values.finish()),
            Column::Double(values) => Arc::new(values.finish()),
            Column::Bytes(values) | Column::Fixed(values, _) => Arc::new(values.finish()),
            Column::String(values) | Column::Enum(values, _) => Arc::new(values.finish()),
            Column::Decimal(values, ..) => Arc::new(values.finish()),
            Column::Date(values) => Arc::new(values.finish()),
            Column::Timestamp(values, _) => Arc::new(values.finish()),
            Column::List(ends, field, items) => {
                let (offsets, nulls) = (ends.offsets(), ends.nulls.finish());
                let field = FieldRef::clone(field);
                Arc::new(ListArray::new(field, offsets, items.finish(), nulls))
            }
            Column::Map(ends, entries, keys, values) => {
                let pair: Vec<ArrayRef> = vec![Arc::new(keys.finish()), values.finish()];
                let DataType::Struct(fields) = entries.data_type() else {
                    unreachable!("the entries of a map are structs");
                };
                let pairs = StructArray::new(fields.clone(), pair, None);
                let (offsets, nulls) = (ends.offsets(), ends.nulls.finish());
                let entries = FieldRef::clone(entries);
                Arc::new(MapArray::new(entries, offsets, pairs, nulls, false))
            }
            Column::Struct(nulls, fields, columns) | Column::Members(_, nulls, fields, columns) => {
                let (rows, nulls) = (nulls.len(), nulls.finish());
                let columns: Vec<ArrayRef> = columns.iter_mut().map(Column::finish).collect();
                let fields = fields.clone();
                match columns.is_empty() {
                    true => Arc::new(StructArray::new_empty_fields(rows, nulls)),
                    false => Arc::new(StructArray::new(fields, columns, nulls)),
                }
            }
            Column::Union(_, column) => column.finish(),
        }
    }
}

fn struct_fields(shape: &Shape) -> Fields {
    match shape.data_type() {
        DataType::Struct(fields) => fields,
        _ => unreachable!("records and unions of several types become structs"),
    }
}

/// An integer with its sign; `None` if it does not fit.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let filler = match bytes.first() {
        Some(first) if *first >= 0x80 => 0xff,
        _ => 0,
    };
    let surplus = bytes.len().saturating_sub(16);
    let (surplus, bytes) = bytes.split_at(surplus);
    let mut all = [filler; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    let fits = surplus.iter().all(|byte| *byte == filler);
    let value = i128::from_be_bytes(all);
    (fits && (surplus.is_empty() || (value < 0) == (filler == 0xff))).then_some(value)
}
