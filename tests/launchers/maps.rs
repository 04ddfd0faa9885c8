//! Feature maps: resizing, im2col patches, channels.

use udass_raw::device::kernels;

use crate::{GRID, Host, at, close, each, taps, uniform_of};

#[test]
fn resizes() {
    let host = Host::double();
    let [b, h, w, ho, wo] = [3, 5, 7, 11, 13];
    // Factors given by the caller instead of the ratio of the sizes. The second pair reaches far
    // beyond the last row and column.
    let scales = [(0.43, 0.57), (0.71, 0.83)];
    // Scalar channels, more than some blocks have threads; then one vector pack, and several.
    let channels = [[35, 53, 17], [8, 24, 16], [32, 40, 8]];
    for ((scale_y, scale_x), [c, pitch, first]) in
        scales.into_iter().flat_map(|scale| channels.map(|channels| (scale, channels)))
    {
        let (small, wide) = ([b, h, w, c], [b, ho, wo, pitch]);
        let (x, xs) = host.reals(&small);
        let (mut y, mut expected) = host.reals(&wide);
        kernels::ResizeForward {
            x: &x,
            y: &mut y,
            batch: 3,
            height: 5,
            width: 7,
            channels: c,
            out_height: 11,
            out_width: 13,
            pitch,
            first,
            scale_y,
            scale_x,
        }
        .launch(&host.device, GRID)
        .unwrap();
        for [i, y, x, ch] in each([b, ho, wo, c]) {
            let mut sum = 0.0;
            for (ty, wy) in taps(y, scale_y, h) {
                for (tx, wx) in taps(x, scale_x, w) {
                    sum += wy * wx * xs[at(small, [i, ty, tx, ch])];
                }
            }
            expected[at(wide, [i, y, x, first + ch])] = sum;
        }
        close("resize_forward", &host.read(&y), &expected);
        for accumulate in [false, true] {
            let (mut y_wide, before) = host.reals(&wide);
            kernels::ResizeForwardWide {
                x: &x,
                y: &mut y_wide,
                accumulate,
                batch: 3,
                height: 5,
                width: 7,
                channels: c,
                out_height: 11,
                out_width: 13,
                pitch,
                first,
                scale_y,
                scale_x,
            }
            .launch(&host.device, GRID)
            .unwrap();
            let outside = |at: usize| !(first..first + c).contains(&(at % pitch));
            let mixed: Vec<f64> = (0..before.len())
                .map(|at| match outside(at) {
                    true => before[at],
                    false if accumulate => before[at] + expected[at],
                    false => expected[at],
                })
                .collect();
            close("resize_forward_wide", &host.read(&y_wide), &mixed);
        }

        let (dy, dys) = host.reals(&wide);
        for accumulate in [false, true] {
            let (mut dx, before) = host.reals(&small);
            let grid = GRID.shared((ho + wo) * 8);
            kernels::ResizeBackward {
                dy: &dy,
                dx: &mut dx,
                accumulate,
                batch: 3,
                height: 5,
                width: 7,
                channels: c,
                out_height: 11,
                out_width: 13,
                pitch,
                first,
                scale_y,
                scale_x,
            }
            .launch(&host.device, grid)
            .unwrap();
            let mut expected = if accumulate { before } else { vec![0.0; before.len()] };
            for [i, y, x, ch] in each([b, ho, wo, c]) {
                for (ty, wy) in taps(y, scale_y, h) {
                    for (tx, wx) in taps(x, scale_x, w) {
                        let gradient = dys[at(wide, [i, y, x, first + ch])];
                        expected[at(small, [i, ty, tx, ch])] += wy * wx * gradient;
                    }
                }
            }
            close("resize_backward", &host.read(&dx), &expected);
        }
    }
}

