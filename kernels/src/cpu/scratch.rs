//! Scratch memory of one thread: grown when a larger shape comes, kept between tasks so that it stays in cache.

use std::cell::RefCell;

/// One cache line, so that buffers start on vector boundaries.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for `bytes` of scratch on this thread.
pub fn reserve(bytes: usize) {
    LINES.with_borrow_mut(|lines| {
        lines.reserve_exact(bytes.div_ceil(size_of::<Line>()).saturating_sub(lines.len()))
    });
}

/// Hands out pieces of a thread's scratch memory, each aligned to 64 bytes, with any (initialised) content.
pub struct Scratch {
    next: *mut f32,
    left: usize,
}

impl Scratch {
    /// Calls `body` with at least `elements` floats of scratch, counted as [`padded`] sizes.
    pub fn with<R>(elements: usize, body: impl FnOnce(&mut Scratch) -> R) -> R {
        LINES.with_borrow_mut(|lines| {
            let needed = elements.div_ceil(16);
            if lines.len() < needed {
                lines.reserve_exact(needed - lines.len());
                lines.resize(needed, Line([0.0; 16]));
            }
            body(&mut Scratch { next: lines.as_mut_ptr().cast(), left: lines.len() * 16 })
        })
    }

    /// The next `elements` floats.
    pub fn take(&mut self, elements: usize) -> *mut f32 {
        let size = padded(elements);
        assert!(size <= self.left, "scratch of {} floats asked for {size} more", self.left);
        let piece = self.next;
        // SAFETY: `size` floats are left behind `next`, checked above.
        self.next = unsafe { self.next.add(size) };
        self.left -= size;
        piece
    }
}

/// Floats that [`Scratch::take`] uses up for a piece of `elements`.
pub fn padded(elements: usize) -> usize {
    elements.next_multiple_of(16)
}
