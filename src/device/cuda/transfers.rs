//! Asynchronous transfers, ordered with the work of the main stream.

use super::backend::Cuda;
use super::driver::Event;
use crate::Result;
use crate::device::backend::{EventId, Transfers};

impl Transfers for Cuda {
    fn mark(&self, mark: Option<EventId>) -> Result<EventId> {
        let event = match mark {
            Some(mark) => Event(mark.0),
            None => self.driver.event()?,
        };
        self.driver.record(self.stream, event)?;
        Ok(EventId(event.0))
    }

    fn send(&self, after: EventId, data: &[(u64, &[u8])]) -> Result<()> {
        self.not_recording("an upload")?;
        let mut copy_stream = self.copy_stream.borrow_mut();
        let uploads = copy_stream.uploads(&*self.driver)?;
        self.driver.hold(uploads.stream, Event(after.0))?;
        for (to, data) in data {
            uploads.staging.copy_in(&*self.driver, uploads.stream, *to, data)?;
        }
        self.driver.record(uploads.stream, uploads.arrived)?;
        self.driver.hold(self.stream, uploads.arrived)
    }

    fn place(&self, bytes: usize) -> Result<usize> {
        self.not_recording("a read")?;
        let mut copy_stream = self.copy_stream.borrow_mut();
        let place = copy_stream.slot(&*self.driver, bytes)?;
        copy_stream.slots[place].taken = true;
        Ok(place)
    }

    fn fetch(&self, from: u64, bytes: usize, place: usize) -> Result<()> {
        let slot = &self.copy_stream.borrow().slots[place];
        self.driver.copy_out(self.stream, from, slot.host, bytes)?;
        self.driver.record(self.stream, slot.arrived)
    }

    fn is_there(&self, place: usize) -> Result<bool> {
        self.not_recording("a wait")?;
        self.driver.passed(self.copy_stream.borrow().slots[place].arrived)
    }

    fn wait(&self, place: usize, data: &mut [u8]) -> Result<()> {
        self.not_recording("a wait")?;
        let slot = &self.copy_stream.borrow().slots[place];
        self.driver.wait(slot.arrived)?;
        self.driver.read_host(slot.host, data)
    }

    fn forget(&self, place: usize) {
        self.copy_stream.borrow_mut().slots[place].taken = false;
    }
}
