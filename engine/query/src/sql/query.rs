//! Statements and queries of the parser's AST to ours. Every struct is taken apart whole: a field that is new or not
//! understood does not compile or is refused.

use std::collections::BTreeSet;

use sqlparser::ast::{self, Spanned};
use sqlparser::tokenizer::Span;

use super::dialect::call_of;
use super::expression::{
    all, descend, group_keys, lower, object_name, select_item, sort_keys, start, unsupported,
    with_named_windows,
};
use super::relation;
use super::tokens::STREAM;
use crate::error::QueryError;
use crate::expr::{Expr, Groupings};
use crate::functions::{self, generator::RANGE};
use crate::plan::{JoinCondition, JoinKind, Plan, Statement};

type Result<T> = std::result::Result<T, QueryError>;

fn refuse(refused: bool, what: &str) -> Result<()> {
    if refused {
        Err(QueryError::unsupported(what))
    } else {
        Ok(())
    }
}

/// TABLESAMPLE: a number of rows is a LIMIT. The rows of a share would be others after a restart.
fn sampled(input: Plan, sample: Option<ast::TableSampleKind>) -> Result<Plan> {
    let (ast::TableSampleKind::BeforeTableAlias(sample)
    | ast::TableSampleKind::AfterTableAlias(sample)) = match sample {
        None => return Ok(input),
        Some(sample) => sample,
    };
    let rows = match sample.quantity {
        Some(quantity) if quantity.unit == Some(ast::TableSampleUnit::Rows) => quantity.value,
        _ => {
            return Err(QueryError::new(
                "_LEGACY_ERROR_TEMP_3102",
                "Sampling is not supported on streaming DataFrames/Datasets, and not yet on others: remove TABLESAMPLE, or say how many ROWS",
            ));
        }
    };
    let place = start(rows.span());
    Ok(Plan::Limit {
        input: Box::new(input),
        count: Some((lower(rows)?, place)),
        skip: None,
    })
}

pub(super) fn statement(statement: ast::Statement) -> Result<Statement> {
    match statement {
        ast::Statement::Query(inner) => Ok(Statement::Query(query(*inner)?)),
        ast::Statement::CreateView(view) => create_view(view),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            let message = format!(
                "the statement {} is not supported: expected {}",
                words.join(" "),
                super::command::ACCEPTED
            );
            Err(QueryError::new("UNSUPPORTED_FEATURE", message))
        }
    }
}

fn create_view(view: ast::CreateView) -> Result<Statement> {
    let ast::CreateView {
        or_alter,
        or_replace,
        materialized,
        secure,
        name,
        name_before_not_exists: _,
        columns,
        query: inner,
        options,
        cluster_by,
        comment,
        with_no_schema_binding,
        if_not_exists,
        temporary: _, // no view outlives its session
        copy_grants,
        to,
        params,
    } = view;
    refuse(
        or_alter || secure || materialized || copy_grants || with_no_schema_binding,
        "this kind of view",
    )?;
    refuse(
        options != ast::CreateTableOptions::None || !cluster_by.is_empty(),
        "options of a view",
    )?;
    refuse(to.is_some() || params.is_some(), "options of a view")?;
    let _ = comment; // says nothing about the rows
    let mut plan = query(*inner)?;
    let name = match <[String; 1]>::try_from(object_name(name)?) {
        Ok([name]) => name,
        Err(parts) => {
            let what = format!("a name of several parts (\"{}\")", parts.join("."));
            return Err(QueryError::unsupported(what));
        }
    };
    if !columns.is_empty() {
        let names = columns.into_iter().map(
            |ast::ViewColumnDef {
                 name,
                 data_type,
                 options: _,
             }| {
                refuse(data_type.is_some(), "a type for a view's column")?;
                Ok(name.value)
            },
        );
        let columns = names.collect::<Result<_>>()?;
        plan = Plan::Alias {
            input: Box::new(plan),
            name: name.clone(),
            columns,
        };
    }
    Ok(Statement::CreateView {
        name,
        replace: or_replace,
        if_not_exists,
        plan,
    })
}

pub(super) fn query(inner: ast::Query) -> Result<Plan> {
    descend(|| query_inner(inner))
}

