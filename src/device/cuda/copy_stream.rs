//! Resources of asynchronous transfers: a copy stream for uploads, and readback slots in pinned
//! memory for results that the host collects once they have arrived.

use super::driver::{Driver, Event, Stream};
use super::staging::Staging;
use crate::Result;

#[derive(Default)]
pub(super) struct CopyStream {
    uploads: Option<Uploads>,
    pub slots: Vec<ReadbackSlot>,
}

pub(super) struct Uploads {
    pub stream: Stream,
    pub staging: Staging,
    /// Recorded after the last upload.
    pub arrived: Event,
}

/// A readback slot.
pub(super) struct ReadbackSlot {
    /// Address in pinned memory.
    pub host: u64,
    room: usize,
    pub arrived: Event,
    pub taken: bool,
}

impl CopyStream {
    /// Frees the pinned memory; no transfer may be in progress on the main stream.
    pub fn free(&mut self, driver: &dyn Driver) {
        if let Some(mut uploads) = self.uploads.take() {
            let _ = driver.synchronize(uploads.stream);
            uploads.staging.free(driver);
        }
        for slot in self.slots.drain(..) {
            // Errors cannot be reported here.
            let _ = driver.free_host(slot.host);
        }
    }

    pub fn uploads(&mut self, driver: &dyn Driver) -> Result<&mut Uploads> {
        let uploads = match self.uploads.take() {
            Some(uploads) => uploads,
            None => Uploads {
                stream: driver.side_stream()?,
                staging: Staging::default(),
                arrived: driver.event()?,
            },
        };
        Ok(self.uploads.insert(uploads))
    }

    /// Returns a free readback slot. An abandoned download into it may still be in progress, but it
    /// precedes the next one on the stream.
    pub fn slot(&mut self, driver: &dyn Driver, bytes: usize) -> Result<usize> {
        let free = |slot: &ReadbackSlot| !slot.taken && slot.room >= bytes;
        if let Some(place) = self.slots.iter().position(free) {
            return Ok(place);
        }
        // The driver frees its events; the memory would be lost if there were no event for it.
        let arrived = driver.event()?;
        let host = driver.allocate_host(bytes)?;
        self.slots.push(ReadbackSlot { host, room: bytes, arrived, taken: false });
        Ok(self.slots.len() - 1)
    }
}
