//! Transfers beside the work under way: uploads on a stream of their own, and results that the host
//! collects when they are there.

use super::Cuda;
use super::driver::{Driver, Event, Stream};
use super::staging::Staging;
use crate::Result;
use crate::device::backend::{Mark, Transfers};

#[derive(Default)]
pub(super) struct Beside {
    uploads: Option<Uploads>,
    landings: Vec<Landing>,
}

struct Uploads {
    stream: Stream,
    staging: Staging,
    /// Behind the last of them.
    arrived: Event,
}

/// Where a result arrives.
struct Landing {
    /// Pinned memory.
    host: u64,
    room: usize,
    arrived: Event,
    taken: bool,
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

    fn uploads(&mut self, driver: &dyn Driver) -> Result<&mut Uploads> {
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
    fn landing(&mut self, driver: &dyn Driver, bytes: usize) -> Result<usize> {
        let free = |landing: &Landing| !landing.taken && landing.room >= bytes;
        if let Some(place) = self.landings.iter().position(free) {
            return Ok(place);
        }
        let (host, arrived) = (driver.allocate_host(bytes)?, driver.event()?);
        self.landings.push(Landing { host, room: bytes, arrived, taken: false });
        Ok(self.landings.len() - 1)
    }
}

impl Transfers for Cuda {
    fn mark(&self, mark: Option<Mark>) -> Result<Mark> {
        let event = match mark {
            Some(mark) => Event(mark.0),
            None => self.driver.event()?,
        };
        self.driver.record(self.stream, event)?;
        Ok(Mark(event.0))
    }

    fn send(&self, after: Mark, data: &[(u64, &[u8])]) -> Result<()> {
        self.not_recording("an upload")?;
        let mut beside = self.beside.borrow_mut();
        let uploads = beside.uploads(&*self.driver)?;
        self.driver.hold(uploads.stream, Event(after.0))?;
        for (to, data) in data {
            uploads.staging.copy_in(&*self.driver, uploads.stream, *to, data)?;
        }
        self.driver.record(uploads.stream, uploads.arrived)?;
        self.driver.hold(self.stream, uploads.arrived)
    }

    fn fetch(&self, from: u64, bytes: usize) -> Result<usize> {
        self.not_recording("a read")?;
        let mut beside = self.beside.borrow_mut();
        let place = beside.landing(&*self.driver, bytes)?;
        let landing = &mut beside.landings[place];
        self.driver.copy_out(self.stream, from, landing.host, bytes)?;
        self.driver.record(self.stream, landing.arrived)?;
        landing.taken = true;
        Ok(place)
    }

    fn is_there(&self, place: usize) -> Result<bool> {
        self.driver.passed(self.beside.borrow().landings[place].arrived)
    }

    fn wait(&self, place: usize, data: &mut [u8]) -> Result<()> {
        let landing = &self.beside.borrow().landings[place];
        self.driver.wait(landing.arrived)?;
        self.driver.read_host(landing.host, data)
    }

    fn forget(&self, place: usize) {
        self.beside.borrow_mut().landings[place].taken = false;
    }
}