fn query_inner(inner: ast::Query) -> Result<Plan> {
    let ast::Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = inner;
    refuse(fetch.is_some(), "FETCH")?;
    refuse(!locks.is_empty() || for_clause.is_some(), "FOR")?;
    refuse(settings.is_some() || format_clause.is_some(), "SETTINGS")?;
    refuse(!pipe_operators.is_empty(), "pipe syntax")?;
    if order_by.is_some()
        && let ast::SetExpr::Select(select) = &*body
        && !(select.sort_by.is_empty()
            && select.cluster_by.is_empty()
            && select.distribute_by.is_empty())
    {
        return Err(two_orders());
    }
    let mut plan = set_expr(*body)?;
    if let Some(ast::OrderBy { kind, interpolate }) = order_by {
        refuse(interpolate.is_some(), "INTERPOLATE")?;
        let order = match kind {
            ast::OrderByKind::Expressions(keys) => sort_keys(keys)?,
            ast::OrderByKind::All(ast::OrderByOptions { asc, nulls_first }) => {
                vec![Expr::Sort {
                    expr: Box::new(every_column()),
                    ascending: asc.unwrap_or(true),
                    nulls_first,
                }]
            }
        };
        plan = Plan::Sort {
            input: Box::new(plan),
            order,
        };
    }
    if let Some(limit) = limit_clause {
        plan = limited(plan, limit)?;
    }
    let Some(ast::With {
        with_token: _,
        recursive,
        cte_tables,
    }) = with
    else {
        return Ok(plan);
    };
    refuse(recursive, "WITH RECURSIVE")?;
    let mut names = BTreeSet::new();
    for cte in &cte_tables {
        let name = &cte.alias.name;
        if !names.insert(name.value.to_lowercase()) {
            let message = format!(
                "CTE definition can't have duplicate names: `{}`.",
                name.value
            );
            return Err(QueryError::new("DUPLICATED_CTE_NAMES", message).at(start(name.span)));
        }
    }
    let ctes = cte_tables.into_iter().map(|cte| {
        let ast::Cte {
            alias,
            query: inner,
            from,
            materialized,
            closing_paren_token: _,
        } = cte;
        refuse(
            from.is_some() || materialized.is_some(),
            "this option of WITH",
        )?;
        let (name, columns) = table_alias(alias)?;
        Ok((name, columns, query(*inner)?))
    });
    Ok(Plan::With {
        ctes: ctes.collect::<Result<_>>()?,
        input: Box::new(plan),
    })
}

fn two_orders() -> QueryError {
    QueryError::new(
        "UNSUPPORTED_FEATURE.COMBINATION_QUERY_RESULT_CLAUSES",
        "The feature is not supported: Combination of ORDER BY/SORT BY/DISTRIBUTE BY/CLUSTER BY.",
    )
}

fn limited(input: Plan, limit: ast::LimitClause) -> Result<Plan> {
    let ast::LimitClause::LimitOffset {
        limit,
        offset,
        limit_by,
    } = limit
    else {
        return Err(QueryError::unsupported("LIMIT offset, count"));
    };
    refuse(!limit_by.is_empty(), "LIMIT BY")?;
    let counted = |expr: ast::Expr| {
        let place = start(expr.span());
        lower(expr).map(|count| (count, place))
    };
    let skip = offset.map(|ast::Offset { value, rows: _ }| counted(value));
    Ok(Plan::Limit {
        input: Box::new(input),
        count: limit.map(counted).transpose()?,
        skip: skip.transpose()?,
    })
}

/// What `ALL` stands for in ORDER BY.
fn every_column() -> Expr {
    Expr::Star {
        qualifier: vec![],
        except: vec![],
        place: None,
    }
}

fn set_expr(body: ast::SetExpr) -> Result<Plan> {
    descend(|| match body {
        ast::SetExpr::Select(inner) => select(*inner),
        ast::SetExpr::Query(inner) => query(*inner),
        ast::SetExpr::Values(values) => values_rows(values),
        ast::SetExpr::Table(table) => match *table {
            ast::Table {
                table_name: Some(name),
                schema_name: None,
            } => Ok(Plan::Table {
                name: vec![name],
                place: None,
                stream: false,
            }),
            _ => Err(QueryError::unsupported("TABLE with a qualified name")),
        },
        ast::SetExpr::SetOperation {
            left,
            op,
            set_quantifier,
            right,
        } => {
            use ast::SetQuantifier as Q;
            let (left, right) = (set_expr(*left)?, set_expr(*right)?);
            let all = matches!(set_quantifier, Q::All | Q::AllByName);
            let by_name = matches!(set_quantifier, Q::ByName | Q::AllByName | Q::DistinctByName);
            if op == ast::SetOperator::Union {
                let union = Plan::Union {
                    inputs: vec![left, right],
                    by_name,
                };
                return Ok(if all {
                    union
                } else {
                    Plan::Distinct {
                        input: Box::new(union),
                    }
                });
            }
            refuse(by_name, "BY NAME here")?;
            let except = op != ast::SetOperator::Intersect;
            Ok(Plan::SetOperation {
                left: Box::new(left),
                right: Box::new(right),
                except,
                all,
            })
        }
        other => Err(QueryError::unsupported(format!("the query {other}"))),
    })
}

