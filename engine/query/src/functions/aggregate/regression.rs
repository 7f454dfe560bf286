//! Linear regression: sums over the rows in which both values are known, and what follows from them.

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use std::sync::Arc;

use super::Call;
use crate::error::QueryError;
use crate::functions::conditional;
use crate::functions::kernel::{Can, Kernel, Typed};

type Result<T> = std::result::Result<T, QueryError>;

impl Call<'_> {
    pub(super) fn regression(mut self) -> Result<Typed> {
        let [y, x] = self.args()?;
        let y = self.as_type(0, y, &DataType::Float64)?;
        let x = self.as_type(1, x, &DataType::Float64)?;
        self.wanted.distinct = false;
        let known = |value: &Typed| conditional::not(conditional::is_null(value.clone()));
        let both = conditional::and(known(&y), known(&x));
        let of_both = |value: Typed| {
            let none = Typed::null(&value.data_type);
            conditional::case(vec![(both.clone(), value)], none)
        };
        let (y, x) = (of_both(y), of_both(x));
        let double = |name: &str, args: Vec<Typed>| self.named(name, args, DataType::Float64);
        let count = || self.named("count", vec![y.clone()], DataType::Int64);
        let of_x = |name: &str| double(name, vec![x.clone()]);
        let of_y = |name: &str| double(name, vec![y.clone()]);
        let covariance = || double("covar_pop", vec![y.clone(), x.clone()]);
        let times = |name: &'static str, value: Typed, count: Typed| {
            let args = vec![value, count];
            Kernel::over_arrays(
                name,
                "",
                args,
                DataType::Float64,
                Can::NotFail,
                |args, rows| {
                    let value = args[0].as_primitive::<Float64Type>();
                    let count = args[1].as_primitive::<Int64Type>();
                    let product = |row| {
                        value
                            .is_valid(row)
                            .then(|| value.value(row) * count.value(row) as f64)
                    };
                    Ok(Arc::new((0..rows).map(product).collect::<Float64Array>()))
                },
            )
        };
        Ok(match self.name {
            "regr_count" => count()?,
            "regr_avgx" => of_x("avg")?,
            "regr_avgy" => of_y("avg")?,
            "regr_sxx" => times("regr_sxx", of_x("var_pop")?, count()?),
            "regr_syy" => times("regr_syy", of_y("var_pop")?, count()?),
            "regr_sxy" => times("regr_sxy", covariance()?, count()?),
            "regr_slope" => line("regr_slope", vec![covariance()?, of_x("var_pop")?]),
            "regr_r2" => line(
                "regr_r2",
                vec![covariance()?, of_x("var_pop")?, of_y("var_pop")?],
            ),
            "regr_intercept" => line(
                "regr_intercept",
                vec![covariance()?, of_x("var_pop")?, of_y("avg")?, of_x("avg")?],
            ),
            name => return Err(crate::functions::unknown(name)),
        })
    }
}

/// What follows from covariance and variances; nothing where all x are the same.
fn line(name: &'static str, parts: Vec<Typed>) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        parts,
        DataType::Float64,
        Can::NotFail,
        move |args, rows| {
            let parts: Vec<&Float64Array> = args
                .iter()
                .map(|a| a.as_primitive::<Float64Type>())
                .collect();
            let answer = |row: usize| {
                if parts.iter().any(|part| part.is_null(row)) {
                    return None;
                }
                let part = |nth: usize| parts[nth].value(row);
                let (covariance, of_x) = (part(0), part(1));
                match name {
                    _ if of_x == 0.0 => None,
                    "regr_slope" => Some(covariance / of_x),
                    "regr_intercept" => Some(part(2) - covariance / of_x * part(3)),
                    _ if part(2) == 0.0 => Some(1.0),
                    _ => Some(covariance * covariance / (of_x * part(2))),
                }
            };
            Ok(Arc::new((0..rows).map(answer).collect::<Float64Array>()))
        },
    )
}
