//! How work is split into blocks on a GPU, whatever an element or a row costs.

/// Elements per block of elementwise work: four for each of its 256 threads.
const ELEMENTS_PER_BLOCK: usize = 1 << 10;
/// Thread groups per block: its warps.
const GROUPS: usize = 8;
/// Blocks per multiprocessor for independent rows: 8 blocks of 256 threads are the 2048 threads
/// that an A100 or H100 keeps resident.
const BLOCKS_OF_GROUPS: usize = 8;
/// Partial sums per multiprocessor: the resident blocks of a kernel that leaves room for no more
/// than two.
const PARTS: usize = 2;

/// Returns the number of blocks for elementwise work on `n` elements.
pub fn of_elements(n: usize) -> usize {
    n.div_ceil(ELEMENTS_PER_BLOCK)
}

/// Returns the number of blocks whose thread groups share `rows`.
pub fn of_groups(rows: usize, multiprocessors: usize) -> usize {
    rows.div_ceil(GROUPS).min(BLOCKS_OF_GROUPS * multiprocessors)
}

/// Returns the number of blocks into which a sum over `rows` is split.
pub fn parts_of_groups(rows: usize, multiprocessors: usize) -> usize {
    rows.div_ceil(GROUPS).min(PARTS * multiprocessors)
}
