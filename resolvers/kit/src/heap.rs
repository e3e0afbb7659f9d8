//! The guest's heap: blocks of powers of two, a free list per size, cut from the memory the instance
//! starts with.
//!
//! Every call has a fresh instance, so nothing is ever given back to the host and fragmentation dies with
//! the call. Growing linear memory costs the host two system calls, more than a small merge: the linker
//! reserves [`GROWTH_BYTES`] from the start (`.cargo/config.toml`), and the heap grows only beyond that.
//! A guest has one thread; the heap is never shared.

/// Memory is asked for in steps of this many bytes (16 wasm pages), or what one large block needs.
#[cfg(target_arch = "wasm32")]
const GROWTH_BYTES: usize = 1 << 20;

/// Blocks are 2^4 to 2^31 bytes: no smaller than a free list's link, aligned for every primitive type.
const SMALLEST_LOG2: u32 = 4;
const CLASSES: usize = 28;

/// Where the next block comes from.
struct Heap {
    next: usize,
    end: usize,
    /// First free block of each size; a free block holds the address of the following one, 0 ends it.
    free: [usize; CLASSES],
}

impl Heap {
    /// A heap over the addresses from `start` (not 0) to `end`.
    const fn new(start: usize, end: usize) -> Self {
        Self {
            next: start,
            end,
            free: [0; CLASSES],
        }
    }

    /// The address of a block, or `None` if `grow` cannot add as many bytes as it is asked for at `end`.
    ///
    /// # Safety
    /// The addresses handed to [`Heap::new`], and those that `grow` adds, belong to this heap alone.
    unsafe fn take(
        &mut self,
        size: usize,
        align: usize,
        grow: impl FnOnce(usize) -> Option<usize>,
    ) -> Option<usize> {
        let class = class_of(size)?;
        let block = self.free[class];
        // Alignments beyond the smallest block are rare enough to never reuse one.
        if block != 0 && align <= 1 << SMALLEST_LOG2 {
            // SAFETY: a free block holds the link that `give_back` wrote.
            self.free[class] = unsafe { *(block as *const usize) };
            return Some(block);
        }
        let start = self
            .next
            .checked_next_multiple_of(align.max(1 << SMALLEST_LOG2))?;
        let end = start.checked_add(bytes_of(class))?;
        if end > self.end {
            self.end = self.end.checked_add(grow(end - self.end)?)?;
        }
        self.next = end;
        Some(start)
    }

    /// Makes the block of `size` bytes at `address` free again.
    ///
    /// # Safety
    /// `take` returned `address` for this `size`, and nothing uses it any more.
    unsafe fn give_back(&mut self, address: usize, size: usize) {
        if let Some(class) = class_of(size) {
            // SAFETY: the block is ours again and at least as large as a link.
            unsafe { *(address as *mut usize) = self.free[class] };
            self.free[class] = address;
        }
    }
}

/// Whether a block taken for `old` bytes also holds `new` bytes under the same size.
#[cfg(target_arch = "wasm32")]
fn same_block(old: usize, new: usize) -> bool {
    class_of(old) == class_of(new)
}

fn class_of(size: usize) -> Option<usize> {
    let log2 = size.checked_next_power_of_two()?.trailing_zeros();
    let class = log2.saturating_sub(SMALLEST_LOG2) as usize;
    (class < CLASSES).then_some(class)
}

fn bytes_of(class: usize) -> usize {
    1 << (class + SMALLEST_LOG2 as usize)
}

