//! What the pods and objects of one file may take together.

use crate::limits;

/// The amounts that the pods and objects of a file share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Memory of the pods, the objects and the items of their lists and maps.
    pub items: Share,
    /// Text that references stand for and that containers inherit.
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

/// An amount that every pod of a file takes from, bytes.
#[derive(Debug)]
pub(crate) struct Share {
    most: usize,
    left: usize,
    /// The amount that the present pod has taken.
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

    /// Takes so many bytes; returns whether they fit.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.own = self.own.saturating_add(bytes);
        let fits = bytes <= self.left;
        self.left = self.left.saturating_sub(bytes);
        fits
    }

    /// Returns whether the present pod would fit if no other were before it in the file.
    pub fn fits_alone(&self) -> bool {
        self.own <= self.most
    }
}
