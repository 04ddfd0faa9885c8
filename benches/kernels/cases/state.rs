//! Cases that work on whole buffers: the parameter update, committing state, sums and fills.

use serde_json::json;
use udass_raw::config::Config;
use udass_raw::device::MatrixView;
use udass_raw::nn::Segmentor;
use udass_raw::ops;
use udass_raw::optimizer::{Optimizer, UpdateNumbers};
use udass_raw::params::{CHUNK, Weights};
use udass_raw::tape::Tape;
use udass_raw::tensor::DType;

use super::{Bed, List};

pub fn add(list: &mut List, config: &Config) {
    let spec = Segmentor::new(&config.network).unwrap().spec().clone();
    let gradients = spec.chunk_owners().len() * CHUNK;
    let parameters: usize = spec.params().iter().map(|p| p.len()).sum();
    let shape = json!({"parameters": parameters, "tensors": spec.params().len()});
    let settings = config.optimizer.clone();
    // One kernel does both the AdamW step and the teacher's EMA update.
    list.plain("adamw_ema", shape, move |bed: &Bed| {
        let numbers = UpdateNumbers::new(&(&settings).into(), 6e-5, 5, 0.999).to_array();
        let numbers = bed.device.upload_real(&[5], &numbers).unwrap();
        let failed = bed.device.zeros(&[1], DType::I32).unwrap();
        let make = |slot| {
            let mut student = Weights::new(&bed.device, &spec, true).unwrap();
            student.values = bed.numbers(student.values.shape(), slot);
            student.grads = Some(bed.numbers(student.values.shape(), slot + 1));
            let teacher = Weights::new(&bed.device, &spec, false).unwrap();
            let multipliers = |name: &str| settings.multipliers(name);
            let optimizer =
                Optimizer::new(&bed.device, &student, (&settings).into(), multipliers).unwrap();
            (student, teacher, optimizer)
        };
        type Sets = (Weights, Weights, Optimizer);
        bed.rotating(make, move |device, (student, teacher, optimizer): &mut Sets| {
            optimizer.update(device, student, Some(teacher), &numbers, &failed).unwrap()
        })
    });
    let shape = json!({"numbers": gradients});
    list.plain("check_finite", shape, move |bed: &Bed| {
        let mut flag = bed.device.zeros(&[1], DType::I32).unwrap();
        let make = |slot| bed.numbers(&[gradients], slot);
        bed.rotating(make, move |device, x| ops::flag_not_finite(device, x, &mut flag).unwrap())
    });
    let (batch, side) = (config.data.batch, config.data.crop);
    pictures(list, [batch, side, side, 3]);
}

/// `shape` is that of the images that QuadMix keeps as templates, together with their labels.
fn pictures(list: &mut List, shape: [usize; 4]) {
    let [batch, side, ..] = shape;
    let sizes = json!({"batch": batch, "side": side});
    list.plain("keep_template", sizes.clone(), move |bed: &Bed| {
        let failed = bed.device.zeros(&[1], DType::I32).unwrap();
        let make = |slot| {
            let [image, kept] = [slot, slot + 1].map(|slot| bed.numbers(&shape, slot));
            let label = |slot| bed.labels([batch, side, side], 19, slot);
            ((image, label(slot)), (kept, label(slot + 1)))
        };
        bed.rotating(make, move |device, (from, to)| {
            ops::commit(device, &from.0, &mut to.0, &failed).unwrap();
            ops::commit(device, &from.1, &mut to.1, &failed).unwrap();
        })
    });
    list.plain("fill", sizes.clone(), move |bed: &Bed| {
        bed.rotating(|_| (), move |device, ()| ops::full(device, &shape, 1.0).unwrap())
    });
    list.plain("add_scaled", sizes.clone(), move |bed: &Bed| {
        let make = |slot| [slot, slot + 1].map(|slot| bed.numbers(&shape, slot));
        bed.rotating(make, move |device, [x, y]| ops::add_scaled(device, x, 0.5, y).unwrap())
    });
    list.plain("upcast", sizes, move |bed: &Bed| {
        let make = |slot| bed.operand(&shape, slot);
        bed.rotating(make, move |device, x| {
            let y = ops::upcast(&Tape::inference(device), x).unwrap();
            let mut again = device.empty_like(x).unwrap();
            ops::round(device, &y, &mut again).unwrap();
            again
        })
    });
}

pub fn rates(list: &mut List, on_gpu: bool) {
    let (side, bytes) = if on_gpu { (8192, 1 << 30) } else { (1024, 64 << 20) };
    list.plain("product", json!({"side": side}), move |bed: &Bed| {
        let make = |slot| [slot, slot + 1].map(|slot| bed.operand(&[side, side], slot));
        bed.rotating(make, move |device, [a, b]| {
            let mut out = device.empty(&[side, side]).unwrap();
            // As in a linear layer, both operands are stored with the reduced dimension contiguous.
            ops::matmul(device, &mut out, MatrixView::of(a), MatrixView::of(b).t(), false).unwrap();
            out
        })
    });
    list.plain("copy", json!({"bytes": bytes}), move |bed: &Bed| {
        let zeros = |bytes| bed.device.zeros(&[bytes], DType::U8).unwrap();
        let make = |_| (zeros(bytes), zeros(bytes));
        bed.rotating(make, move |device, (from, to)| device.copy(from, to).unwrap())
    });
}
