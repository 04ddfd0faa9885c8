//! What transfers beside the work under way need: a stream of their own for uploads, and pinned memory
//! for results that the host collects when they are there.

use super::driver::{Driver, Event, Stream};
use super::staging::Staging;
use crate::Result;

#[derive(Default)]
pub(super) struct Beside {
    uploads: Option<Uploads>,
    pub landings: Vec<Landing>,
}

pub(super) struct Uploads {
    pub stream: Stream,
    pub staging: Staging,
    /// Behind the last of them.
    pub arrived: Event,
}

/// Where a result arrives.
pub(super) struct Landing {
    /// Pinned memory.
    pub host: u64,
    room: usize,
    pub arrived: Event,
    pub taken: bool,
}

impl Beside {
    /// Gives the memory back; nothing may be under way.
    pub fn free(&mut self, driver: &dyn Driver) {
        if let Some(mut uploads) = self.uploads.take() {
            let _ = driver.synchronize(uploads.stream);
            uploads.staging.free(driver);
        }
        for landing in self.landings.drain(..) {
            // Nothing is left to tell of a failure.
            let _ = driver.free_host(landing.host);
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

    /// A place that nobody has. What may still arrive there is ahead of what will.
    pub fn landing(&mut self, driver: &dyn Driver, bytes: usize) -> Result<usize> {
        let free = |landing: &Landing| !landing.taken && landing.room >= bytes;
        if let Some(place) = self.landings.iter().position(free) {
            return Ok(place);
        }
        let (host, arrived) = (driver.allocate_host(bytes)?, driver.event()?);
        self.landings.push(Landing { host, room: bytes, arrived, taken: false });
        Ok(self.landings.len() - 1)
    }
}
