//! Sums of doubles without rounding.
//!
//! A sum is kept as several doubles whose exact sum it is (Shewchuk, "Adaptive Precision Floating-Point Arithmetic",
//! 1997; Python's `fsum` rounds the same way). Adding cascades the rounding error of each component into the next, so
//! nothing is lost, and three components in place are enough for nearly all data. Only the final answer is rounded,
//! once and correctly, so it depends neither on the order of the rows nor on how they were partitioned.

use std::collections::BTreeMap;

/// From here on partial sums could overflow although the whole does not.
pub(crate) const HUGE: f64 = f64::from_bits((1023 + 960) << 52);
/// By how much huge values are scaled down: an exact operation on a power of two.
const SCALE: f64 = f64::from_bits((1023 + 64) << 52);

/// `a + b` rounded, and the error of the rounding.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// Adds `x` to components that do not overlap, smallest first.
fn grow(components: &mut Vec<f64>, mut x: f64) {
    let mut kept = 0;
    for index in 0..components.len() {
        let (sum, error) = two_sum(x, components[index]);
        x = sum;
        if error != 0.0 {
            components[kept] = error;
            kept += 1;
        }
    }
    components.truncate(kept);
    if x != 0.0 {
        components.push(x);
    }
}

/// The sum of components that do not overlap, smallest first, rounded half to even.
fn round(components: &[f64]) -> f64 {
    let Some((&last, mut rest)) = components.split_last() else {
        return 0.0;
    };
    let (mut high, mut low) = (last, 0.0);
    while let Some((&next, smaller)) = rest.split_last() {
        (high, low) = two_sum(high, next);
        rest = smaller;
        if low != 0.0 {
            break;
        }
    }
    // A tie is no tie if something smaller still points away from it.
    if let Some(&next) = rest.last()
        && (low < 0.0) == (next < 0.0)
        && low != 0.0
    {
        let twice = low * 2.0;
        let moved = high + twice;
        if moved - high == twice {
            high = moved;
        }
    }
    high
}

/// What does not fit three components.
#[derive(Debug, Default, Clone)]
struct Overflow {
    parts: Vec<f64>,
    /// The sum of the infinities and NaNs.
    special: Option<f64>,
    /// Huge values, scaled down.
    huge: Vec<f64>,
}

/// One exact sum per group.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    parts: Vec<[f64; 3]>,
    overflow: BTreeMap<usize, Overflow>,
}

impl Sums {
    pub(crate) fn resize(&mut self, groups: usize) {
        self.parts.resize(groups, [0.0; 3]);
    }

    pub(crate) fn size(&self) -> usize {
        let rest: usize = self
            .overflow
            .values()
            .map(|o| o.parts.len() + o.huge.len())
            .sum();
        self.parts.len() * 24 + self.overflow.len() * 96 + rest * 8
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, group: usize, x: f64) {
        if x.abs() < HUGE {
            let [first, second, third] = &mut self.parts[group];
            let error;
            (*first, error) = two_sum(*first, x);
            if error == 0.0 {
                return;
            }
            let error_of_error;
            (*second, error_of_error) = two_sum(*second, error);
            if error_of_error == 0.0 {
                return;
            }
            let rest;
            (*third, rest) = two_sum(*third, error_of_error);
            if rest != 0.0 {
                self.add_rare(group, rest);
            }
        } else {
            self.add_rare(group, x);
        }
    }

    #[cold]
    fn add_rare(&mut self, group: usize, x: f64) {
        let overflow = self.overflow.entry(group).or_default();
        if !x.is_finite() {
            *overflow.special.get_or_insert(0.0) += x;
        } else if x.abs() < HUGE {
            grow(&mut overflow.parts, x);
        } else {
            grow(&mut overflow.huge, x / SCALE);
        }
    }

    /// The components of a group, smallest first.
    fn components(&self, group: usize) -> Vec<f64> {
        let mut components = match self.overflow.get(&group) {
            Some(overflow) => overflow.parts.clone(),
            None => Vec::new(),
        };
        for part in self.parts[group].into_iter().rev() {
            grow(&mut components, part);
        }
        components
    }

    /// The sum of a group, rounded.
    pub(crate) fn round(&self, group: usize) -> f64 {
        let [first, second, third] = self.parts[group];
        let overflow = self.overflow.get(&group);
        if second == 0.0 && third == 0.0 && overflow.is_none() {
            return first;
        }
        let mut components = self.components(group);
        let Some(Overflow { special, huge, .. }) = overflow else {
            return round(&components);
        };
        if let Some(special) = special {
            // Which NaN a sum is depends on the order.
            return if special.is_nan() { f64::NAN } else { *special };
        }
        match huge.last() {
            None => round(&components),
            Some(largest) if largest.abs() < HUGE / SCALE * 1e12 => {
                // They nearly cancelled, so what is left fits.
                huge.iter().for_each(|x| grow(&mut components, x * SCALE));
                round(&components)
            }
            Some(_) => {
                let mut scaled = huge.clone();
                components.iter().for_each(|x| grow(&mut scaled, x / SCALE));
                round(&scaled) * SCALE
            }
        }
    }

