//! Columns of a file in the types of the schema, for formats whose files know their own types.
//!
//! Columns are found by name, fields of structs too. A file may lack some (they are null), have more (they are not
//! read), and hold narrower types (they are widened). What could lose something is refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use highwater_text::type_name::type_sql;

use super::FileError;
use crate::calendar;
use highwater_text::time::Zone;

/// How the columns of one file become those of the schema.
pub(super) struct Fit {
    /// Which columns of the file are read, in its order.
    roots: Vec<usize>,
    /// Per output column: its place among `roots`, and its type in the file.
    columns: Vec<Option<(usize, DataType)>>,
    schema: SchemaRef,
    times: Times,
    path: String,
}

/// What a file means by its times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Whose clock times without a zone show, where the format means such times by them.
    pub(super) zone: Option<Zone>,
    /// Days are counted by the calendar of their time.
    pub(super) hybrid_days: bool,
    /// Timestamps are, by the clock of this zone.
    pub(super) hybrid_clock: Option<Zone>,
    /// A BIGINT may be a TIMESTAMP_NTZ.
    pub(super) clocks_in_longs: bool,
}

/// Before this, clocks of regions showed the time of the place, which Java's old classes do not know.
const ZONES_BEGIN_US: i64 = -2_208_988_800_000_000;

impl Times {
    /// Whether values may have to be changed that are of the right type.
    fn changes(&self) -> bool {
        self.hybrid_days || self.hybrid_clock.is_some()
    }

    fn days(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let days = array.as_primitive::<Date32Type>();
        let moved = days.try_unary::<_, Date32Type, _>(|days| {
            i32::try_from(calendar::from_hybrid(days.into()))
                .map_err(|_| ArrowError::ComputeError(format!("day {days} overflows")))
        });
        Ok(Arc::new(moved?))
    }

    /// The instant or clock time that is meant by `us`, which is counted by the clock of `zone`.
    fn clock(us: i64, zone: &Zone) -> Result<i64, ArrowError> {
        let told = |reason: &str| Err(ArrowError::ComputeError(format!("{us} us {reason}")));
        let moved = match zone {
            _ if us >= calendar::FIRST_US && *zone == Zone::UTC => return Ok(us),
            Zone::Fixed(seconds) => {
                let east = i64::from(*seconds) * 1_000_000;
                let local = us.checked_add(east).and_then(calendar::from_hybrid_us);
                local.and_then(|local| local.checked_sub(east))
            }
            Zone::Region(_) if us >= ZONES_BEGIN_US => Some(us),
            Zone::Region(region) => {
                return told(&format!(
                    "is a time before 1900 that an old version of Spark wrote in time zone {region}, which is not \
                     supported"
                ));
            }
        };
        moved.map_or_else(|| told("overflows"), Ok)
    }
}

impl Fit {
    /// For a file whose columns are `in_file`, to read `columns` of `schema`.
    pub(super) fn new(
        in_file: &Schema,
        schema: &Schema,
        columns: &[usize],
        times: Times,
        path: &str,
    ) -> Result<Fit, FileError> {
        let wanted = schema.project(columns).map_err(|source| FileError::Arrow {
            path: path.into(),
            source,
        })?;
        let mut found = Vec::new();
        for field in wanted.fields() {
            let root = root_of(in_file.fields(), field.name());
            if let Some(root) = root {
                let found = in_file.field(root).data_type();
                if !widens_in(found, field.data_type(), times.clocks_in_longs) {
                    return Err(FileError::ColumnType {
                        path: path.into(),
                        column: field.name().clone(),
                        found: type_sql(found),
                        wanted: type_sql(field.data_type()),
                    });
                }
            }
            found.push(root);
        }
        let mut roots: Vec<usize> = found.iter().flatten().copied().collect();
        roots.sort_unstable();
        roots.dedup();
        let place = |root: usize| {
            let place = roots.binary_search(&root).ok()?;
            Some((place, in_file.field(root).data_type().clone()))
        };
        let columns = found.into_iter().map(|root| place(root?)).collect();
        Ok(Fit {
            roots,
            columns,
            schema: Arc::new(wanted),
            times,
            path: path.into(),
        })
    }