fn values_rows(values: ast::Values) -> Result<Plan> {
    let ast::Values {
        explicit_row,
        value_keyword,
        rows,
    } = values;
    refuse(explicit_row || value_keyword, "VALUES ROW")?;
    let rows = rows
        .into_iter()
        .map(|row| all(row.content))
        .collect::<Result<_>>()?;
    Ok(Plan::Values { rows })
}

fn select(mut inner: ast::Select) -> Result<Plan> {
    let named = std::mem::take(&mut inner.named_window);
    with_named_windows(named, || select_inner(inner))
}

fn select_inner(inner: ast::Select) -> Result<Plan> {
    let ast::Select {
        select_token: _,
        optimizer_hints: _, // hints change speed, not rows
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window: _, // taken before
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = inner;
    refuse(
        select_modifiers.is_some() || value_table_mode.is_some(),
        "this modifier of SELECT",
    )?;
    refuse(top.is_some(), "TOP")?;
    refuse(exclude.is_some(), "EXCLUDE")?;
    refuse(into.is_some(), "SELECT INTO")?;
    refuse(prewhere.is_some(), "PREWHERE")?;
    refuse(!connect_by.is_empty(), "CONNECT BY")?;
    if !cluster_by.is_empty() && !distribute_by.is_empty() {
        return Err(two_orders());
    }
    let places = distribute_by.into_iter().map(lower);
    let places = places.collect::<Result<Vec<_>>>()?;
    // What is in order as a whole is so in every part of it.
    let order = match (cluster_by.is_empty(), sort_by.is_empty()) {
        (_, true) => {
            let keys = cluster_by.into_iter().map(ascending);
            keys.collect::<Result<Vec<_>>>()?
        }
        (true, false) => sort_keys(sort_by)?,
        (false, false) => return Err(two_orders()),
    };
    refuse(flavor != ast::SelectFlavor::Standard, "FROM before SELECT")?;
    let mut plan = from_clause(from)?;
    for view in lateral_views {
        let ast::LateralView {
            lateral_view,
            lateral_view_name,
            lateral_col_alias,
            outer,
        } = view;
        plan = Plan::LateralView {
            input: Box::new(plan),
            generator: lower(lateral_view)?,
            outer,
            name: object_name(lateral_view_name)?.join("."),
            columns: lateral_col_alias.into_iter().map(|c| c.value).collect(),
        };
    }
    if let Some(condition) = selection {
        plan = Plan::Filter {
            input: Box::new(plan),
            condition: lower(condition)?,
        };
    }
    let input = Box::new(plan);
    let outputs = projection
        .into_iter()
        .map(select_item)
        .collect::<Result<Vec<_>>>()?;
    let having = having.map(lower).transpose()?;
    let keys = match group_by {
        ast::GroupByExpr::All(modifiers) => {
            refuse(!modifiers.is_empty(), "GROUP BY ALL WITH")?;
            vec![Expr::Groupings {
                kind: Groupings::All,
                sets: vec![],
            }]
        }
        ast::GroupByExpr::Expressions(keys, modifiers) => group_keys(keys, modifiers)?,
    };
    let mut plan = if keys.is_empty() && having.is_none() {
        Plan::Project { input, outputs }
    } else {
        Plan::Aggregate {
            input,
            keys,
            outputs,
            having,
        }
    };
    if let Some(condition) = qualify {
        plan = Plan::Qualify {
            input: Box::new(plan),
            condition: lower(condition)?,
        };
    }
    match distinct {
        None | Some(ast::Distinct::All) => {}
        Some(ast::Distinct::Distinct) => {
            plan = Plan::Distinct {
                input: Box::new(plan),
            }
        }
        Some(ast::Distinct::On(_)) => return Err(QueryError::unsupported("DISTINCT ON")),
    }
    if !order.is_empty() {
        plan = Plan::Sort {
            input: Box::new(plan),
            order,
        };
    }
    if !places.is_empty() {
        plan = Plan::Distribute {
            input: Box::new(plan),
            keys: places,
        };
    }
    Ok(plan)
}

fn ascending(key: ast::Expr) -> Result<Expr> {
    Ok(Expr::Sort {
        expr: Box::new(lower(key)?),
        ascending: true,
        nulls_first: None,
    })
}

fn from_clause(from: Vec<ast::TableWithJoins>) -> Result<Plan> {
    let mut whole = None;
    for item in from {
        let next = table_with_joins(item)?;
        whole = Some(match whole {
            None => next,
            Some(left) => joined(left, next, JoinKind::Cross, JoinCondition::None),
        });
    }
    Ok(whole.unwrap_or(Plan::OneRow))
}

fn joined(left: Plan, right: Plan, kind: JoinKind, condition: JoinCondition) -> Plan {
    Plan::Join {
        left: Box::new(left),
        right: Box::new(right),
        kind,
        condition,
    }
}

fn table_with_joins(item: ast::TableWithJoins) -> Result<Plan> {
    let ast::TableWithJoins {
        relation: first,
        joins,
    } = item;
    let mut plan = table_factor(first)?;
    for ast::Join {
        relation: right,
        global,
        join_operator,
    } in joins
    {
        refuse(global, "GLOBAL JOIN")?;
        use ast::JoinOperator as Op;
        let (kind, constraint) = match join_operator {
            Op::Join(c) | Op::Inner(c) => (JoinKind::Inner, c),
            Op::Left(c) | Op::LeftOuter(c) => (JoinKind::Left, c),
            Op::Right(c) | Op::RightOuter(c) => (JoinKind::Right, c),
            Op::FullOuter(c) => (JoinKind::Full, c),
            Op::CrossJoin(c) => (JoinKind::Cross, c),
            Op::Semi(c) | Op::LeftSemi(c) => (JoinKind::LeftSemi, c),
            Op::Anti(c) | Op::LeftAnti(c) => (JoinKind::LeftAnti, c),
            other => {
                return Err(unsupported(
                    format!("this kind of join ({other:?})"),
                    right.span(),
                ));
            }
        };
        let condition = match constraint {
            ast::JoinConstraint::On(condition) => JoinCondition::On(lower(condition)?),
            ast::JoinConstraint::Using(names) => {
                let names = names
                    .into_iter()
                    .map(|n| object_name(n).map(|parts| parts.join(".")));
                JoinCondition::Using(names.collect::<Result<_>>()?)
            }
            ast::JoinConstraint::Natural => JoinCondition::Natural,
            ast::JoinConstraint::None => JoinCondition::None,
        };
        plan = joined(plan, table_factor(right)?, kind, condition);
    }
    Ok(plan)
}

fn table_factor(factor: ast::TableFactor) -> Result<Plan> {
    descend(|| table_factor_inner(factor))
}

fn table_factor_inner(factor: ast::TableFactor) -> Result<Plan> {
    let span = factor.span();
    match factor {
        ast::TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            let at = name.0.last().map_or(start(span), |last| start(last.span()));
            let mut name = object_name(name)?;
            let stream = name.first().is_some_and(|first| first == STREAM);
            if stream {
                name.remove(0);
            }
            if let Some(ast::TableFunctionArgs { args, settings }) = args {
                refuse(settings.is_some() || stream, "this option of a table")?;
                return aliased(sampled(generated(name, args, span)?, sample)?, alias);
            }
            refuse(version.is_some(), "a version of a table")?;
            let hints = !with_hints.is_empty() || !index_hints.is_empty() || json_path.is_some();
            refuse(
                hints || with_ordinality || !partitions.is_empty(),
                "this option of a table",
            )?;
            let table = Plan::Table {
                name,
                place: at,
                stream,
            };
            aliased(sampled(table, sample)?, alias)
        }
        ast::TableFactor::Derived {
            lateral,
            subquery,
            alias,
            sample,
        } => {
            let rows = aliased(sampled(query(*subquery)?, sample)?, alias)?;
            Ok(match lateral {
                true => Plan::Lateral {
                    input: Box::new(rows),
                },
                false => rows,
            })
        }
        ast::TableFactor::Function {
            lateral,
            name,
            args,
            with_ordinality,
            alias,
        } => {
            refuse(with_ordinality, "WITH ORDINALITY")?;
            let rows = aliased(generated(object_name(name)?, args, span)?, alias)?;
            Ok(match lateral {
                true => Plan::Lateral {
                    input: Box::new(rows),
                },
                false => rows,
            })
        }
        ast::TableFactor::NestedJoin {
            table_with_joins: inner,
            alias,
        } => aliased(table_with_joins(*inner)?, alias),
        ast::TableFactor::Pivot {
            table,
            aggregate_functions,
            value_column,
            value_source,
            default_on_null,
            alias,
        } => {
            refuse(default_on_null.is_some(), "DEFAULT ON NULL")?;
            let ast::PivotValueSource::List(values) = value_source else {
                return Err(unsupported("PIVOT without a list of values", span));
            };
            let mut columns = all(value_column)?;
            if let [Expr::Tuple(several)] = columns.as_mut_slice() {
                columns = std::mem::take(several);
            }
            let pivot = Plan::Pivot {
                input: Box::new(table_factor(*table)?),
                aggregates: named_all(aggregate_functions)?,
                columns,
                values: named_all(values)?,
            };
            aliased(pivot, alias)
        }
        ast::TableFactor::Unpivot {
            table,
            value,
            name,
            columns,
            null_inclusion,
            alias,
        } => {
            let several = |expr: ast::Expr| -> Result<Vec<Expr>> {
                Ok(match lower(expr)? {
                    Expr::Tuple(several) => several,
                    one => vec![one],
                })
            };
            let named = |expr: Expr| match expr {
                Expr::Column { name, .. } if name.len() == 1 => Ok(name.into_iter().collect()),
                _ => Err(unsupported("UNPIVOT into anything but a name", span)),
            };
            let values = several(value)?.into_iter().map(named);
            let columns = columns
                .into_iter()
                .map(|ast::ExprWithAlias { expr, alias }| {
                    Ok((several(expr)?, alias.map(|alias| alias.value)))
                });
            let unpivot = Plan::Unpivot {
                input: Box::new(table_factor(*table)?),
                values: values.collect::<Result<_>>()?,
                name: name.value,
                columns: columns.collect::<Result<_>>()?,
                nulls: null_inclusion == Some(ast::NullInclusion::IncludeNulls),
            };
            aliased(unpivot, alias)
        }
        other => Err(unsupported(format!("the relation {other}"), span)),
    }
}

