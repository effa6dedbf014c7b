//! Budget of memory that the pods and objects of one file share.

use crate::limits;

/// Amounts that the pods and objects of a file share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Memory of the pods, the objects and the items of their lists and maps.
    pub items: Share,
    /// Text that references expand to and that containers inherit from their pods.
    pub referred: Share,
}

impl Default for Budget {
    fn default() -> Self {
        Self { items: Share::new(limits::ITEMS), referred: Share::new(limits::REFERRED) }
    }
}

impl Budget {
    /// Begins the next pod or object of the file.
    pub fn begin(&mut self) {
        self.items.own = 0;
        self.referred.own = 0;
    }
}

/// Amount that all pods of a file draw from, bytes.
#[derive(Debug)]
pub(crate) struct Share {
    most: usize,
    left: usize,
    /// Amount that the current pod has taken.
    own: usize,
}

impl Share {
    fn new(most: usize) -> Self {
        Self { most, left: most, own: 0 }
    }

    /// Returns what is left, bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes `bytes` from the amount; returns whether they fit.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.own = self.own.saturating_add(bytes);
        let fits = bytes <= self.left;
        self.left = self.left.saturating_sub(bytes);
        fits
    }

    /// Returns whether the current pod would fit if it were alone in the file.
    pub fn fits_alone(&self) -> bool {
        self.own <= self.most
    }
}
