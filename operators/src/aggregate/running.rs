//! What panes enter and leave as windows slide over them: see [`super::values`] and [`super::sliding`].

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray};
use arrow::record_batch::RecordBatch;
use hashbrown::HashTable;

use super::calls::Plan;
use super::values::Kept;
use crate::OperatorError;
use crate::keys::hash_bytes;

/// The values in some panes: of calls whose states are lists of them.
pub(crate) struct Running {
    calls: Vec<Box<dyn Kept>>,
    /// The slots of the groups, by their keys without times.
    found: HashTable<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// These panes have entered and not left.
    pub(super) panes: Range<i64>,
    key_bytes: usize,
}

struct Slot {
    key: Box<[u8]>,
    /// How many of the panes the group has rows in.
    panes: u32,
}

impl Running {
    /// Starts before `pane`, with `calls` of the plan.
    pub(crate) fn new(plan: &Plan, calls: &[usize], pane: i64) -> Result<Self, OperatorError> {
        let kept = calls.iter().map(|call| plan.calls[*call].kept());
        Ok(Running {
            calls: kept.collect::<Result<_, _>>()?,
            found: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            panes: pane..pane,
            key_bytes: 0,
        })
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let kept = self.calls.iter().map(|call| call.bytes());
        let slots = self.slots.capacity() * size_of::<Slot>() + self.key_bytes;
        kept.sum::<usize>() + slots + self.found.allocation_size()
    }

    /// State rows of some groups enter, one column for each call.
    pub(crate) fn enter<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        states: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let slots: Vec<u32> = keys.map(|key| self.slot(key)).collect();
        for call in &mut self.calls {
            call.grow(self.slots.len());
        }
        for slot in &slots {
            self.slots[*slot as usize].panes += 1;
        }
        self.change(&slots, states, true)
    }

    /// What has entered leaves.
    pub(crate) fn leave<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        states: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let slots = keys.map(|key| {
            self.find(key)
                .expect("what leaves a window has entered it before")
        });
        let slots: Vec<u32> = slots.collect();
        self.change(&slots, states, false)?;
        for slot in slots {
            let left = &mut self.slots[slot as usize];
            left.panes -= 1;
            if left.panes > 0 {
                continue;
            }
            let key = std::mem::take(&mut left.key);
            self.key_bytes -= key.len();
            let hash = hash_bytes(0, &key);
            if let Ok(found) = self.found.find_entry(hash, |other| *other == slot) {
                found.remove();
            }
            self.free.push(slot);
            for call in &mut self.calls {
                call.clear(slot);
            }
        }
        Ok(())
    }

    /// The answers of some groups, of which there are some: a column for each call.
    pub(crate) fn answers<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let slots = keys.map(|key| {
            self.find(key)
                .expect("a group of a window is in one of its panes")
        });
        let slots: Vec<u32> = slots.collect();
        let calls = self.calls.iter_mut();
        calls.map(|call| call.answers(&slots)).collect()
    }

    fn change(
        &mut self,
        slots: &[u32],
        states: &RecordBatch,
        enter: bool,
    ) -> Result<(), OperatorError> {
        for (call, column) in self.calls.iter_mut().zip(states.columns()) {
            call.change(slots, column.as_list(), enter)?;
        }
        Ok(())
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let is = |slot: &u32| *self.slots[*slot as usize].key == *key;
        self.found.find(hash_bytes(0, key), is).copied()
    }

    fn slot(&mut self, key: &[u8]) -> u32 {
        if let Some(slot) = self.find(key) {
            return slot;
        }
        let fresh = Slot {
            key: key.into(),
            panes: 0,
        };
        self.key_bytes += key.len();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = fresh;
                slot
            }
            None => {
                self.slots.push(fresh);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        let hash = |slot: &u32| hash_bytes(0, &slots[*slot as usize].key);
        self.found.insert_unique(hash_bytes(0, key), slot, hash);
        slot
    }
}