#[cfg(target_arch = "wasm32")]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::arch::wasm32::{memory_grow, memory_size};
    use std::cell::UnsafeCell;

    use super::{GROWTH_BYTES, Heap, same_block};

    const PAGE_BYTES: usize = 1 << 16;

    unsafe extern "C" {
        /// The linker's: where static data ends.
        static __heap_base: u8;
    }

    struct Guest(UnsafeCell<Option<Heap>>);

    // SAFETY: a resolver's instance has one thread.
    unsafe impl Sync for Guest {}

    #[global_allocator]
    static HEAP: Guest = Guest(UnsafeCell::new(None));

    impl Guest {
        #[allow(
            clippy::mut_from_ref,
            reason = "one thread, and no call below re-enters"
        )]
        unsafe fn heap(&self) -> &mut Heap {
            // SAFETY: see above; `__heap_base` is only an address.
            unsafe {
                (*self.0.get()).get_or_insert_with(|| {
                    Heap::new(&raw const __heap_base as usize, memory_size(0) * PAGE_BYTES)
                })
            }
        }
    }

    fn grow(missing: usize) -> Option<usize> {
        let pages = missing.max(GROWTH_BYTES).div_ceil(PAGE_BYTES);
        (memory_grow(0, pages) != usize::MAX).then_some(pages * PAGE_BYTES)
    }

    // SAFETY: blocks never overlap, are as large and as aligned as asked, and stay until given back.
    unsafe impl GlobalAlloc for Guest {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            unsafe { self.heap().take(layout.size(), layout.align(), grow) }
                .map_or(std::ptr::null_mut(), |address| address as *mut u8)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            unsafe { self.heap().give_back(block as usize, layout.size()) };
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if same_block(layout.size(), size) {
                return block;
            }
            let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Heap, bytes_of, class_of};

    /// Takes and gives back blocks as `steps` say (size, or the index of a block to free) and checks that
    /// no two live blocks overlap and that the arena of `arena_bytes` is never left.
    fn check(arena_bytes: usize, steps: &[Result<usize, usize>], expect_last: bool) {
        let arena = vec![0_u128; arena_bytes / 16];
        let start = arena.as_ptr() as usize;
        let mut heap = Heap::new(start, start + arena_bytes);
        let mut live: Vec<Option<(usize, usize)>> = Vec::new();
        let mut last = true;
        for step in steps {
            match *step {
                Ok(size) => {
                    // SAFETY: the arena is this heap's alone, and nothing is added to it.
                    let block = unsafe { heap.take(size, 8, |_| None) };
                    last = block.is_some();
                    live.push(block.map(|at| (at, size)));
                }
                Err(index) => {
                    let (at, size) = live[index].take().expect("a live block");
                    // SAFETY: taken above with this size.
                    unsafe { heap.give_back(at, size) };
                }
            }
            let mut spans: Vec<_> = live.iter().flatten().copied().collect();
            spans.sort_unstable();
            for &(at, size) in &spans {
                assert!(at % 16 == 0 && at >= start && at + size <= start + arena_bytes);
            }
            assert!(spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        }
        assert_eq!(last, expect_last);
        drop(arena);
    }

    #[test]
    fn blocks_do_not_overlap_and_are_reused() {
        check(
            256,
            &[
                Ok(60),
                Ok(64),
                Ok(16),
                Err(0),
                Ok(33),
                Err(1),
                Err(2),
                Ok(1),
            ],
            true,
        );
        // Without reuse this would need 10 * 64 bytes.
        let mut steps = Vec::new();
        for i in 0..10 {
            steps.extend([Ok(64), Err(i)]);
        }
        steps.push(Ok(64));
        check(64, &steps, true);
    }

    #[test]
    fn a_full_arena_says_so() {
        check(64, &[Ok(32), Ok(32), Ok(1)], false);
        check(64, &[Ok(usize::MAX)], false);
    }

    #[test]
    fn grows_by_what_is_missing() {
        let arena = [0_u128; 8];
        let start = arena.as_ptr() as usize;
        let mut heap = Heap::new(start, start + 64);
        let mut asked = 0;
        // SAFETY: the arena is larger than what the heap was told at first.
        let block = unsafe {
            heap.take(100, 1, |missing| {
                asked = missing;
                Some(64)
            })
        };
        assert_eq!((block, asked), (Some(start), 64));
    }

    #[test]
    fn sizes_round_up_to_their_class() {
        for (size, bytes) in [
            (1, 16),
            (16, 16),
            (17, 32),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, 1 << 21),
        ] {
            assert_eq!(class_of(size).map(bytes_of), Some(bytes), "{size}");
        }
        assert_eq!(class_of((1 << 31) + 1), None);
    }
}
