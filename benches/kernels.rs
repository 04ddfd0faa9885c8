//! Seconds of single operations, forward and forward + backward, at the shapes of one student pass:
//! the cases of benches/pytorch/ops.py by the same names, then operations that PyTorch has no single
//! counterpart for. How to run: benches/record.rs.
//!
//! Rates: what must be computed or, where memory limits, moved at least; a backward is taken to
//! compute twice as much as its forward, and to read the input and the gradient and write another.

#[allow(dead_code)]
mod record;

use std::rc::Rc;

use serde_json::{Map, Value, json};
use udass_raw::config::Config;
use udass_raw::device::{Device, Matrix};
use udass_raw::nn::Segmentor;
use udass_raw::ops::{self, BatchNorm, Conv, Mode, Norm};
use udass_raw::optimizer::{Optimizer, UpdateNumbers};
use udass_raw::params::{Init, Layout, Param, Spec, Weights};
use udass_raw::rng::{Draw, Purpose};
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::uda::augment::{Augmentation, Pixels};

use record::{Amount, Case, Run};

const BATCH: usize = 2;
const CLASSES: usize = 19;
/// preset, backbone, side of the network's input, decoder channels.
const PRESETS: [(&str, &str, usize, usize); 4] = [
    ("b0_128", "mit_b0", 64, 256),
    ("b0_256", "mit_b0", 128, 256),
    ("b5_128", "mit_b5", 64, 256),
    ("b5_512", "mit_b5", 512, 256),
];
const HEADS: [usize; 4] = [1, 2, 5, 8];
const REDUCTIONS: [usize; 4] = [8, 4, 2, 1];

type Apply = Rc<dyn Fn(&Tape, &[Tensor], &[Param]) -> Tensor>;

/// An operation that is recorded on a tape.
struct Op {
    inputs: Vec<Vec<usize>>,
    /// Whether the first input is of `real`; all others are operands.
    stream: bool,
    params: Vec<Vec<usize>>,
    apply: Apply,
    /// Multiplications and additions of the forward; 0 where memory limits.
    flops: f64,
}

struct Cases {
    device: Device,
    preset: &'static str,
    list: Vec<Case>,
}

fn main() {
    let device = record::device();
    let mut cases = Cases { device: device.clone(), preset: "", list: Vec::new() };
    for (preset, backbone, side, channels) in PRESETS {
        cases.preset = preset;
        cases.student_pass(backbone, side, channels);
    }
    cases.preset = "rate";
    cases.rates();
    record::main("kernels", &device, cases.list);
}

impl Cases {
    fn student_pass(&mut self, backbone: &str, side: usize, channels: usize) {
        let widths = match backbone {
            "mit_b0" => [32, 64, 160, 256],
            _ => [64, 128, 320, 512],
        };
        for (stage, width) in widths.into_iter().enumerate() {
            let grid = side / (4 << stage);
            let (tokens, hidden) = (grid * grid, 4 * width);
            let (keys, heads) = ((grid / REDUCTIONS[stage]).pow(2).max(1), HEADS[stage]);
            self.layernorm(BATCH * tokens, width);
            self.linear(BATCH * tokens, width, hidden);
            self.depthwise(grid, hidden, 1);
            self.gelu(BATCH * tokens, hidden);
            self.attention(heads, tokens, keys, width / heads);
            self.depthwise_gelu(grid, hidden);
            self.add_layernorm(tokens, width);
        }
        let quarter = side / 4;
        self.bilinear((quarter / 8).max(1), channels, 8);
        self.bilinear(quarter / 2, channels, 2);
        self.depthwise(quarter, 4 * channels, 6);
        self.batchnorm(quarter, 4 * channels);
        self.batchnorm(quarter, channels);
        self.linear(BATCH * quarter * quarter, 4 * channels, channels);
        self.conv(quarter, 4 * channels, channels);
        self.cross_entropy(2 * quarter);
        self.adamw(backbone, 2 * side);
        self.patches(side, widths[0]);
        self.resize_concat(quarter, channels);
        self.augment(2 * side);
    }

