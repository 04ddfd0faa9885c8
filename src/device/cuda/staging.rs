//! Transfers through pinned staging buffers. Uploads alternate between two slots, so that the host
//! fills one while the GPU still reads the other.

use super::driver::{Driver, Event, Stream};
use crate::Result;

/// Bytes per slot; larger transfers are split.
const SLOT: usize = 16 << 20;
/// Uploads start at multiples of this many bytes.
const ALIGNMENT: usize = 64;

#[derive(Default)]
pub(super) struct Staging {
    uploads: [Slot; 2],
    /// The slot that is being filled.
    current: usize,
    /// Staging buffer for downloads.
    download: Option<u64>,
}

#[derive(Default)]
struct Slot {
    /// Address in pinned memory, allocated by the first upload.
    address: Option<u64>,
    used: usize,
    /// Recorded after the last copy from the slot; None if none is in progress.
    passed: Option<Event>,
    event: Option<Event>,
}

impl Staging {
    /// Uploads data, which may be dropped as soon as this returns.
    pub fn copy_in(
        &mut self,
        driver: &dyn Driver,
        stream: Stream,
        to: u64,
        data: &[u8],
    ) -> Result<()> {
        for (i, piece) in data.chunks(SLOT).enumerate() {
            let from = self.room(driver, stream, piece.len())?;
            driver.write_host(from, piece)?;
            driver.copy_in(stream, from, to + (i * SLOT) as u64, piece.len())?;
        }
        Ok(())
    }

    /// Downloads data, waiting for the stream.
    pub fn copy_out(
        &mut self,
        driver: &dyn Driver,
        stream: Stream,
        from: u64,
        data: &mut [u8],
    ) -> Result<()> {
        let host = match self.download {
            Some(host) => host,
            None => *self.download.insert(driver.allocate_host(SLOT)?),
        };
        for (i, piece) in data.chunks_mut(SLOT).enumerate() {
            driver.copy_out(stream, from + (i * SLOT) as u64, host, piece.len())?;
            driver.synchronize(stream)?;
            driver.read_host(host, piece)?;
        }
        Ok(())
    }

    /// Returns where the next `bytes` to upload are staged.
    fn room(&mut self, driver: &dyn Driver, stream: Stream, bytes: usize) -> Result<u64> {
        let slot = &mut self.uploads[self.current];
        if slot.used + bytes > SLOT {
            let event = match slot.event {
                Some(event) => event,
                None => *slot.event.insert(driver.event()?),
            };
            driver.record(stream, event)?;
            slot.passed = Some(event);
            self.current = 1 - self.current;
            let slot = &mut self.uploads[self.current];
            if let Some(event) = slot.passed.take() {
                driver.wait(event)?;
            }
            slot.used = 0;
        }
        let slot = &mut self.uploads[self.current];
        let address = match slot.address {
            Some(address) => address,
            None => *slot.address.insert(driver.allocate_host(SLOT)?),
        };
        let at = address + slot.used as u64;
        slot.used = (slot.used + bytes).next_multiple_of(ALIGNMENT);
        Ok(at)
    }

    /// Frees the pinned memory; no transfer may be in progress.
    pub fn free(&mut self, driver: &dyn Driver) {
        let uploads = self.uploads.iter_mut().filter_map(|slot| slot.address.take());
        for address in uploads.chain(self.download.take()) {
            // Errors cannot be reported here.
            let _ = driver.free_host(address);
        }
    }
}
