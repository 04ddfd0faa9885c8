//! How work is cut into blocks on a card, whatever an element or a row costs.

/// Elements of elementwise work that are worth a block: a few for each of its 256 threads.
const ELEMENTS_PER_BLOCK: usize = 1 << 10;
/// Teams of a block: its warps.
const TEAMS: usize = 8;
/// Blocks for each multiprocessor: eight times what it has room for, and those of a kernel that leaves
/// room for no more than two.
const BLOCKS_OF_TEAMS: usize = 8;
const PARTS: usize = 2;

/// Blocks for elementwise work of `n` elements.
pub fn of_elements(n: usize) -> usize {
    n.div_ceil(ELEMENTS_PER_BLOCK)
}

/// Blocks whose teams share `rows` on a card with so many multiprocessors.
pub fn of_teams(rows: usize, multiprocessors: usize) -> usize {
    rows.div_ceil(TEAMS).min(BLOCKS_OF_TEAMS * multiprocessors)
}

/// Blocks that a sum over `rows` is cut into on a card with so many multiprocessors.
pub fn parts_of_teams(rows: usize, multiprocessors: usize) -> usize {
    rows.div_ceil(TEAMS).min(PARTS * multiprocessors)
}