    /// What the machine can: a large square product, and a copy. Steps are held against these.
    fn rates(&mut self) {
        let (side, bytes) = if record::on_gpu() { (8192, 1 << 30) } else { (1024, 64 << 20) };
        let device = self.device.clone();
        let amount = Amount::Flops(2.0 * (side as f64).powi(3));
        self.plain("product", json!({"side": side}), amount, move || {
            let operand = |seed| device.to_operand(&noise(&device, &[side, side], seed)).unwrap();
            let (a, b) = (operand(1), operand(2));
            let mut out = device.empty(&[side, side]).unwrap();
            let device = device.clone();
            Box::new(move || {
                // As a linear layer has it: the rows of both are what is multiplied.
                let (a, b) = (Matrix::of(&a), Matrix::of(&b).t());
                device.product(&mut out, a, b, false).unwrap()
            })
        });
        let device = self.device.clone();
        let amount = Amount::Bytes(2.0 * bytes as f64);
        self.plain("copy", json!({"bytes": bytes}), amount, move || {
            let from = device.zeros(&[bytes], DType::U8).unwrap();
            let mut to = device.alloc(&[bytes], DType::U8).unwrap();
            let device = device.clone();
            Box::new(move || device.copy(&from, &mut to).unwrap())
        });
    }

    fn layernorm(&mut self, rows: usize, channels: usize) {
        self.op(
            "layernorm",
            json!({"rows": rows, "channels": channels}),
            Op {
                inputs: vec![vec![rows, channels]],
                stream: true,
                params: vec![vec![channels], vec![channels]],
                apply: Rc::new(|tape, x, p| ops::layernorm(tape, &x[0], &norm(p)).unwrap()),
                flops: 0.0,
            },
        );
    }

    fn add_layernorm(&mut self, tokens: usize, channels: usize) {
        let shape = json!({"batch": BATCH, "tokens": tokens, "channels": channels});
        self.op(
            "add_layernorm",
            shape,
            Op {
                inputs: vec![vec![BATCH, tokens, channels]; 2],
                stream: true,
                params: vec![vec![channels], vec![channels]],
                apply: Rc::new(|tape, x, p| {
                    ops::add_layernorm(tape, &x[0], &x[1], None, &norm(p)).unwrap().1
                }),
                flops: 0.0,
            },
        );
    }

    fn gelu(&mut self, rows: usize, channels: usize) {
        self.op(
            "gelu",
            json!({"rows": rows, "channels": channels}),
            Op {
                inputs: vec![vec![rows, channels]],
                stream: false,
                params: vec![],
                apply: Rc::new(|tape, x, _| ops::gelu(tape, &x[0]).unwrap()),
                flops: 0.0,
            },
        );
    }

    fn linear(&mut self, rows: usize, channels: usize, out: usize) {
        self.op(
            "linear",
            json!({"rows": rows, "channels": channels, "out": out}),
            Op {
                inputs: vec![vec![rows, channels]],
                stream: false,
                params: vec![vec![out, channels], vec![out]],
                apply: Rc::new(|tape, x, p| ops::linear(tape, &x[0], &p[0], Some(&p[1])).unwrap()),
                flops: 2.0 * (rows * channels * out) as f64,
            },
        );
    }

