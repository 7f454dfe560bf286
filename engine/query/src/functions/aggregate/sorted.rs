//! Values in order, each as often as it is there, of which the one at a place is found without looking at the others.
//!
//! They lie in blocks of some hundred: to put one in or take one out moves part of a block, to find one by its place adds
//! up the blocks before it. That beats a tree up to millions of values, in half its memory.

/// A block of more values is cut in two.
const BLOCK: usize = 512;

#[derive(Debug)]
pub(super) struct Sorted<K> {
    blocks: Vec<Block<K>>,
    /// Each value counts once.
    distinct: bool,
    len: usize,
}

#[derive(Debug)]
struct Block<K> {
    values: Vec<K>,
    times: Vec<u32>,
    len: usize,
}

impl<K: Ord> Sorted<K> {
    pub(super) fn new(distinct: bool) -> Self {
        Sorted {
            blocks: Vec::new(),
            distinct,
            len: 0,
        }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the counts.
    pub(super) fn bytes(&self) -> usize {
        let room = self.blocks.iter().map(|block| block.times.capacity());
        room.sum::<usize>() * size_of::<u32>() + self.blocks.len() * size_of::<Block<K>>()
    }

    /// The block that a value is in, or would be.
    fn block(&self, value: &K) -> usize {
        let after = |block: &Block<K>| block.values.first().is_some_and(|first| first <= value);
        self.blocks.partition_point(after).saturating_sub(1)
    }

    /// Puts a value in; how often it is there then.
    pub(super) fn insert(&mut self, value: K) -> u32 {
        let at = self.block(&value);
        if self.blocks.is_empty() {
            self.blocks.push(Block {
                values: Vec::new(),
                times: Vec::new(),
                len: 0,
            });
        }
        let block = &mut self.blocks[at];
        let times = match block.values.binary_search(&value) {
            Ok(place) => {
                block.times[place] += 1;
                block.times[place]
            }
            Err(place) => {
                block.values.insert(place, value);
                block.times.insert(place, 1);
                1
            }
        };
        if times == 1 || !self.distinct {
            block.len += 1;
            self.len += 1;
        }
        if block.values.len() > BLOCK {
            let half = BLOCK / 2;
            let values = block.values.split_off(half);
            let times = block.times.split_off(half);
            let len = match self.distinct {
                true => times.len(),
                false => times.iter().map(|times| *times as usize).sum(),
            };
            block.len -= len;
            self.blocks.insert(at + 1, Block { values, times, len });
        }
        times
    }

    /// Takes a value out; how often it is there then, or `None` if it was not.
    pub(super) fn remove(&mut self, value: &K) -> Option<u32> {
        let at = self.block(value);
        let block = self.blocks.get_mut(at)?;
        let place = block.values.binary_search(value).ok()?;
        block.times[place] -= 1;
        let times = block.times[place];
        if times == 0 || !self.distinct {
            block.len -= 1;
            self.len -= 1;
        }
        if times == 0 {
            block.values.remove(place);
            block.times.remove(place);
            if block.values.is_empty() {
                self.blocks.remove(at);
            } else if block.values.len() < BLOCK / 8 {
                self.join(at);
            }
        }
        Some(times)
    }

    /// Puts a small block together with one beside it, if both fit one.
    fn join(&mut self, at: usize) {
        let Some(first) = at.checked_sub(1).or((self.blocks.len() > 1).then_some(at)) else {
            return;
        };
        let both = self.blocks[first].values.len() + self.blocks[first + 1].values.len();
        if both > BLOCK / 2 {
            return;
        }
        let second = self.blocks.remove(first + 1);
        let block = &mut self.blocks[first];
        block.values.extend(second.values);
        block.times.extend(second.times);
        block.len += second.len;
    }

    /// The value at a place.
    pub(super) fn nth(&self, mut place: usize) -> Option<&K> {
        let block = self.blocks.iter().find(|block| {
            let here = place < block.len;
            if !here {
                place -= block.len;
            }
            here
        })?;
        if self.distinct {
            return block.values.get(place);
        }
        let mut times = block.times.iter();
        let at = times.position(|times| {
            let here = place < *times as usize;
            if !here {
                place -= *times as usize;
            }
            here
        })?;
        block.values.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(distinct: bool, range: u64, steps: usize) {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut sorted = Sorted::new(distinct);
        let mut plain: Vec<u64> = Vec::new();
        for step in 0..steps {
            // More come at first, more leave later.
            let comes = if step < steps / 2 { 8 } else { 4 };
            if random(10) < comes || plain.is_empty() {
                let value = random(range);
                plain.push(value);
                let times = plain.iter().filter(|v| **v == value).count();
                assert_eq!(sorted.insert(value), times as u32);
            } else {
                let value = plain.swap_remove(random(plain.len() as u64) as usize);
                let times = plain.iter().filter(|v| **v == value).count();
                assert_eq!(sorted.remove(&value), Some(times as u32));
            }
            if step % 97 == 0 {
                let mut wanted = plain.clone();
                wanted.sort_unstable();
                if distinct {
                    wanted.dedup();
                }
                let found: Vec<u64> = (0..sorted.len())
                    .map(|place| *sorted.nth(place).expect("a value at each place"))
                    .collect();
                assert_eq!(found, wanted);
                assert!(sorted.nth(wanted.len()).is_none());
            }
        }
        assert_eq!(sorted.remove(&range), None);
    }

    #[test]
    fn each_place_has_its_value_while_values_come_and_go() {
        check(false, 40, 3_000);
        check(true, 40, 3_000);
        check(false, 100_000, 6_000);
        check(true, 100_000, 6_000);
    }
}
