//! Blocks on their way into a run: kept in memory, or written to a file as they come.

use std::rc::Rc;
use std::sync::Arc;

use super::block::{Block, Limits};
use super::format::Layout;
use super::part::{Part, StoredFile};
use super::run::Shape;
use super::store::RunWriter;
use crate::OperatorError;

/// A run in the making.
pub(crate) struct Output {
    shape: Rc<Shape>,
    parts: Vec<Slot>,
    file: Option<(Box<dyn RunWriter>, Layout)>,
    /// True if blocks go to a file.
    spills: bool,
}

enum Slot {
    Part(Part),
    /// The next block of the file.
    Written,
}

impl Output {
    /// A run whose blocks go to a file if it `spills`, and if there is a budget at all.
    pub(crate) fn new(shape: &Rc<Shape>, spills: bool) -> Self {
        Output {
            spills: spills && shape.budget.is_some(),
            shape: Rc::clone(shape),
            parts: Vec::new(),
            file: None,
        }
    }

    /// Whatever comes from now on goes to a file if too much is in memory.
    pub(crate) fn spill_if_full(&mut self) {
        if self.shape.budget.as_ref().is_some_and(|b| b.over()) {
            self.spills = true;
        }
    }

    /// Whatever comes from now on goes to a file.
    pub(crate) fn spill(&mut self) {
        self.spills = self.shape.budget.is_some();
    }

    pub(crate) fn spills(&self) -> bool {
        self.spills
    }

    /// How large blocks should be.
    pub(crate) fn limits(&self) -> Limits {
        if self.spills {
            self.shape.limits.stored()
        } else {
            self.shape.limits
        }
    }

    pub(crate) fn push(&mut self, block: Block) -> Result<(), OperatorError> {
        if self.spills {
            return self.write(&block);
        }
        let block = block.charged(self.shape.budget.as_ref());
        self.parts.push(Slot::Part(Part::Resident(Arc::new(block))));
        Ok(())
    }

    /// Takes over a block of another run as it is.
    pub(crate) fn push_part(&mut self, part: &Part) -> Result<(), OperatorError> {
        match part {
            Part::Resident(block) if self.spills => self.write(block),
            part => {
                self.parts.push(Slot::Part(part.clone()));
                Ok(())
            }
        }
    }

    fn write(&mut self, block: &Block) -> Result<(), OperatorError> {
        let budget = self.shape.budget.as_ref().expect("without one all stays");
        let (writer, layout) = match &mut self.file {
            Some(file) => file,
            None => {
                let mut writer = budget.create()?;
                let (layout, header) = Layout::begin();
                writer.write(header)?;
                self.file.insert((writer, layout))
            }
        };
        let bytes = layout.block(block)?;
        writer.write(&bytes)?;
        budget.count_written(bytes.len());
        self.parts.push(Slot::Written);
        Ok(())
    }

    /// The run's blocks. Its epochs are written into the file.
    pub(crate) fn finish(self, lower: u64, upper: u64) -> Result<Vec<Part>, OperatorError> {
        let mut written = Vec::new();
        if let Some((mut writer, layout)) = self.file {
            let values = &self.shape.values;
            writer.write(&layout.finish(lower, upper, values.fields().len()).0)?;
            written = StoredFile::parts(writer.finish()?, layout.into_entries(), values, true);
        }
        let mut written = written.into_iter();
        let part = |slot| match slot {
            Slot::Part(part) => Some(part),
            Slot::Written => written.next(),
        };
        Ok(self.parts.into_iter().filter_map(part).collect())
    }
}
