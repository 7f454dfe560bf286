//! A scenario's query: SQL text, or a list of operations of the DataFrame.

use highwater::prelude::expr;
use highwater::{DataFrame, Error, Expr, JoinKind, Session};
use serde_json::Value;

pub(crate) fn frame_of(session: &Session, what: &Value) -> Result<DataFrame, Error> {
    if let Some(sql) = what.as_str() {
        return session.sql(sql);
    }
    let mut frame: Option<DataFrame> = None;
    for operation in what.as_array().expect("SQL or a list of operations") {
        frame = Some(applied(session, frame, operation)?);
    }
    Ok(frame.expect("a query has an operation"))
}

fn applied(
    session: &Session,
    frame: Option<DataFrame>,
    operation: &Value,
) -> Result<DataFrame, Error> {
    let text = |index: usize| operation[index].as_str().unwrap_or_default();
    let texts = |index: usize| {
        let list = operation[index].as_array().into_iter().flatten();
        list.filter_map(Value::as_str)
    };
    let parse = |sql: &str| -> Result<Expr, Error> { expr(sql).map_err(Error::from) };
    let all = |index: usize| texts(index).map(parse).collect::<Result<Vec<_>, _>>();
    let other = |index: usize| match operation[index].as_str() {
        Some(name) => session.table(name),
        None => frame_of(session, &operation[index]),
    };
    if text(0) == "table" {
        return session.table(text(1));
    }
    let input = frame.expect("the first operation is a table");
    match text(0) {
        "alias" => input.alias(text(1)),
        "select" => input.select_expr(texts(1)),
        "where" => input.filter(text(1)),
        "withColumn" => input.with_column(text(1), parse(text(2))?),
        "withWatermark" => input.with_watermark(text(1), text(2)),
        "groupBy" => {
            let calls = operation[2].as_array().into_iter().flatten().map(|call| {
                let [function, argument, alias] =
                    [0, 1, 2].map(|i| call[i].as_str().unwrap_or_default());
                Ok(parse(&format!("{function}({argument})"))?.alias(alias))
            });
            input
                .group_by(all(1)?)?
                .agg(calls.collect::<Result<Vec<_>, Error>>()?)
        }
        "distinct" => input.distinct(),
        "dropDuplicates" => input.drop_duplicates(texts(1)),
        "dropDuplicatesWithinWatermark" => input.drop_duplicates_within_watermark(texts(1)),
        "join" => {
            let kind = match text(3) {
                "inner" => JoinKind::Inner,
                "left_outer" => JoinKind::Left,
                "right_outer" => JoinKind::Right,
                "full_outer" => JoinKind::Full,
                "left_semi" => JoinKind::LeftSemi,
                "left_anti" => JoinKind::LeftAnti,
                "cross" => JoinKind::Cross,
                other => panic!("no join is called {other}"),
            };
            input.join(&other(1)?, text(2), kind)
        }
        "union" => input.union(&other(1)?),
        "orderBy" => input.order_by(all(1)?),
        "limit" => input.limit(operation[1].as_u64().expect("a number")),
        other => Err(Error::Refused {
            class: None,
            message: format!("the operation {other} is not supported yet"),
        }),
    }
}