    /// The sum of a group as a list of doubles, which [`Sums::merge`] adds. Components come first; if there are special
    /// or huge values, then a NaN, the special value or zero, and the huge ones.
    pub(crate) fn save(&self, group: usize, list: &mut Vec<f64>) {
        list.extend(self.components(group));
        if let Some(Overflow { special, huge, .. }) = self.overflow.get(&group)
            && (special.is_some() || !huge.is_empty())
        {
            list.extend([f64::NAN, special.unwrap_or(0.0)]);
            list.extend(huge);
        }
    }

    /// Adds a saved sum to a group.
    pub(crate) fn merge(&mut self, group: usize, list: &[f64]) {
        let mut saved = list.iter();
        for &x in saved.by_ref() {
            if x.is_nan() {
                break;
            }
            self.add(group, x);
        }
        if let Some(&special) = saved.next() {
            let overflow = self.overflow.entry(group).or_default();
            if special != 0.0 {
                *overflow.special.get_or_insert(0.0) += special;
            }
            saved.for_each(|&x| grow(&mut overflow.huge, x));
        }
    }

    /// Forgets the first `groups` groups; the others move up.
    pub(crate) fn drop_first(&mut self, groups: usize) {
        self.parts.drain(..groups);
        let kept = self.overflow.split_off(&groups);
        self.overflow = kept.into_iter().map(|(g, o)| (g - groups, o)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sums = Sums::default();
        sums.resize(1);
        values.iter().for_each(|x| sums.add(0, *x));
        let rounded = sums.round(0);
        // Saving and merging changes nothing.
        let mut list = Vec::new();
        sums.save(0, &mut list);
        let mut merged = Sums::default();
        merged.resize(1);
        merged.merge(0, &list);
        assert_eq!(merged.round(0).to_bits(), rounded.to_bits(), "{values:?}");
        rounded
    }

    #[track_caller]
    fn check(values: &[f64], expected: f64) {
        assert_eq!(sum(values).to_bits(), expected.to_bits());
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        assert_eq!(sum(&reversed).to_bits(), expected.to_bits());
    }

    #[test]
    fn tenths_add_up() {
        check(&[0.1; 10], 1.0);
    }

    #[test]
    fn large_values_that_cancel_leave_the_small_ones() {
        check(&[1e100, 1.0, -1e100, 1e-100, -1.0], 1e-100);
        check(&[1e16, 1.0, 1e-16, -1e16], 1.0);
    }

    #[test]
    fn ties_are_decided_by_what_is_smaller_still() {
        let half_ulp = f64::EPSILON / 2.0;
        check(&[1.0, half_ulp], 1.0);
        check(&[1.0, half_ulp, 1e-300], 1.0 + f64::EPSILON);
        check(&[1.0, half_ulp, -1e-300], 1.0);
    }

    #[test]
    fn partial_sums_may_overflow_when_the_sum_does_not() {
        check(&[1.7e308, 1.7e308, -1.7e308, -1.7e308, 2.5], 2.5);
        check(&[1.7e308, 1.7e308, -1.7e308], 1.7e308);
        check(&[1.7e308, 1.7e308], f64::INFINITY);
    }

    #[test]
    fn infinities_and_nans_spread() {
        check(&[1.0, f64::INFINITY, -5.0], f64::INFINITY);
        check(&[f64::NEG_INFINITY, 1e308], f64::NEG_INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY, 1.0]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn subnormals_are_not_lost() {
        let tiny = f64::from_bits(1);
        check(&[tiny, 1e300, -1e300, tiny], 2.0 * tiny);
    }

    /// Random values over the whole range, in random order and random partition: the bits never change.
    #[test]
    fn neither_order_nor_partition_matters() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..200 {
            let spread = [4, 60, 400, 2000][round % 4];
            let mut values: Vec<f64> = (0..50)
                .map(|_| {
                    let exponent = (1023 - spread / 2 + next() % spread).clamp(1, 2046);
                    f64::from_bits((next() & 1) << 63 | exponent << 52 | next() >> 12)
                })
                .collect();
            let expected = sum(&values);
            for _ in 0..5 {
                for i in (1..values.len()).rev() {
                    values.swap(i, (next() % (i as u64 + 1)) as usize);
                }
                let mut whole = Sums::default();
                whole.resize(1);
                for part in values.chunks(7) {
                    let mut sums = Sums::default();
                    sums.resize(1);
                    part.iter().for_each(|x| sums.add(0, *x));
                    let mut list = Vec::new();
                    sums.save(0, &mut list);
                    whole.merge(0, &list);
                }
                assert_eq!(
                    whole.round(0).to_bits(),
                    expected.to_bits(),
                    "round {round}: {values:?}"
                );
            }
        }
    }
}
