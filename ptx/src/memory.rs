//! The memory of a launch: tensors in global memory, a block's shared memory, and a warp's local
//! memory, all with bounds.

use std::ops::Range;

use crate::fault::{Access, Problem};
use crate::program::{Program, SharedArray};
use crate::shadow::{Cell, Conflict, Now};

/// Tensors are this many address bits apart, so an address says which tensor it is meant for.
const REGION_BITS: u32 = 36;
/// Generic addresses of shared and local memory.
pub const SHARED_WINDOW: u64 = 1 << 60;
pub const LOCAL_WINDOW: u64 = 1 << 61;
/// Initial bytes of shared and local memory: a NaN in every type.
const POISON: u8 = 0xFF;

/// A tensor in global memory.
#[derive(Clone)]
pub struct Tensor {
    /// Name of the kernel's argument, for messages.
    pub name: String,
    /// The contents.
    pub bytes: Vec<u8>,
    /// Bytes of an element, a power of two; races are looked for in such words.
    pub element: u32,
    /// The kernel may write it.
    pub written: bool,
    /// Bytes by which the address misses a multiple of 256.
    pub misalignment: u32,
}

/// Global memory.
#[derive(Default)]
pub struct Memory {
    tensors: Vec<Tensor>,
    /// A record for each word; none for tensors that are not watched.
    cells: Vec<Vec<Cell>>,
}

fn conflict(conflict: Conflict, access: Access, name: &str, offset: u64) -> Problem {
    let name = name.into();
    match conflict {
        Conflict::Race(other) => Problem::Race { access, name, offset, other },
        Conflict::Unwritten => Problem::Unwritten { name, offset },
        Conflict::InFlight => Problem::InFlight { name, offset },
        Conflict::NonCoherent => Problem::NonCoherent { access, name, offset },
    }
}

impl Memory {
    /// Adds a tensor and returns its address.
    pub fn add(&mut self, tensor: Tensor) -> u64 {
        let words = tensor.bytes.len().div_ceil(1 << tensor.element.trailing_zeros().min(31));
        self.push(tensor, vec![Cell::default(); words])
    }

    /// Adds a tensor in which no races are looked for, and returns its address. It takes no memory
    /// beside its bytes, so that single blocks of large launches can be counted.
    pub fn add_unwatched(&mut self, tensor: Tensor) -> u64 {
        self.push(tensor, Vec::new())
    }

    fn push(&mut self, tensor: Tensor, cells: Vec<Cell>) -> u64 {
        self.cells.push(cells);
        self.tensors.push(tensor);
        self.start(self.tensors.len() - 1)
    }

    /// Returns the contents of the tensor that was added as number `index`.
    ///
    /// # Panics
    /// Panics if there are not as many.
    pub fn contents(&self, index: usize) -> &[u8] {
        &self.tensors[index].bytes
    }

    fn start(&self, index: usize) -> u64 {
        ((index as u64 + 1) << REGION_BITS) + u64::from(self.tensors[index].misalignment)
    }

    /// Forgets all accesses, before a launch.
    pub(crate) fn begin_launch(&mut self) {
        self.cells.iter_mut().for_each(|cells| cells.fill(Cell::default()));
    }

    /// Checks and records an access, and returns the bytes.
    pub(crate) fn access(
        &mut self,
        address: u64,
        bytes: u32,
        access: Access,
        now: &Now,
    ) -> Result<&mut [u8], Problem> {
        let index = ((address >> REGION_BITS) as usize).wrapping_sub(1);
        let outside = |memory: &Memory| {
            let place = memory.nearest(address, bytes);
            Err(Problem::OutOfBounds { access, bytes, place })
        };
        if index >= self.tensors.len() {
            return outside(self);
        }
        let offset = address.wrapping_sub(self.start(index));
        let tensor = &self.tensors[index];
        if offset >= tensor.bytes.len() as u64
            || tensor.bytes.len() as u64 - offset < u64::from(bytes)
        {
            return outside(self);
        }
        if !access.reads() && !tensor.written {
            return Err(Problem::ReadOnly { name: tensor.name.clone() });
        }
        // A power of two, so no division is needed.
        let shift = tensor.element.trailing_zeros().min(31);
        let (first, last) = (offset >> shift, (offset + u64::from(bytes) - 1) >> shift);
        for word in first..=last {
            let Some(cell) = self.cells[index].get_mut(word as usize) else { break };
            let result = cell.access_global(access, now);
            result.map_err(|c| conflict(c, access, &self.tensors[index].name, word << shift))?;
        }
        let offset = offset as usize;
        Ok(&mut self.tensors[index].bytes[offset..offset + bytes as usize])
    }

