//! Images: normalization, masks, jitter, blur, mixing.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each, jittered};

#[test]
fn normalize() {
    let host = Host::double();
    let [b, h, w] = [2, 5, 7];
    let shape = [b, h, w, 3];
    let (x, xs) = host.bytes(&shape, 256);
    let (mean, means) = host.reals(&[3]);
    let (inverse, inverses) = host.reals(&[3]);
    let extent = host.ints(&[3, 4, 7, 2]);
    for (extent, covered) in [(Some(&extent), [[3, 4], [7, 2]]), (None, [[w, h]; 2])] {
        let mut y = host.room(&shape);
        kernels::Normalize {
            x: &x,
            extent,
            mean: &mean,
            inverse_std: &inverse,
            y: &mut y,
            batch: 2,
            height: 5,
            width: 7,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> = each(shape)
            .map(|i| {
                let inside = i[2] < covered[i[0]][0] && i[1] < covered[i[0]][1];
                let value = (xs[at(shape, i)] as f64 - means[i[3]]) * inverses[i[3]];
                if inside { value } else { 0.0 }
            })
            .collect();
        close("normalize", &host.read(&y), &expected);
    }
}

#[test]
fn block_mask() {
    let host = Host::double();
    let [b, h, w, gh, gw] = [3, 17, 13, 5, 7];
    let shape = [b, h, w, 3];
    let (x, xs) = host.reals(&shape);
    let (cells, grid) = host.reals(&[b, gh, gw]);
    let mut y = host.room(&shape);
    kernels::BlockMask {
        image: &x,
        cells: &cells,
        masked: &mut y,
        ratio: 0.1,
        batch: 3,
        height: 17,
        width: 13,
        grid_height: 5,
        grid_width: 7,
    }
    .launch(&host.device, GRID)
    .unwrap();
    let expected: Vec<f64> = each(shape)
        .map(|i| {
            let cell = at([b, gh, gw], [i[0], i[1] * gh / h, i[2] * gw / w]);
            if grid[cell] > 0.1 { xs[at(shape, i)] } else { 0.0 }
        })
        .collect();
    close("block_mask", &host.read(&y), &expected);
}

/// Grays, pairs of equal channels, and every order of three different ones.
const COLORS: [[f64; 3]; 13] = [
    [0.0, 0.0, 0.0],
    [0.5, 0.5, 0.5],
    [0.7, 0.7, 0.2],
    [0.2, 0.7, 0.7],
    [0.7, 0.2, 0.7],
    [0.6, 0.1, 0.1],
    [0.1, 0.6, 0.1],
    [0.9, 0.5, 0.1],
    [0.9, 0.1, 0.4],
    [0.5, 0.9, 0.2],
    [0.1, 0.8, 0.5],
    [0.3, 0.1, 0.8],
    [0.1, 0.4, 0.9],
];

#[test]
fn color_jitter() {
    let host = Host::double();
    let device = &host.device;
    let n = COLORS.len();
    // Each operation alone, then all of them in several orders; negative entries are skipped.
    let orders = [
        [1, 0, -1, -1],
        [0, -1, -1, -1],
        [-1, 2, -1, -1],
        [-1, -1, -1, 3],
        [3, 2, 1, 0],
        [2, 0, 3, 1],
    ];
    let b = orders.len();
    let shape = [b, n, 3];
    let order = host.ints(orders.as_flattened());
    let (mean, m) = host.positive(&[3]);
    let (std, s) = host.positive(&[3]);
    let unit = 0.3;
    let values = |[image, pixel, c]: [usize; 3]| {
        let value = COLORS[(image + pixel) % n][c];
        (value / unit - m[c]) / s[c]
    };
    let xs: Vec<f64> = each(shape).map(values).collect();
    let x = host.upload(&shape, &xs);
    // Brighter and darker, more and less of each; hues shift in both directions, and past the end
    // of the circle.
    for f in [[1.3, 1.4, 1.7, 0.4], [0.7, 0.6, 0.5, -0.9], [1.1, 0.9, 1.2, 0.1]] {
        let factors = host.upload(&[b, 4], &f.repeat(b));
        for switched in [1, 0] {
            let mut y = host.room(&shape);
            let switches = host.ints(&[switched, 1 - switched]);
            kernels::ColorJitter {
                x: &x,
                factors: &factors,
                order: &order,
                switches: &switches,
                mean: &mean,
                std: &std,
                y: &mut y,
                unit,
                batch: 6,
                pixels: 13,
            }
            .launch(device, GRID)
            .unwrap();
            if switched == 0 {
                assert_eq!(host.read(&y), xs);
                continue;
            }
            let mut expected = Vec::new();
            for [image, pixel] in each([b, n]) {
                let color = jittered(COLORS[(image + pixel) % n], &f, &orders[image]);
                expected.extend((0..3).map(|c| (color[c] / unit - m[c]) / s[c]));
            }
            close("color_jitter", &host.read(&y), &expected);
        }
    }
}

#[test]
fn color_jitter_of_what_is_no_number() {
    let host = Host::double();
    let order = host.ints(&[3, -1, -1, -1]);
    let (switches, factors) = (host.ints(&[1, 0]), host.upload(&[1, 4], &[1.0, 1.0, 1.0, 0.1]));
    let (mean, std) = (host.upload(&[3], &[0.0; 3]), host.upload(&[3], &[1.0; 3]));
    for channel in 0..3 {
        let mut pixel = [0.3, 0.2, 0.1];
        pixel[channel] = f64::NAN;
        let (x, mut y) = (host.upload(&[1, 3], &pixel), host.room(&[1, 3]));
        kernels::ColorJitter {
            x: &x,
            factors: &factors,
            order: &order,
            switches: &switches,
            mean: &mean,
            std: &std,
            y: &mut y,
            unit: 1.0,
            batch: 1,
            pixels: 1,
        }
        .launch(&host.device, GRID)
        .unwrap();
        assert!(host.read(&y).iter().all(|x| x.is_nan()));
    }
}

#[test]
fn blur_weights() {
    let host = Host::double();
    let sigmas = [0.4, 1.3, 0.02];
    let sigma = host.upload(&[3], &sigmas);
    for half in [2, 19, 0] {
        let mut weights = host.room(&[3, half + 1]);
        let grid = Grid::blocks(3);
        kernels::BlurWeights { sigma: &sigma, weights: &mut weights, half }
            .launch(&host.device, grid)
            .unwrap();
        let expected: Vec<f64> = (sigmas.iter())
            .flat_map(|s| {
                let bell = move |d: i64| (-((d * d) as f64) / (2.0 * s * s)).exp();
                let half = half as i64;
                let sum: f64 = (-half..=half).map(bell).sum();
                (0..=half).map(move |d| bell(d) / sum)
            })
            .collect();
        close("blur_weights", &host.read(&weights), &expected);
    }
}

#[test]
fn blur() {
    let host = Host::double();
    let [b, h, w] = [4, 7, 5];
    let half = 2;
    let shape = [b, h, w, 3];
    let (x, xs) = host.reals(&shape);
    let (_, mut ws) = host.positive(&[b, half + 1]);
    // Gaussian weights that underflow beyond the center tap in one image, and beyond its neighbors
    // in another.
    ws[7..9].fill(0.0);
    ws[11] = 0.0;
    let weights = host.upload(&[b, half + 1], &ws);
    let switches = host.ints(&[0, 1]);
    let reflected = |i: usize, d: i64, n: usize| {
        let i = (i as i64 + d).abs();
        (if i < n as i64 { i } else { 2 * (n as i64 - 1) - i }) as usize
    };
    let blurred = |along: usize| -> Vec<f64> {
        let value = |i: [usize; 4]| {
            let taps = -(half as i64)..=half as i64;
            taps.map(|d| {
                let mut from = i;
                from[along] = reflected(i[along], d, shape[along]);
                ws[i[0] * (half + 1) + d.unsigned_abs() as usize] * xs[at(shape, from)]
            })
            .sum()
        };
        each(shape).map(value).collect()
    };
    let mut y = host.room(&shape);
    kernels::BlurRows {
        x: &x,
        weights: &weights,
        switches: &switches,
        y: &mut y,
        half: 2,
        batch: 4,
        height: 7,
        width: 5,
    }
    .launch(&host.device, GRID)
    .unwrap();
    close("blur_rows", &host.read(&y), &blurred(2));
    let mut y = host.room(&shape);
    kernels::BlurColumns {
        x: &x,
        weights: &weights,
        switches: &switches,
        y: &mut y,
        half: 2,
        batch: 4,
        height: 7,
        width: 5,
    }
    .launch(&host.device, GRID)
    .unwrap();
    close("blur_columns", &host.read(&y), &blurred(1));

    // When switched off, nothing is written.
    let off = host.ints(&[1, 0]);
    let (mut y, before) = host.reals(&shape);
    kernels::BlurRows {
        x: &x,
        weights: &weights,
        switches: &off,
        y: &mut y,
        half: 2,
        batch: 4,
        height: 7,
        width: 5,
    }
    .launch(&host.device, GRID)
    .unwrap();
    kernels::BlurColumns {
        x: &x,
        weights: &weights,
        switches: &off,
        y: &mut y,
        half: 2,
        batch: 4,
        height: 7,
        width: 5,
    }
    .launch(&host.device, GRID)
    .unwrap();
    assert_eq!(host.read(&y), before);
}
