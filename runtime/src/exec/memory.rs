//! The memory of an executor: aligned blocks, and where each buffer lies in them.

use isoflop_kernels::DType;
use isoflop_kernels::footprint::{HUGE_PAGE, block_bytes};
use isoflop_kernels::program::{ALIGN, Buffer, Program, Space};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::HashMap;

use super::ExecError;

/// Zeroed bytes, aligned to at least [`ALIGN`].
pub struct Block {
    ptr: *mut u8,
    layout: Layout,
}

// SAFETY: a block is plain memory; whoever shares its pointer between threads answers for the accesses.
unsafe impl Send for Block {}
// SAFETY: as above; a shared reference gives out nothing but the pointer.
unsafe impl Sync for Block {}

impl Block {
    pub fn zeroed(bytes: u64) -> Result<Block, ExecError> {
        let too_large = |_| ExecError::Memory { bytes };
        let size = usize::try_from(block_bytes(bytes)).map_err(|_| ExecError::Memory { bytes })?;
        let huge = bytes >= HUGE_PAGE;
        let layout = Layout::from_size_align(size, if huge { HUGE_PAGE } else { ALIGN } as usize)
            .map_err(too_large)?;
        // SAFETY: the layout has a size above zero.
        let ptr = unsafe { alloc(layout) };
        if ptr.is_null() {
            if !huge {
                handle_alloc_error(layout);
            }
            return Err(ExecError::Memory { bytes });
        }
        #[cfg(target_os = "linux")]
        if huge {
            // SAFETY: the range is ours and page-aligned. Refusal is no harm: small pages then.
            unsafe { libc::madvise(ptr.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: as long as the block.
        unsafe { ptr.write_bytes(0, layout.size()) };
        Ok(Block { ptr, layout })
    }

    pub fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.ptr, self.layout) }
    }
}

/// A buffer outside the arena, and where it lies in the block they share.
#[derive(Clone, Debug)]
pub struct Placed {
    pub buffer: Buffer,
    pub offset: usize,
}

/// The buffers outside the arena, each name once, in the order in which programs name them.
pub struct Merged {
    pub placed: Vec<Placed>,
    pub by_name: HashMap<String, usize>,
    /// Of the block that holds them all.
    pub bytes: u64,
}

/// Gives every buffer outside the arena its place. Programs that share a name must agree on everything about it.
pub fn merge(programs: &[Program]) -> Result<Merged, ExecError> {
    let (mut placed, mut by_name, mut bytes) = (Vec::<Placed>::new(), HashMap::new(), 0u64);
    for program in programs {
        for buffer in program.buffers.iter().filter(|b| b.space != Space::Arena) {
            match by_name.get(&buffer.name) {
                None => {
                    by_name.insert(buffer.name.clone(), placed.len());
                    placed.push(Placed { buffer: buffer.clone(), offset: bytes as usize });
                    // Too large a sum is refused when the block is allocated.
                    bytes = bytes.saturating_add(buffer.bytes().next_multiple_of(ALIGN));
                }
                Some(&index) => {
                    let other = &placed[index].buffer;
                    if (&other.dtype, &other.shape, other.space, other.init)
                        != (&buffer.dtype, &buffer.shape, buffer.space, buffer.init)
                    {
                        return Err(ExecError::Program {
                            program: program.name.clone(),
                            message: format!(
                                "buffer `{}` is {} here and {} in another program of the artifact",
                                buffer.name,
                                describe(buffer),
                                describe(other)
                            ),
                        });
                    }
                }
            }
        }
    }
    Ok(Merged { placed, by_name, bytes })
}

/// `f32[2,3] (state, Ones)`, for messages.
pub fn describe(buffer: &Buffer) -> String {
    let space = format!("{:?}", buffer.space).to_lowercase();
    let init = buffer.init.map(|init| format!(", {init:?}")).unwrap_or_default();
    format!("{} ({space}{init})", shape_of(buffer.dtype, &buffer.shape))
}

/// `f32[2,3]`, for messages.
pub fn shape_of(dtype: DType, shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", sizes.join(","))
}
