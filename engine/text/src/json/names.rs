//! Numbers by name: a hash table of a few names that are looked up for every field of every odd row.

use std::hash::{BuildHasher, RandomState};

/// Numbers by name. Names are not taken out again.
pub(super) struct Names {
    /// In order of insertion.
    entries: Vec<(Box<[u8]>, usize)>,
    /// The upper half of a hash and one more than the place of its entry, or 0: a power of two of them, at most half of
    /// them taken.
    slots: Vec<u64>,
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
        let hash = self.hash(name);
        let mut slot = hash as usize & (self.slots.len() - 1);
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return None;
            }
            if entry >> 32 == hash >> 32 {
                let (known, number) = &self.entries[entry as u32 as usize - 1];
                if is_it(*number) || **known == *name {
                    return Some(*number);
                }
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
        let hash = self.hash(&self.entries[place].0);
        let mut slot = hash as usize & (self.slots.len() - 1);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = hash >> 32 << 32 | (place as u64 + 1);
    }

    /// Sixteen bytes at a time, multiplied and folded. Of a short rest some bytes are taken twice.
    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let other_seed = self.seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
        let mut hash = self.seed ^ name.len() as u64;
        let mut rest = name;
        while let Some((block, behind)) = rest.split_first_chunk::<16>() {
            let [low, high] = block.as_chunks::<8>().0 else {
                unreachable!("a block has two halves");
            };
            hash = fold(
                hash ^ u64::from_le_bytes(*low),
                other_seed ^ u64::from_le_bytes(*high),
            );
            rest = behind;
        }
        let (low, high) = match (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
            (Some(low), Some(high)) => (u64::from_le_bytes(*low), u64::from_le_bytes(*high)),
            _ => match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
                (Some(low), Some(high)) => (
                    u64::from(u32::from_le_bytes(*low)),
                    u64::from(u32::from_le_bytes(*high)),
                ),
                _ => (
                    rest.iter()
                        .fold(0, |word, byte| word << 8 | u64::from(*byte)),
                    0,
                ),
            },
        };
        fold(fold(hash ^ low, other_seed ^ high), other_seed)
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
