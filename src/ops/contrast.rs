//! Contrast losses of feature vectors against class statistics (SePiCo, Xie et al. 2023).

use super::class_statistics::{Bank, ClassStatistics, ClassSums};
use crate::device::constants::contrast::MOST_MEMORIES;
use crate::device::{Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What feature vectors are contrasted with.
#[derive(Clone, Copy)]
pub enum Contrasted<'a> {
    /// The mean of each class (ProtoCL).
    Prototypes,
    /// The Gaussian of each class: mean and variance (DistCL).
    Distributions,
    /// Earlier means of each class (BankCL).
    Bank(&'a Bank),
}

/// The settings of [`contrast`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastSettings {
    /// Divisor of similarities before the softmax.
    pub temperature: f64,
    /// Weight of the regularizer.
    pub regularizer: f64,
}

/// The result of [`contrast`]; each tensor holds one number.
pub struct Contrast {
    /// The mean loss over the labeled cells plus the weighted regularizer, or 0 without a gradient
    /// if there are none.
    pub value: Tensor,
    /// The regularizer without its weight.
    pub regularizer: Tensor,
}

/// Returns the contrast loss of the features of labeled cells. features: B,h,w,C in the compute
/// type; labels: u8 B,h,w, of which values that are no class count as unlabeled; sums: those of the
/// features ([`class_sums`](super::class_sums)), or of a larger batch that they are a part of. The
/// gradient goes to the features alone.
///
/// # Errors
/// Returns a shape error if the shapes do not match, there are fewer than two classes, or a queue
/// of the bank may hold more than [`MOST_MEMORIES`] vectors.
pub fn contrast(
    tape: &Tape,
    features: &Tensor,
    labels: &Tensor,
    sums: &ClassSums,
    statistics: &ClassStatistics,
    with: Contrasted,
    settings: ContrastSettings,
) -> Result<Contrast> {
    const OP: &str = "contrast";
    let device = tape.device();
    let (rows, channels) = (features.rows(), features.channels());
    let classes = statistics.mean.dim(0);
    let bank_fits = match with {
        Contrasted::Bank(bank) => {
            let [k, length, c] = bank.sizes();
            [k, c] == [classes, channels] && (1..=MOST_MEMORIES).contains(&length)
        }
        _ => true,
    };
    let fits = statistics.mean.channels() == channels && sums.sums.shape() == [classes, channels];
    if !(fits && bank_fits && labels.len() == rows && classes >= 2) {
        let problem = format!(
            "features {features:?}, labels {labels:?}, statistics {:?}, sums {:?}",
            statistics.mean, sums.sums
        );
        return Err(Error::shape(OP, problem));
    }
    let ContrastSettings { temperature, regularizer: weight } = settings;
    let [mut regularizer, mut labeled, mut value] =
        [device.empty(&[1])?, device.empty(&[1])?, device.empty(&[1])?];
    let mut pull = device.empty(&[channels])?;
    kernels::ContrastRegularizer {
        sums: &sums.sums,
        counts: &sums.counts,
        means: &statistics.mean,
        value: &mut regularizer,
        pull: &mut pull,
        labeled: &mut labeled,
        classes,
        channels,
        temperature,
    }
    .launch(device, Grid::blocks(1))?;
    let rows_of = Rows {
        q: features.detach(),
        labels: labels.clone(),
        against: match with {
            Contrasted::Prototypes => Against::Means(statistics.mean.clone(), None),
            Contrasted::Distributions => {
                Against::Means(statistics.mean.clone(), Some(statistics.variance.clone()))
            }
            Contrasted::Bank(bank) => Against::Bank {
                centers: bank.centers(device)?,
                vectors: bank.vectors.clone(),
                pushed: bank.pushed.clone(),
            },
        },
        pull,
        labeled,
        settings,
    };
    let mut loss = device.empty(&[rows])?;
    rows_of.launch(tape, None, Some(&mut loss), None)?;
    kernels::ContrastFinal {
        loss: &loss,
        labeled: &rows_of.labeled,
        regularizer: &regularizer,
        value: &mut value,
        weight,
        rows,
    }
    .launch(device, Grid::blocks(1))?;
    // The backward computes the similarities again, which reads the features once more. To keep the
    // gradient instead would write it here, and read and write it there.
    let slot = features.slot.clone();
    let value = tape.record(value, move |gradients, upstream| {
        let tape = Tape::inference(gradients.device());
        gradients.write(&slot, |dq, accumulate| {
            rows_of.launch(&tape, Some(&upstream), None, Some((dq, accumulate)))
        })
    });
    Ok(Contrast { value, regularizer })
}

/// The inputs of the kernel that goes through the feature vectors, forward and backward.
struct Rows {
    q: Tensor,
    labels: Tensor,
    against: Against,
    /// Gradient of the regularizer in every labeled row.
    pull: Tensor,
    labeled: Tensor,
    settings: ContrastSettings,
}

enum Against {
    Means(Tensor, Option<Tensor>),
    Bank { centers: Tensor, vectors: Tensor, pushed: Tensor },
}

impl Rows {
    /// Computes the losses, or the gradient for `upstream`.
    fn launch(
        &self,
        tape: &Tape,
        upstream: Option<&Tensor>,
        loss: Option<&mut Tensor>,
        gradient: Option<(&mut Tensor, bool)>,
    ) -> Result<()> {
        let device = tape.device();
        let Rows { q, labels, against, pull, labeled, settings } = self;
        let (rows, channels) = (q.rows(), q.channels());
        let ContrastSettings { temperature, regularizer: weight } = *settings;
        let (dq, accumulate) = match gradient {
            Some((dq, accumulate)) => (Some(dq), accumulate),
            None => (None, false),
        };
        // A row meets every class in turn, or every vector of a queue.
        match against {
            Against::Means(means, variances) => kernels::ContrastRows {
                q,
                labels,
                means,
                variances: variances.as_ref(),
                pull,
                labeled,
                upstream,
                loss,
                dq,
                temperature,
                weight,
                accumulate,
                rows,
                classes: means.dim(0),
                channels,
            }
            .launch(device, device.rows(rows, channels * means.dim(0))),
            Against::Bank { centers, vectors, pushed } => kernels::ContrastBankRows {
                q,
                labels,
                centers,
                bank: vectors,
                pushed,
                pull,
                labeled,
                upstream,
                loss,
                dq,
                temperature,
                weight,
                accumulate,
                rows,
                classes: centers.dim(0),
                length: vectors.dim(1),
                channels,
            }
            .launch(device, device.rows(rows, channels * (centers.dim(0) + vectors.dim(1)))),
        }
    }
}
