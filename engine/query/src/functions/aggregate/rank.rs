//! What is asked of sorted values, of a list of them or of those that are there while rows come and go; and the
//! aggregate that answers several such questions about the same values, whose state is their list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::{SortOptions, filter, is_not_null, sort};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr as DfExpr, Signature, Volatility,
};

use super::ranked::{Values, values_udaf};
use super::sorted::Sorted;
use crate::functions::kernel::{Kernel, Result, Typed};
use crate::functions::nested;
use crate::types::list_of;

/// A question about the known values of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rank {
    /// Percentiles of doubles: one, or an array of them.
    Percentiles {
        at: Vec<f64>,
        array: bool,
        descending: bool,
        /// Between two of the values, or at one.
        continuous: bool,
    },
    /// The value at a percentile.
    ValueAt(f64),
    /// The value that is there most often; of several the least, or the greatest.
    Mode { greatest: bool },
}

/// Values in ascending order.
pub(super) trait Ordered {
    /// How many they are.
    fn count(&self) -> usize;
    /// The value at a place, as a double.
    fn double(&self, place: usize) -> Result<f64>;
    /// The value at a place.
    fn value(&self, place: usize) -> Result<ScalarValue>;
    /// The value that is there most often; of several the least, or the greatest.
    fn mode(&self, greatest: bool) -> Result<ScalarValue>;
}

impl Rank {
    /// The type of the answer about values of this type.
    pub(super) fn returns(&self, element: &DataType) -> DataType {
        match self {
            Rank::Percentiles { array: true, .. } => list_of(DataType::Float64),
            Rank::Percentiles { .. } => DataType::Float64,
            Rank::ValueAt(_) | Rank::Mode { .. } => element.clone(),
        }
    }

    /// The answer; null where there are no values.
    pub(super) fn answer(&self, values: &impl Ordered, element: &DataType) -> Result<ScalarValue> {
        if values.count() == 0 {
            return ScalarValue::try_new_null(&self.returns(element));
        }
        match self {
            Rank::Percentiles {
                at,
                array,
                descending,
                continuous,
            } => {
                let mut found = at
                    .iter()
                    .map(|at| percentile(values, *at, *descending, *continuous));
                if !array {
                    return Ok(ScalarValue::Float64(found.next().transpose()?));
                }
                let found = found.map(|x| Ok(ScalarValue::Float64(Some(x?))));
                let found = found.collect::<Result<Vec<_>>>()?;
                Ok(ScalarValue::List(ScalarValue::new_list_nullable(
                    &found,
                    &DataType::Float64,
                )))
            }
            Rank::ValueAt(at) => {
                let place = (at * values.count() as f64).ceil() as usize;
                values.value(place.saturating_sub(1).min(values.count() - 1))
            }
            Rank::Mode { greatest } => values.mode(*greatest),
        }
    }
}

/// Where a percentile is: between two of the values (`continuous`), or at one.
fn percentile(values: &impl Ordered, at: f64, descending: bool, continuous: bool) -> Result<f64> {
    let count = values.count();
    let value = |place: usize| {
        let place = place.min(count - 1);
        values.double(if descending { count - 1 - place } else { place })
    };
    if !continuous {
        return value(((at * count as f64).ceil() as usize).saturating_sub(1));
    }
    let position = (count - 1) as f64 * at;
    let (low, high) = (position.floor(), position.ceil());
    let (below, above) = (value(low as usize)?, value(high as usize)?);
    if low == high || below == above {
        return Ok(below);
    }
    Ok((high - position) * below + (position - low) * above)
}

/// The known values of a list, sorted.
pub(super) struct List(ArrayRef);

impl List {
    pub(super) fn of(values: &ArrayRef) -> Result<Self> {
        let known = match values.null_count() {
            0 => Arc::clone(values),
            _ => filter(values, &is_not_null(values)?)?,
        };
        Ok(List(sort(&known, Some(SortOptions::default()))?))
    }
}

impl Ordered for List {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn double(&self, place: usize) -> Result<f64> {
        match self.0.as_primitive_opt::<Float64Type>() {
            Some(values) => Ok(values.value(place)),
            None => Err(not_doubles(self.0.data_type())),
        }
    }

    fn value(&self, place: usize) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0, place)
    }

    fn mode(&self, greatest: bool) -> Result<ScalarValue> {
        let runs = arrow::compute::partition(std::slice::from_ref(&self.0))?.ranges();
        let longest = runs.iter().enumerate().max_by_key(|(nth, run)| {
            let nth = *nth as i64;
            (run.len(), if greatest { nth } else { -nth })
        });
        self.value(longest.map_or(0, |(_, run)| run.start))
    }
}

fn not_doubles(found: &DataType) -> DataFusionError {
    DataFusionError::Internal(format!("percentiles of {found}"))
}

