//! Variances, correlations, regressions and the shapes of distributions, which do not depend on the order of the rows.
//!
//! All are made of sums of powers and products. These are kept exactly, and so is what is made of them up to the powers
//! of the distances to the mean: nothing cancels that was rounded before. From there on the formulas are Spark's, so
//! they leave the range of a double where its do.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};

use super::gathered::{Gathered, GatheredDistinct, list_type};
use super::one::{Grouped, One};
use super::wide::{Parts, Wide, product, square};

/// What is asked of the rows. Of two values the first is `y` and the second `x`, as in a regression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Moment {
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    Skewness,
    Kurtosis,
    CovarSamp,
    CovarPop,
    Corr,
    RegrCount,
    RegrAvgX,
    RegrAvgY,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    RegrSlope,
    RegrIntercept,
    RegrR2,
}

const ALL: [(&str, Moment); 18] = [
    ("exact_var_samp", Moment::VarSamp),
    ("exact_var_pop", Moment::VarPop),
    ("exact_stddev_samp", Moment::StddevSamp),
    ("exact_stddev_pop", Moment::StddevPop),
    ("exact_skewness", Moment::Skewness),
    ("exact_kurtosis", Moment::Kurtosis),
    ("exact_covar_samp", Moment::CovarSamp),
    ("exact_covar_pop", Moment::CovarPop),
    ("exact_corr", Moment::Corr),
    ("exact_regr_count", Moment::RegrCount),
    ("exact_regr_avgx", Moment::RegrAvgX),
    ("exact_regr_avgy", Moment::RegrAvgY),
    ("exact_regr_sxx", Moment::RegrSxx),
    ("exact_regr_syy", Moment::RegrSyy),
    ("exact_regr_sxy", Moment::RegrSxy),
    ("exact_regr_slope", Moment::RegrSlope),
    ("exact_regr_intercept", Moment::RegrIntercept),
    ("exact_regr_r2", Moment::RegrR2),
];