    /// Which columns of the file are to be read, in its order.
    pub(super) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// The file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A batch of exactly the columns `roots`, in the types of the schema.
    pub(super) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, FileError> {
        let rows = batch.num_rows();
        let fields = self.schema.fields().iter();
        let arrays = fields.zip(&self.columns).map(|(field, column)| {
            let Some((place, found)) = column else {
                return Ok(new_null_array(field.data_type(), rows));
            };
            self.array(batch.column(*place), found, field.data_type())
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        arrays
            .collect::<Result<Vec<_>, _>>()
            .and_then(|arrays| {
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            })
            .map_err(|source| FileError::Arrow {
                path: self.path.clone(),
                source,
            })
    }

    /// Values of the file's type `found` as `wanted`. A timestamp may come as a decimal of seconds: those of ORC have
    /// more digits and years than an integer of nanoseconds has room for.
    fn array(
        &self,
        array: &ArrayRef,
        found: &DataType,
        wanted: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        use DataType::*;
        match (found, wanted) {
            (Timestamp(_, zone), Timestamp(TimeUnit::Microsecond, wanted_zone)) => {
                let is_decimal = matches!(array.data_type(), Decimal128(..));
                let us = match array.as_primitive_opt::<Decimal128Type>() {
                    Some(seconds) => {
                        let us = |ns: i128| {
                            i64::try_from(ns.div_euclid(1000))
                                .map_err(|_| ArrowError::ComputeError(format!("{ns} ns overflows")))
                        };
                        let us = seconds.try_unary::<_, TimestampMicrosecondType, _>(us)?;
                        Arc::new(us) as ArrayRef
                    }
                    None => strictly(array, wanted)?,
                };
                let us = us.as_primitive::<TimestampMicrosecondType>();
                let us: TimestampMicrosecondArray = match &self.times.hybrid_clock {
                    // Only ORC has clocks by another calendar.
                    Some(hybrid) if zone.is_some() || is_decimal => {
                        us.try_unary(|us| Times::clock(us, hybrid))?
                    }
                    _ => us.clone(),
                };
                let us: TimestampMicrosecondArray = match (zone, wanted_zone, &self.times.zone) {
                    (None, Some(_), Some(zone)) if *zone != Zone::UTC => us.try_unary(|us| {
                        zone.instant(us)
                            .ok_or_else(|| ArrowError::ComputeError(format!("{us} us overflow")))
                    })?,
                    _ => us,
                };
                Ok(Arc::new(us.with_timezone_opt(wanted_zone.clone())))
            }
            (Date32, _) if self.times.hybrid_days => strictly(&Times::days(array)?, wanted),
            _ if array.data_type() == wanted && !(wanted.is_nested() && self.times.changes()) => {
                Ok(Arc::clone(array))
            }
            (Dictionary(_, values), _) => self.array(&strictly(array, values)?, values, wanted),
            (LargeList(item) | FixedSizeList(item, _), List(_)) => {
                let list = List(FieldRef::clone(item));
                self.array(&strictly(array, &list)?, &list, wanted)
            }
            (List(found), List(item)) => {
                let list = array.as_list::<i32>();
                let items = self.array(list.values(), found.data_type(), item.data_type())?;
                let nulls = list.nulls().cloned();
                let list =
                    ListArray::try_new(FieldRef::clone(item), list.offsets().clone(), items, nulls);
                Ok(Arc::new(list?))
            }
            (Map(found, _), Map(entries, sorted)) => {
                let map = array.as_map();
                let (Struct(found), Struct(fields)) = (found.data_type(), entries.data_type())
                else {
                    return strictly(array, wanted);
                };
                let column = |at: usize| {
                    let column = map.entries().column(at);
                    self.array(column, found[at].data_type(), fields[at].data_type())
                };
                let pairs =
                    StructArray::try_new(fields.clone(), vec![column(0)?, column(1)?], None)?;
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                let entries = FieldRef::clone(entries);
                let map = MapArray::try_new(entries, offsets, pairs, nulls, *sorted)?;
                Ok(Arc::new(map))
            }
            (Struct(found), Struct(fields)) => {
                let all = array.as_struct();
                let columns = fields
                    .iter()
                    .map(|field| match root_of(found, field.name()) {
                        None => Ok(new_null_array(field.data_type(), all.len())),
                        Some(at) => {
                            self.array(all.column(at), found[at].data_type(), field.data_type())
                        }
                    });
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                let nulls = all.nulls().cloned();
                let all =
                    StructArray::try_new_with_length(fields.clone(), columns, nulls, all.len());
                Ok(Arc::new(all?))
            }
            _ => strictly(array, wanted),
        }
    }
}

/// Widened; what does not fit is an error, not a null.
fn strictly(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, wanted, &options)
}

/// The column called `name`; if there is none, the only one that is but for its case, as Spark has it.
fn root_of(in_file: &Fields, name: &str) -> Option<usize> {
    let exact = in_file.iter().position(|field| field.name() == name);
    exact.or_else(|| {
        let mut alike =
            (0..in_file.len()).filter(|at| in_file[*at].name().eq_ignore_ascii_case(name));
        alike.next().filter(|_| alike.next().is_none())
    })
}

/// The schema that a file gives a batch read: its columns in our types.
pub(super) fn in_our_types(in_file: &Schema, format: &'static str) -> Result<Schema, FileError> {
    let mut fields = Vec::new();
    for field in in_file.fields() {
        let data_type = ours(field.data_type()).ok_or_else(|| FileError::Type {
            column: field.name().clone(),
            data_type: type_sql(field.data_type()),
            format,
        })?;
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Schema::new(fields))
}

/// Whether Spark's files hold values of a type of this name as plain numbers or structs, as which they must not be read.
pub(super) fn is_only_of_spark(name: &str) -> bool {
    let kinds = ["interval", "time(", "variant", "geometry", "geography"];
    kinds.iter().any(|kind| name.starts_with(kind))
}

/// The columns of `known`, and behind them those that only `found` has. Of two types of a column, the one that has the
/// values of both.
pub(super) fn merged(known: &Schema, found: &Schema, path: &str) -> Result<Schema, FileError> {
    match merged_fields(known.fields(), found.fields()) {
        Ok(fields) => Ok(Schema::new(fields)),
        Err((column, known, found)) => Err(FileError::CannotMerge {
            path: path.into(),
            column,
            known: type_sql(&known),
            found: type_sql(&found),
        }),
    }
}

/// A column and its two types.
type Clash = (String, DataType, DataType);

fn merged_fields(known: &Fields, found: &Fields) -> Result<Fields, Clash> {
    let mut fields: Vec<FieldRef> = known.iter().map(Arc::clone).collect();
    for field in found {
        match root_of(known, field.name()) {
            None => fields.push(Arc::clone(field)),
            Some(at) => {
                let data_type =
                    merged_types(field.name(), known[at].data_type(), field.data_type())?;
                let field = known[at].as_ref().clone().with_data_type(data_type);
                fields[at] = Arc::new(field);
            }
        }
    }
    Ok(fields.into())
}

fn merged_types(name: &str, known: &DataType, found: &DataType) -> Result<DataType, Clash> {
    let within = |known: &FieldRef, found: &FieldRef| {
        let data_type = merged_types(name, known.data_type(), found.data_type())?;
        Ok::<_, Clash>(Arc::new(known.as_ref().clone().with_data_type(data_type)))
    };
    Ok(match (known, found) {
        (DataType::Struct(known), DataType::Struct(found)) => {
            DataType::Struct(merged_fields(known, found)?)
        }
        (DataType::List(known), DataType::List(found)) => DataType::List(within(known, found)?),
        (DataType::Map(known, sorted), DataType::Map(found, _)) => {
            DataType::Map(within(known, found)?, *sorted)
        }
        _ if widens(found, known) => known.clone(),
        _ if widens(known, found) => found.clone(),
        _ => return Err((name.into(), known.clone(), found.clone())),
    })
}

/// The type in which the engine holds values of a file's type.
fn ours(found: &DataType) -> Option<DataType> {
    let renew = |field: &FieldRef| -> Option<FieldRef> {
        Some(Arc::new(Field::new(
            field.name(),
            ours(field.data_type())?,
            true,
        )))
    };
    Some(match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, values) => ours(values)?,
        DataType::Timestamp(_, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..)
        | DataType::Null => found.clone(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("item", ours(item.data_type())?, true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(renew).collect::<Option<Fields>>()?)
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return None;
            };
            let key = Field::new("key", ours(fields[0].data_type())?, false);
            let value = Field::new("value", ours(fields[1].data_type())?, true);
            let entries = DataType::Struct(Fields::from(vec![key, value]));
            DataType::Map(Arc::new(Field::new("entries", entries, false)), *sorted)
        }
        _ => return None,
    })
}

