//! Pictures: normalising, masks, jitter, blur, mixing.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each};

#[test]
fn normalize() {
    let host = Host::double();
    let [b, h, w] = [2, 5, 7];
    let shape = [b, h, w, 3];
    let (x, xs) = host.bytes(&shape, 256);
    let (mean, means) = host.reals(&[3]);
    let (inverse, inverses) = host.reals(&[3]);
    let extent = host.ints(&[3, 4, 7, 2]);
    let mut y = host.room(&shape);
    let (bb, hh, ww) = (b as i64, h as i64, w as i64);
    kernels::normalize(&host.device, GRID, &x, Some(&extent), &mean, &inverse, &mut y, bb, hh, ww)
        .unwrap();
    let covered = [[3, 4], [7, 2]];
    let expected: Vec<f64> = each(shape)
        .map(|i| {
            let inside = i[2] < covered[i[0]][0] && i[1] < covered[i[0]][1];
            let value = (xs[at(shape, i)] as f64 - means[i[3]]) * inverses[i[3]];
            if inside { value } else { 0.0 }
        })
        .collect();
    close("normalize", &host.read(&y), &expected);
}

#[test]
fn block_mask() {
    let host = Host::double();
    let [b, h, w, gh, gw] = [3, 17, 13, 5, 7];
    let shape = [b, h, w, 3];
    let (x, xs) = host.reals(&shape);
    let (cells, grid) = host.reals(&[b, gh, gw]);
    let mut y = host.room(&shape);
    kernels::block_mask(&host.device, GRID, &x, &cells, &mut y, 0.1, 3, 17, 13, 5, 7).unwrap();
    let expected: Vec<f64> = each(shape)
        .map(|i| {
            let cell = at([b, gh, gw], [i[0], i[1] * gh / h, i[2] * gw / w]);
            if grid[cell] > 0.1 { xs[at(shape, i)] } else { 0.0 }
        })
        .collect();
    close("block_mask", &host.read(&y), &expected);
}

#[test]
fn color_jitter() {
    let host = Host::double();
    let [b, n] = [3, 11];
    let shape = [b, n, 3];
    let (mut x, xs) = host.reals(&shape);
    let (factors, f) = host.positive(&[b, 4]);
    // Brightness and contrast, in either order: the rest is left out.
    let orders = [[1, 0, -1, -1], [-1, 0, -1, 1], [0, -1, -1, -1]];
    let order = host.ints(orders.as_flattened());
    let (mean, m) = host.positive(&[3]);
    let (std, s) = host.positive(&[3]);
    let switches = host.ints(&[1, 0]);
    let unit = 0.3;
    kernels::color_jitter(
        &host.device,
        GRID,
        &mut x,
        &factors,
        &order,
        &switches,
        &mean,
        &std,
        unit,
        3,
        11,
    )
    .unwrap();
    let expected: Vec<f64> = each(shape)
        .map(|i| {
            let [image, _, c] = i;
            let mut value = (xs[at(shape, i)] * s[c] + m[c]) * unit;
            for what in orders[image] {
                match what {
                    0 => value = (value + f[4 * image] - 1.0).clamp(0.0, 1.0),
                    1 => value = (value * f[4 * image + 1]).clamp(0.0, 1.0),
                    _ => {}
                }
            }
            (value / unit - m[c]) / s[c]
        })
        .collect();
    close("color_jitter", &host.read(&x), &expected);
}

#[test]
fn blur() {
    let host = Host::double();
    let [b, h, w] = [3, 7, 5];
    let half = 2;
    let shape = [b, h, w, 3];
    let (x, xs) = host.reals(&shape);
    let (weights, ws) = host.positive(&[b, half + 1]);
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
    kernels::blur_rows(&host.device, GRID, &x, &weights, &switches, &mut y, 2, 3, 7, 5).unwrap();
    close("blur_rows", &host.read(&y), &blurred(2));
    let mut y = host.room(&shape);
    kernels::blur_columns(&host.device, GRID, &x, &weights, &switches, &mut y, 2, 3, 7, 5).unwrap();
    close("blur_columns", &host.read(&y), &blurred(1));
}

#[test]
fn paste_rare() {
    let host = Host::double();
    let [b, n] = [3, 11];
    let (rgb, colours) = host.bytes(&[b, 2, n, 3], 256);
    let (crop_label, crops) = host.bytes(&[b, 2, n], 3);
    let classes = [2u8, 1];
    let on_device = host.device.upload(&[2], &classes).unwrap();
    let (shift, shifts) = host.reals(&[3]);
    let (gain, gains) = host.reals(&[3]);
    for reversed in [0, 1] {
        let (mut image, mut pixels) = host.reals(&[b, n, 3]);
        let (mut label, mut labels) = host.bytes(&[b, n], 250);
        kernels::paste_rare(
            &host.device,
            GRID,
            &rgb,
            &crop_label,
            &on_device,
            &shift,
            &gain,
            &mut image,
            &mut label,
            reversed,
            3,
            11,
        )
        .unwrap();
        for [i, k, p] in each([b, 2, n]) {
            let from = at([b, 2, n], [i, k, p]);
            if crops[from] != classes[k] {
                continue;
            }
            labels[i * n + p] = classes[k];
            for c in 0..3 {
                let channel = if reversed == 1 { 2 - c } else { c };
                let value = colours[3 * from + channel] as f64;
                pixels[3 * (i * n + p) + c] = (value - shifts[c]) * gains[c];
            }
        }
        close("paste_rare", &host.read(&image), &pixels);
        assert_eq!(host.read_bytes(&label), labels);
    }
}

