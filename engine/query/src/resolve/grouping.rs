//! GROUPING SETS, ROLLUP and CUBE: several groupings of the same rows.
//!
//! Every row is copied once for each grouping, with the keys that the grouping lacks as NULL and a number that says
//! which they are; that number is one more key of one plain aggregation.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Cast, Expr as DfExpr, ExprSchemable, Operator, binary_expr, when};

use super::Env;
use super::aggregate::Key;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn};
use crate::error::QueryError;
use crate::expr::{Call, Expr, Groupings};
use crate::functions::kernel::Typed;
use crate::functions::{self, generator, window};

type Result<T> = std::result::Result<T, QueryError>;

/// How many groupings there may be: each copies every row.
const SETS_MAX: usize = 4096;

/// Which keys each grouping has.
pub(super) struct Sets {
    /// All keys, each once, as they are written first.
    keys: Vec<Expr>,
    /// Of each grouping, the places of its keys.
    sets: Vec<Vec<usize>>,
}

/// What `grouping` and `grouping_id` ask about.
pub(super) struct Grouping {
    /// The keys, as they are written.
    keys: Vec<DfExpr>,
    /// A bit for each key, the last key's the lowest: set where the grouping lacks it.
    id: Column,
}

impl Sets {
    /// The groupings that the keys of a GROUP BY say, if they say more than one.
    pub(super) fn of(keys: &[Expr]) -> Result<Option<Self>> {
        if !keys.iter().any(|key| matches!(key, Expr::Groupings { .. })) {
            return Ok(None);
        }
        let mut all: Vec<Expr> = vec![];
        let mut places = |set: &[Expr]| -> Vec<usize> {
            let place = |key: &Expr| match all.iter().position(|known| known == key) {
                Some(place) => place,
                None => {
                    all.push(key.clone());
                    all.len() - 1
                }
            };
            set.iter().map(place).collect()
        };
        let mut sets = vec![vec![]];
        for key in keys {
            let choices = match key {
                Expr::Groupings { kind, sets } => {
                    let sets: Vec<Vec<usize>> = sets.iter().map(|set| places(set)).collect();
                    choices(*kind, &sets)?
                }
                key => vec![places(std::slice::from_ref(key))],
            };
            // Several of them multiply.
            let product = sets.iter().flat_map(|before| {
                choices.iter().map(move |choice| {
                    let mut set: Vec<usize> = before.clone();
                    set.extend(choice.iter().filter(|key| !before.contains(key)));
                    set
                })
            });
            sets = product.collect();
            if sets.len() > SETS_MAX {
                return Err(too_many());
            }
        }
        // A row stands in each set on its own, but sessions are made of all rows of a set.
        let is_session = |expr: &Expr| matches!(expr, Expr::Call(call) if call.name.eq_ignore_ascii_case("session_window"));
        let has_one = |set: &Vec<usize>| set.iter().any(|place| all[*place].any(&is_session));
        if sets.iter().any(has_one) && !sets.iter().all(has_one) {
            return Err(QueryError::unsupported(
                "session_window in some of GROUPING SETS, ROLLUP or CUBE and not in others",
            ));
        }
        Ok(Some(Sets { keys: all, sets }))
    }
}

fn too_many() -> QueryError {
    QueryError::unsupported(format!("more than {SETS_MAX} groupings at once"))
}

fn choices(kind: Groupings, sets: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
    Ok(match kind {
        Groupings::Sets | Groupings::All => sets.to_vec(),
        Groupings::Rollup => (0..=sets.len())
            .rev()
            .map(|kept| sets[..kept].concat())
            .collect(),
        Groupings::Cube if sets.len() > 12 => return Err(too_many()),
        // All of them first, the last one varying fastest.
        Groupings::Cube => (0..1usize << sets.len())
            .map(|left_out| {
                let kept = |place: &usize| left_out >> (sets.len() - 1 - place) & 1 == 0;
                (0..sets.len())
                    .filter(kept)
                    .flat_map(|place| sets[place].clone())
                    .collect()
            })
            .collect(),
    })
}