/// `exact_` and the name of each statistic of one double, or of two, that SQL knows.
pub fn moments() -> Vec<Arc<AggregateUDF>> {
    let all = ALL.iter().map(|(name, moment)| {
        let types = vec![DataType::Float64];
        Arc::new(AggregateUDF::new_from_impl(Statistic {
            name,
            moment: *moment,
            signature: Signature::uniform(moment.values(), types, Volatility::Immutable),
        }))
    });
    all.collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Statistic {
    name: &'static str,
    moment: Moment,
    signature: Signature,
}

impl AggregateUDFImpl for Statistic {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let doubles = types.iter().all(|one| *one == DataType::Float64);
        if types.len() != self.moment.values() || !doubles {
            let (name, count) = (self.name, self.moment.values());
            return exec_err!("{name} takes {count} doubles, not {types:?}");
        }
        Ok(match self.moment {
            Moment::RegrCount => DataType::Int64,
            _ => DataType::Float64,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, data_type: DataType| -> FieldRef {
            let name = format_state_name(args.name, name);
            Arc::new(Field::new(name, data_type, true))
        };
        if args.is_distinct {
            return Ok(vec![field("values", list_type())]);
        }
        Ok(vec![
            field("count", DataType::Int64),
            field("special", DataType::Int64),
            field("sums", DataType::Binary),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match args.is_distinct {
            true => Box::new(GatheredDistinct::new(self.moment)),
            false => Box::new(One::<Gathered>::new(self.moment)),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Gathered::of(self.moment)))
    }
}

/// Which values that are no numbers were there, as bits: those of y are three higher.
const NAN: i64 = 1;
const INFINITY: i64 = 2;
const NEGATIVE_INFINITY: i64 = 4;
const OF_X: i64 = 7;
const OF_Y: i64 = OF_X << 3;

fn special(x: f64) -> i64 {
    match x {
        x if x.is_nan() => NAN,
        f64::INFINITY => INFINITY,
        f64::NEG_INFINITY => NEGATIVE_INFINITY,
        _ => 0,
    }
}

/// The sum of such values.
fn of_special(seen: i64) -> f64 {
    match seen {
        INFINITY => f64::INFINITY,
        NEGATIVE_INFINITY => f64::NEG_INFINITY,
        _ => f64::NAN,
    }
}

impl Moment {
    /// How many values it takes.
    pub(super) fn values(self) -> usize {
        use Moment::*;
        match self {
            VarSamp | VarPop | StddevSamp | StddevPop | Skewness | Kurtosis => 1,
            _ => 2,
        }
    }

    /// How many sums it is made of: of one value, of its powers; of two, of x, y, their product, their squares.
    pub(super) fn sums(self) -> usize {
        use Moment::*;
        match self {
            RegrCount => 0,
            VarSamp | VarPop | StddevSamp | StddevPop => 2,
            Skewness => 3,
            Kurtosis => 4,
            RegrAvgX | RegrAvgY => 2,
            CovarSamp | CovarPop | RegrSxy => 3,
            Corr | RegrSxx | RegrSyy | RegrSlope | RegrIntercept | RegrR2 => 5,
        }
    }

    /// Adds a value to its sums; returns which it is of those that are no numbers.
    #[inline(always)]
    pub(super) fn add_one(self, sums: &mut [Wide], x: f64) -> i64 {
        if !x.is_finite() {
            return special(x);
        }
        let of_x = Parts::of(x);
        let (m, e, negative) = (of_x.mantissa, of_x.exponent, of_x.negative);
        if m == 0 {
            return 0;
        }
        sums[0].add([m], e, negative);
        let second = square(m, m);
        sums[1].add(second, 2 * e, false);
        if let Some(third) = sums.get_mut(2) {
            let [a, b, c, _] = product(second, [m, 0]);
            third.add([a, b, c], 3 * e, negative);
        }
        if let Some(fourth) = sums.get_mut(3) {
            fourth.add(product(second, second), 4 * e, false);
        }
        0
    }

    /// The same of a pair of values.
    #[inline(always)]
    pub(super) fn add_two(self, sums: &mut [Wide], y: f64, x: f64) -> i64 {
        let seen = special(x) | special(y) << 3;
        if sums.is_empty() {
            return seen;
        }
        let (of_x, of_y) = (Parts::of(x), Parts::of(y));
        let squares = sums.len() > 3;
        if seen & OF_X == 0 && of_x.mantissa != 0 {
            let m = of_x.mantissa;
            sums[0].add([m], of_x.exponent, of_x.negative);
            if squares {
                sums[3].add(square(m, m), 2 * of_x.exponent, false);
            }
        }
        if seen & OF_Y == 0 && of_y.mantissa != 0 {
            let m = of_y.mantissa;
            sums[1].add([m], of_y.exponent, of_y.negative);
            if squares {
                sums[4].add(square(m, m), 2 * of_y.exponent, false);
            }
        }
        if seen == 0 && sums.len() > 2 && of_x.mantissa != 0 && of_y.mantissa != 0 {
            let negative = of_x.negative != of_y.negative;
            let magnitude = square(of_x.mantissa, of_y.mantissa);
            sums[2].add(magnitude, of_x.exponent + of_y.exponent, negative);
        }
        seen
    }

    /// The answers of groups.
    pub(super) fn answers<'s>(self, groups: impl Iterator<Item = Option<Group<'s>>>) -> ArrayRef {
        match self {
            Moment::RegrCount => {
                let counts = groups.map(|group| group.map_or(0, |group| group.count));
                Arc::new(Int64Array::from_iter_values(counts))
            }
            _ => {
                let answers = groups.map(|group| self.answer(&group?));
                Arc::new(answers.collect::<Float64Array>())
            }
        }
    }

    /// The answer of a group that is not empty.
    fn answer(self, group: &Group<'_>) -> Option<f64> {
        use Moment::*;
        let n = group.n;
        let many = group.count > 1;
        // What the sum over the rows leaves; nothing where there is one row, and none to spare.
        let of_sample = |sum: f64| many.then(|| sum / (n - 1.0));
        match self {
            VarSamp => of_sample(group.m2()),
            VarPop => Some(group.m2() / n),
            StddevSamp => of_sample(group.m2()).map(f64::sqrt),
            StddevPop => Some((group.m2() / n).sqrt()),
            Skewness => {
                let m2 = group.m2();
                if m2.is_infinite() {
                    return Some(f64::NAN);
                }
                quotient(n.sqrt() * group.m3(), (m2 * m2 * m2).sqrt()).filter(|_| m2 != 0.0)
            }
            Kurtosis => {
                let m2 = group.m2();
                let shape = quotient(n * group.m4(), m2 * m2).filter(|_| m2 != 0.0);
                shape.map(|shape| shape - 3.0)
            }
            CovarSamp => of_sample(group.cxy()),
            CovarPop => Some(group.cxy() / n),
            Corr => group.corr(),
            RegrCount => None,
            RegrAvgX => Some(group.avg(OF_X)),
            RegrAvgY => Some(group.avg(OF_Y)),
            RegrSxx => Some(group.cxx()),
            RegrSyy => Some(group.cyy()),
            RegrSxy => Some(group.cxy()),
            RegrSlope => group.slope(),
            RegrIntercept => {
                let slope = group.slope()?;
                Some(group.avg(OF_Y) - slope * group.avg(OF_X))
            }
            RegrR2 if group.cxx() == 0.0 => None,
            RegrR2 if group.cyy() == 0.0 => Some(1.0),
            // One row is no division by zero here if it is no number.
            RegrR2 => {
                quotient(group.cxy(), (group.cxx() * group.cyy()).sqrt()).map(|corr| corr * corr)
            }
        }
    }
}

/// A division by zero is unknown.
fn quotient(a: f64, b: f64) -> Option<f64> {
    (b != 0.0).then(|| a / b)
}

/// What is known of the rows of a group.
pub(super) struct Group<'s> {
    count: i64,
    n: f64,
    special: i64,
    sums: &'s [Wide],
}

impl<'s> Group<'s> {
    /// One of so many rows; none if there are none.
    pub(super) fn of(count: i64, special: i64, sums: &'s [Wide]) -> Option<Self> {
        (count > 0).then_some(Group {
            count,
            n: count as f64,
            special,
            sums,
        })
    }

    /// The sum over the rows of the products of two distances to the mean: of the sum of products, and the two sums.
    fn central(&self, products: usize, a: usize, b: usize, seen: i64) -> f64 {
        if self.special & seen != 0 {
            return f64::NAN;
        }
        let mut total = self.sums[products].times(&Wide::whole(self.count));
        let mean = self.sums[a].times(&self.sums[b]);
        total.merge(&mean.times(&Wide::whole(-1)));
        total.over(self.n)
    }

    /// The squares of the distances of one value to the mean.
    fn m2(&self) -> f64 {
        self.central(1, 0, 0, OF_X)
    }

    /// The third powers of these distances.
    fn m3(&self) -> f64 {
        if self.special != 0 {
            return f64::NAN;
        }
        let [s1, s2, s3, ..] = self.sums else {
            unreachable!("skewness keeps three sums");
        };
        let n = Wide::whole(self.count);
        // n^2 m3 = n^2 s3 - 3 n s1 s2 + 2 s1^3
        let mut total = n.times(&n).times(s3);
        total.merge(&n.times(&Wide::whole(-3)).times(&s1.times(s2)));
        total.merge(&Wide::whole(2).times(&s1.times(s1).times(s1)));
        total.over(self.n * self.n)
    }

    /// The fourth powers of these distances.
    fn m4(&self) -> f64 {
        if self.special != 0 {
            return f64::NAN;
        }
        let [s1, s2, s3, s4] = self.sums else {
            unreachable!("kurtosis keeps four sums");
        };
        let (n, square) = (Wide::whole(self.count), s1.times(s1));
        let n2 = n.times(&n);
        // n^3 m4 = n^3 s4 - 4 n^2 s1 s3 + 6 n s1^2 s2 - 3 s1^4
        let mut total = n2.times(&n).times(s4);
        total.merge(&n2.times(&Wide::whole(-4)).times(&s1.times(s3)));
        total.merge(&n.times(&Wide::whole(6)).times(&square.times(s2)));
        total.merge(&square.times(&square).times(&Wide::whole(-3)));
        total.over(self.n * self.n * self.n)
    }

    fn cxy(&self) -> f64 {
        self.central(2, 0, 1, OF_X | OF_Y)
    }

    fn cxx(&self) -> f64 {
        self.central(3, 0, 0, OF_X)
    }

    fn cyy(&self) -> f64 {
        self.central(4, 1, 1, OF_Y)
    }

    fn avg(&self, of: i64) -> f64 {
        let (sum, seen) = match of {
            OF_X => (0, self.special & OF_X),
            _ => (1, (self.special & OF_Y) >> 3),
        };
        match seen {
            0 => self.sums[sum].over(1.0) / self.n,
            seen => of_special(seen),
        }
    }

    fn corr(&self) -> Option<f64> {
        if self.count == 1 {
            return None;
        }
        quotient(self.cxy(), (self.cxx() * self.cyy()).sqrt())
    }

    fn slope(&self) -> Option<f64> {
        quotient(self.cxy() / self.n, self.cxx() / self.n)
    }
}