    fn depthwise(&mut self, side: usize, channels: usize, dilation: usize) {
        let mut shape = json!({"batch": BATCH, "side": side, "channels": channels});
        if dilation != 1 {
            shape["dilation"] = json!(dilation);
        }
        self.op(
            "depthwise3x3",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, channels]],
                stream: false,
                params: vec![vec![3, 3, channels], vec![channels]],
                apply: Rc::new(move |tape, x, p| {
                    ops::depthwise(tape, &x[0], &p[0], Some(&p[1]), dilation).unwrap()
                }),
                flops: 0.0,
            },
        );
    }

    fn depthwise_gelu(&mut self, side: usize, channels: usize) {
        let shape = json!({"batch": BATCH, "side": side, "channels": channels});
        self.op(
            "depthwise_gelu",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, channels]],
                stream: false,
                params: vec![vec![3, 3, channels], vec![channels]],
                apply: Rc::new(|tape, x, p| {
                    ops::depthwise_gelu(tape, &x[0], &p[0], Some(&p[1])).unwrap()
                }),
                flops: 0.0,
            },
        );
    }

    fn attention(&mut self, heads: usize, queries: usize, keys: usize, head_dim: usize) {
        let channels = heads * head_dim;
        let shape = json!({"batch": BATCH, "heads": heads, "queries": queries, "keys": keys,
            "head_dim": head_dim});
        self.op(
            "attention",
            shape,
            Op {
                inputs: vec![vec![BATCH, queries, channels], vec![BATCH, keys, 2 * channels]],
                stream: false,
                params: vec![],
                apply: Rc::new(move |tape, x, _| {
                    ops::attention(tape, &x[0], &x[1], heads).unwrap()
                }),
                flops: 4.0 * (BATCH * queries * keys * channels) as f64,
            },
        );
    }

    fn bilinear(&mut self, side: usize, channels: usize, factor: usize) {
        let shape = json!({"batch": BATCH, "side": side, "channels": channels, "factor": factor});
        let size = (side * factor, side * factor);
        self.op(
            "bilinear",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, channels]],
                stream: false,
                params: vec![],
                apply: Rc::new(move |tape, x, _| ops::resize(tape, &x[0], size, None).unwrap()),
                flops: 0.0,
            },
        );
    }

    fn resize_concat(&mut self, side: usize, channels: usize) {
        let shape = json!({"batch": BATCH, "side": side, "channels": channels});
        let level = |i: usize| vec![BATCH, (side >> i).max(1), (side >> i).max(1), channels];
        self.op(
            "resize_concat",
            shape,
            Op {
                inputs: (0..4).map(level).collect(),
                stream: false,
                params: vec![],
                apply: Rc::new(move |tape, x, _| {
                    ops::resize_concat(tape, x, (side, side)).unwrap()
                }),
                flops: 0.0,
            },
        );
    }

    fn batchnorm(&mut self, side: usize, channels: usize) {
        let shape = json!({"batch": BATCH, "side": side, "channels": channels});
        let device = self.device.clone();
        self.op(
            "batchnorm_relu",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, channels]],
                stream: false,
                params: vec![vec![channels], vec![channels]],
                apply: Rc::new(move |tape, x, p| {
                    let running = || device.zeros(&[channels], device.real()).unwrap();
                    let norm = BatchNorm {
                        weight: &p[0],
                        bias: &p[1],
                        running_mean: running(),
                        running_var: running(),
                        tracked: None,
                    };
                    let mode = Mode::Train { momentum: 0.1 };
                    ops::batchnorm(tape, &x[0], norm, 1e-5, mode, true).unwrap()
                }),
                flops: 0.0,
            },
        );
    }

    fn conv(&mut self, side: usize, channels: usize, out: usize) {
        let shape = json!({"batch": BATCH, "side": side, "channels": channels, "out": out});
        self.op(
            "conv3x3",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, channels]],
                stream: false,
                params: vec![vec![out, 3, 3, channels]],
                apply: Rc::new(|tape, x, p| {
                    ops::conv(tape, &x[0], &p[0], None, Conv::same(3, 1)).unwrap()
                }),
                flops: 18.0 * (BATCH * side * side * channels * out) as f64,
            },
        );
    }

    /// The patch embedding of the first stage.
    fn patches(&mut self, side: usize, width: usize) {
        let shape = json!({"batch": BATCH, "side": side, "out": width});
        self.op(
            "patches7x7",
            shape,
            Op {
                inputs: vec![vec![BATCH, side, side, 3]],
                stream: false,
                params: vec![vec![width, 7, 7, 3], vec![width]],
                apply: Rc::new(|tape, x, p| {
                    ops::conv(tape, &x[0], &p[0], Some(&p[1]), Conv::strided(4, 3)).unwrap()
                }),
                flops: 2.0 * (BATCH * (side / 4).pow(2) * 147 * width) as f64,
            },
        );
    }

    fn cross_entropy(&mut self, side: usize) {
        const FACTOR: usize = 4;
        let full = side * FACTOR;
        let label: Vec<u8> = (0..BATCH * full * full)
            .map(|i| match (i / full % 7, i % full % 5) {
                (0, 0) => 255,
                _ => (i * 7919 / 13 % CLASSES) as u8,
            })
            .collect();
        let device = self.device.clone();
        let label = device.upload(&[BATCH, full, full], &label).unwrap();
        let weight = noise(&device, &[BATCH, full, full], 3);
        self.op(
            "resized_cross_entropy",
            json!({"batch": BATCH, "side": side}),
            Op {
                inputs: vec![vec![BATCH, side, side, CLASSES]],
                stream: true,
                params: vec![],
                apply: Rc::new(move |tape, x, _| {
                    ops::cross_entropy(tape, &x[0], &label, Some(&weight)).unwrap().value
                }),
                flops: 0.0,
            },
        );
    }

    /// AdamW and the teacher in one kernel; ops.py's forward + backward is both, too.
    fn adamw(&mut self, backbone: &str, crop: usize) {
        let overrides = [
            format!("network.backbone={backbone}"),
            format!("network.hrda.detail_crop={}", crop / 2),
            format!("data.crop={crop}"),
        ];
        let config = Config::load("gta_vit", &overrides).unwrap();
        let network = Segmentor::new(&config.network).unwrap();
        let parameters: usize = network.spec().params().iter().map(|p| p.len()).sum();
        let device = self.device.clone();
        // Six arrays are read and four of them written.
        let amount = Amount::Bytes(40.0 * parameters as f64);
        let shape = json!({"parameters": parameters});
        self.plain("adamw_ema", shape, amount, move || {
            const TENSORS: usize = 100;
            let mut spec = Spec::default();
            for i in 0..TENSORS {
                let init = Init::Constant(0.1);
                spec.param(format!("p{i}"), &[parameters / TENSORS], Layout::Same, init);
            }
            let spec = Rc::new(spec);
            let mut student = Weights::new(&device, &spec, true).unwrap();
            let mut teacher = Weights::new(&device, &spec, false).unwrap();
            student.grads = Some(noise(&device, student.values.shape(), 4));
            let mut optimizer = Optimizer::new(&device, &student, &config.optimizer).unwrap();
            let numbers = UpdateNumbers::new(&config.optimizer, 6e-5, 5, 0.999).to_array();
            let numbers = device.upload_real(&[5], &numbers).unwrap();
            let failed = device.zeros(&[1], DType::I32).unwrap();
            let device = device.clone();
            Box::new(move || {
                let teacher = Some(&mut teacher);
                optimizer.update(&device, &mut student, teacher, &numbers, &failed).unwrap()
            })
        });
    }

    /// Jitter and blur of a batch of crops.
    fn augment(&mut self, side: usize) {
        let device = self.device.clone();
        let amount = Amount::Bytes(24.0 * (BATCH * side * side) as f64);
        self.plain("jitter_blur", json!({"batch": BATCH, "side": side}), amount, move || {
            let pixels = Pixels::new(&device).unwrap();
            let image = noise(&device, &[BATCH, side, side, 3], 5);
            let how = Augmentation {
                factors: device
                    .upload_real(&[BATCH, 4], &[1.1, 0.9, 1.2, 0.1].repeat(BATCH))
                    .unwrap(),
                order: device.upload(&[BATCH, 4], &[2i32, 0, 3, 1].repeat(BATCH)).unwrap(),
                sigma: device.upload_real(&[BATCH], &[0.8; BATCH]).unwrap(),
                switches: device.upload(&[2], &[1i32, 1]).unwrap(),
            };
            let device = device.clone();
            Box::new(move || drop(pixels.augment(&device, &image, &how).unwrap()))
        });
    }

    fn plain(&mut self, op: &str, shape: Value, amount: Amount, setup: impl Fn() -> Run + 'static) {
        self.case(op, shape, "forward_backward", amount, Box::new(setup));
    }

    fn case(
        &mut self,
        op: &str,
        shape: Value,
        pass: &str,
        amount: Amount,
        setup: Box<dyn Fn() -> Run>,
    ) {
        let sizes: Vec<String> = shape
            .as_object()
            .iter()
            .flat_map(|s| s.iter())
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let mut options = Map::new();
        options.insert("preset".into(), json!(self.preset));
        options.insert("op".into(), json!(op));
        options.insert("shape".into(), shape);
        options.insert("pass".into(), json!(pass));
        let name = format!("{}/{op} {} {pass}", self.preset, sizes.join(","));
        self.list.push(Case { name, options, amount, setup });
    }

    /// Both passes of a recorded operation.
    fn op(&mut self, name: &str, shape: Value, op: Op) {
        let op = Rc::new(op);
        for (pass, backward) in [("forward", false), ("forward_backward", true)] {
            let (device, made) = (self.device.clone(), op.clone());
            let amount = op.amount(&self.device, backward);
            let setup = Box::new(move || made.run(&device, backward));
            self.case(name, shape.clone(), pass, amount, setup);
        }
    }
}