    /// Describes the position of an access outside of every tensor.
    fn nearest(&self, address: u64, bytes: u32) -> String {
        let distance = |index: usize| {
            let start = self.start(index);
            let end = start + self.tensors[index].bytes.len() as u64;
            match address < start {
                true => (start - address, "before"),
                false => (address.saturating_sub(end), "past the end of"),
            }
        };
        let nearest = (0..self.tensors.len()).min_by_key(|&index| distance(index).0);
        match nearest.map(|index| (distance(index), &self.tensors[index])) {
            Some(((by, side), tensor)) if by < 1 << 32 => {
                let size = tensor.bytes.len();
                format!("{by} bytes {side} `{}`, which has {size}", tensor.name)
            }
            _ => format!("{bytes} bytes at {address:#x}, far from any argument"),
        }
    }
}

/// The shared memory of a block.
pub struct Shared {
    arrays: Vec<(String, Range<u64>)>,
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    /// Binary logarithm of the bytes of a word.
    shift: u32,
}

impl Shared {
    /// `dynamic` is the size of the launch's dynamic shared memory.
    pub fn new(program: &Program, dynamic: u32) -> Shared {
        let range = |array: &SharedArray| {
            let start = u64::from(array.start);
            start..start + u64::from(array.bytes.unwrap_or(dynamic))
        };
        let arrays: Vec<_> =
            program.shared.iter().map(|array| (array.name.clone(), range(array))).collect();
        let end = arrays.iter().map(|(_, range)| range.end).max().unwrap_or(0);
        let cells = vec![Cell::default(); end.div_ceil(u64::from(program.granule)) as usize];
        let shift = program.granule.trailing_zeros();
        Shared { arrays, bytes: vec![POISON; end as usize], cells, shift }
    }

    /// Forgets the contents, before a block.
    pub fn begin_block(&mut self) {
        self.bytes.fill(POISON);
    }

    fn find(&self, address: u64, bytes: u32, access: Access) -> Result<usize, Problem> {
        let end = address.wrapping_add(u64::from(bytes));
        let inside =
            |(_, range): &(String, Range<u64>)| range.contains(&address) && end <= range.end;
        self.arrays.iter().position(inside).ok_or_else(|| {
            let before = self.arrays.iter().rev().find(|(_, range)| range.start <= address);
            let place = match before {
                Some((name, range)) => format!(
                    "at byte {} of shared `{name}`, which has {}",
                    address - range.start,
                    range.end - range.start
                ),
                None => format!("at {address:#x} of shared memory"),
            };
            Problem::OutOfBounds { access, bytes, place }
        })
    }

    /// Checks and records an access, and returns the bytes.
    pub fn access(
        &mut self,
        address: u64,
        bytes: u32,
        access: Access,
        now: &Now,
    ) -> Result<&mut [u8], Problem> {
        let array = self.find(address, bytes, access)?;
        for word in address >> self.shift..=(address + u64::from(bytes) - 1) >> self.shift {
            let result = self.cells[word as usize].access_shared(access, now);
            result.map_err(|c| {
                let (name, range) = &self.arrays[array];
                let at = (word << self.shift).max(range.start) - range.start;
                conflict(c, access, name, at)
            })?;
        }
        let address = address as usize;
        Ok(&mut self.bytes[address..address + bytes as usize])
    }

    fn cells_of(&mut self, address: u64, bytes: u32) -> &mut [Cell] {
        let last = (address + u64::from(bytes) - 1) >> self.shift;
        &mut self.cells[(address >> self.shift) as usize..=last as usize]
    }

    /// Checks an asynchronous copy's target and marks it as under way.
    pub fn begin_copy(&mut self, address: u64, bytes: u32, now: &Now) -> Result<(), Problem> {
        self.access(address, bytes, Access::Write, now)?;
        self.cells_of(address, bytes).iter_mut().for_each(Cell::begin_copy);
        Ok(())
    }

    /// Delivers an asynchronous copy.
    pub fn end_copy(&mut self, address: u64, data: &[u8], now: &Now) {
        self.bytes[address as usize..][..data.len()].copy_from_slice(data);
        self.cells_of(address, data.len() as u32).iter_mut().for_each(|cell| cell.end_copy(now));
    }
}

/// The local memory of a warp.
pub struct Local {
    /// Bytes of a thread.
    size: u32,
    bytes: Vec<u8>,
}

impl Local {
    pub fn new(size: u32, lanes: usize) -> Local {
        Local { size, bytes: vec![POISON; size as usize * lanes] }
    }

    /// Forgets the contents, before a block.
    pub fn begin_block(&mut self) {
        self.bytes.fill(POISON);
    }

    pub fn access(
        &mut self,
        lane: usize,
        address: u64,
        bytes: u32,
        access: Access,
    ) -> Result<&mut [u8], Problem> {
        let size = u64::from(self.size);
        if address >= size || size - address < u64::from(bytes) {
            let place = format!("byte {address} of a thread's {size} bytes of local memory");
            return Err(Problem::OutOfBounds { access, bytes, place });
        }
        let start = lane * self.size as usize + address as usize;
        Ok(&mut self.bytes[start..start + bytes as usize])
    }
}
