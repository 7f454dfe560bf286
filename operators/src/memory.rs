//! Who holds which bytes: deep copies, garbage in string views, sizes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, MutableArrayData,
    OffsetSizeTrait, StructArray, make_array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::bytes::arc::Bytes;

struct Slab(Bytes);

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Network bytes as an Arrow buffer, without a copy.
pub(crate) fn buffer(bytes: Bytes) -> Buffer {
    Buffer::from(bytes::Bytes::from_owner(Slab(bytes)))
}

/// A deep copy of `rows`: nothing of it lies in memory that something else decides to free.
pub fn own(rows: &RecordBatch) -> RecordBatch {
    let columns = rows.columns().iter().map(own_column).collect();
    with_columns(rows, columns)
}

/// A deep copy of one column.
pub(crate) fn own_column(column: &ArrayRef) -> ArrayRef {
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())
        .expect("the copy is no longer than its source");
    let copy = make_array(copy.freeze());
    collect_column(&copy).unwrap_or(copy)
}

/// `rows` whose string views point at no more bytes than they show. A filtered or taken view column still refers to
/// all the buffers it came from, and the encoder writes every one of them.
pub(crate) fn collect_views(rows: &RecordBatch) -> RecordBatch {
    if !rows
        .schema_ref()
        .fields()
        .iter()
        .any(|f| has_views(f.data_type()))
    {
        return rows.clone();
    }
    let columns = rows
        .columns()
        .iter()
        .map(|column| collect_column(column).unwrap_or_else(|| Arc::clone(column)))
        .collect();
    with_columns(rows, columns)
}

fn collect_column(column: &ArrayRef) -> Option<ArrayRef> {
    rewrite(column, &|leaf| match leaf.data_type() {
        DataType::Utf8View => Some(Arc::new(leaf.as_string_view().gc())),
        DataType::BinaryView => Some(Arc::new(leaf.as_binary_view().gc())),
        _ => None,
    })
}

fn has_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_views(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_views(field.data_type())),
        _ => false,
    }
}

/// `rows` with other columns of the same types.
pub(crate) fn with_columns(rows: &RecordBatch, columns: Vec<ArrayRef>) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
        .expect("the columns have the types and the length of those they replace")
}

/// Replaces the leaves of a nested column; `None` if no leaf changed. `leaf` keeps types and lengths.
pub(crate) fn rewrite(
    column: &ArrayRef,
    leaf: &dyn Fn(&ArrayRef) -> Option<ArrayRef>,
) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::Struct(fields) => {
            let parent = column.as_struct();
            let mut changed = false;
            let children: Vec<ArrayRef> = parent
                .columns()
                .iter()
                .map(|child| match rewrite(child, leaf) {
                    Some(new) => {
                        changed = true;
                        new
                    }
                    None => Arc::clone(child),
                })
                .collect();
            changed.then(|| {
                let nulls = parent.nulls().cloned();
                Arc::new(StructArray::new(fields.clone(), children, nulls)) as ArrayRef
            })
        }
        DataType::List(field) => rewrite_list::<i32>(column, field, leaf),
        DataType::LargeList(field) => rewrite_list::<i64>(column, field, leaf),
        DataType::FixedSizeList(field, length) => {
            let parent = column.as_fixed_size_list();
            let values = rewrite(parent.values(), leaf)?;
            Some(Arc::new(FixedSizeListArray::new(
                Arc::clone(field),
                *length,
                values,
                parent.nulls().cloned(),
            )))
        }
        DataType::Map(field, sorted) => {
            let parent = column.as_map();
            let entries: ArrayRef = Arc::new(parent.entries().clone());
            let entries = rewrite(&entries, leaf)?;
            Some(Arc::new(MapArray::new(
                Arc::clone(field),
                parent.offsets().clone(),
                entries.as_struct().clone(),
                parent.nulls().cloned(),
                *sorted,
            )))
        }
        _ => leaf(column),
    }
}

fn rewrite_list<O: OffsetSizeTrait>(
    column: &ArrayRef,
    field: &FieldRef,
    leaf: &dyn Fn(&ArrayRef) -> Option<ArrayRef>,
) -> Option<ArrayRef> {
    let parent = column.as_list::<O>();
    let values = rewrite(parent.values(), leaf)?;
    Some(Arc::new(GenericListArray::<O>::new(
        Arc::clone(field),
        parent.offsets().clone(),
        values,
        parent.nulls().cloned(),
    )))
}

/// About how many bytes `rows` take on the wire or in a run.
pub fn size_of(rows: &RecordBatch) -> usize {
    rows.columns()
        .iter()
        .map(|column| column_size(column.as_ref()))
        .sum()
}

/// About how many bytes a column takes.
pub(crate) fn column_size(column: &dyn Array) -> usize {
    match column.data_type() {
        // Views share their buffers: what counts is what they show.
        DataType::Utf8View => {
            let views = column.as_string_view();
            views.lengths().map(|n| n as usize).sum::<usize>() + views.len() * 16
        }
        DataType::BinaryView => {
            let views = column.as_binary_view();
            views.lengths().map(|n| n as usize).sum::<usize>() + views.len() * 16
        }
        _ => {
            let data = column.to_data();
            data.get_slice_memory_size()
                .unwrap_or_else(|_| data.get_array_memory_size())
        }
    }
}
