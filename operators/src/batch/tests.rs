use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Decimal256Array,
    DictionaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray,
    ListArray, MapArray, NullArray, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, i256};
use arrow::record_batch::RecordBatchOptions;
use timely::bytes::arc::BytesMut;

use super::*;
use crate::memory;

fn bytes(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = batch.length_in_bytes();
    batch.into_bytes(&mut bytes);
    assert_eq!(bytes.len(), length);
    assert_eq!(length % 8, 0);
    bytes
}

fn received(bytes: Vec<u8>) -> Batch {
    Batch::from_bytes(BytesMut::from(bytes).freeze())
}

/// Sends `rows` and compares what arrives, also after a second hop that does not decode.
#[track_caller]
fn check(rows: RecordBatch) {
    let schema = rows.schema();
    let wire = received(bytes(&rows.clone().into()));
    assert_eq!(wire.record_count(), rows.num_rows() as i64);
    let again = received(bytes(&wire));
    for batch in [wire, again] {
        let arrived = batch.clone().into_rows(&schema).unwrap();
        assert_eq!(arrived, rows);
        assert_eq!(batch.into_owned_rows(&schema).unwrap(), rows);
    }
    assert_eq!(memory::own(&rows), rows);
}

fn one(column: impl Array + 'static) -> RecordBatch {
    let field = Field::new("c", column.data_type().clone(), true);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(column)]).unwrap()
}

