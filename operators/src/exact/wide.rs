//! Numbers of any width: whole numbers times a power of two.
//!
//! A double is one, and so is a product of doubles: in these, neither sums nor products round, overflow or underflow,
//! whatever their order. Only an answer is rounded.

/// The bits of one limb.
const LIMB: i32 = 64;

/// A double as a whole number times a power of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) negative: bool,
    /// Below 2^53.
    pub(super) mantissa: u64,
    pub(super) exponent: i32,
}

impl Parts {
    /// Those of a finite double.
    #[inline(always)]
    pub(super) fn of(x: f64) -> Self {
        let bits = x.to_bits();
        let (exponent, fraction) = ((bits >> 52) as i32 & 0x7ff, bits & ((1 << 52) - 1));
        let mantissa = match exponent {
            0 => fraction,
            _ => fraction | 1 << 52,
        };
        Parts {
            negative: bits >> 63 == 1,
            mantissa,
            exponent: exponent.max(1) - 1075,
        }
    }
}

/// The limbs of a number of two limbs times one of two.
#[inline(always)]
pub(super) fn product([a0, a1]: [u64; 2], [b0, b1]: [u64; 2]) -> [u64; 4] {
    let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let low = wide(a0, b0);
    let first = wide(a1, b0) + (low >> 64);
    let second = wide(a0, b1) + u128::from(first as u64);
    let high = wide(a1, b1) + (first >> 64) + (second >> 64);
    [low as u64, second as u64, high as u64, (high >> 64) as u64]
}

/// The limbs of a product of two mantissas.
#[inline(always)]
pub(super) fn square(a: u64, b: u64) -> [u64; 2] {
    let product = u128::from(a) * u128::from(b);
    [product as u64, (product >> 64) as u64]
}

/// A number: its limbs, least first, in two's complement, times 2^(64 low). Without limbs it is zero.
#[derive(Debug, Default, Clone)]
pub(super) struct Wide {
    low: i32,
    limbs: Vec<u64>,
}

impl Wide {
    /// Adds `magnitude` times 2^`exponent`, or takes it away. The highest bit of the magnitude is clear.
    #[inline(always)]
    pub(super) fn add<const N: usize>(
        &mut self,
        magnitude: [u64; N],
        exponent: i32,
        negative: bool,
    ) {
        let (low, shift) = (exponent.div_euclid(LIMB), exponent.rem_euclid(LIMB));
        let start = match low.checked_sub(self.low) {
            Some(start) if start >= 0 && start as usize + N < self.limbs.len() => start as usize,
            _ => self.reach(low, low + N as i32 + 1),
        };
        // To take away is to add the complement and one: signs are no branches, which nobody could foretell.
        let (fill, mut carry) = (u64::from(negative).wrapping_neg(), negative);
        let mut handed = 0;
        let (head, tail) = self.limbs[start..].split_at_mut(N + 1);
        for (index, limb) in head.iter_mut().enumerate() {
            let part = magnitude.get(index).copied().unwrap_or(0);
            let shifted = part << shift | handed;
            handed = part >> 1 >> (LIMB - 1 - shift);
            (*limb, carry) = limb.carrying(shifted ^ fill, carry);
        }
        for limb in tail {
            if carry == negative {
                return;
            }
            (*limb, carry) = limb.carrying(fill, carry);
        }
        self.keep_room();
    }

    /// The highest limb is only a sign, so that what is added next has room.
    fn keep_room(&mut self) {
        if let Some(&last) = self.limbs.last()
            && last != 0
            && last != u64::MAX
        {
            self.limbs.push(sign(last));
        }
    }

