//! Rows to bytes and back: one Arrow IPC record batch message, no schema, no compression.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_ipc::MetadataVersion;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use timely::bytes::arc::Bytes;

use crate::OperatorError;
use crate::memory;

/// First bytes of every IPC message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// First bytes where there is no message, but the reason why, in words.
const REASON: [u8; 4] = *b"why:";
/// Encoders kept per thread: one per schema that crosses the network. Queries come and go; start over when full.
const ENCODERS_MAX: usize = 64;

thread_local! {
    static ENCODERS: RefCell<Vec<(SchemaRef, StreamEncoder)>> = const { RefCell::new(Vec::new()) };
}

/// The message for `rows`. Encoding cannot fail for types that Arrow can write; for others the reason travels in
/// place of the rows, and the receiver reports it.
pub(crate) fn encode(rows: &RecordBatch) -> Vec<Buffer> {
    try_encode(rows).unwrap_or_else(|error| {
        let mut reason = REASON.to_vec();
        reason.extend_from_slice(error.to_string().as_bytes());
        vec![Buffer::from(reason)]
    })
}

/// Like [`encode`], for whoever can report an error.
pub(crate) fn try_encode(rows: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
    let rows = flatten(&memory::collect_views(rows))?;
    ENCODERS.with(|encoders| {
        let mut encoders = encoders.borrow_mut();
        let schema = rows.schema_ref();
        let known = encoders
            .iter()
            .position(|(known, _)| Arc::ptr_eq(known, schema))
            .or_else(|| encoders.iter().position(|(known, _)| known == schema));
        let index = match known {
            Some(index) => index,
            None => {
                if encoders.len() == ENCODERS_MAX {
                    encoders.clear();
                }
                let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
                let mut encoder = StreamEncoder::try_new_with_options(schema, options)?;
                // The first call also yields the schema message, which the receiver has no use for.
                encoder.encode(&rows.slice(0, 0))?;
                encoders.push((SchemaRef::clone(schema), encoder));
                encoders.len() - 1
            }
        };
        encoders[index].1.encode(&rows)
    })
}

/// The rows in a message that should hold `rows` rows of `schema`.
pub(crate) fn decode(
    bytes: Bytes,
    rows: u64,
    schema: &SchemaRef,
) -> Result<RecordBatch, OperatorError> {
    decode_buffer(memory::buffer(bytes), rows, schema)
}

/// Like [`decode`], for bytes that are in a buffer already.
pub(crate) fn decode_buffer(
    bytes: Buffer,
    rows: u64,
    schema: &SchemaRef,
) -> Result<RecordBatch, OperatorError> {
    // Arrow checks most of what it reads, but not all: some corrupt lengths make it panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| try_decode(bytes, schema)))
        .map_err(|_| OperatorError::Wire("the decoder gave up on corrupt bytes".into()))?
        .map_err(OperatorError::Wire)?;
    if decoded.num_rows() as u64 != rows {
        return Err(OperatorError::Wire(format!(
            "{} rows where {rows} were announced",
            decoded.num_rows()
        )));
    }
    Ok(decoded)
}

fn try_decode(bytes: Buffer, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let text = |error: ArrowError| error.to_string();
    if let Some(reason) = bytes.strip_prefix(&REASON) {
        return Err(String::from_utf8_lossy(reason).into_owned());
    }
    // An encapsulated message: marker, length of the metadata, metadata, body.
    if bytes.len() < 8 || bytes[..4] != CONTINUATION {
        return Err("not an Arrow message".into());
    }
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    if bytes.len() - 8 < length {
        return Err(format!("{} bytes of {length}", bytes.len() - 8));
    }
    let (head, body) = (bytes.slice_with_length(8, length), bytes.slice(8 + length));
    let message = arrow_ipc::root_as_message(&head).map_err(|error| error.to_string())?;
    let rows = message
        .header_as_record_batch()
        .ok_or("not a record batch")?;
    // Arrow slices the body by these without looking.
    for buffer in rows.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|e| e > body.len() as i64) {
            return Err("a column reaches past the end of the message".into());
        }
    }
    let dictionaries = std::collections::HashMap::new();
    let flat = flat_schema(schema);
    let decoded = RecordBatchDecoder::try_new(
        &body,
        rows,
        SchemaRef::clone(&flat),
        &dictionaries,
        &message.version(),
    )
    .and_then(RecordBatchDecoder::read_record_batch)
    .map_err(text)?;
    if Arc::ptr_eq(&flat, schema) {
        return Ok(decoded);
    }
    recast(&decoded, schema).map_err(text)
}

/// `rows` without dictionaries: the encoder would leave out a dictionary that it has sent before, and the receiver
/// would have to remember it.
fn flatten(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let flat = flat_schema(rows.schema_ref());
    if Arc::ptr_eq(&flat, rows.schema_ref()) {
        return Ok(rows.clone());
    }
    recast(rows, &flat)
}

fn recast(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| recast_column(column, field.data_type()))
        .collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}

fn recast_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        Ok(Arc::clone(column))
    } else {
        cast(column, to)
    }
}

/// `schema` with dictionary types replaced by the types of their values; the same `Arc` if there are none.
fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let flat: Vec<Option<FieldRef>> = schema.fields().iter().map(flat_field).collect();
    if flat.iter().all(Option::is_none) {
        return SchemaRef::clone(schema);
    }
    let fields: Vec<FieldRef> = std::iter::zip(flat, schema.fields())
        .map(|(flat, field)| flat.unwrap_or_else(|| Arc::clone(field)))
        .collect();
    Arc::new(Schema::new(fields))
}

fn flat_field(field: &FieldRef) -> Option<FieldRef> {
    let flat = flat_type(field.data_type())?;
    Some(Arc::new(Field::new(
        field.name(),
        flat,
        field.is_nullable(),
    )))
}

/// The type without dictionaries, if it has any.
pub(crate) fn flat_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Dictionary(_, values) => {
            Some(flat_type(values).unwrap_or_else(|| (**values).clone()))
        }
        DataType::List(field) => flat_field(field).map(DataType::List),
        DataType::LargeList(field) => flat_field(field).map(DataType::LargeList),
        DataType::FixedSizeList(field, length) => {
            flat_field(field).map(|field| DataType::FixedSizeList(field, *length))
        }
        DataType::Map(field, sorted) => {
            flat_field(field).map(|field| DataType::Map(field, *sorted))
        }
        DataType::Struct(fields) => {
            let flat: Vec<Option<FieldRef>> = fields.iter().map(flat_field).collect();
            if flat.iter().all(Option::is_none) {
                return None;
            }
            let fields: Fields = std::iter::zip(flat, fields)
                .map(|(flat, field)| flat.unwrap_or_else(|| Arc::clone(field)))
                .collect();
            Some(DataType::Struct(fields))
        }
        _ => None,
    }
}