impl Env<'_> {
    /// What `GROUP BY ALL` groups by: all that a select list has and that is no aggregate; or the keys as they are.
    pub(super) fn spelled_out(
        &self,
        input: &Relation,
        keys: &[Expr],
        outputs: &[Expr],
    ) -> Result<Vec<Expr>> {
        let all = |key: &Expr| {
            matches!(
                key,
                Expr::Groupings {
                    kind: Groupings::All,
                    ..
                }
            )
        };
        if !keys.iter().any(all) {
            return Ok(keys.to_vec());
        }
        let of_rows = |e: &Expr| matches!(e, Expr::Call(call) if call.over.is_some() || self.functions.is_aggregate(&call.name.to_lowercase()));
        let mut keys = vec![];
        for output in outputs.iter().filter(|output| !output.any(&of_rows)) {
            match output {
                Expr::Star { .. } => {
                    let exprs = Exprs::over(self, &input.columns, "GROUP BY");
                    let columns = exprs.star(output)?.into_iter();
                    keys.extend(columns.map(|(_, value)| Expr::Resolved(Box::new(value.expr))));
                }
                // No position.
                Expr::Literal(..) => keys.push(output.clone().alias("constant")),
                key => keys.push(key.clone()),
            }
        }
        Ok(keys)
    }

    /// The rows of `input` once for each grouping, and the keys to group them by.
    pub(super) fn grouped(
        &self,
        input: Relation,
        Sets { keys, sets }: Sets,
        outputs: &[Expr],
        aliases: &[(String, Expr)],
    ) -> Result<(Relation, Vec<Key>, Grouping)> {
        let keys = self.group_keys(&input, &keys, outputs, aliases)?;
        if keys.len() > 63 {
            return Err(QueryError::new(
                "GROUPING_SIZE_LIMIT_EXCEEDED",
                "Grouping sets size cannot be greater than 64.",
            ));
        }
        let mut distinct: Vec<Key> = vec![];
        let mut place_of = vec![];
        for key in keys {
            let known = distinct
                .iter()
                .position(|other| other.written == key.written);
            place_of.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(key);
            }
        }
        let keys = distinct;
        let sets: Vec<Vec<usize>> = sets
            .into_iter()
            .map(|set| set.into_iter().map(|key| place_of[key]).collect())
            .collect();
        let numbers = (0..sets.len()).map(|set| crate::expr::lit(i32::try_from(set).unwrap_or(0)));
        let call = Call {
            name: generator::GROUPINGS.into(),
            args: vec![Expr::call("array", numbers.collect())],
            ..Call::default()
        };
        let (copied, made) = self.generate(input, &call, false, &[])?;
        let Some(set) = made.into_iter().next() else {
            return Err(QueryError::unsupported("these groupings"));
        };
        let columns = copied.columns.iter();
        let mut values: Vec<(String, Typed)> = columns
            .clone()
            .map(|c| (c.column.name.clone(), c.typed()))
            .collect();
        let mut grouped = vec![];
        for (place, key) in keys.iter().enumerate() {
            let made = key.made.clone().unalias();
            let name = self.fresh("key");
            let has_it = sets.iter().map(|set| set.contains(&place));
            let in_all = sets.iter().all(|set| set.contains(&place));
            // Event time stays event time, also where some groupings lack it.
            let value = match &made {
                _ if in_all => made,
                DfExpr::Column(_) if may_be_time(&made.get_type(copied.plan.schema())?) => {
                    let time = Typed::new(made.clone(), made.get_type(copied.plan.schema())?);
                    window::in_groupings(time, set.typed(), has_it.collect()).expr
                }
                _ => where_set(&set, has_it.map(|has| has.then(|| made.clone())))?,
            };
            // Types are what the key's is: the aggregation asks the plan.
            values.push((name.clone(), Typed::new(value, DataType::Null)));
            grouped.push(Key {
                written: key.written.clone(),
                made: DfExpr::Column(Column::new_unqualified(name.clone())),
                above: Column::new_unqualified(name),
            });
        }
        let bits = |set: &Vec<usize>| {
            let bit = |place: usize| i64::from(!set.contains(&place)) << (keys.len() - 1 - place);
            (0..keys.len()).map(bit).sum::<i64>()
        };
        let ids: Vec<i64> = sets.iter().map(bits).collect();
        let id = Column::new_unqualified(self.fresh("grouping_id"));
        let literal = |n: &i64| Some(DfExpr::Literal(ScalarValue::Int64(Some(*n)), None));
        let value = where_set(&set, ids.iter().map(literal))?;
        values.push((id.name.clone(), Typed::new(value, DataType::Int64)));
        let plain = |column: &Column| Key {
            written: DfExpr::Column(column.clone()),
            made: DfExpr::Column(column.clone()),
            above: column.clone(),
        };
        grouped.push(plain(&id));
        // The same grouping twice gives its rows twice.
        let twice = (1..ids.len()).any(|nth| ids[..nth].contains(&ids[nth]));
        if twice {
            values.push((set.column.name.clone(), set.typed()));
            grouped.push(plain(&Column::new_unqualified(set.column.name.clone())));
        }
        let (plan, columns) = self.beside(copied, values)?;
        let grouping = Grouping {
            keys: keys.into_iter().map(|key| key.written).collect(),
            id,
        };
        Ok((Relation { plan, columns }, grouped, grouping))
    }

    /// All columns of `input` under their own names, then what else `values` has.
    fn beside(
        &self,
        input: Relation,
        values: Vec<(String, Typed)>,
    ) -> Result<(datafusion::logical_expr::LogicalPlan, Vec<ScopeColumn>)> {
        let known = input.columns.len();
        let exprs = values.into_iter().enumerate().map(|(i, (name, value))| {
            if i < known {
                value.expr
            } else {
                value.expr.alias(name)
            }
        });
        let projection = datafusion::logical_expr::Projection::try_new(
            exprs.collect(),
            std::sync::Arc::new(input.plan),
        )?;
        let plan = datafusion::logical_expr::LogicalPlan::Projection(projection);
        Ok((plan, input.columns))
    }
}