    /// Makes room for the limbs from `low` to below `high`, and one for the sign; returns where `low` is.
    #[cold]
    fn reach(&mut self, low: i32, high: i32) -> usize {
        if self.limbs.is_empty() {
            self.low = low;
        }
        if low < self.low {
            let more = (self.low - low) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, more));
            self.low = low;
        }
        let wanted = (high - self.low) as usize + 1;
        if self.limbs.len() < wanted {
            let fill = self.limbs.last().map_or(0, |last| sign(*last));
            self.limbs.resize(wanted, fill);
        }
        (low - self.low) as usize
    }

    /// Adds another number.
    pub(super) fn merge(&mut self, other: &Wide) {
        self.merge_limbs(other.low, &other.limbs);
    }

    fn merge_limbs(&mut self, low: i32, limbs: &[u64]) {
        let Some(&last) = limbs.last() else {
            return;
        };
        let start = self.reach(low, low + limbs.len() as i32);
        let (fill, mut carry) = (sign(last), false);
        for (index, limb) in self.limbs[start..].iter_mut().enumerate() {
            let part = limbs.get(index).copied().unwrap_or(fill);
            (*limb, carry) = limb.carrying(part, carry);
        }
        self.keep_room();
    }

    /// The product with another number.
    pub(super) fn times(&self, other: &Wide) -> Wide {
        let ((minus, a), (minus_other, b)) = (self.magnitude(), other.magnitude());
        let mut limbs = vec![0; a.len() + b.len() + 1];
        for (place, &a) in a.iter().enumerate() {
            let mut carry = 0;
            for (limb, &b) in limbs[place..].iter_mut().zip(&b) {
                let sum = u128::from(a) * u128::from(b) + u128::from(*limb) + u128::from(carry);
                (*limb, carry) = (sum as u64, (sum >> 64) as u64);
            }
            limbs[place + b.len()] = carry;
        }
        if minus != minus_other {
            negate(&mut limbs);
        }
        Wide {
            low: self.low + other.low,
            limbs,
        }
    }

    /// A whole number.
    pub(super) fn whole(number: i64) -> Wide {
        let limbs = vec![number as u64, sign(number as u64)];
        Wide { low: 0, limbs }
    }

    /// Whether it is below zero, and its limbs without the sign.
    fn magnitude(&self) -> (bool, Vec<u64>) {
        let mut limbs = self.limbs.clone();
        let negative = limbs.last().is_some_and(|last| sign(*last) != 0);
        if negative {
            negate(&mut limbs);
        }
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        (negative, limbs)
    }

    /// The number divided by `divisor`, as a double: both are rounded to one, and so is the quotient.
    pub(super) fn over(&self, divisor: f64) -> f64 {
        let (negative, limbs) = self.magnitude();
        let Some((&top, rest)) = limbs.split_last() else {
            return 0.0;
        };
        let shift = top.leading_zeros();
        let next = rest.last().copied().unwrap_or(0);
        let mut head = (u128::from(top) << 64 | u128::from(next)) << shift;
        // Below the head it only counts whether there is anything.
        let below = rest
            .split_last()
            .is_some_and(|(_, rest)| rest.iter().any(|limb| *limb != 0));
        head |= u128::from(below);
        let exponent = (self.low + limbs.len() as i32) * LIMB - shift as i32;
        // In [0.5, 1].
        let mantissa = head as f64 / 2f64.powi(128);
        let quotient = scale(mantissa / divisor, exponent);
        if negative { -quotient } else { quotient }
    }

    /// Appends the number as bytes, which are the same for equal numbers.
    pub(super) fn save(&self, bytes: &mut Vec<u8>) {
        let limbs = self.limbs.iter().flat_map(|limb| limb.to_le_bytes());
        let all: Vec<u8> = limbs.collect();
        let zeros = all.iter().take_while(|byte| **byte == 0).count();
        if zeros == all.len() {
            bytes.extend([0; 4]);
            return;
        }
        let mut kept = &all[zeros..];
        let fill = (sign(u64::from(all[all.len() - 1]) << 56)) as u8;
        while let [.., before, last] = kept
            && *last == fill
            && (*before ^ fill) < 0x80
        {
            kept = &kept[..kept.len() - 1];
        }
        let exponent = self.low * 8 + zeros as i32;
        bytes.extend((exponent as i16).to_le_bytes());
        bytes.extend((kept.len() as u16).to_le_bytes());
        bytes.extend(kept);
    }

    /// Adds the number at the start of `bytes`, and returns what is behind it; nothing if there is none.
    pub(super) fn merge_saved<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let exponent = i32::from(i16::from_le_bytes([a, b]));
        let length = usize::from(u16::from_le_bytes([c, d]));
        let (number, rest) = rest.split_at_checked(length)?;
        let Some(&last) = number.last() else {
            return Some(rest);
        };
        let (low, skipped) = (exponent.div_euclid(8), exponent.rem_euclid(8) as usize);
        let fill = if last < 0x80 { 0 } else { 0xff };
        let limbs = (skipped + length).div_ceil(8);
        let byte = |at: usize| match at.checked_sub(skipped) {
            None => 0,
            Some(at) => number.get(at).copied().unwrap_or(fill),
        };
        let limb = |limb: usize| u64::from_le_bytes(std::array::from_fn(|at| byte(limb * 8 + at)));
        let limbs: Vec<u64> = (0..limbs).map(limb).collect();
        self.merge_limbs(low, &limbs);
        Some(rest)
    }

    /// How many bytes it takes beside itself.
    pub(super) fn size(&self) -> usize {
        self.limbs.capacity() * size_of::<u64>()
    }
}