/// Values that any of some rows of 256 flags hold, without some.
fn listed(rows: &[u8], without: &[i32]) -> Vec<usize> {
    (0..256)
        .filter(|&v| rows.chunks(256).any(|row| row[v] != 0) && !without.contains(&(v as i32)))
        .collect()
}

fn take(list: &mut Vec<usize>, u: f64) -> usize {
    list.remove((u * list.len() as f64) as usize)
}

#[test]
fn choices_of_classes() {
    let host = Host::double();
    let [b, parts, most, values] = [3, 5, 131, 233];
    // Few values in each part, so that parts and images differ.
    let mut flags = vec![0u8; b * parts * 256];
    let (_, noise) = host.bytes(&[b, parts, 256], 60);
    flags.iter_mut().zip(&noise).for_each(|(flag, &n)| *flag = (n == 0) as u8);
    let present = host.device.upload(&[b, parts, 256], &flags).unwrap();
    let (_, raw) = host.reals(&[b, most]);
    let u: Vec<f64> = raw.iter().map(|x| (x + 1.0) / 2.0).collect();
    let uniforms = host.upload(&[b, most], &u);
    let mut table = host.room_for_bytes(&[b, 256]);
    let one = Grid::blocks(1);
    let listed = |rows: &[u8], avoided: &[i32]| -> Vec<usize> {
        listed(rows, avoided).into_iter().filter(|&v| v < values).collect()
    };
    let d = &host.device;
    kernels::choose_half(d, one, &present, &uniforms, &mut table, 233, 3, 5, 131).unwrap();
    let mut expected = vec![0u8; b * 256];
    for i in 0..b {
        let mut list = listed(&flags, &[]);
        let n = list.len();
        assert!(n > 20 && n.div_ceil(2) < most);
        (0..n.div_ceil(2)).for_each(|j| expected[i * 256 + take(&mut list, u[i * most + j])] = 1);
    }
    assert_eq!(host.read_bytes(&table), expected);

    let (_, raw) = host.reals(&[b, 2]);
    let u: Vec<f64> = raw.iter().map(|x| (x + 1.0) / 2.0).collect();
    let uniforms = host.upload(&[b, 2], &u);
    let rows = |i: usize| &flags[i * parts * 256..][..parts * 256];
    // Values that are there, so that avoiding them changes what is drawn.
    let avoided: Vec<i32> =
        (0..b).flat_map(|i| listed(rows(i), &[])[..2].to_vec()).map(|v| v as i32).collect();
    let avoid = host.ints(&avoided);
    for positions in [0, 1] {
        let mut chosen = host.ints(&[9; 6]);
        kernels::choose_two(
            &host.device,
            one,
            &present,
            &uniforms,
            Some(&avoid),
            &mut table,
            Some(&mut chosen),
            positions,
            233,
            3,
            5,
        )
        .unwrap();
        let (mut expected, mut handed_on) = (vec![0u8; b * 256], Vec::new());
        for i in 0..b {
            let all = listed(rows(i), &avoided[2 * i..2 * i + 2]);
            let mut list = all.clone();
            for j in 0..2 {
                let value = take(&mut list, u[2 * i + j]);
                expected[i * 256 + value] = 1;
                let rank = all.iter().position(|&v| v == value).unwrap();
                handed_on.push(if positions == 1 { rank } else { value } as i32);
            }
        }
        assert_eq!(host.read_bytes(&table), expected);
        assert_eq!(host.device.read::<i32>(&chosen).unwrap(), handed_on);
    }
}

#[test]
fn downscale_labels() {
    let host = Host::double();
    let [b, h, w, scale] = [2, 17, 23, 5];
    let (labels, all) = host.bytes(&[b, h, w], 3);
    let (sh, sw) = (h / scale, w / scale);
    let mut small = host.room_for_bytes(&[b, sh, sw]);
    let share = 0.41;
    kernels::downscale_labels(&host.device, GRID, &labels, &mut small, 2, 17, 23, 5, share)
        .unwrap();
    let expected: Vec<u8> = each([b, sh, sw])
        .map(|[i, y, x]| {
            let mut votes = [0; 3];
            for [dy, dx] in each([scale, scale]) {
                let pixel = [i, y * scale + dy, x * scale + dx];
                votes[all[at([b, h, w], pixel)] as usize] += 1;
            }
            let most = *votes.iter().max().unwrap();
            let winner = votes.iter().position(|&v| v == most).unwrap();
            if (most as f64) < share * (scale * scale) as f64 { 255 } else { winner as u8 }
        })
        .collect();
    assert!(expected.contains(&255) && expected.iter().any(|&v| v < 3));
    assert_eq!(host.read_bytes(&small), expected);
}