/// Whether a column of this type may be an event time or a window.
fn may_be_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Struct(_))
}

/// The value that belongs to the set of a row, NULL if none.
fn where_set(set: &ScopeColumn, values: impl Iterator<Item = Option<DfExpr>>) -> Result<DfExpr> {
    let mut branches: Vec<(DfExpr, Vec<DfExpr>)> = vec![];
    for (nth, value) in values.enumerate() {
        let Some(value) = value else { continue };
        let nth = DfExpr::Literal(ScalarValue::Int32(i32::try_from(nth).ok()), None);
        match branches.iter_mut().find(|(known, _)| *known == value) {
            Some((_, sets)) => sets.push(nth),
            None => branches.push((value, vec![nth])),
        }
    }
    let mut branches = branches.into_iter();
    let of_sets = |sets: Vec<DfExpr>| set.typed().expr.in_list(sets, false);
    let Some((value, sets)) = branches.next() else {
        return Ok(DfExpr::Literal(ScalarValue::Null, None));
    };
    let mut case = when(of_sets(sets), value);
    for (value, sets) in branches {
        case.when(of_sets(sets), value);
    }
    Ok(case.end()?)
}

impl Exprs<'_> {
    /// `grouping(key)` or `grouping_id(keys)`.
    pub(super) fn grouping(&self, grouping: &Grouping, name: &str, call: &Call) -> Result<Typed> {
        let id = DfExpr::Column(grouping.id.clone());
        let plain = Exprs {
            grouping: None,
            aggregates: Err("grouping"),
            over: Err("grouping"),
            ..*self
        };
        let args = call.args.iter().map(|arg| Ok(plain.resolve(arg)?.expr));
        let args = args.collect::<Result<Vec<_>>>()?;
        let listed = |exprs: &[DfExpr]| {
            let names = exprs.iter().map(functions::written);
            names.collect::<Vec<_>>().join(", ")
        };
        if name == "grouping_id" {
            if !args.is_empty() && args != grouping.keys {
                let message = format!(
                    "Columns of grouping_id ({}) does not match grouping columns ({}).",
                    listed(&args),
                    listed(&grouping.keys)
                );
                return Err(QueryError::new("GROUPING_ID_COLUMN_MISMATCH", message));
            }
            return Ok(Typed::new(id, DataType::Int64));
        }
        let [key] = args.as_slice() else {
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                format!(
                    "The `grouping` requires 1 parameters but the actual number is {}.",
                    args.len()
                ),
            ));
        };
        let Some(place) = grouping.keys.iter().position(|known| known == key) else {
            let message = format!(
                "Column of grouping ({}) can't be found in grouping columns ({}).",
                listed(&args),
                listed(&grouping.keys)
            );
            return Err(QueryError::new("GROUPING_COLUMN_MISMATCH", message));
        };
        let literal = |n: usize| DfExpr::Literal(ScalarValue::Int64(i64::try_from(n).ok()), None);
        let shift = literal(grouping.keys.len() - 1 - place);
        let bit = binary_expr(id, Operator::BitwiseShiftRight, shift);
        let bit = binary_expr(bit, Operator::BitwiseAnd, literal(1));
        let cast = Cast::new(Box::new(bit), DataType::Int8);
        Ok(Typed::new(DfExpr::Cast(cast), DataType::Int8))
    }
}
