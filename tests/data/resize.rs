//! Tests the resizers against OpenCV and Pillow, byte for byte, and windows against whole images.

use safetensors::SafeTensors;
use udass_raw::data::resize::*;

type Resizer = fn(Rows, Size, Window) -> Vec<u8>;
type Needs = fn(Size, Size, Window) -> std::ops::Range<usize>;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn tensor<'a>(file: &'a SafeTensors, key: &str) -> (Vec<usize>, &'a [u8]) {
    let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
    (view.shape().to_vec(), view.data())
}

fn size(shape: &[usize]) -> Size {
    Size::new(shape[1], shape[0])
}

#[test]
fn golden_cases_are_exact() {
    let bytes = fixture("pub_piece_imresize.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in 0..4 {
        let (image_shape, image) = tensor(&file, &format!("{case}/img"));
        let (label_shape, label) = tensor(&file, &format!("{case}/label"));
        let image = Rows::whole(size(&image_shape), 3, image);
        let label = Rows::whole(size(&label_shape), 1, label);
        let resizers: [(&str, Resizer, Rows); 4] = [
            ("cv2_bilinear", cv_bilinear, image),
            ("cv2_nearest", cv_nearest, label),
            // The stored numbers are those of Pillow 13.
            ("pil_bilinear", pil_bilinear_since_13, image),
            ("pil_nearest", pil_nearest, label),
        ];
        for (name, resize, source) in resizers {
            let (shape, expected) = tensor(&file, &format!("{case}/{name}"));
            let to = size(&shape);
            let wrong = resize(source, to, Window::whole(to))
                .iter()
                .zip(expected)
                .filter(|(a, b)| a != b)
                .count();
            assert_eq!(wrong, 0, "{case}/{name}: {wrong} of {} bytes differ", expected.len());
        }
    }
}

#[test]
fn golden_valid_mask_is_exact() {
    let bytes = fixture("pub_piece_valid_mask.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (margins, full, to) = ([30, 240, 30, 30], Size::new(2048, 1024), Size::new(256, 128));
    let whole = valid_mask(margins, full, to, Window::whole(to));
    assert_eq!(whole, tensor(&file, "resized").1);
    let mut crop = valid_mask(margins, full, to, Window { x: 100, y: 10, width: 100, height: 64 });
    assert_eq!(crop, tensor(&file, "cropped").1);
    flip_horizontally(&mut crop, 100, 1);
    assert_eq!(crop, tensor(&file, "flipped").1);
    let native = valid_mask(margins, full, full, Window::whole(full));
    assert_eq!(native.iter().filter(|&&v| v == 1).count(), 1_498_952);
}

#[test]
fn margins_wider_than_the_image_leave_nothing() {
    let size = Size::new(6, 4);
    let mask = valid_mask([30, 240, 30, 30], size, size, Window::whole(size));
    assert_eq!(mask, vec![0; 24]);
}

#[test]
fn fitted_sizes_are_those_of_the_reference() {
    for (from, fit, expected) in [
        ([1914, 1052], [2560, 1440], [2560, 1407]),
        ([1914, 1046], [2560, 1440], [2560, 1399]),
        ([1280, 760], [2560, 1520], [2560, 1520]),
        ([2048, 1024], [2048, 1024], [2048, 1024]),
        ([1920, 1080], [1920, 1080], [1920, 1080]),
        ([1914, 1052], [1280, 720], [1280, 704]),
        ([2048, 1024], [1024, 512], [1024, 512]),
        ([1052, 1914], [2560, 1440], [1407, 2560]),
        ([10_000, 1], [100, 50], [100, 1]),
    ] {
        let fitted = Size::new(from[0], from[1]).fitted(fit);
        assert_eq!([fitted.width, fitted.height], expected, "{from:?} in {fit:?}");
    }
}

/// Generates bytes from a formula (a counter through SplitMix64, seeded with the name's FNV-1a
/// hash), so that OpenCV and Pillow could be given the same input.
fn noise(name: &str, n: usize) -> Vec<u8> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3));
    let byte = |i: usize| {
        let mut z = seed.wrapping_add((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 56) as u8
    };
    (0..n).map(byte).collect()
}

