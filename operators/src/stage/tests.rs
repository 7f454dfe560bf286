use arrow::array::{
    Array, FixedSizeListArray, GenericListArray, Int64Array, OffsetSizeTrait, StringArray,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{binary, col, lit};

use super::*;
use crate::update::{DIFF, ORDER};

fn edge(rows: &RecordBatch) -> Edge {
    Edge::plain(rows.schema())
}

/// Runs `steps` over one batch of `edge`; all of its output as one batch.
fn apply(edge: &Edge, rows: RecordBatch, steps: Vec<Step>) -> Result<RecordBatch, OperatorError> {
    let (prepared, edge) = prepare(edge.clone(), steps);
    let mut parts = Vec::new();
    run(&prepared, rows, &mut |rows| parts.push(rows))?;
    Ok(arrow::compute::concat_batches(&edge.physical(), &parts)?)
}

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn numbers(values: Vec<Option<i64>>) -> RecordBatch {
    let schema = schema(vec![Field::new("n", DataType::Int64, true)]);
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).unwrap()
}

fn more_than(rows: &RecordBatch, n: i64) -> Arc<dyn PhysicalExpr> {
    let schema = rows.schema();
    binary(col("n", &schema).unwrap(), Op::Gt, lit(n), &schema).unwrap()
}

#[test]
fn a_filter_drops_what_is_false_and_what_is_null() {
    let rows = numbers(vec![Some(1), None, Some(3), Some(2), Some(4)]);
    let steps = vec![Step::Filter(more_than(&rows, 2))];
    let kept = apply(&edge(&rows), rows, steps).unwrap();
    assert_eq!(kept, numbers(vec![Some(3), Some(4)]));
}

#[test]
fn constant_filters_keep_all_or_nothing() {
    let rows = numbers(vec![Some(1), None]);
    for (constant, count) in [
        (lit(true), 2),
        (lit(false), 0),
        (lit(ScalarValue::Boolean(None)), 0),
    ] {
        let steps = vec![Step::Filter(constant)];
        assert_eq!(
            apply(&edge(&rows), rows.clone(), steps).unwrap().num_rows(),
            count
        );
    }
}

#[test]
fn hidden_columns_ride_along() {
    let visible = numbers(vec![Some(1), Some(5), Some(6)]);
    let edge = Edge {
        rows: visible.schema(),
        ordered: true,
        signed: true,
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::clone(visible.column(0)),
        Arc::new(UInt64Array::from(vec![10, 11, 12])),
        Arc::new(Int64Array::from(vec![1, -1, 1])),
    ];
    let rows = RecordBatch::try_new(edge.physical(), columns).unwrap();
    let twice = schema(vec![Field::new("twice", DataType::Int64, true)]);
    let sum = binary(
        lit(1_i64),
        Op::Plus,
        col("n", &visible.schema()).unwrap(),
        &visible.schema(),
    );
    let steps = vec![
        Step::Filter(more_than(&visible, 2)),
        Step::Project {
            exprs: vec![sum.unwrap()],
            schema: twice,
        },
    ];
    let out = apply(&edge, rows, steps).unwrap();
    let names: Vec<&str> = out
        .schema_ref()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(names, ["twice", ORDER, DIFF]);
    assert_eq!(out.column(0).as_ref(), &Int64Array::from(vec![6, 7]));
    assert_eq!(out.column(1).as_ref(), &UInt64Array::from(vec![11, 12]));
    assert_eq!(out.column(2).as_ref(), &Int64Array::from(vec![-1, 1]));
}

#[test]
fn a_projection_to_no_columns_keeps_the_number_of_rows() {
    let rows = numbers(vec![Some(1), Some(2), Some(3)]);
    let to_none = Step::Project {
        exprs: vec![],
        schema: schema(vec![]),
    };
    let filter = Step::Filter(more_than(&rows, 1));
    let none = apply(&edge(&rows), rows.clone(), vec![filter, to_none.clone()]).unwrap();
    assert_eq!((none.num_columns(), none.num_rows()), (0, 2));
    // And filters work on what has no columns.
    let steps = vec![to_none, Step::Filter(lit(true))];
    assert_eq!(apply(&edge(&rows), rows, steps).unwrap().num_rows(), 3);
}

