use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, col};

use super::lookup::{Keep, Lookup, Table, owned};
use super::{JoinKey, keys};

type Cells = Vec<Option<i64>>;

fn schema(names: &[&str]) -> SchemaRef {
    let fields = names.iter().map(|n| Field::new(*n, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn batch(names: &[&str], rows: &[Cells]) -> RecordBatch {
    let column = |index: usize| {
        let values: Int64Array = rows.iter().map(|row| row[index]).collect();
        Arc::new(values) as ArrayRef
    };
    let columns = (0..names.len()).map(column).collect();
    RecordBatch::try_new(schema(names), columns).unwrap()
}

fn cells(rows: &RecordBatch) -> Vec<Cells> {
    let cell = |column: &ArrayRef, row: usize| match column.data_type() {
        DataType::Boolean => Some(i64::from(column.as_boolean().value(row))),
        _ => {
            let column = column.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row))
        }
    };
    let row = |row: usize| rows.columns().iter().map(|c| cell(c, row)).collect();
    (0..rows.num_rows()).map(row).collect()
}

fn random(seed: &mut u64, rows: usize) -> Vec<Cells> {
    let mut number = |n: u64| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 11) % n
    };
    let mut cell = |n: u64| (number(8) > 0).then(|| number(n) as i64);
    (0..rows).map(|_| vec![cell(12), cell(100)]).collect()
}

/// What a join of the two must answer, found by looking at every pair.
fn nested_loop(
    keep: Keep,
    stream: &[Cells],
    table: &[Cells],
    is_pair: impl Fn(&Cells, &Cells) -> bool,
    wide: impl Fn(&Cells, &Cells) -> Cells,
) -> Vec<Cells> {
    let mut out = Vec::new();
    for row in stream {
        let partners: Vec<&Cells> = table.iter().filter(|other| is_pair(row, other)).collect();
        match keep {
            Keep::Pairs => out.extend(partners.iter().map(|other| wide(row, other))),
            Keep::All if partners.is_empty() => out.push(wide(row, &vec![None; 2])),
            Keep::All => out.extend(partners.iter().map(|other| wide(row, other))),
            Keep::Matched if partners.is_empty() => {}
            Keep::Unmatched if !partners.is_empty() => {}
            Keep::Matched | Keep::Unmatched => out.push(row.clone()),
            Keep::Marked => {
                let mark = Some(i64::from(!partners.is_empty()));
                out.push([&row[..], &[mark]].concat());
            }
        }
    }
    out.sort();
    out
}

#[test]
fn a_lookup_finds_what_a_nested_loop_finds() {
    let kinds = [
        Keep::Pairs,
        Keep::All,
        Keep::Matched,
        Keep::Unmatched,
        Keep::Marked,
    ];
    for case in 0..240_u64 {
        let mut seed = case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let keep = kinds[case as usize % 5];
        let stream_left = case % 2 == 0;
        let (with_key, with_condition) = (case % 3 > 0, case % 4 > 1);
        let null_safe = case % 7 == 0;
        let sizes = [(0, 9), (40, 0), (30, 25), (300, 200)][case as usize % 4];
        let stream = random(&mut seed, sizes.0);
        let table = random(&mut seed, sizes.1);
        let (left, right) = (["lk", "lv"], ["rk", "rv"]);
        let (own, other) = if stream_left {
            (left, right)
        } else {
            (right, left)
        };
        let both = schema(&[left, right].concat());
        let key = JoinKey {
            left: col("lk", &schema(&left)).unwrap(),
            right: col("rk", &schema(&right)).unwrap(),
            null_safe,
        };
        let keys: Vec<JoinKey> = with_key.then_some(key).into_iter().collect();
        let less = || {
            let (l, r) = (col("lv", &both).unwrap(), col("rv", &both).unwrap());
            binary(l, Operator::Lt, r, &both).unwrap()
        };
        let output = match keep {
            Keep::Pairs | Keep::All => Arc::clone(&both),
            Keep::Matched | Keep::Unmatched => schema(&own),
            Keep::Marked => {
                let mut fields: Vec<_> = schema(&own).fields().iter().cloned().collect();
                fields.push(Arc::new(Field::new("mark", DataType::Boolean, false)));
                Arc::new(Schema::new(fields))
            }
        };
        // The table whole, or in the parts of three processes, each with the rows of the stream that come to it.
        let spread = with_key && case % 11 > 4;
        let ends: &[usize] = if spread { &[0, 1, 3, 5] } else { &[0, 5] };
        let mut found = Vec::new();
        for ends in ends.windows(2) {
            let workers = ends[0]..ends[1];
            let part = |rows: RecordBatch, stream: bool| match spread {
                true => owned(&rows, &keys, stream_left != stream, &workers, 5).unwrap(),
                false => rows,
            };
            let table = part(batch(&other, &table), false);
            let how = Lookup {
                keep,
                stream_left,
                condition: with_condition.then(less),
                both: Arc::clone(&both),
                schema: Arc::clone(&output),
                table: Arc::new(Table::new(table, &keys, stream_left).unwrap()),
                spread,
            };
            let stream = part(batch(&own, &stream), true);
            how.run(&stream, &output, &mut |rows| found.extend(cells(&rows)))
                .unwrap();
        }
        found.sort();
        let is_pair = |a: &Cells, b: &Cells| {
            let (l, r) = if stream_left { (a, b) } else { (b, a) };
            let equal = l[0] == r[0] && (null_safe || l[0].is_some());
            let less = l[1].is_some() && r[1].is_some() && l[1] < r[1];
            (!with_key || equal) && (!with_condition || less)
        };
        let wide = |a: &Cells, b: &Cells| match stream_left {
            true => [&a[..], &b[..]].concat(),
            false => [&b[..], &a[..]].concat(),
        };
        let wanted = nested_loop(keep, &stream, &table, is_pair, wide);
        assert_eq!(found, wanted, "case {case}");
    }
}

#[test]
fn a_condition_that_is_null_does_not_hold() {
    let rows = batch(&["a", "b"], &[vec![Some(1), None], vec![Some(1), Some(2)]]);
    let (a, b) = (
        col("a", rows.schema_ref()).unwrap(),
        col("b", rows.schema_ref()).unwrap(),
    );
    let less = binary(a, Operator::Lt, b, rows.schema_ref()).unwrap();
    assert_eq!(keys::holds(less.as_ref(), &rows).unwrap(), [false, true]);
}
