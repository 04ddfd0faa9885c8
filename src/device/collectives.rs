//! What a device exchanges with those of other processes. A process that trains alone calls nothing
//! and copies nothing.

use std::rc::Rc;

use super::group::{BatchNormOver, Collectives, Group, Place};
use super::handle::Device;
use super::profile::Request;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Device {
    /// Joins a group of processes, before anything is computed that they share. From then on, a
    /// training iteration is that of the whole group: all of its processes run the same ones.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is in a group already.
    pub fn join(&self, collectives: Rc<dyn Collectives>, batch_norm: BatchNormOver) -> Result<()> {
        let joined = self.0.group.set(Group { collectives, batch_norm });
        joined.map_err(|_| Error::device("this device is in a group already"))
    }

    /// Returns this process's place among those that train together.
    pub fn place(&self) -> Place {
        self.0.group.get().map_or(Place::ALONE, |group| group.collectives.place())
    }

    /// Ends all processes of the group at once.
    pub fn abort_group(&self) {
        if let Some(group) = self.group() {
            group.collectives.abort();
        }
    }

    /// Returns over which images batch norm takes its statistics in training.
    pub fn batch_norm_over(&self) -> BatchNormOver {
        self.0.group.get().map_or(BatchNormOver::All, |group| group.batch_norm)
    }

    /// Returns the group, unless this process is alone in it.
    fn group(&self) -> Option<&Group> {
        self.0.group.get().filter(|group| group.collectives.place().size > 1)
    }

    /// Replaces the numbers of a tensor of the compute type by their means over all processes, which
    /// have the same bits in each. One that is not finite in any process is not finite in all.
    pub fn mean_over_group(&self, x: &mut Tensor) -> Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        self.require_own("all_reduce_mean", x.view())?;
        let (address, elements, dtype) = (x.address(), x.len(), x.dtype());
        let request = || Request::memory("all-reduce", x.bytes());
        self.timed(request, || group.collectives.all_reduce_mean(address, elements, dtype))
    }

    /// Returns the tensors of all processes as one, joined along the first dimension in the order of
    /// their ranks: n,… becomes N·n,…. Alone, it shares the memory of `x`.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let Some(group) = self.group() else { return Ok(x.detach()) };
        self.require_own("all_gather", x.view())?;
        let mut shape = x.shape().to_vec();
        let Some(first) = shape.first_mut() else {
            return Err(Error::shape("all_gather", format!("{x:?} has no dimension to join")));
        };
        *first *= group.collectives.place().size;
        let all = self.alloc(&shape, x.dtype())?;
        let (from, to, bytes) = (x.address(), all.address(), x.bytes());
        let request = || Request::memory("all-gather", all.bytes());
        self.timed(request, || group.collectives.all_gather(from, to, bytes))?;
        Ok(all)
    }

    /// Sends a message of the host's to every process, and returns that of each in the order of their
    /// ranks. It returns once all have sent theirs.
    pub fn exchange(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.group().is_none() {
            return Ok(vec![message.into()]);
        }
        self.persistent(|| {
            let lengths = self.gather(&self.upload(&[1], &[message.len() as u64])?)?;
            let lengths: Vec<u64> = self.read(&lengths)?;
            let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
            if longest == 0 {
                return Ok(vec![Vec::new(); lengths.len()]);
            }
            let mut padded = message.to_vec();
            padded.resize(longest, 0);
            let all = self.gather(&self.upload(&[longest], &padded)?)?;
            let all: Vec<u8> = self.read(&all)?;
            let parts = all.chunks(longest).zip(lengths);
            Ok(parts.map(|(part, length)| part[..length as usize].to_vec()).collect())
        })
    }
}
