//! Values in order, each as often as it is there, of which the one at a place is found without looking at the others.
//!
//! They lie in blocks of about a hundred: to put one in or take one out moves part of a block, to find one by its place, or
//! the most frequent one, looks at each block and into one. That beats a tree up to millions of values, in half its
//! memory.

/// A block of more values is cut in two.
const BLOCK: usize = 128;

#[derive(Debug)]
pub(super) struct Sorted<K> {
    blocks: Vec<Block<K>>,
    len: usize,
}

#[derive(Debug)]
struct Block<K> {
    values: Vec<K>,
    /// How often each is there.
    times: Vec<usize>,
    /// All of `times`.
    len: usize,
    /// The most of `times`, if that is known.
    most: Option<usize>,
}

impl<K> Default for Sorted<K> {
    fn default() -> Self {
        Sorted {
            blocks: Vec::new(),
            len: 0,
        }
    }
}

impl<K> Block<K> {
    fn of(values: Vec<K>, times: Vec<usize>) -> Self {
        Block {
            len: times.iter().sum(),
            most: None,
            values,
            times,
        }
    }

    fn most(&mut self) -> usize {
        let times = &self.times;
        let most = || times.iter().copied().max().unwrap_or(0);
        *self.most.get_or_insert_with(most)
    }

    /// Lets go of room for many more values than there are.
    fn shrink(&mut self) {
        let room = self.values.len() * 2;
        if room * 2 < self.values.capacity() {
            self.values.shrink_to(room);
            self.times.shrink_to(room);
        }
    }
}

impl<K: Ord> Sorted<K> {
    /// How many values there are, each as often as it is there.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the values, but for what lies elsewhere, and of the counts.
    pub(super) fn bytes(&self) -> usize {
        let values = |block: &Block<K>| block.values.capacity() * size_of::<K>();
        let times = |block: &Block<K>| block.times.capacity() * size_of::<usize>();
        let blocks = self.blocks.iter().map(|block| values(block) + times(block));
        blocks.sum::<usize>() + self.blocks.capacity() * size_of::<Block<K>>()
    }

    /// The block that a value is in, or would be.
    fn block(&self, value: &K) -> usize {
        let after = |block: &Block<K>| block.values.first().is_some_and(|first| first <= value);
        self.blocks.partition_point(after).saturating_sub(1)
    }

    /// Puts a value in so many times, at least once; how often it is there then.
    pub(super) fn insert(&mut self, value: K, times: usize) -> usize {
        if self.blocks.is_empty() {
            self.blocks.push(Block::of(Vec::new(), Vec::new()));
        }
        let at = self.block(&value);
        let block = &mut self.blocks[at];
        let now = match block.values.binary_search(&value) {
            Ok(place) => {
                block.times[place] += times;
                block.times[place]
            }
            Err(place) => {
                block.values.insert(place, value);
                block.times.insert(place, times);
                times
            }
        };
        block.most = block.most.map(|most| most.max(now));
        block.len += times;
        self.len += times;
        if block.values.len() > BLOCK {
            let values = block.values.split_off(BLOCK / 2);
            let times = block.times.split_off(BLOCK / 2);
            let upper = Block::of(values, times);
            block.len -= upper.len;
            block.most = None;
            self.blocks.insert(at + 1, upper);
        }
        now
    }

    /// Takes a value out so many times; how often it is there then, or `None` if it was not there so often.
    pub(super) fn remove(&mut self, value: &K, times: usize) -> Option<usize> {
        let at = self.block(value);
        let block = self.blocks.get_mut(at)?;
        let place = block.values.binary_search(value).ok()?;
        let before = block.times[place];
        let now = before.checked_sub(times)?;
        block.times[place] = now;
        block.most = block.most.filter(|most| *most != before);
        block.len -= times;
        self.len -= times;
        if now == 0 {
            block.values.remove(place);
            block.times.remove(place);
            if block.values.is_empty() {
                self.blocks.remove(at);
            } else if block.values.len() < BLOCK / 8 {
                block.shrink();
                self.join(at);
            }
        }
        Some(now)
    }

