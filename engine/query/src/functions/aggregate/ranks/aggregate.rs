//! The aggregate that answers several questions about the same values at once, in the fields of a struct.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StructArray, new_empty_array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr as DfExpr, Signature, Volatility,
};

use super::list::{List, Ranked};
use super::running::running;
use super::{Ordered, Rank};
use crate::functions::aggregate::ranked::Values;
use crate::functions::kernel::{Can, Kernel, Result, Typed};
use crate::functions::nested;

/// The aggregate that answers all of `asked` about the values of its argument, in a struct of as many fields.
pub fn ranks(asked: Vec<Rank>) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Ranks {
        asked: asked.into(),
        values: array_agg_udaf(),
    }))
}

/// What `call` asks of which values, and their type, if that is what it does.
pub(crate) fn asked(call: &ScalarFunction) -> Option<(&Rank, &AggregateFunction, &DataType)> {
    let ranked = call.func.inner().downcast_ref::<Ranked>()?;
    let [DfExpr::AggregateFunction(values)] = call.args.as_slice() else {
        return None;
    };
    values.func.inner().downcast_ref::<Values>()?;
    Some((&ranked.rank, values, &ranked.element))
}

/// The call that asks all this of the values of `call`.
pub(crate) fn at_once(call: &AggregateFunction, asked: Vec<Rank>) -> DfExpr {
    DfExpr::AggregateFunction(AggregateFunction {
        func: ranks(asked),
        params: call.params.clone(),
    })
}

/// The answer to one of the questions, in the column of all.
pub(crate) fn answer(all: DfExpr, nth: usize, rank: &Rank, element: &DataType) -> DfExpr {
    // The type of the column is not known before all has been asked.
    let all = Typed::new(all, DataType::Null);
    let returns = rank.returns(element);
    let (params, of) = (nth.to_string(), returns.clone());
    let answer = Kernel::over_arrays("rank", params, vec![all], returns, Can::NotFail, {
        move |args, rows| match args[0].as_struct_opt() {
            Some(all) => nested::struct_field(all, nth),
            None => Ok(new_null_array(&of, rows)),
        }
    });
    answer.expr
}

/// What an aggregate asks of its values, if that is what it does.
pub(crate) fn ranks_of(function: &AggregateUDF) -> Option<&[Rank]> {
    let ranks = function.inner().downcast_ref::<Ranks>()?;
    Some(&ranks.asked)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Ranks {
    asked: Arc<[Rank]>,
    /// Has the state.
    values: Arc<AggregateUDF>,
}

/// The questions and what they are about.
#[derive(Debug, Clone)]
pub(super) struct Asks {
    ranks: Arc<[Rank]>,
    fields: Fields,
    /// The type of the values, or of structs of one and how often it is there.
    pub(super) element: DataType,
    pub(super) weighed: bool,
}

impl Asks {
    fn new(ranks: &Arc<[Rank]>, element: &DataType) -> Self {
        let fields = ranks.iter().enumerate().map(|(nth, rank)| {
            let returns = rank.returns(element);
            Field::new(format!("c{nth}"), returns, true)
        });
        Asks {
            ranks: Arc::clone(ranks),
            fields: fields.collect(),
            element: element.clone(),
            weighed: ranks.iter().any(|rank| rank.weighs(element)),
        }
    }

    pub(super) fn answers(&self, values: &mut impl Ordered) -> Result<ScalarValue> {
        let answers = self.ranks.iter().zip(&self.fields).map(|(rank, field)| {
            let answer = rank.answer(values, &self.element)?.to_array()?;
            match answer.data_type() == field.data_type() {
                true => Ok(answer),
                false => Ok(cast(&answer, field.data_type())?),
            }
        });
        let answers = answers.collect::<Result<Vec<ArrayRef>>>()?;
        let answers = StructArray::try_new(self.fields.clone(), answers, None)?;
        Ok(ScalarValue::Struct(Arc::new(answers)))
    }
}

impl AggregateUDFImpl for Ranks {
    fn name(&self) -> &str {
        "ranks"
    }

    fn signature(&self) -> &Signature {
        static ANY: LazyLock<Signature> =
            LazyLock::new(|| Signature::any(1, Volatility::Immutable));
        &ANY
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        let asks = Asks::new(&self.asked, args.first().unwrap_or(&DataType::Null));
        Ok(DataType::Struct(asks.fields))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Listed {
            asks: Asks::new(&self.asked, args.expr_fields[0].data_type()),
            values: self.values.inner().accumulator(args)?,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.values.state_fields(args)
    }

    /// Takes what a state lists, and has it taken back.
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let asks = Asks::new(&self.asked, args.expr_fields[0].data_type());
        running(asks, args.is_distinct)
    }
}

/// All values, in a list that is sorted at the end.
#[derive(Debug)]
struct Listed {
    asks: Asks,
    values: Box<dyn Accumulator>,
}

impl Accumulator for Listed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let list = match self.values.evaluate()? {
            ScalarValue::List(list) if list.is_valid(0) => list.value(0),
            _ => new_empty_array(&self.asks.element),
        };
        let mut list = List::of(&list, self.asks.weighed)?;
        self.asks.answers(&mut list)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}