impl Op {
    fn amount(&self, device: &Device, backward: bool) -> Amount {
        if self.flops > 0.0 {
            return Amount::Flops(if backward { 3.0 } else { 1.0 } * self.flops);
        }
        let numbers: usize = self.inputs.iter().map(|s| s.iter().product::<usize>()).sum();
        let bytes = (numbers * device.operand().bytes()) as f64;
        // An output is taken to be as large as the inputs, of which a residual's sum is one.
        Amount::Bytes(if backward { 5.0 } else { 2.0 } * bytes)
    }

    fn input(&self, device: &Device, shape: &[usize], i: u64) -> Tensor {
        let numbers = noise(device, shape, i);
        if self.stream && i == 0 { numbers } else { device.to_operand(&numbers).unwrap() }
    }

    fn run(&self, device: &Device, backward: bool) -> Run {
        let inputs: Vec<Tensor> =
            self.inputs.iter().zip(0..).map(|(shape, i)| self.input(device, shape, i)).collect();
        let params: Vec<Param> = (self.params.iter().zip(10..))
            .map(|(shape, i)| {
                let grad = device.zeros(shape, device.real()).unwrap();
                Param::new(noise(device, shape, i), Some(grad)).with_shadow(device).unwrap()
            })
            .collect();
        let (device, apply) = (device.clone(), self.apply.clone());
        if !backward {
            return Box::new(move || drop(apply(&Tape::inference(&device), &inputs, &params)));
        }
        let output = apply(&Tape::inference(&device), &inputs, &params);
        let gradient = noise(&device, output.shape(), 20);
        let gradient = if output.dtype() == device.real() {
            gradient
        } else {
            device.to_operand(&gradient).unwrap()
        };
        Box::new(move || {
            let tape = Tape::recording(&device);
            let leaves: Vec<Tensor> = inputs.iter().map(|x| tape.leaf(x)).collect();
            let output = apply(&tape, &leaves, &params);
            tape.backward(vec![(&output, gradient.clone())]).unwrap();
        })
    }
}

fn norm(params: &[Param]) -> Norm {
    Norm { weight: params[0].clone(), bias: params[1].clone(), eps: 1e-6 }
}

/// Uniform numbers in [-1, 1).
fn noise(device: &Device, shape: &[usize], slot: u64) -> Tensor {
    let mut draw = Draw::new(0, 0, Purpose::Init, slot, 0);
    let numbers: Vec<f32> =
        (0..shape.iter().product()).map(|_| draw.range_f32(-1.0, 1.0)).collect();
    device.upload_real(shape, &numbers).unwrap()
}
