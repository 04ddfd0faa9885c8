//! Asynchronous transfers, ordered with the work of the main stream.

use super::backend::Cuda;
use super::driver::Event;
use crate::Result;
use crate::device::backend::{Mark, Transfers};

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