#[test]
fn an_expression_that_fails_is_an_error() {
    let rows = numbers(vec![Some(1), Some(0)]);
    let quotient = binary(
        lit(1_i64),
        Op::Divide,
        col("n", &rows.schema()).unwrap(),
        &rows.schema(),
    );
    let steps = vec![Step::Project {
        exprs: vec![quotient.unwrap()],
        schema: rows.schema(),
    }];
    let error = apply(&edge(&rows), rows, steps).unwrap_err();
    assert!(error.to_string().contains("ivide by zero"), "{error}");
}

/// Lists of numbers as each kind of list column. A null list spans elements that must not show.
fn list<O: OffsetSizeTrait>(lists: &[Option<Vec<i64>>]) -> ArrayRef {
    let hidden = vec![-1, -2];
    let spans: Vec<&Vec<i64>> = lists
        .iter()
        .map(|l| l.as_ref().unwrap_or(&hidden))
        .collect();
    let values: Vec<i64> = spans.iter().flat_map(|span| span.iter().copied()).collect();
    Arc::new(GenericListArray::<O>::new(
        Arc::new(Field::new_list_field(DataType::Int64, true)),
        OffsetBuffer::from_lengths(spans.iter().map(|span| span.len())),
        Arc::new(Int64Array::from(values)),
        Some(NullBuffer::from_iter(lists.iter().map(Option::is_some))),
    ))
}

fn table(lists: &[Option<Vec<i64>>], column: ArrayRef) -> RecordBatch {
    let schema = schema(vec![
        Field::new("word", DataType::Utf8, true),
        Field::new("list", column.data_type().clone(), true),
    ]);
    let words = (0..lists.len()).map(|i| (i % 3 != 1).then(|| format!("w{i}")));
    let words = StringArray::from_iter(words);
    RecordBatch::try_new(schema, vec![Arc::new(words), column]).unwrap()
}

fn unnested() -> SchemaRef {
    schema(vec![
        Field::new("word", DataType::Utf8, true),
        Field::new("list", DataType::Int64, true),
    ])
}

/// What unnesting means, row by row.
fn expected(rows: &RecordBatch, lists: &[Option<Vec<i64>>], outer: bool) -> RecordBatch {
    let (mut words, mut elements) = (Vec::new(), Vec::new());
    let word = arrow::array::AsArray::as_string::<i32>(rows.column(0));
    for (row, list) in lists.iter().enumerate() {
        let word = word.is_valid(row).then(|| word.value(row).to_string());
        let list = list.clone().unwrap_or_default();
        if list.is_empty() && outer {
            words.push(word.clone());
            elements.push(None);
        }
        for element in list {
            words.push(word.clone());
            elements.push(Some(element));
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(words)),
        Arc::new(Int64Array::from(elements)),
    ];
    RecordBatch::try_new(unnested(), columns).unwrap()
}

fn unnest_step(outer: bool) -> Vec<Step> {
    vec![Step::Unnest {
        lists: vec![1],
        outer,
        schema: unnested(),
    }]
}

#[track_caller]
fn check_unnest(lists: &[Option<Vec<i64>>]) {
    for column in [list::<i32>(lists), list::<i64>(lists)] {
        let whole = table(lists, column);
        for outer in [false, true] {
            for start in 0..lists.len() {
                let length = lists.len() - start;
                let rows = whole.slice(start, length);
                let wanted = expected(&rows, &lists[start..], outer);
                let got = apply(&edge(&rows), rows, unnest_step(outer)).unwrap();
                assert_eq!(got, wanted, "outer {outer}, from {start}");
            }
        }
    }
}

#[test]
fn lists_become_rows() {
    check_unnest(&[Some(vec![1, 2]), Some(vec![3]), Some(vec![4, 5, 6])]);
}

#[test]
fn null_and_empty_lists_vanish_unless_outer() {
    check_unnest(&[
        None,
        Some(vec![1, 2]),
        Some(vec![]),
        None,
        Some(vec![3]),
        Some(vec![]),
    ]);
    check_unnest(&[Some(vec![]), None]);
}

#[test]
fn long_lists_come_out_in_several_batches() {
    let lists: Vec<_> = (0..50_i64).map(|i| Some((0..i * 100).collect())).collect();
    check_unnest(&lists);
    let rows = table(&lists, list::<i32>(&lists));
    let mut parts = 0;
    let mut out = |_: RecordBatch| {
        parts += 1;
        Ok(())
    };
    unnest(&rows, &[1], false, &unnested(), &mut out).unwrap();
    assert!(parts > 2);
}

