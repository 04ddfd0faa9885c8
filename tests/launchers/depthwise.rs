//! Depthwise convolutions.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each, gelu, gelu_derivative};

/// The pixel that tap (r, s) of pixel (y, x) reads, if it is inside.
fn seen(
    [h, w]: [usize; 2],
    [y, x]: [usize; 2],
    [r, s]: [usize; 2],
    d: usize,
) -> Option<[usize; 2]> {
    let (y, x) = ((y + r * d).checked_sub(d)?, (x + s * d).checked_sub(d)?);
    (y < h && x < w).then_some([y, x])
}

/// Computes x * w, optionally with the filter rotated by 180°.
fn convolved(xs: &[f64], ws: &[f64], shape: [usize; 4], d: usize, turned: bool) -> Vec<f64> {
    let [_, h, w, c] = shape;
    each(shape)
        .map(|[i, y, x, ch]| {
            each([3, 3])
                .filter_map(|[r, s]| {
                    let [sy, sx] = seen([h, w], [y, x], [r, s], d)?;
                    let tap = if turned { 8 - (3 * r + s) } else { 3 * r + s };
                    Some(ws[tap * c + ch] * xs[at(shape, [i, sy, sx, ch])])
                })
                .sum()
        })
        .collect()
}

/// Gradients of filter and bias, given the convolution's output gradient.
fn filter_gradient(xs: &[f64], dz: &[f64], shape: [usize; 4], d: usize) -> (Vec<f64>, Vec<f64>) {
    let [_, h, w, c] = shape;
    let (mut dw, mut db) = (vec![0.0; 9 * c], vec![0.0; c]);
    for [i, y, x, ch] in each(shape) {
        let gradient = dz[at(shape, [i, y, x, ch])];
        db[ch] += gradient;
        for [r, s] in each([3, 3]) {
            if let Some([sy, sx]) = seen([h, w], [y, x], [r, s], d) {
                dw[(3 * r + s) * c + ch] += gradient * xs[at(shape, [i, sy, sx, ch])];
            }
        }
    }
    (dw, db)
}

fn summed(parts: &[f64], n: usize) -> Vec<f64> {
    (0..n).map(|i| parts.iter().skip(i).step_by(n).sum()).collect()
}

/// Shapes with dilations: odd channels and channels that fill whole vectors, then, of both kinds,
/// lines of several segments and more channels than a slice holds.
const SHAPES: [([usize; 4], usize); 7] = [
    ([2, 5, 7, 11], 3),
    ([2, 5, 7, 64], 3),
    ([1, 3, 97, 5], 3),
    ([1, 2, 97, 4], 3),
    ([1, 2, 3, 8], 4),
    ([2, 2, 3, 257], 2),
    ([1, 3, 2, 260], 1),
];

/// Splits the rows into five parts, with a block for every slice of the channels in each.
fn in_five_parts(channels: usize) -> Grid {
    Grid::blocks(5 * channels.div_ceil(256))
}

#[test]
fn depthwise() {
    let host = Host::double();
    for (shape, dilation) in SHAPES {
        let [b, h, w, c] = shape;
        let channels = shape[3];
        let (x, xs) = host.reals(&shape);
        let (filter, ws) = host.reals(&[9, channels]);
        let (bias, bs) = host.reals(&[channels]);
        for (turned, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut y, before) = host.reals(&shape);
            let with_bias = (!accumulate).then_some(&bias);
            kernels::Depthwise {
                x: &x,
                filter: &filter,
                bias: with_bias,
                y: &mut y,
                turned,
                accumulate,
                batch: b,
                height: h,
                width: w,
                channels: c,
                dilation,
            }
            .launch(&host.device, GRID)
            .unwrap();
            let mut expected = convolved(&xs, &ws, shape, dilation, turned);
            for (i, e) in expected.iter_mut().enumerate() {
                *e += if accumulate { before[i] } else { bs[i % channels] };
            }
            close("depthwise", &host.read(&y), &expected);
        }
        let (dy, dys) = host.reals(&shape);
        let (mut dw, mut db) = (host.room(&[5, 9, channels]), host.room(&[5, channels]));
        let blocks = in_five_parts(channels);
        kernels::DepthwiseFilter {
            x: &x,
            dy: &dy,
            dw: &mut dw,
            db: &mut db,
            batch: b,
            height: h,
            width: w,
            channels: c,
            dilation,
        }
        .launch(&host.device, blocks)
        .unwrap();
        let (wanted_w, wanted_b) = filter_gradient(&xs, &dys, shape, dilation);
        close("dw", &summed(&host.read(&dw), 9 * channels), &wanted_w);
        close("db", &summed(&host.read(&db), channels), &wanted_b);
    }
}

#[test]
fn depthwise_gelu() {
    let host = Host::double();
    let device = &host.device;
    for (shape, _) in SHAPES {
        let [b, h, w, c] = shape;
        let channels = shape[3];
        // Inputs wide enough to reach both the curved and the flat ranges of GELU.
        let xs: Vec<f64> = host.reals(&shape).1.iter().map(|x| 4.0 * x).collect();
        let x = host.upload(&shape, &xs);
        let (filter, ws) = host.reals(&[9, channels]);
        let (bias, bs) = host.reals(&[channels]);
        let (dy, dys) = host.reals(&shape);
        let mut y = host.room(&shape);
        kernels::DepthwiseGelu {
            x: &x,
            filter: &filter,
            bias: Some(&bias),
            y: &mut y,
            batch: b,
            height: h,
            width: w,
            channels: c,
        }
        .launch(device, GRID)
        .unwrap();
        let mut z = convolved(&xs, &ws, shape, 1, false);
        z.iter_mut().enumerate().for_each(|(i, z)| *z += bs[i % channels]);
        let expected: Vec<f64> = z.iter().map(|&z| gelu(z)).collect();
        close("depthwise_gelu", &host.read(&y), &expected);

        let mut dz = host.room(&shape);
        let (mut dw, mut db) = (host.room(&[5, 9, channels]), host.room(&[5, channels]));
        let blocks = in_five_parts(channels);
        kernels::DepthwiseGeluFilter {
            x: &x,
            filter: &filter,
            bias: Some(&bias),
            dy: &dy,
            dz: &mut dz,
            dw: &mut dw,
            db: &mut db,
            batch: b,
            height: h,
            width: w,
            channels: c,
        }
        .launch(device, blocks)
        .unwrap();
        let derivatives: Vec<f64> =
            z.iter().zip(&dys).map(|(&z, dy)| dy * gelu_derivative(z)).collect();
        close("dz", &host.read(&dz), &derivatives);
        let (wanted_w, wanted_b) = filter_gradient(&xs, &derivatives, shape, 1);
        close("dw", &summed(&host.read(&dw), 9 * channels), &wanted_w);
        close("db", &summed(&host.read(&db), channels), &wanted_b);
    }
}