/// Three channels that fill the whole output take a separate path.
#[test]
fn resizes_pictures() {
    let host = Host::double();
    let [b, h, w, c, ho, wo] = [2, 5, 7, 3, 9, 4];
    let (scale_y, scale_x) = (0.57, 1.9);
    let (x, xs) = host.reals(&[b, h, w, c]);
    let mut expected = Vec::new();
    for [i, y, x, ch] in each([b, ho, wo, c]) {
        let mut sum = 0.0;
        for (ty, wy) in taps(y, scale_y, h) {
            for (tx, wx) in taps(x, scale_x, w) {
                sum += wy * wx * xs[at([b, h, w, c], [i, ty, tx, ch])];
            }
        }
        expected.push(sum);
    }
    let (mut y, _) = host.reals(&[b, ho, wo, c]);
    kernels::ResizeForward {
        x: &x,
        y: &mut y,
        batch: b,
        height: h,
        width: w,
        channels: c,
        out_height: ho,
        out_width: wo,
        pitch: c,
        first: 0,
        scale_y,
        scale_x,
    }
    .launch(&host.device, GRID)
    .unwrap();
    close("resize of pictures", &host.read(&y), &expected);
    let (mut y, _) = host.reals(&[b, ho, wo, c]);
    kernels::ResizeForwardWide {
        x: &x,
        y: &mut y,
        accumulate: false,
        batch: b,
        height: h,
        width: w,
        channels: c,
        out_height: ho,
        out_width: wo,
        pitch: c,
        first: 0,
        scale_y,
        scale_x,
    }
    .launch(&host.device, GRID)
    .unwrap();
    close("resize of pictures, not as operands", &host.read(&y), &expected);
}

