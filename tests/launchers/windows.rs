//! Crops, windows, and HRDA fusion.

use udass_raw::device::kernels;

use crate::{GRID, Host, at, close, each, taps};

#[test]
fn crops() {
    let host = Host::double();
    let [b, h, w, c, hc, wc] = [2, 13, 11, 5, 7, 3];
    let shape = [b, h, w, c];
    // One box inside the image, and two that are clamped to it.
    for (corner, [top, left]) in [([4, 6], [4, 6]), ([-3, -2], [0, 0]), ([7, 9], [6, 8])] {
        // The same box for all images, or one for each: the second image's is in the upper left.
        for places in [1, 2] {
            let place = [corner[0] * 17 + 5, 0, corner[1] * 17 + 5, 0, 0, 0, 0, 0];
            let place = host.ints(&place[..4 * places]);
            let of = |i: [usize; 4]| match i[0] % places {
                0 => at(shape, [i[0], i[1] + top, i[2] + left, i[3]]),
                _ => at(shape, i),
            };
            let (x, xs) = host.reals(&shape);
            let mut y = host.room(&[b, hc, wc, c]);
            kernels::CropReals {
                x: &x,
                place: &place,
                y: &mut y,
                batch: 2,
                places,
                height: 13,
                width: 11,
                channels: 5,
                crop_height: 7,
                crop_width: 3,
                stride: 17,
            }
            .launch(&host.device, GRID)
            .unwrap();
            let expected: Vec<f64> = each([b, hc, wc, c]).map(|i| xs[of(i)]).collect();
            close("crop_reals", &host.read(&y), &expected);
            let (x, xs) = host.bytes(&shape, 256);
            let mut y = host.room_for_bytes(&[b, hc, wc, c]);
            kernels::CropBytes {
                x: &x,
                place: &place,
                y: &mut y,
                batch: 2,
                places,
                height: 13,
                width: 11,
                channels: 5,
                crop_height: 7,
                crop_width: 3,
                stride: 17,
            }
            .launch(&host.device, GRID)
            .unwrap();
            let expected: Vec<u8> = each([b, hc, wc, c]).map(|i| xs[of(i)]).collect();
            assert_eq!(host.read_bytes(&y), expected);
        }
    }
}

#[test]
fn window_crops() {
    let host = Host::double();
    let [n, b, h, w, c, hc, wc] = [3, 2, 13, 17, 5, 7, 11];
    let (x, xs) = host.reals(&[b, h, w, c]);
    let corners = [[0, 0], [6, 4], [2, 6]];
    let boxes: Vec<i32> = corners
        .iter()
        .flat_map(|&[y, x]| [y, y + hc, x, x + wc])
        .map(|edge: usize| edge as i32)
        .collect();
    let boxes = host.ints(&boxes);
    let mut y = host.room(&[n * b, hc, wc, c]);
    kernels::WindowCrops {
        x: &x,
        boxes: &boxes,
        y: &mut y,
        windows: 3,
        batch: 2,
        height: 13,
        width: 17,
        channels: 5,
        crop_height: 7,
        crop_width: 11,
    }
    .launch(&host.device, GRID)
    .unwrap();
    let expected: Vec<f64> = each([n, b, hc, wc, c])
        .map(|[k, i, y, x, ch]| xs[at([b, h, w, c], [i, y + corners[k][0], x + corners[k][1], ch])])
        .collect();
    close("window_crops", &host.read(&y), &expected);
}