/// What `call` asks of which values, and their type, if that is what it does.
pub(crate) fn asked(call: &ScalarFunction) -> Option<(&Rank, &AggregateFunction, &DataType)> {
    let (rank, element) = call.func.inner().downcast_ref::<Kernel>()?.rank()?;
    let [DfExpr::AggregateFunction(values)] = call.args.as_slice() else {
        return None;
    };
    values.func.inner().downcast_ref::<Values>()?;
    Some((rank, values, element))
}

/// The call that answers all these questions of the values of `call` at once.
pub(crate) fn at_once(call: &AggregateFunction, ranks: Vec<Rank>) -> DfExpr {
    let ranks = AggregateUDF::new_from_impl(Ranks {
        ranks: ranks.into(),
        values: values_udaf(),
        converter: OnceLock::new(),
    });
    DfExpr::AggregateFunction(AggregateFunction {
        func: Arc::new(ranks),
        params: call.params.clone(),
    })
}

/// The answer to one of them, in the column of all.
pub(crate) fn answer(all: DfExpr, nth: usize, ranks: &[Rank], element: &DataType) -> DfExpr {
    let all = Typed::new(all, DataType::Struct(fields(ranks, element)));
    nested::nth_field(all, nth).expr
}

fn fields(ranks: &[Rank], element: &DataType) -> Fields {
    let fields = ranks.iter().enumerate().map(|(nth, rank)| {
        let returns = rank.returns(element);
        Field::new(format!("c{nth}"), returns, true)
    });
    fields.collect()
}

#[derive(Debug)]
struct Ranks {
    ranks: Arc<[Rank]>,
    values: Arc<AggregateUDF>,
    converter: OnceLock<Arc<RowConverter>>,
}

impl PartialEq for Ranks {
    fn eq(&self, other: &Self) -> bool {
        self.ranks == other.ranks
    }
}

impl Eq for Ranks {}

impl std::hash::Hash for Ranks {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        format!("{:?}", self.ranks).hash(state);
    }
}

impl Ranks {
    fn asks(&self, args: &AccumulatorArgs) -> Result<Asks> {
        let element = args.expr_fields[0].data_type().clone();
        Ok(Asks {
            ranks: Arc::clone(&self.ranks),
            fields: fields(&self.ranks, &element),
            element,
        })
    }
}

impl AggregateUDFImpl for Ranks {
    fn name(&self) -> &str {
        "ranks"
    }

