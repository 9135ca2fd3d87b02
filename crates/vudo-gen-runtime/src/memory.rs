//! The allocator: blocks of powers of two, each size with a list of its free blocks.
//!
//! A freed block serves the next request of its size and is never split or joined, so a growing
//! vector leaves behind at most as much as it holds. Vectors double, so little is wasted, and
//! growing within the block moves nothing. Fresh blocks come from the end of the memory.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

const PAGE_BYTES: usize = 64 << 10;
const SMALLEST_BITS: u32 = 4;
const CLASS_COUNT: usize = 28;

#[global_allocator]
static ALLOCATOR: Allocator =
    Allocator(UnsafeCell::new(Lists { free: [null_mut(); CLASS_COUNT], fresh: 0, end: 0 }));

struct Allocator(UnsafeCell<Lists>);

/// Free blocks by size; each block holds the address of the next one in its first word.
struct Lists {
    free: [*mut u8; CLASS_COUNT],
    /// Where the next fresh block begins; `fresh <= end`.
    fresh: usize,
    end: usize,
}

// SAFETY: the module has one thread: it is built without atomics and shares no memory.
unsafe impl Sync for Allocator {}

/// The class of the smallest block with room for a layout.
fn class_of(size: usize) -> usize {
    let wanted = size.max(1 << SMALLEST_BITS);
    (usize::BITS - (wanted - 1).leading_zeros() - SMALLEST_BITS) as usize
}

impl Lists {
    #[inline(never)]
    fn take(&mut self, class: usize) -> *mut u8 {
        let Some(head) = self.free.get_mut(class) else {
            return null_mut();
        };
        if !head.is_null() {
            let block = *head;
            // SAFETY: a block in a list is at least 16 bytes, aligned to 16, and nobody else's;
            // its first word was written by `give`.
            *head = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        let size = 1 << (class as u32 + SMALLEST_BITS);
        if self.end - self.fresh < size && !self.grow(size) {
            return null_mut();
        }
        let block = self.fresh as *mut u8;
        self.fresh += size;
        block
    }

    /// Makes room for a fresh block of this size.
    fn grow(&mut self, size: usize) -> bool {
        let missing = size - (self.end - self.fresh);
        let page_count = memory_grow(0, missing.div_ceil(PAGE_BYTES));
        if page_count == usize::MAX {
            return false;
        }
        // Somebody else may have grown the memory: what lies between is theirs.
        if page_count * PAGE_BYTES != self.end {
            self.fresh = page_count * PAGE_BYTES;
            self.end = memory_size(0) * PAGE_BYTES;
            return self.end - self.fresh >= size || self.grow(size);
        }
        self.end = memory_size(0) * PAGE_BYTES;
        true
    }

    fn give(&mut self, block: *mut u8, class: usize) {
        let head = &mut self.free[class];
        // SAFETY: the caller gives up the block, which has at least 16 bytes and is aligned to 16.
        unsafe { block.cast::<*mut u8>().write(*head) };
        *head = block;
    }
}

// SAFETY: a block is handed out to one owner at a time, has at least the size asked for, is aligned
// to 16 (greater alignments are refused), and comes from memory that nothing else uses: the linker's
// data and stack lie before the first page that `memory_grow` gives.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: there is one thread, and no reference to the lists outlives a call.
        let lists = unsafe { &mut *self.0.get() };
        if layout.align() > 1 << SMALLEST_BITS {
            return null_mut();
        }
        lists.take(class_of(layout.size()))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        let lists = unsafe { &mut *self.0.get() };
        lists.give(block, class_of(layout.size()));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old_class = class_of(layout.size());
        let new_class = class_of(new_size);
        if old_class == new_class {
            return block;
        }
        // SAFETY: as in `alloc`.
        let lists = unsafe { &mut *self.0.get() };
        let moved = lists.take(new_class);
        if !moved.is_null() {
            // SAFETY: both blocks are live and apart, and each has at least this many bytes.
            unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
            lists.give(block, old_class);
        }
        moved
    }
}