/// A column of every kind, with nulls.
fn columns() -> Vec<ArrayRef> {
    let long = "longer than what a view holds in place";
    let strings = [Some("a"), None, Some(""), Some(long), Some("ä")];
    let ints = vec![Some(1), None, Some(-3), Some(4), Some(i64::MAX)];
    let nulls = || Some(NullBuffer::from(vec![true, false, true, true, true]));
    let child: ArrayRef = Arc::new(StringViewArray::from_iter(
        (0..7).map(|i| (i != 3).then(|| format!("{long} {i}"))),
    ));
    let element = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let lists = ListArray::new(
        element,
        OffsetBuffer::from_lengths([2, 1, 0, 3, 1]),
        child,
        nulls(),
    );
    let fields = vec![
        Field::new("x", DataType::Int64, true),
        Field::new("l", lists.data_type().clone(), true),
    ];
    let structs = StructArray::new(
        fields.into(),
        vec![
            Arc::new(Int64Array::from(ints.clone())),
            Arc::new(lists.clone()),
        ],
        nulls(),
    );
    let entries = StructArray::from(vec![
        (
            Arc::new(Field::new("keys", DataType::Utf8, false)),
            Arc::new(StringArray::from(vec!["p", "q", "r"])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("values", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        ),
    ]);
    let maps = MapArray::new(
        Arc::new(Field::new("entries", entries.data_type().clone(), false)),
        OffsetBuffer::from_lengths([1, 0, 0, 2, 0]),
        entries,
        nulls(),
        false,
    );
    vec![
        Arc::new(Int64Array::from(ints.clone())),
        Arc::new(Float64Array::from(vec![
            0.0,
            -0.0,
            1.5,
            f64::INFINITY,
            1e-300,
        ])),
        Arc::new(BooleanArray::from(vec![
            Some(true),
            None,
            Some(false),
            None,
            Some(true),
        ])),
        Arc::new(StringArray::from_iter(strings)),
        Arc::new(LargeStringArray::from_iter(strings)),
        Arc::new(StringViewArray::from_iter(strings)),
        Arc::new(BinaryViewArray::from_iter(strings)),
        Arc::new(
            FixedSizeBinaryArray::try_from_iter(["ab", "cd", "ef", "gh", "ij"].iter()).unwrap(),
        ),
        Arc::new(
            Decimal128Array::from_iter_values([1, -2, 3, 4, 5])
                .with_precision_and_scale(38, 4)
                .unwrap(),
        ),
        Arc::new(Decimal256Array::from_iter_values(
            (0..5).map(i256::from_i128),
        )),
        Arc::new(TimestampMicrosecondArray::from_iter(ints).with_timezone("UTC")),
        Arc::new(NullArray::new(5)),
        Arc::new(lists),
        Arc::new(structs),
        Arc::new(maps),
    ]
}

fn all() -> RecordBatch {
    let columns = columns();
    let fields = columns.iter().enumerate();
    let fields: Vec<Field> = fields
        .map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn every_type_arrives() {
    check(all());
}

#[test]
fn slices_arrive() {
    for start in 0..5 {
        for length in 1..=5 - start {
            check(all().slice(start, length));
        }
    }
}

#[test]
fn dictionaries_arrive_as_dictionaries_in_any_number() {
    let words = |words: [&str; 4]| -> DictionaryArray<Int32Type> { words.into_iter().collect() };
    // The second batch has another dictionary than the first.
    check(one(words(["a", "b", "a", "c"])));
    check(one(words(["x", "y", "y", "x"])));
    let nested = DataType::new_list(one(words(["a"; 4])).column(0).data_type().clone(), true);
    let lists =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let lists = cast(&lists, &DataType::new_list(DataType::Utf8, true)).unwrap();
    check(one(cast(&lists, &nested).unwrap().as_list::<i32>().clone()));
}

#[test]
fn rows_without_columns_keep_their_number() {
    let options = RecordBatchOptions::new().with_row_count(Some(7));
    let schema = Arc::new(Schema::empty());
    check(RecordBatch::try_new_with_options(schema, vec![], &options).unwrap());
}

#[test]
fn no_rows_are_no_message() {
    let empty = received(bytes(&all().slice(0, 0).into()));
    assert!(matches!(empty, Batch::Empty));
    assert_eq!(empty.into_rows(&all().schema()).unwrap().num_rows(), 0);
}

#[test]
fn a_taken_view_does_not_drag_its_buffers_along() {
    let long = "x".repeat(1000);
    let views = StringViewArray::from_iter((0..1000).map(|i| Some(format!("{i} {long}"))));
    let few = one(views).slice(500, 2);
    assert!(Batch::from(few.clone()).length_in_bytes() < 4000);
    check(few);
}

#[test]
fn rows_that_are_kept_do_not_pin_the_network_buffer() {
    let rows = one(Int64Array::from_iter_values(0..10));
    let mut slab = BytesMut::from(bytes(&rows.clone().into()));
    let length = slab.len();
    let batch = Batch::from_bytes(slab.extract_to(length));
    let kept = batch.into_owned_rows(&rows.schema()).unwrap();
    // Nothing refers to the slab any more, so it can be used again.
    assert_eq!(slab.try_regenerate::<Vec<u8>>(), Some(true));
    assert_eq!(kept, rows);
}

#[test]
fn what_arrow_cannot_write_is_an_error_where_it_is_read() {
    let mut reason = 3_u64.to_le_bytes().to_vec();
    reason.extend(8_u64.to_le_bytes());
    reason.extend(b"why:cold");
    let error = received(reason).into_rows(&all().schema()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not decode rows from another worker: cold"
    );
}

#[test]
fn truncated_bytes_are_an_error() {
    let whole = bytes(&all().into());
    for length in 0..whole.len() {
        let batch = received(whole[..length].to_vec());
        if batch.record_count() > 0 {
            // The last bytes may be padding.
            let rows = batch.into_rows(&all().schema());
            assert!(rows.is_err() || rows.unwrap() == all(), "{length} bytes");
        }
    }
}

/// Any one byte may be wrong: the rows may differ then, but nothing panics.
#[test]
fn flipped_bytes_are_an_error_or_other_rows() {
    std::panic::set_hook(Box::new(|_| {}));
    let whole = bytes(&all().into());
    for at in 0..whole.len() {
        for mask in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            let batch = received(bytes);
            let rows = batch.record_count();
            if let Ok(decoded) = batch.into_rows(&all().schema()) {
                assert_eq!(decoded.num_rows() as i64, rows);
            }
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn another_schema_is_an_error() {
    let rows = one(Int32Array::from(vec![1, 2, 3]));
    let wire = received(bytes(&rows.into()));
    assert!(wire.into_rows(&all().schema()).is_err());
}
