//! Statistics of feature vectors by class: of a batch, and over all batches (SePiCo, Xie et al.
//! 2023).

use super::linear::{over_parts, row_parts};
use crate::device::constants::label::LABEL_VALUES;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Labels that one block counts.
const LABELS_PER_PART: usize = 4096;

/// Sums of a batch's feature vectors by class.
pub struct ClassSums {
    /// The sums, K,C.
    pub sums: Tensor,
    /// The number of vectors of each class, i64 K.
    pub counts: Tensor,
}

/// Returns the sums of the features of each class. features: B,h,w,C in the compute type; labels:
/// u8 B,h,w, of which values from `classes` on are left out.
///
/// # Errors
/// Returns a shape error if the shapes do not match.
pub fn class_sums(
    device: &Device,
    features: &Tensor,
    labels: &Tensor,
    classes: usize,
) -> Result<ClassSums> {
    let cells = labels.len();
    if features.rows() != cells || classes >= LABEL_VALUES {
        let problem = format!("features {features:?}, labels {labels:?}, {classes} classes");
        return Err(Error::shape("class_sums", problem));
    }
    let sums = sums_by_class(device, features, labels, None, classes)?;
    let parts = cells.div_ceil(LABELS_PER_PART).max(1);
    let mut partial = device.alloc(&[parts, LABEL_VALUES], DType::I32)?;
    let grid = Grid::blocks(parts);
    kernels::CountValues { label: labels, counts: &mut partial, parts, pixels: cells }
        .launch(device, grid)?;
    let mut counts = device.alloc(&[classes], DType::I64)?;
    kernels::ClassCounts { partial: &partial, counts: &mut counts, parts, classes }
        .launch(device, device.elements(classes * parts))?;
    Ok(ClassSums { sums, counts })
}

/// Returns Σ x by class, or Σ (x - mean)² with the means of the classes.
fn sums_by_class(
    device: &Device,
    x: &Tensor,
    labels: &Tensor,
    means: Option<&Tensor>,
    classes: usize,
) -> Result<Tensor> {
    let (rows, channels) = (x.rows(), x.channels());
    let parts = row_parts(rows);
    let mut partial = device.empty(&[parts, classes * channels])?;
    kernels::ClassSums { x, labels, means, partial: &mut partial, rows, classes, channels }
        .launch(device, Grid::blocks(parts))?;
    let columns = classes * channels;
    let mut sums = device.zeros(&[classes, channels], device.real())?;
    kernels::ColumnSumsFinal { partial: &partial, sums: &mut sums, parts, channels: columns }
        .launch(device, over_parts(device, parts, columns))?;
    Ok(sums)
}

/// The mean of a batch's feature vectors of each class, and how far they are from it.
pub struct ClassMoments {
    /// The means, K,C; 0 for a class without vectors.
    pub means: Tensor,
    /// The sums of squared differences from the means, K,C.
    pub squares: Tensor,
    /// The number of vectors of each class, i64 K.
    pub counts: Tensor,
}

impl ClassMoments {
    /// Computes the moments of the features whose sums are `sums`; see [`class_sums`].
    pub fn new(
        device: &Device,
        features: &Tensor,
        labels: &Tensor,
        sums: ClassSums,
    ) -> Result<ClassMoments> {
        let ClassSums { sums, counts } = sums;
        let (classes, channels) = (sums.dim(0), sums.channels());
        let mut means = device.empty(sums.shape())?;
        kernels::ClassMeans { sums: &sums, counts: &counts, means: &mut means, classes, channels }
            .launch(device, device.elements(sums.len()))?;
        let squares = sums_by_class(device, features, labels, Some(&means), classes)?;
        Ok(ClassMoments { means, squares, counts })
    }
}

/// Mean and variance of each class over all feature vectors so far.
pub struct ClassStatistics {
    /// The means, K,C.
    pub mean: Tensor,
    /// The variances of each channel, K,C.
    pub variance: Tensor,
    /// The number of vectors of each class, i64 K: single precision would stop counting at 2²⁴.
    pub amount: Tensor,
}

impl ClassStatistics {
    /// Creates the statistics of no vectors: all are 0.
    pub fn new(device: &Device, classes: usize, channels: usize) -> Result<ClassStatistics> {
        let zeros = || device.zeros(&[classes, channels], device.real());
        let amount = device.zeros(&[classes], DType::I64)?;
        Ok(ClassStatistics { mean: zeros()?, variance: zeros()?, amount })
    }

    /// Takes in the vectors of a batch.
    pub fn merge(&mut self, device: &Device, batch: &ClassMoments) -> Result<()> {
        let (classes, channels) = (self.mean.dim(0), self.mean.channels());
        kernels::MergeClassStatistics {
            means: &batch.means,
            squares: &batch.squares,
            counts: &batch.counts,
            mean: &mut self.mean,
            variance: &mut self.variance,
            amount: &mut self.amount,
            classes,
            channels,
        }
        .launch(device, device.rows(classes, channels))
    }
}

/// A queue of earlier batches' means for each class.
pub struct Bank {
    /// The queues as rings, K,M,C.
    pub vectors: Tensor,
    /// The number of vectors that ever entered each queue, i64 K. The next one replaces number
    /// `pushed % M`.
    pub pushed: Tensor,
}

impl Bank {
    /// Creates queues of at most `length` vectors. As released, each begins with one zero vector,
    /// which leaves only when the queue is full.
    pub fn new(device: &Device, classes: usize, length: usize, channels: usize) -> Result<Bank> {
        Ok(Bank {
            vectors: device.zeros(&[classes, length, channels], device.real())?,
            pushed: device.upload(&[classes], &vec![1i64; classes])?,
        })
    }

    /// Appends the means of the classes that the batch has.
    pub fn push(&mut self, device: &Device, batch: &ClassMoments) -> Result<()> {
        let [classes, length, channels] = self.sizes();
        kernels::PushClassMeans {
            means: &batch.means,
            counts: &batch.counts,
            bank: &mut self.vectors,
            pushed: &mut self.pushed,
            classes,
            length,
            channels,
        }
        .launch(device, device.rows(classes, channels))
    }

    /// Returns the mean of each queue, K,C.
    pub fn centers(&self, device: &Device) -> Result<Tensor> {
        let [classes, length, channels] = self.sizes();
        let mut centers = device.empty(&[classes, channels])?;
        kernels::BankCenters {
            bank: &self.vectors,
            pushed: &self.pushed,
            centers: &mut centers,
            classes,
            length,
            channels,
        }
        .launch(device, device.rows(classes, length * channels))?;
        Ok(centers)
    }

    /// Returns the numbers of classes, of vectors in a queue at most, and of channels.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.vectors.dim(0), self.vectors.dim(1), self.vectors.dim(2)]
    }
}