/// Sums every byte times an odd number derived from its position, modulo 2⁶⁴.
fn digest(data: &[u8]) -> u64 {
    data.iter().zip(0u64..).fold(0, |sum, (&v, i)| {
        sum.wrapping_add((v as u64).wrapping_mul(i.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    })
}

fn check_digests(
    cases: &[([usize; 2], [usize; 2], u64, u64)],
    bilinear: Resizer,
    nearest: Resizer,
) {
    for &([width, height], [w, h], on_image, on_label) in cases {
        let (from, to) = (Size::new(width, height), Size::new(w, h));
        let image = noise(&format!("resize/{width}x{height}"), from.pixels() * 3);
        let label: Vec<u8> = image.chunks_exact(3).map(|p| p[0]).collect();
        let image = bilinear(Rows::whole(from, 3, &image), to, Window::whole(to));
        assert_eq!(digest(&image), on_image, "bilinear, {from} to {to}");
        let label = nearest(Rows::whole(from, 1, &label), to, Window::whole(to));
        assert_eq!(digest(&label), on_label, "nearest, {from} to {to}");
    }
}

#[test]
fn real_sizes_match_opencv_5_0_0() {
    let cases = [
        ([1914, 1052], [2560, 1407], 0x20f96580c1b81029, 0xba8d0f433da8f98b),
        ([1914, 1046], [2560, 1399], 0xf7732f7fd4ae3712, 0xef460050a89a6d8d),
        ([2048, 1024], [2048, 1024], 0xc86b7908591822ea, 0x7ef4dd89eff2e9df),
        ([1914, 1052], [1280, 704], 0xc068f5e6b3c8c71d, 0x1cb102a324f49020),
        ([2048, 1024], [1024, 512], 0xaad38491427a6656, 0xcd7f74db6b331629),
        ([1280, 760], [2560, 1520], 0x570187af4d6db8fa, 0xda117fdff0698294),
        ([37, 1], [5, 9], 0x187d86ef93f61b0f, 0x8a2e94d3d6b28a0f),
        ([1, 29], [7, 13], 0x8641451b96bc10ba, 0x3356b45570f22b8f),
    ];
    check_digests(&cases, cv_bilinear, cv_nearest);
}

/// The image that shrinks most in height tells the order of the passes: Pillow 13 has another.
#[test]
fn real_sizes_match_pillow_9_5_0() {
    let cases = [
        ([1914, 1052], [2048, 1024], 0xd00309110fa311f7, 0xc782772101ec21ec),
        ([1914, 1046], [2048, 1024], 0xe8ed8d3e7e299b30, 0xc85fe087fda7a5f8),
        ([1280, 760], [2048, 1024], 0x4af69ee4f7da2558, 0xc037a7a71799fb8a),
        ([2048, 1024], [2048, 1024], 0xc86b7908591822ea, 0x7ef4dd89eff2e9df),
        ([300, 200], [97, 151], 0xee7e5924fce28420, 0x6da0d8f2b300d9d6),
        ([300, 200], [171, 20], 0x98b45d1bee8d4a5e, 0xbd90f1404826b4cf),
        ([90, 40], [90, 23], 0x3b1a086ebc90b910, 0x1900539a7d5cc7e2),
        ([37, 1], [5, 9], 0x224657ef379b852e, 0x24e99047c54f50e8),
        ([1, 29], [7, 13], 0x7bee7304ca2b2b1c, 0x9104933a9b8df122),
    ];
    check_digests(&cases, pil_bilinear, pil_nearest);
}

fn pil_bilinear_since_13(src: Rows, to: Size, window: Window) -> Vec<u8> {
    pil_bilinear_by(src, to, window, FirstPass::since_13(src.size, to))
}

#[test]
fn real_sizes_match_pillow_13_0_0() {
    let cases = [
        ([1914, 1052], [2048, 1024], 0x7de3a2dc5b025344, 0xc782772101ec21ec),
        ([1914, 1046], [2048, 1024], 0xb35e5674d4111a55, 0xc85fe087fda7a5f8),
        ([1280, 760], [2048, 1024], 0x4af69ee4f7da2558, 0xc037a7a71799fb8a),
        ([2048, 1024], [2048, 1024], 0xc86b7908591822ea, 0x7ef4dd89eff2e9df),
        ([300, 200], [97, 151], 0xee7e5924fce28420, 0x6da0d8f2b300d9d6),
        ([300, 200], [171, 20], 0x98b45d1bee8d4a5e, 0xbd90f1404826b4cf),
        ([90, 40], [90, 23], 0x3b1a086ebc90b910, 0x1900539a7d5cc7e2),
        ([37, 1], [5, 9], 0x224657ef379b852e, 0x24e99047c54f50e8),
        ([1, 29], [7, 13], 0x7bee7304ca2b2b1c, 0x9104933a9b8df122),
    ];
    check_digests(&cases, pil_bilinear_since_13, pil_nearest);
}

/// A window must not need more of the source than it declares: it is given only those rows.
#[test]
fn any_window_equals_scaling_whole_then_cropping() {
    let resizers: [(&str, Resizer, Option<Needs>); 4] = [
        ("cv_bilinear", cv_bilinear, Some(cv_bilinear_rows)),
        ("pil_bilinear", pil_bilinear, Some(pil_bilinear_rows)),
        ("cv_nearest", cv_nearest, None),
        ("pil_nearest", pil_nearest, None),
    ];
    let sizes = [[1, 1], [1, 7], [13, 2], [31, 17], [64, 64], [9, 90]];
    let mut seeds = noise("windows", 100_000).into_iter().map(usize::from);
    let mut below = |n: usize| seeds.next().unwrap() * n / 256;
    for from in sizes {
        for to in sizes {
            let (from, to) = (Size::new(from[0], from[1]), Size::new(to[0], to[1]));
            for channels in [1, 3] {
                let data = noise("window", from.pixels() * channels);
                for (name, resize, needs) in resizers {
                    let whole = resize(Rows::whole(from, channels, &data), to, Window::whole(to));
                    let (x, y) = (below(to.width), below(to.height));
                    let (width, height) = (1 + below(to.width - x), 1 + below(to.height - y));
                    let window = Window { x, y, width, height };
                    let rows = needs.map_or(0..from.height, |needs| needs(from, to, window));
                    let stride = from.width * channels;
                    let part = Rows {
                        size: from,
                        channels,
                        top: rows.start,
                        data: &data[rows.start * stride..rows.end * stride],
                    };
                    let expected: Vec<u8> = (y..y + height)
                        .flat_map(|y| &whole[(y * to.width + x) * channels..][..width * channels])
                        .copied()
                        .collect();
                    let context = format!("{name}, {from} to {to}, {window:?}");
                    assert!(resize(part, to, window) == expected, "{context}");
                }
            }
        }
    }
}

#[test]
fn flipping_mirrors_pixels_not_channels() {
    let mut gray = [1, 2, 3, 4, 5, 6];
    flip_horizontally(&mut gray, 3, 1);
    assert_eq!(gray, [3, 2, 1, 6, 5, 4]);
    let mut rgb = [1, 2, 3, 4, 5, 6];
    flip_horizontally(&mut rgb, 2, 3);
    assert_eq!(rgb, [4, 5, 6, 1, 2, 3]);
    let mut pairs = [1, 2, 3, 4];
    flip_horizontally(&mut pairs, 2, 2);
    assert_eq!(pairs, [3, 4, 1, 2]);
}
