//! Which rows are looked at when a schema is looked for.

use crate::options::{OptionError, Options};

use crate::options::invalid;

/// The share of rows that is looked at.
pub fn ratio(owner: &str, options: &Options) -> Result<f64, OptionError> {
    let name = "samplingRatio";
    let Some(value) = options.get(name) else {
        return Ok(1.0);
    };
    match value.trim().parse() {
        Ok(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(ratio),
        _ => {
            let reason = "it is a number above 0 and up to 1";
            Err(invalid(owner, name, value, reason))
        }
    }
}

/// Whether this row is looked at. It is the same each time, and rows that are near do not share their luck.
pub fn takes(row: u64, ratio: f64) -> bool {
    // The finalizer of SplitMix64.
    let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mixed = mixed ^ (mixed >> 31);
    ratio >= 1.0 || (mixed as f64) < ratio * (u64::MAX as f64)
}