/// What the limbs above `limb` are if it is the last.
fn sign(limb: u64) -> u64 {
    (limb as i64 >> 63) as u64
}

fn negate(limbs: &mut [u64]) {
    let mut carry = true;
    for limb in limbs {
        (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
    }
}

/// `x` times 2^`exponent`, rounded at most once.
fn scale(mut x: f64, mut exponent: i32) -> f64 {
    const STEP: i32 = 900;
    // Far beyond what a double holds.
    exponent = exponent.clamp(-4 * STEP, 4 * STEP);
    while exponent > STEP {
        x *= 2f64.powi(STEP);
        exponent -= STEP;
    }
    while exponent < -STEP {
        x *= 2f64.powi(-STEP);
        exponent += STEP;
    }
    x * 2f64.powi(exponent)
}

trait Carry: Sized {
    fn carrying(self, other: Self, carry: bool) -> (Self, bool);
}

impl Carry for u64 {
    #[inline(always)]
    fn carrying(self, other: Self, carry: bool) -> (Self, bool) {
        let (sum, first) = self.overflowing_add(other);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        (sum, first | second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(x: f64) -> Wide {
        let mut number = Wide::default();
        let parts = Parts::of(x);
        number.add([parts.mantissa], parts.exponent, parts.negative);
        number
    }

    /// Saving and adding what was saved changes nothing, and neither does what was there before.
    #[track_caller]
    fn check(number: &Wide, expected: f64) {
        assert_eq!(number.over(1.0).to_bits(), expected.to_bits());
        for before in [0.0, 1e300, -1e-300, 3.5] {
            let (mut bytes, mut again, mut most) = (Vec::new(), of(before), Vec::new());
            number.save(&mut bytes);
            bytes.push(7);
            assert_eq!(again.merge_saved(&bytes), Some(&[7][..]));
            again.merge(&of(-before));
            assert_eq!(again.over(1.0).to_bits(), expected.to_bits());
            again.save(&mut most);
            assert_eq!(most, bytes[..bytes.len() - 1]);
        }
    }

    #[test]
    fn doubles_are_what_they_were() {
        let least = f64::from_bits(1);
        for x in [
            0.0,
            1.0,
            -1.0,
            0.1,
            255.0,
            -256.0,
            1e308,
            f64::MIN,
            -1e-310,
            least,
        ] {
            check(&of(x), x);
        }
    }

    #[test]
    fn signs_change_and_change_back() {
        let mut number = of(3.0);
        number.merge(&of(-1e30));
        check(&number, 3.0 - 1e30);
        number.merge(&of(1e30));
        check(&number, 3.0);
        number.merge(&of(-3.0));
        check(&number, 0.0);
    }

    #[test]
    fn products_neither_overflow_nor_vanish() {
        let huge = of(1e300).times(&of(-1e300));
        check(&huge, f64::NEG_INFINITY);
        check(
            &huge.times(&of(2f64.powi(-1000))),
            -1e300 * (1e300 * 2f64.powi(-1000)),
        );
        check(
            &of(f64::from_bits(1))
                .times(&of(2f64.powi(1000)))
                .times(&of(2f64.powi(74))),
            1.0,
        );
        check(&of(-3.0).times(&Wide::whole(-7)), 21.0);
        check(&of(-3.0).times(&Wide::default()), 0.0);
    }

    #[test]
    fn ties_are_decided_by_what_is_smaller_still() {
        let mut number = of(1.0);
        number.merge(&of(f64::EPSILON / 2.0));
        check(&number, 1.0);
        let mut more = number.clone();
        more.merge(&of(1e-300));
        check(&more, 1.0 + f64::EPSILON);
        number.merge(&of(-1e-300));
        check(&number, 1.0);
    }

    #[test]
    fn whole_numbers_are_added_as_integers_are() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let (mut number, mut sum) = (Wide::default(), 0i128);
        for _ in 0..10_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (value, shift, negative) = (state >> 20, (state & 63) as i32, state & 64 != 0);
            number.add([value], shift, negative);
            let value = i128::from(value) << shift;
            sum += if negative { -value } else { value };
            assert_eq!(number.over(1.0), sum as f64);
        }
        check(&number, sum as f64);
    }

    #[test]
    fn what_is_cut_off_is_no_number() {
        let mut bytes = Vec::new();
        of(0.1).save(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Wide::default().merge_saved(&bytes[..length]), None);
        }
    }
}
