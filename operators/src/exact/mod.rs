//! Sums, averages and statistics of doubles that do not depend on the order of the rows.
//!
//! Floating-point addition is not associative, so a sum computed by four workers differs from the sum computed by one,
//! and a replayed epoch from the first run. These functions add without rounding and round once.

mod accumulate;
mod expansion;
mod gathered;
mod moments;
mod one;
#[cfg(test)]
mod tests;
mod wide;

pub use moments::moments;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};

use accumulate::{Distinct, ExactGroups, Running};
use one::{Grouped, One};

/// What is made of the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Sum,
    Average,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    name: &'static str,
    answer: Answer,
    signature: Signature,
}

fn function(name: &'static str, answer: Answer) -> Arc<AggregateUDF> {
    let types = vec![DataType::Float64, DataType::Float32];
    Arc::new(AggregateUDF::new_from_impl(Exact {
        name,
        answer,
        signature: Signature::uniform(1, types, Volatility::Immutable),
    }))
}

/// `exact_sum(x)`: the sum of doubles or floats, as a double, rounded once. Null if there are no values.
pub fn exact_sum() -> Arc<AggregateUDF> {
    function("exact_sum", Answer::Sum)
}

/// `exact_avg(x)`: the exact sum of doubles or floats, rounded and divided by their number. Null if there are none.
pub fn exact_avg() -> Arc<AggregateUDF> {
    function("exact_avg", Answer::Average)
}

/// All functions of this module.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let mut all = vec![exact_sum(), exact_avg()];
    all.extend(moments());
    all
}

/// Whether the function of that name is one of them.
pub(crate) fn is_exact(name: &str) -> bool {
    name.starts_with("exact_")
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Float64 | DataType::Float32] => Ok(DataType::Float64),
            _ => exec_err!("{} takes one float or double, not {types:?}", self.name),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, data_type: DataType| -> FieldRef {
            Arc::new(Field::new(
                format_state_name(args.name, name),
                data_type,
                true,
            ))
        };
        let mut fields = vec![field("parts", accumulate::list_type())];
        if !args.is_distinct && self.answer == Answer::Average {
            fields.push(field("count", DataType::Int64));
        }
        Ok(fields)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(if args.is_distinct {
            Box::new(Distinct::new(self.answer))
        } else {
            Box::new(One::<ExactGroups>::new(self.answer))
        })
    }

    /// Of distinct values: takes what a state lists, and has it taken back.
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Ok(Box::new(Running::new(self.answer)));
        }
        self.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(ExactGroups::of(self.answer)))
    }
}
