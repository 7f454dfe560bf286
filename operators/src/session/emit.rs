//! What comes out of sessions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::OUTPUT_ROWS;
use super::merge::{Merged, Session, Stretch};
use super::owner::Owner;
use super::stored::{Stored, batch};
use crate::OperatorError;
use crate::exchange::take_rows;
use crate::update::DIFF;

impl Owner {
    /// Emits some of the merged sessions.
    pub(super) fn emit(
        &self,
        worked: &[(&[u8], Option<u32>)],
        sessions: &[Session],
        chosen: Vec<usize>,
        states: &RecordBatch,
        diff: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let of = |index: &usize| worked[sessions[*index].key as usize].0;
        let keys = self.how.plan.codec.decode(chosen.iter().map(of))?;
        let stretches: Vec<Stretch> = chosen.iter().map(|index| sessions[*index].at).collect();
        let rows = UInt32Array::from_iter_values(chosen.iter().map(|index| *index as u32));
        let states = take_rows(states, &rows)?;
        self.give(keys, &stretches, &states, diff, out)
    }

    fn give(
        &self,
        keys: Vec<ArrayRef>,
        stretches: &[Stretch],
        states: &RecordBatch,
        diff: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if stretches.is_empty() {
            return Ok(());
        }
        let mut columns = self.how.answers(keys, stretches, states)?;
        let mut schema = SchemaRef::clone(&self.how.schema);
        if let Some(diff) = diff {
            columns.push(Arc::new(Int64Array::from(vec![diff; stretches.len()])));
            let mut fields = schema.fields().to_vec();
            fields.push(Arc::new(Field::new(DIFF, DataType::Int64, false)));
            schema = Arc::new(Schema::new(fields));
        }
        let rows = batch(&schema, columns, stretches.len())?;
        for start in (0..rows.num_rows()).step_by(OUTPUT_ROWS) {
            out(rows.slice(start, OUTPUT_ROWS.min(rows.num_rows() - start)));
        }
        Ok(())
    }

    /// Sessions that rows came to: what was stored of them leaves, what they are now comes.
    pub(super) fn emit_changes(
        &self,
        worked: &[(&[u8], Option<u32>)],
        stored: &Stored,
        merged: &Merged,
        states: &RecordBatch,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let touched = |index: usize| merged.sessions[index].touched;
        let old = (0..stored.stretches.len()).filter(|old| touched(merged.of_stored[*old]));
        let old: Vec<usize> = old.collect();
        let key = |old: &usize| worked[merged.sessions[merged.of_stored[*old]].key as usize].0;
        let keys = self.how.plan.codec.decode(old.iter().map(key))?;
        let stretches: Vec<Stretch> = old.iter().map(|old| stored.stretches[*old]).collect();
        let rows = UInt32Array::from_iter_values(old.iter().map(|old| *old as u32));
        let old = take_rows(&stored.states, &rows)?;
        self.give(keys, &stretches, &old, Some(-1), out)?;
        let new = (0..merged.sessions.len()).filter(|index| touched(*index));
        self.emit(
            worked,
            &merged.sessions,
            new.collect(),
            states,
            Some(1),
            out,
        )
    }

    /// Emits all sessions, in key order.
    pub(super) fn emit_all(&self, out: &mut dyn FnMut(RecordBatch)) -> Result<(), OperatorError> {
        let mut scan = self.arrangement.scan(&[], None)?;
        while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
            let stored = Stored::of(&self.how, chunk.values().columns())?;
            let mut rows = Vec::with_capacity(stored.stretches.len());
            for (row, ends) in stored.offsets.windows(2).enumerate() {
                rows.resize(rows.len() + ends[1] - ends[0], row as u32);
            }
            let rows = UInt32Array::from(rows);
            let keys = self.how.plan.codec.decode(chunk.keys())?;
            let keys = keys
                .iter()
                .map(|key| Ok(take(key, &rows, None)?))
                .collect::<Result<Vec<ArrayRef>, OperatorError>>()?;
            self.give(keys, &stored.stretches, &stored.states, None, out)?;
        }
        Ok(())
    }
}