fn named_all(exprs: Vec<ast::ExprWithAlias>) -> Result<Vec<Expr>> {
    let exprs = exprs.into_iter().map(|ast::ExprWithAlias { expr, alias }| {
        let expr = lower(expr)?;
        Ok(match alias {
            Some(alias) => expr.alias(alias.value),
            None => expr,
        })
    });
    exprs.collect()
}

/// The rows of a table function, which is a generator.
fn generated(name: Vec<String>, args: Vec<ast::FunctionArg>, span: Span) -> Result<Plan> {
    let known = |name: &String| functions::is_generator(&name.to_lowercase());
    let [function] = name.as_slice() else {
        let what = format!("the table function {}", name.join("."));
        return Err(unsupported(what, span));
    };
    let range = function.eq_ignore_ascii_case("range").then_some(RANGE);
    if range.is_none() && !known(function) {
        return Err(unsupported(format!("the table function {function}"), span));
    }
    Ok(Plan::Project {
        input: Box::new(Plan::OneRow),
        outputs: vec![lower(call_of(range.unwrap_or(function), args, span))?],
    })
}

fn aliased(input: Plan, alias: Option<ast::TableAlias>) -> Result<Plan> {
    let Some(alias) = alias else { return Ok(input) };
    let (name, columns) = table_alias(alias)?;
    relation::aliased(input, name, columns)
}

fn table_alias(alias: ast::TableAlias) -> Result<(String, Vec<String>)> {
    let ast::TableAlias {
        explicit: _,
        name,
        columns,
        at,
    } = alias;
    refuse(at.is_some(), "AT")?;
    let columns = columns
        .into_iter()
        .map(|ast::TableAliasColumnDef { name, data_type }| {
            refuse(data_type.is_some(), "a type in an alias")?;
            Ok(name.value)
        });
    Ok((name.value, columns.collect::<Result<_>>()?))
}
