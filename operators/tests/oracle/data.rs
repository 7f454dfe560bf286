//! Random rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StringViewArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use highwater_operators::update::ORDER;

/// A small generator (xorshift): the same rows for the same seed, everywhere.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    fn column<T>(
        &mut self,
        rows: usize,
        nulls: u64,
        mut f: impl FnMut(&mut Self) -> T,
    ) -> Vec<Option<T>> {
        (0..rows)
            .map(|_| (!self.chance(nulls)).then(|| f(self)))
            .collect()
    }
}

/// The columns of the test table.
pub(crate) fn schema() -> SchemaRef {
    let fields = [
        ("ki", DataType::Int64),
        ("ks", DataType::Utf8),
        ("kf", DataType::Float64),
        ("kv", DataType::Utf8View),
        ("kb", DataType::Boolean),
        ("i", DataType::Int64),
        ("j", DataType::Int32),
        ("u", DataType::UInt64),
        ("x", DataType::Float64),
        ("y", DataType::Float64),
        ("s", DataType::Utf8),
        ("v", DataType::Utf8View),
        ("b", DataType::Boolean),
        ("d", DataType::Decimal128(20, 2)),
        (
            "ts",
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        ),
        ("w", DataType::Int64),
    ];
    let fields: Vec<Field> = fields
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type, name != "w"))
        .collect();
    Arc::new(Schema::new(fields))
}

/// `rows` random rows.
pub(crate) fn rows(random: &mut Random, rows: usize) -> RecordBatch {
    let words = [
        "",
        "a",
        "b",
        "ab",
        "a word longer than twelve bytes",
        "zebra",
        "Ä",
    ];
    let word = |r: &mut Random| words[r.below(words.len() as u64) as usize].to_string();
    let odd = [0.0, -0.0, f64::NAN, 1.5, -2.25, 1e9];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(
            random.column(rows, 8, |r| r.below(40) as i64 - 20),
        )),
        Arc::new(StringArray::from(random.column(rows, 8, word))),
        Arc::new(Float64Array::from(
            random.column(rows, 8, |r| odd[r.below(odd.len() as u64) as usize]),
        )),
        Arc::new(StringViewArray::from_iter(random.column(rows, 8, word))),
        Arc::new(BooleanArray::from(random.column(rows, 8, |r| r.chance(50)))),
        Arc::new(Int64Array::from(
            random.column(rows, 15, |r| r.below(50) as i64 - 25),
        )),
        Arc::new(Int32Array::from(
            random.column(rows, 15, |r| r.below(9) as i32 - 4),
        )),
        Arc::new(UInt64Array::from(random.column(rows, 15, |r| r.below(100)))),
        Arc::new(Float64Array::from(
            random.column(rows, 15, |r| r.below(10_000) as f64 / 7.0 - 500.0),
        )),
        Arc::new(Float64Array::from(
            random.column(rows, 15, |r| r.below(10_000) as f64 / 3.0 - 100.0),
        )),
        Arc::new(StringArray::from(random.column(rows, 15, word))),
        Arc::new(StringViewArray::from_iter(random.column(rows, 15, word))),
        Arc::new(BooleanArray::from(
            random.column(rows, 15, |r| r.chance(60)),
        )),
        Arc::new(
            Decimal128Array::from(random.column(rows, 15, |r| i128::from(r.below(9999)) - 5000))
                .with_precision_and_scale(20, 2)
                .unwrap(),
        ),
        Arc::new(TimestampMicrosecondArray::from(random.column(
            rows,
            15,
            |r| r.below(1_000_000_000) as i64 * 1000,
        ))),
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|_| random.below(5) as i64 + 1),
        )),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Rows cut into epochs.
#[derive(Clone)]
pub(crate) struct Epochs {
    /// Per epoch, its rows in source order.
    pub(crate) rows: Vec<RecordBatch>,
}

impl Epochs {
    /// `epochs` epochs of up to `rows_max` rows; some are empty.
    pub(crate) fn random(random: &mut Random, epochs: usize, rows_max: u64) -> Self {
        let rows = (0..epochs)
            .map(|_| {
                let count = if random.chance(20) {
                    0
                } else {
                    random.below(rows_max) + 1
                };
                rows(random, count as usize)
            })
            .collect();
        Epochs { rows }
    }

    /// The batches of an epoch as they arrive: cut, shuffled, each with its place in the source if `ordered`.
    pub(crate) fn batches(
        &self,
        epoch: usize,
        ordered: bool,
        random: &mut Random,
    ) -> Vec<RecordBatch> {
        let rows = &self.rows[epoch];
        let mut batches = Vec::new();
        let mut start = 0;
        while start < rows.num_rows() {
            let length = (random.below(60) as usize + 1).min(rows.num_rows() - start);
            let mut order: Vec<u32> = (start as u32..(start + length) as u32).collect();
            random.shuffle(&mut order);
            let order = UInt32Array::from(order);
            let mut batch = take_record_batch(rows, &order).unwrap();
            if ordered {
                let places = order.values().iter().map(|row| u64::from(*row) * 3);
                let places: ArrayRef = Arc::new(UInt64Array::from_iter_values(places));
                let mut fields: Vec<Field> = batch
                    .schema()
                    .fields()
                    .iter()
                    .map(|f| f.as_ref().clone())
                    .collect();
                fields.push(Field::new(ORDER, DataType::UInt64, false));
                let mut columns = batch.columns().to_vec();
                columns.push(places);
                batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
            }
            // Sources and filters may hand on batches without rows.
            if random.chance(10) {
                batches.push(batch.slice(0, 0));
            }
            batches.push(batch);
            start += length;
        }
        random.shuffle(&mut batches);
        batches
    }
}