    fn signature(&self) -> &Signature {
        static ANY: std::sync::LazyLock<Signature> =
            std::sync::LazyLock::new(|| Signature::any(1, Volatility::Immutable));
        &ANY
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        let element = args.first().cloned().unwrap_or(DataType::Null);
        Ok(DataType::Struct(fields(&self.ranks, &element)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Listed {
            asks: self.asks(&args)?,
            values: self.values.inner().accumulator(args)?,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.values.state_fields(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let asks = self.asks(&args)?;
        let converter = match self.converter.get() {
            Some(converter) => Arc::clone(converter),
            None => {
                let fields = vec![SortField::new(asks.element.clone())];
                let made = Arc::new(RowConverter::new(fields)?);
                Arc::clone(self.converter.get_or_init(|| made))
            }
        };
        let distinct = args.is_distinct;
        Ok(match asks.element == DataType::Float64 {
            true => Box::new(Running::<Double>::new(asks, converter, distinct)),
            false => Box::new(Running::<Box<[u8]>>::new(asks, converter, distinct)),
        })
    }
}

#[derive(Debug, Clone)]
struct Asks {
    ranks: Arc<[Rank]>,
    fields: Fields,
    element: DataType,
}

impl Asks {
    fn answers(&self, values: &impl Ordered) -> Result<ScalarValue> {
        let answers = self.ranks.iter().zip(&self.fields).map(|(rank, field)| {
            let answer = rank.answer(values, &self.element)?.to_array()?;
            match answer.data_type() == field.data_type() {
                true => Ok(answer),
                false => Ok(arrow::compute::cast(&answer, field.data_type())?),
            }
        });
        let answers = answers.collect::<Result<Vec<ArrayRef>>>()?;
        let answers = StructArray::try_new(self.fields.clone(), answers, None)?;
        Ok(ScalarValue::Struct(Arc::new(answers)))
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
            _ => arrow::array::new_empty_array(&self.asks.element),
        };
        self.asks.answers(&List::of(&list)?)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}

/// A value in a form that compares as the values do.
trait Key: Ord + Clone + std::fmt::Debug + Send + Sync + 'static {
    fn read(values: &ArrayRef, converter: &RowConverter, f: impl FnMut(Self)) -> Result<()>;
    fn double(&self) -> Result<f64>;
    fn value(&self, converter: &RowConverter) -> Result<ScalarValue>;
    fn bytes(&self) -> usize;
}

/// The bits of a double, negative ones turned so that they compare as numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Double(i64);

fn turned(bits: i64) -> i64 {
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

impl Key for Double {
    fn read(values: &ArrayRef, _: &RowConverter, mut f: impl FnMut(Self)) -> Result<()> {
        let Some(values) = values.as_primitive_opt::<Float64Type>() else {
            return Err(not_doubles(values.data_type()));
        };
        let known = values.iter().flatten();
        known.for_each(|x| f(Double(turned(x.to_bits() as i64))));
        Ok(())
    }

    fn double(&self) -> Result<f64> {
        Ok(f64::from_bits(turned(self.0) as u64))
    }

    fn value(&self, _: &RowConverter) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(Some(self.double()?)))
    }

    fn bytes(&self) -> usize {
        size_of_val(self)
    }
}

impl Key for Box<[u8]> {
    fn read(values: &ArrayRef, converter: &RowConverter, mut f: impl FnMut(Self)) -> Result<()> {
        let rows = converter.convert_columns(std::slice::from_ref(values))?;
        let known = values.logical_nulls();
        for (row, bytes) in rows.iter().enumerate() {
            if known.as_ref().is_none_or(|known| known.is_valid(row)) {
                f(bytes.as_ref().into());
            }
        }
        Ok(())
    }

    fn double(&self) -> Result<f64> {
        Err(not_doubles(&DataType::Binary))
    }

    fn value(&self, converter: &RowConverter) -> Result<ScalarValue> {
        let row = converter.parser();
        let columns = converter.convert_rows([row.parse(self)])?;
        ScalarValue::try_from_array(&columns[0], 0)
    }

    fn bytes(&self) -> usize {
        size_of_val(self) + self.len()
    }
}

/// The values that are there, sorted, while rows come and go.
#[derive(Debug)]
struct Running<K> {
    asks: Asks,
    converter: Arc<RowConverter>,
    /// Each value counts once.
    distinct: bool,
    values: Sorted<K>,
    /// The values that are there so often, if the most frequent is asked for.
    often: Option<BTreeMap<u32, BTreeSet<K>>>,
    bytes: usize,
}

impl<K: Key> Running<K> {
    fn new(asks: Asks, converter: Arc<RowConverter>, distinct: bool) -> Self {
        let mode = |rank: &Rank| matches!(rank, Rank::Mode { .. });
        Running {
            often: asks.ranks.iter().any(mode).then(BTreeMap::new),
            asks,
            converter,
            distinct,
            values: Sorted::new(distinct),
            bytes: 0,
        }
    }

    /// A value is there `now` times, and was there `before`.
    fn counted(&mut self, value: K, before: u32, now: u32) {
        let bytes = value.bytes();
        match (before, now) {
            (0, _) => self.bytes += bytes,
            (_, 0) => self.bytes -= bytes,
            _ => {}
        }
        let Some(often) = &mut self.often else {
            return;
        };
        // Of distinct values each is there once.
        let times = |times: u32| if self.distinct { times.min(1) } else { times };
        let (before, now) = (times(before), times(now));
        if before == now {
            return;
        }
        if let Some(same) = often.get_mut(&before) {
            same.remove(&value);
            if same.is_empty() {
                often.remove(&before);
            }
        }
        if now > 0 {
            often.entry(now).or_default().insert(value);
        }
    }
}

impl<K: Key> Ordered for Running<K> {
    fn count(&self) -> usize {
        self.values.len()
    }

    fn double(&self, place: usize) -> Result<f64> {
        self.at(place)?.double()
    }

    fn value(&self, place: usize) -> Result<ScalarValue> {
        self.at(place)?.value(&self.converter)
    }

    fn mode(&self, greatest: bool) -> Result<ScalarValue> {
        let most = self.often.as_ref().and_then(|often| often.last_key_value());
        let found = most.and_then(|(_, most)| if greatest { most.last() } else { most.first() });
        match found {
            Some(value) => value.value(&self.converter),
            None => ScalarValue::try_new_null(&self.asks.element),
        }
    }
}

impl<K: Key> Running<K> {
    fn at(&self, place: usize) -> Result<&K> {
        let missing = || DataFusionError::Internal(format!("no value at {place}"));
        self.values.nth(place).ok_or_else(missing)
    }
}

impl<K: Key> Accumulator for Running<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let converter = Arc::clone(&self.converter);
        K::read(&values[0], &converter, |value| {
            let now = self.values.insert(value.clone());
            self.counted(value, now - 1, now);
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let converter = Arc::clone(&self.converter);
        let mut missing = false;
        K::read(&values[0], &converter, |value| {
            match self.values.remove(&value) {
                None => missing = true,
                Some(now) => self.counted(value, now + 1, now),
            }
        })?;
        match missing {
            false => Ok(()),
            true => Err(DataFusionError::Internal(
                "a value leaves that is not there".into(),
            )),
        }
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.asks.answers(self)
    }

    fn size(&self) -> usize {
        let often = if self.often.is_some() { self.bytes } else { 0 };
        size_of_val(self) + self.values.bytes() + self.bytes + often
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(DataFusionError::NotImplemented(
            "the state of values that come and go".into(),
        ))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        let known = (0..lists.len()).filter(|row| lists.is_valid(*row));
        known
            .map(|row| self.update_batch(&[lists.value(row)]))
            .collect()
    }
}