#[test]
fn window_average() {
    let host = Host::double();
    let [n, b, h, w, c, hc, wc, stride] = [5, 2, 13, 17, 3, 7, 11, 4];
    // Windows of 10 by 14 cells, stored at 7 by 11; then windows stored at full size in one
    // dimension, or in both. Some start further along than a cell has pixels, which exposes wrong
    // index arithmetic.
    for [side_y, side_x] in [[10, 14], [10, 11], [7, 14], [7, 11]] {
        let (ratio_y, ratio_x) = (hc as f64 / side_y as f64, wc as f64 / side_x as f64);
        let (x, xs) = host.reals(&[n, b, hc, wc, c]);
        let (far_y, far_x) = (h - side_y, w - side_x);
        let corners = [[0, 0], [0, far_x], [far_y, 0], [far_y, far_x], [1, 2]];
        let boxes: Vec<i32> = corners
            .iter()
            .flat_map(|&[y, x]| [y, y + side_y, x, x + side_x])
            .map(|edge: usize| (edge * stride) as i32)
            .collect();
        let boxes = host.ints(&boxes);
        let mut y = host.room(&[b, h, w, c]);
        kernels::WindowAverage {
            x: &x,
            boxes: &boxes,
            y: &mut y,
            windows: 5,
            batch: 2,
            height: 13,
            width: 17,
            channels: 3,
            crop_height: 7,
            crop_width: 11,
            stride: 4,
            ratio_y,
            ratio_x,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> = each([b, h, w, c])
            .map(|[i, y, x, ch]| {
                let (mut sum, mut count) = (0.0, 0.0);
                for (k, [top, left]) in corners.into_iter().enumerate() {
                    let (Some(dy), Some(dx)) = (y.checked_sub(top), x.checked_sub(left)) else {
                        continue;
                    };
                    if dy >= side_y || dx >= side_x {
                        continue;
                    }
                    count += 1.0;
                    for (ty, wy) in taps(dy, ratio_y, hc) {
                        for (tx, wx) in taps(dx, ratio_x, wc) {
                            sum += wy * wx * xs[at([n, b, hc, wc, c], [k, i, ty, tx, ch])];
                        }
                    }
                }
                sum / count
            })
            .collect();
        close("window_average", &host.read(&y), &expected);
    }
}

#[test]
fn hrda_attention() {
    let host = Host::double();
    let shape = [2, 5, 7, 3];
    let stride = 11;
    let (logits, ls) = host.reals(&shape);
    let (context, cs) = host.reals(&shape);
    // Rows 1 to 3 and columns 2 to 6 of the cells; then all cells.
    let place = host.ints(&[11, 44, 22, 77]);
    for place in [Some(&place), None] {
        let (mut attention, mut scaled) = (host.room(&shape), host.room(&shape));
        kernels::HrdaAttention {
            logits: &logits,
            context: &context,
            place,
            attention: &mut attention,
            scaled: &mut scaled,
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            stride,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> = each(shape)
            .map(|i| {
                let boxed = (1..4).contains(&i[1]) && (2..7).contains(&i[2]);
                if boxed || place.is_none() { 1.0 / (1.0 + (-ls[at(shape, i)]).exp()) } else { 0.0 }
            })
            .collect();
        close("attention", &host.read(&attention), &expected);
        let rest: Vec<f64> = expected.iter().zip(&cs).map(|(a, c)| (1.0 - a) * c).collect();
        close("scaled", &host.read(&scaled), &rest);
    }
}

#[test]
fn hrda_fusion_and_its_gradients() {
    let host = Host::double();
    let device = &host.device;
    let [b, h, w, c, hc, wc, height, width] = [2, 5, 7, 3, 11, 13, 17, 19];
    let (ratio_y, ratio_x) = (h as f64 / height as f64, w as f64 / width as f64);
    let (low, high, whole) = ([b, h, w, c], [b, hc, wc, c], [b, height, width, c]);
    let (attention, a) = host.positive(&low);
    let (scaled, s) = host.reals(&low);
    let (detail, d) = host.reals(&high);
    // Boxes inside, boxes that are clamped, and no box.
    for (corner, top, left) in
        [(Some([4, 5]), 4, 5), (Some([-2, 20]), 0, 6), (Some([7, -1]), 6, 0), (None, 0, 0)]
    {
        let boxed = corner.map(|[y, x]| host.ints(&[y * 23, 0, x * 23, 0]));
        let place = boxed.as_ref();
        // Maps a cell of the whole image to its cell in the detail crop.
        let inside = |y: usize, x: usize| {
            let (y, x) = (y.checked_sub(top)?, x.checked_sub(left)?);
            (y < hc && x < wc).then_some((y, x))
        };
        let up = |map: &[f64], [i, y, x, ch]: [usize; 4]| {
            let mut sum = 0.0;
            for (ty, wy) in taps(y, ratio_y, h) {
                for (tx, wx) in taps(x, ratio_x, w) {
                    sum += wy * wx * map[at(low, [i, ty, tx, ch])];
                }
            }
            sum
        };
        let mut fused = host.room(&whole);
        kernels::HrdaFuse {
            attention: &attention,
            scaled: &scaled,
            detail: &detail,
            place,
            fused: &mut fused,
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            detail_height: 11,
            detail_width: 13,
            fused_height: 17,
            fused_width: 19,
            ratio_y,
            ratio_x,
            stride: 23,
        }
        .launch(device, GRID)
        .unwrap();
        let expected: Vec<f64> = each(whole)
            .map(|i| {
                let seen = inside(i[1], i[2]).map_or(0.0, |(y, x)| d[at(high, [i[0], y, x, i[3]])]);
                up(&s, i) + up(&a, i) * seen
            })
            .collect();
        close("hrda_fuse", &host.read(&fused), &expected);

        let (dfused, df) = host.reals(&whole);
        for accumulate in [false, true] {
            let (mut ddetail, before) = host.reals(&high);
            kernels::HrdaBackwardDetail {
                dfused: &dfused,
                attention: &attention,
                place,
                ddetail: &mut ddetail,
                accumulate,
                batch: 2,
                height: 5,
                width: 7,
                channels: 3,
                detail_height: 11,
                detail_width: 13,
                fused_height: 17,
                fused_width: 19,
                ratio_y,
                ratio_x,
                stride: 23,
            }
            .launch(device, GRID)
            .unwrap();
            let expected: Vec<f64> = each(high)
                .map(|i| {
                    let there = [i[0], i[1] + top, i[2] + left, i[3]];
                    f64::from(accumulate) * before[at(high, i)]
                        + df[at(whole, there)] * up(&a, there)
                })
                .collect();
            close("hrda_backward_detail", &host.read(&ddetail), &expected);
        }

        let (context, cs) = host.reals(&low);
        let (mut dcontext, mut dlogits) = (host.room(&low), host.room(&low));
        kernels::HrdaBackwardContext {
            dfused: &dfused,
            attention: &attention,
            context: &context,
            detail: &detail,
            place,
            dcontext: &mut dcontext,
            dlogits: &mut dlogits,
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            detail_height: 11,
            detail_width: 13,
            fused_height: 17,
            fused_width: 19,
            ratio_y,
            ratio_x,
            stride: 23,
        }
        .launch(device, GRID)
        .unwrap();
        let (mut plain, mut seen) = (vec![0.0; cs.len()], vec![0.0; cs.len()]);
        for i in each(whole) {
            let gradient = df[at(whole, i)];
            for (ty, wy) in taps(i[1], ratio_y, h) {
                for (tx, wx) in taps(i[2], ratio_x, w) {
                    let cell = at(low, [i[0], ty, tx, i[3]]);
                    plain[cell] += wy * wx * gradient;
                    if let Some((y, x)) = inside(i[1], i[2]) {
                        seen[cell] += wy * wx * gradient * d[at(high, [i[0], y, x, i[3]])];
                    }
                }
            }
        }
        let of = |f: &dyn Fn(usize) -> f64| (0..cs.len()).map(f).collect::<Vec<f64>>();
        close("dcontext", &host.read(&dcontext), &of(&|i| (1.0 - a[i]) * plain[i]));
        let derivative = |i: usize| a[i] * (1.0 - a[i]) * (seen[i] - cs[i] * plain[i]);
        close("dlogits", &host.read(&dlogits), &of(&derivative));
    }
}