#[test]
fn fixed_size_lists_become_rows() {
    let values = Int64Array::from_iter_values(0..6);
    let element = Arc::new(Field::new_list_field(DataType::Int64, true));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let column = FixedSizeListArray::new(element, 2, Arc::new(values), Some(nulls));
    let lists = [Some(vec![0, 1]), None, Some(vec![4, 5])];
    for outer in [false, true] {
        let whole = table(&lists, Arc::new(column.clone()));
        for start in 0..3 {
            let rows = whole.slice(start, 3 - start);
            let wanted = expected(&rows, &lists[start..], outer);
            assert_eq!(
                apply(&edge(&rows), rows, unnest_step(outer)).unwrap(),
                wanted
            );
        }
    }
}

#[test]
fn zipped_lists_are_padded_with_nulls() {
    let left = [Some(vec![1, 2, 3]), None, Some(vec![4])];
    let right = [Some(vec![7]), Some(vec![8, 9]), None];
    let fields = ["a", "b"].map(|n| Field::new(n, list::<i32>(&left).data_type().clone(), true));
    let rows = RecordBatch::try_new(
        schema(fields.to_vec()),
        vec![list::<i32>(&left), list::<i32>(&right)],
    );
    let rows = rows.unwrap();
    let out = ["a", "b"]
        .map(|n| Field::new(n, DataType::Int64, true))
        .to_vec();
    let steps = vec![Step::Unnest {
        lists: vec![0, 1],
        outer: false,
        schema: schema(out),
    }];
    let out = apply(&edge(&rows), rows, steps).unwrap();
    let column = |values: [Option<i64>; 6]| Int64Array::from(values.to_vec());
    assert_eq!(
        out.column(0).as_ref(),
        &column([Some(1), Some(2), Some(3), None, None, Some(4)])
    );
    assert_eq!(
        out.column(1).as_ref(),
        &column([Some(7), None, None, Some(8), Some(9), None])
    );
}

#[test]
fn other_columns_cannot_be_unnested() {
    let rows = numbers(vec![Some(1)]);
    let steps = vec![Step::Unnest {
        lists: vec![0],
        outer: false,
        schema: rows.schema(),
    }];
    let error = apply(&edge(&rows), rows, steps).unwrap_err();
    assert_eq!(error.to_string(), "cannot unnest a column of type Int64");
}

#[test]
fn a_diff_is_exposed_as_it_is_or_as_rows_that_count_once() {
    let signed = Edge {
        signed: true,
        ..edge(&numbers(vec![]))
    };
    let rows = |counts: &[(i64, i64)]| {
        let (values, diffs): (Vec<i64>, Vec<i64>) = counts.iter().copied().unzip();
        let columns: [ArrayRef; 2] = [
            Arc::new(Int64Array::from(values)),
            Arc::new(Int64Array::from(diffs)),
        ];
        RecordBatch::try_new(signed.physical(), columns.to_vec()).unwrap()
    };
    let with = |name: &str, data_type: DataType| {
        let n = Field::new("n", DataType::Int64, true);
        schema(vec![n, Field::new(name, data_type, false)])
    };
    let changes = with("_change", DataType::Int32);
    let steps = vec![Step::Expose(Expose::Changes, SchemaRef::clone(&changes))];
    let got = apply(&signed, rows(&[(7, 2), (8, -1), (9, 0)]), steps).unwrap();
    let columns: [ArrayRef; 2] = [
        Arc::new(Int64Array::from(vec![7, 7, 8])),
        Arc::new(Int32Array::from(vec![1, 1, -1])),
    ];
    assert_eq!(
        got,
        RecordBatch::try_new(changes, columns.to_vec()).unwrap()
    );
    let weights = with("d", DataType::Int64);
    let steps = vec![Step::Expose(Expose::Diff, SchemaRef::clone(&weights))];
    let got = apply(&signed, rows(&[(7, 2), (8, -1)]), steps).unwrap();
    let columns = rows(&[(7, 2), (8, -1)]).columns().to_vec();
    assert_eq!(got, RecordBatch::try_new(weights, columns).unwrap());
}

#[test]
fn rows_without_a_diff_count_once() {
    let plain = numbers(vec![Some(3), None]);
    let signed = apply(&edge(&plain), plain.clone(), vec![Step::Sign]).unwrap();
    assert_eq!(signed.schema().field(1).name(), DIFF);
    let ones: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
    assert_eq!(signed.column(1), &ones);
    let again = vec![Step::Sign, Step::Sign];
    assert_eq!(apply(&edge(&plain), plain, again).unwrap(), signed);
}
