//! Numbers by name: a hash table of a few names that are looked up for every field of every odd row.

use std::hash::{BuildHasher, RandomState};

/// Numbers by name. Names are not taken out again.
pub(super) struct Names {
    /// In order of insertion.
    entries: Vec<(Box<[u8]>, usize)>,
    /// One more than the place of an entry, or 0: a power of two of them, at most half of them taken.
    slots: Vec<u32>,
    /// Whoever writes the names shall not know where they go.
    seed: u64,
}

impl Names {
    pub(super) fn new() -> Self {
        Names {
            entries: Vec::new(),
            slots: vec![0; 16],
            seed: RandomState::new().hash_one(0) | 1,
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<usize> {
        self.get_or(name, |_| false)
    }

    /// As `get`; `is_it` may know faster than a comparison that a number is that of the name.
    #[inline]
    pub(super) fn get_or(&self, name: &[u8], is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mut slot = self.slot(name);
        loop {
            let place = self.slots[slot].checked_sub(1)?;
            let (known, number) = &self.entries[place as usize];
            if is_it(*number) || **known == *name {
                return Some(*number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: &[u8], number: usize) {
        self.entries.push((name.into(), number));
        if self.entries.len() * 2 <= self.slots.len() {
            self.take_slot(self.entries.len() - 1);
            return;
        }
        self.slots = vec![0; self.slots.len() * 2];
        for place in 0..self.entries.len() {
            self.take_slot(place);
        }
    }

    fn take_slot(&mut self, place: usize) {
        let mut slot = self.slot(&self.entries[place].0);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = place as u32 + 1;
    }

    /// Where to look for a name first. Eight bytes at a time, multiplied and folded.
    #[inline]
    fn slot(&self, name: &[u8]) -> usize {
        let mut hash = self.seed ^ name.len() as u64;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * u128::from(self.seed ^ 0x9e37_79b9_7f4a_7c15);
            hash = (product as u64) ^ (product >> 64) as u64;
        };
        let mut rest = name;
        while let Some((word, behind)) = rest.split_first_chunk::<8>() {
            mix(u64::from_le_bytes(*word));
            rest = behind;
        }
        mix(rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)));
        hash as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let mut names = Names::new();
        let name = |at: usize| "x".repeat(at % 20) + &at.to_string();
        for at in 0..1000 {
            assert_eq!(names.get(name(at).as_bytes()), None);
            names.insert(name(at).as_bytes(), at);
        }
        for at in 0..1000 {
            assert_eq!(names.get(name(at).as_bytes()), Some(at));
        }
        assert_eq!(names.get(b""), None);
    }
}
