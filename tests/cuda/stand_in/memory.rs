//! Tracks what is allocated and lent, and checks what may be accessed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};
use udass_raw::{Error, Result};

use super::misuse;
use super::work::Touch;

/// Filled with this byte, a float is NaN, an integer is -1, and a label is the ignored class.
pub const POISON: u8 = 0xFF;
pub const GUARD: u8 = 0xA5;
/// Bytes of a guard zone; the gap up to the next tensor may be larger.
pub const PADDING: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Device,
    Host,
}

/// Freed memory stays mapped, so that an access to it is reported and does not crash.
struct Allocation {
    map: MmapMut,
    freed: bool,
    /// Whether tensors are lent from it; then nothing outside them may be accessed.
    lends: bool,
}

#[derive(Default)]
pub struct Memories {
    allocations: BTreeMap<(Side, u64), Allocation>,
    /// Sizes of the lent tensors by address.
    lent: BTreeMap<u64, usize>,
}

/// The bytes after a tensor, which nothing may write.
pub fn guard_of(address: u64, bytes: usize) -> Range<u64> {
    let end = address + bytes as u64;
    end..end + PADDING as u64
}

impl Memories {
    /// Returns the bytes of device memory in use.
    pub fn allocated(&self) -> usize {
        let live =
            self.allocations.iter().filter(|((side, _), a)| *side == Side::Device && !a.freed);
        live.map(|(_, allocation)| allocation.map.len()).sum()
    }

    /// Returns the numbers of live allocations on the device and on the host.
    pub fn blocks(&self) -> [usize; 2] {
        [Side::Device, Side::Host].map(|wanted| {
            let live = self.allocations.iter().filter(|((side, _), a)| *side == wanted && !a.freed);
            live.count()
        })
    }

    pub fn allocate(&mut self, side: Side, bytes: usize) -> Result<u64> {
        let map = MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon();
        let mut map = map.map_err(|e| Error::device(format!("allocate: {e}")))?;
        let address = map.as_mut_ptr() as u64;
        self.allocations.insert((side, address), Allocation { map, freed: false, lends: false });
        Ok(address)
    }

    /// Returns the range of a live allocation that begins at `address`.
    pub fn range(&self, side: Side, call: &str, address: u64) -> Result<Range<u64>> {
        match self.allocations.get(&(side, address)) {
            Some(found) if found.freed => misuse(call, format_args!("{address:#x} twice")),
            Some(found) => Ok(address..address + found.map.len() as u64),
            None => misuse(call, format_args!("{address:#x} was not allocated")),
        }
    }

    pub fn free(&mut self, side: Side, address: u64) -> Result<()> {
        if let Some(found) = self.allocations.get_mut(&(side, address)) {
            found.freed = true;
            // Filling a reserved segment would take long; its tensors were poisoned when they were
            // returned.
            if !found.lends {
                found.map.fill(POISON);
            }
        }
        Ok(())
    }

    fn around(&self, side: Side, address: u64) -> Option<(u64, &Allocation)> {
        let (key, found) = self.allocations.range(..=(side, address)).next_back()?;
        let inside = key.0 == side && address < key.1 + found.map.len() as u64;
        inside.then_some((key.1, found))
    }

    pub fn on_alloc(&mut self, address: u64, bytes: usize) -> Result<()> {
        let touch = Touch::new(Side::Device, address, bytes + PADDING, true);
        self.check_allocated("lend", &touch)?;
        let start = self.around(Side::Device, address).map(|(start, _)| start);
        let found = start.and_then(|start| self.allocations.get_mut(&(Side::Device, start)));
        found.into_iter().for_each(|allocation| allocation.lends = true);
        self.lent.insert(address, bytes);
        Ok(())
    }

    pub fn on_free(&mut self, address: u64) {
        self.lent.remove(&address);
    }

    /// Checks that an access stays in allocated memory.
    pub fn check_allocated(&self, call: &str, touch: &Touch) -> Result<()> {
        let Some((start, found)) = self.around(touch.side, touch.address) else {
            return misuse(call, format_args!("{:#x} is not allocated", touch.address));
        };
        if found.freed {
            return misuse(call, format_args!("use of {:#x} after it was freed", touch.address));
        }
        if touch.end() > start + found.map.len() as u64 {
            return misuse(call, "runs over the end of an allocation");
        }
        Ok(())
    }

    /// Checks that an access stays in allocated memory that no tensor occupies.
    pub fn check_free(&self, call: &str, touch: &Touch) -> Result<()> {
        self.check_allocated(call, touch)?;
        match self.lent.range(..touch.end()).next_back() {
            Some((start, bytes)) if start + *bytes as u64 > touch.address => {
                misuse(call, format_args!("{:#x} was given to another tensor", touch.address))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an access stays in one live tensor, or in an allocation that lends none.
    pub fn check(&self, call: &str, touch: &Touch) -> Result<()> {
        if touch.bytes == 0 {
            return Ok(());
        }
        self.check_allocated(call, touch)?;
        let lends = self.around(touch.side, touch.address).is_some_and(|(_, found)| found.lends);
        if !lends {
            return Ok(());
        }
        match self.lent.range(..=touch.address).next_back() {
            Some((start, bytes)) if touch.address < start + (*bytes).max(1) as u64 => {
                let over = touch.end().saturating_sub(start + *bytes as u64);
                match over {
                    0 => Ok(()),
                    over => misuse(call, format_args!("runs {over} bytes over a tensor's end")),
                }
            }
            _ => misuse(call, format_args!("use of {:#x} after it was freed", touch.address)),
        }
    }

    /// Returns the tensor that contains the start of an access.
    pub fn tensor_around(&self, touch: &Touch) -> Option<(u64, usize)> {
        let (start, bytes) = self.lent.range(..=touch.address).next_back()?;
        let inside = touch.side == Side::Device && touch.address < start + *bytes as u64;
        inside.then_some((*start, *bytes))
    }

    /// Returns the addresses of all tensors.
    pub fn tensors(&self) -> BTreeSet<u64> {
        self.lent.keys().copied().collect()
    }
}

/// Checks that a call's output did not overwrite the guard zone after it.
pub fn check_guard(call: &str, guard: &Range<u64>) -> Result<()> {
    let mut zone = [0u8; PADDING];
    super::work::read(guard.start, &mut zone);
    match zone.iter().position(|&byte| byte != GUARD) {
        Some(at) => misuse(call, format_args!("wrote {at} bytes past a tensor's end")),
        None => Ok(()),
    }
}