    /// Puts a small block together with one beside it, if both leave room in one.
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
        block.most = None;
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
        if block.len == block.values.len() {
            return block.values.get(place); // each is there once
        }
        let at = block.times.iter().position(|times| {
            let here = place < *times;
            if !here {
                place -= times;
            }
            here
        })?;
        block.values.get(at)
    }

    /// The value that is there most often; of several the least, or the greatest.
    pub(super) fn mode(&mut self, greatest: bool) -> Option<&K> {
        let most = self.blocks.iter_mut().map(Block::most).max()?;
        let mut blocks = self.blocks.iter();
        let has = |block: &&Block<K>| block.most == Some(most);
        let block = match greatest {
            true => blocks.rfind(has)?,
            false => blocks.find(has)?,
        };
        let is = |times: &usize| *times == most;
        let at = match greatest {
            true => block.times.iter().rposition(is)?,
            false => block.times.iter().position(is)?,
        };
        block.values.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn often(plain: &[(u64, usize)], value: u64) -> usize {
        let same = plain.iter().filter(|(other, _)| *other == value);
        same.map(|(_, times)| times).sum()
    }

    /// Values come and go; what is answered is what a plain list of them says.
    fn check(range: u64, steps: usize, times_max: u64) {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut sorted = Sorted::default();
        let mut plain: Vec<(u64, usize)> = Vec::new();
        for step in 0..steps {
            // More come at first, more leave later.
            let comes = if step < steps / 2 { 8 } else { 2 };
            if random(10) < comes || plain.is_empty() {
                let value = random(range);
                let times = 1 + random(times_max) as usize;
                plain.push((value, times));
                assert_eq!(sorted.insert(value, times), often(&plain, value));
            } else {
                let (value, times) = plain.swap_remove(random(plain.len() as u64) as usize);
                assert_eq!(sorted.remove(&value, times), Some(often(&plain, value)));
            }
            if step % 97 == 0 || plain.len() < 3 {
                let mut wanted: Vec<u64> = Vec::new();
                for (value, times) in &plain {
                    wanted.extend(std::iter::repeat_n(*value, *times));
                }
                wanted.sort_unstable();
                assert_eq!(sorted.len(), wanted.len());
                let found = (0..sorted.len()).map(|place| *sorted.nth(place).unwrap());
                assert_eq!(found.collect::<Vec<u64>>(), wanted);
                assert!(sorted.nth(wanted.len()).is_none());
                let runs: Vec<&[u64]> = wanted.chunk_by(|a, b| a == b).collect();
                let most = runs.iter().map(|run| run.len()).max();
                let longest = |run: &&&[u64]| Some(run.len()) == most;
                let least = runs.iter().find(longest).map(|run| &run[0]);
                let greatest = runs.iter().rfind(longest).map(|run| &run[0]);
                assert_eq!(sorted.mode(false), least);
                assert_eq!(sorted.mode(true), greatest);
            }
        }
    }

    #[test]
    fn each_place_has_its_value_while_values_come_and_go() {
        check(40, 3_000, 1);
        check(40, 3_000, 5);
        check(100_000, 9_000, 1);
        check(1_500, 9_000, 2);
    }

    #[test]
    fn nothing_leaves_that_is_not_there_so_often() {
        let mut sorted = Sorted::default();
        assert_eq!(sorted.remove(&1, 1), None);
        sorted.insert(1, 2);
        assert_eq!(sorted.remove(&1, 3), None);
        assert_eq!(sorted.remove(&2, 1), None);
        assert_eq!(sorted.remove(&1, 2), Some(0));
        assert_eq!((sorted.len(), sorted.nth(0)), (0, None));
        assert_eq!(sorted.mode(false), None);
    }
}