#[test]
fn patches() {
    let host = Host::double();
    for (dilation, taps_w) in [(3, 6), (1, 6)] {
        let [b, h, w, c, ho, wo, r] = [5, 13, 17, 7, 8, 9, 4];
        let (stride, padding) = (2, 11);
        let (image, rows) = ([b, h, w, c], [b, ho, wo, r, taps_w, c]);
        let (x, xs) = host.reals(&image);
        let (p, ps) = host.reals(&rows);
        // The pixel that an element of a patch is read from, if it is inside.
        let source = |[i, y, x, tap_y, tap_x, ch]: [usize; 6]| {
            let y = (y * stride + tap_y * dilation).checked_sub(padding)?;
            let x = (x * stride + tap_x * dilation).checked_sub(padding)?;
            (y < h && x < w).then(|| at(image, [i, y, x, ch]))
        };
        let mut gathered = host.room(&rows);
        kernels::PatchesGather {
            x: &x,
            patches: &mut gathered,
            batch: 5,
            height: 13,
            width: 17,
            channels: 7,
            out_height: 8,
            out_width: 9,
            kernel_height: 4,
            kernel_width: 6,
            stride: 2,
            padding: 11,
            dilation,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> =
            each(rows).map(|i| source(i).map_or(0.0, |from| xs[from])).collect();
        close("patches_gather", &host.read(&gathered), &expected);

        let (mut dx, mut expected) = host.reals(&image);
        let grid = GRID.shared(c * 8);
        kernels::PatchesScatter {
            patches: &p,
            dx: &mut dx,
            accumulate: true,
            batch: 5,
            height: 13,
            width: 17,
            channels: 7,
            out_height: 8,
            out_width: 9,
            kernel_height: 4,
            kernel_width: 6,
            stride: 2,
            padding: 11,
            dilation,
        }
        .launch(&host.device, grid)
        .unwrap();
        for i in each(rows) {
            if let Some(to) = source(i) {
                expected[to] += ps[at(rows, i)];
            }
        }
        close("patches_scatter", &host.read(&dx), &expected);
    }
}

#[test]
fn channels() {
    let host = Host::double();
    let [rows, c, from_pitch, from, to_pitch, to] = [11, 3, 13, 5, 17, 7];
    let (x, xs) = host.reals(&[rows, from_pitch]);
    for accumulate in [false, true] {
        let (mut y, mut expected) = host.reals(&[rows, to_pitch]);
        kernels::MoveChannels {
            x: &x,
            y: &mut y,
            accumulate,
            rows: 11,
            channels: 3,
            x_pitch: 13,
            x_first: 5,
            y_pitch: 17,
            y_first: 7,
        }
        .launch(&host.device, GRID)
        .unwrap();
        for [r, k] in each([rows, c]) {
            let cell = &mut expected[r * to_pitch + to + k];
            *cell = xs[r * from_pitch + from + k] + if accumulate { *cell } else { 0.0 };
        }
        close("move_channels", &host.read(&y), &expected);
    }

    let key = host.device.upload(&[1], &[41u64]).unwrap();
    let [batch, channels] = [5, 7];
    let mut mask = host.room(&[batch, channels]);
    kernels::ChannelMask {
        key: &key,
        mask: &mut mask,
        batch,
        channels,
        probability: 0.3,
        stream: 5,
        first_slot: 4,
        slots: 2,
        all_slots: 13,
    }
    .launch(&host.device, GRID)
    .unwrap();
    // Slots 4 and 5 of three passes of 13 images each.
    let slots = [4, 5, 17, 18, 30];
    let expected: Vec<f64> = each([batch, channels])
        .map(|[b, c]| uniform_of(41, 5, (slots[b] * channels + c) as u64))
        .map(|u| if u < 0.3 { 0.0 } else { 1.0 / 0.7 })
        .collect();
    assert!(expected.contains(&0.0));
    close("channel_mask", &host.read(&mask), &expected);

    let [b, n, c] = [3, 5, 7];
    let (x, xs) = host.reals(&[b, n, c]);
    let (mask, ms) = host.reals(&[b, c]);
    for accumulate in [false, true] {
        let (mut y, before) = host.reals(&[b, n, c]);
        kernels::ScaleChannels {
            x: &x,
            mask: &mask,
            y: &mut y,
            accumulate,
            batch: 3,
            pixels: 5,
            channels: 7,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> = each([b, n, c])
            .map(|i| {
                let cell = at([b, n, c], i);
                xs[cell] * ms[i[0] * c + i[2]] + f64::from(accumulate) * before[cell]
            })
            .collect();
        close("scale_channels", &host.read(&y), &expected);
    }
}

#[test]
fn scaled_sums() {
    let host = Host::double();
    let (x, xs) = host.reals(&[3, 11]);
    for accumulate in [false, true] {
        let kept = |y: f64| f64::from(accumulate) * y;
        let (mut y, before) = host.reals(&[3, 11]);
        kernels::AddScaled { x: &x, y: &mut y, scale: 0.3, accumulate, elements: 33 }
            .launch(&host.device, GRID)
            .unwrap();
        let expected: Vec<f64> = (0..33).map(|i| kept(before[i]) + 0.3 * xs[i]).collect();
        close("add_scaled", &host.read(&y), &expected);
    }
}

#[test]
fn max_pooling() {
    let host = Host::double();
    let [b, h, w, c, ho, wo] = [5, 7, 12, 2, 4, 6];
    let (wide, small) = ([b, h, w, c], [b, ho, wo, c]);
    let (x, xs) = host.reals(&wide);
    let (mut y, mut tap) = (host.room(&small), host.room_for_bytes(&small));
    kernels::MaxPool {
        x: &x,
        y: &mut y,
        tap: Some(&mut tap),
        batch: 5,
        height: 7,
        width: 12,
        channels: 2,
        out_height: 4,
        out_width: 6,
    }
    .launch(&host.device, GRID)
    .unwrap();
    let (dy, dys) = host.reals(&small);
    let (dx, before) = host.reals(&wide);
    let (mut maxima, mut taps) = (Vec::new(), Vec::new());
    let mut gradients = [vec![0.0; before.len()], before];
    for [i, y, x, ch] in each(small) {
        let inside = |tap: usize| {
            let (y, x) = (2 * y + tap / 3, 2 * x + tap % 3);
            let fits = (1..=h).contains(&y) && (1..=w).contains(&x);
            fits.then(|| at(wide, [i, y - 1, x - 1, ch]))
        };
        let places = (0..9).filter_map(|tap| Some((tap, inside(tap)?)));
        let (tap, place) = places.max_by(|a, b| xs[a.1].total_cmp(&xs[b.1])).unwrap();
        for gradient in &mut gradients {
            gradient[place] += dys[maxima.len()];
        }
        maxima.push(xs[place]);
        taps.push(tap as u8);
    }
    close("max_pool", &host.read(&y), &maxima);
    assert_eq!(host.read_bytes(&tap), taps);
    for (accumulate, expected) in [(true, &gradients[1]), (false, &gradients[0])] {
        let mut dx = dx.clone();
        kernels::MaxPoolBackward {
            dy: &dy,
            tap: &tap,
            dx: &mut dx,
            accumulate,
            batch: 5,
            height: 7,
            width: 12,
            channels: 2,
            out_height: 4,
            out_width: 6,
        }
        .launch(&host.device, GRID)
        .unwrap();
        close("max_pool_backward", &host.read(&dx), expected);
    }
}