/// Whether every value of `found` is a value of `wanted`.
fn widens(found: &DataType, wanted: &DataType) -> bool {
    widens_in(found, wanted, false)
}

/// The same, where a BIGINT may be microseconds on a clock.
fn widens_in(found: &DataType, wanted: &DataType, clocks_in_longs: bool) -> bool {
    use DataType::*;
    let widens = |found: &DataType, wanted: &DataType| widens_in(found, wanted, clocks_in_longs);
    let integer_digits = |data_type: &DataType| match data_type {
        Int8 => Some(3),
        Int16 => Some(5),
        Int32 => Some(10),
        Int64 => Some(20),
        _ => None,
    };
    match (found, wanted) {
        _ if found == wanted || found == &Null => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Dictionary(_, values), _) => widens(values, wanted),
        // Spark and others leave the zone out of old files; an instant is an instant.
        (Timestamp(_, _), Timestamp(TimeUnit::Microsecond, Some(_))) => true,
        (Timestamp(_, None) | Date32, Timestamp(TimeUnit::Microsecond, None)) => true,
        (Int64, Timestamp(TimeUnit::Microsecond, None)) => clocks_in_longs,
        (Date64, Date32) => true,
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) => true,
        (Int16 | UInt8, Int32 | Int64 | Float32 | Float64) => true,
        (UInt8, Int16) => true,
        (Int32 | UInt16, Int64 | Float64) => true,
        (UInt16, Int32) => true,
        (UInt32, Int64) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s), Decimal128(q, t)) => {
            t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
        }
        (UInt64, Decimal128(20.., 0)) => true,
        (_, Decimal128(q, t)) => {
            integer_digits(found).is_some_and(|digits| i16::from(*q) - i16::from(*t) >= digits)
        }
        (List(a) | LargeList(a) | FixedSizeList(a, _), List(b)) => {
            widens(a.data_type(), b.data_type())
        }
        // What the entries are called differs between writers.
        (Map(a, _), Map(b, _)) => match (a.data_type(), b.data_type()) {
            (Struct(a), Struct(b)) => a
                .iter()
                .zip(b)
                .all(|(a, b)| widens(a.data_type(), b.data_type())),
            _ => false,
        },
        // A field that the file lacks is null.
        (Struct(a), Struct(b)) => b.iter().all(|b| {
            root_of(a, b.name()).is_none_or(|at| widens(a[at].data_type(), b.data_type()))
        }),
        _ => false,
    }
}
