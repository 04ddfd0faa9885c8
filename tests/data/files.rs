//! Tests labels, images and layouts: what is read, and the errors for unusable files.

use std::path::Path;

use png::{BitDepth, ColorType};
use udass_raw::{
    Result,
    data::{
        decode::{self, load_rgb, load_rows},
        labels::{CITYSCAPES_IDS, LabelFile, SYNTHIA_IDS, TRAIN_IDS, encode},
        layouts::{self, Split},
        resize::Size,
    },
};

use crate::support::{Sets, gray, located, palette, plane, png, train_ids, write};

fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file.png");
    write(&path, bytes);
    (folder, path)
}

fn message<T: std::fmt::Debug>(result: Result<T>, path: &Path, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    for part in parts {
        assert!(error.contains(part), "{part:?} in: {error}");
    }
}

#[test]
fn a_palette_label_gives_indices_not_colors() {
    let ids = [0, 7, 33, 34, 255, 11];
    let (_folder, path) = file(&palette([3, 2], &ids));
    let label = LabelFile { path, ids: CITYSCAPES_IDS.clone() }.load().unwrap();
    assert_eq!(label.data, [255, 0, 18, 255, 255, 2]);
}

#[test]
fn the_id_map_is_that_of_the_specification() {
    let pairs = [
        (7, 0),
        (8, 1),
        (11, 2),
        (12, 3),
        (13, 4),
        (17, 5),
        (19, 6),
        (20, 7),
        (21, 8),
        (22, 9),
        (23, 10),
        (24, 11),
        (25, 12),
        (26, 13),
        (27, 14),
        (28, 15),
        (31, 16),
        (32, 17),
        (33, 18),
    ];
    for id in 0..=255 {
        let train_id = pairs.iter().find(|p| p.0 == id).map_or(255, |p| p.1);
        let expected = (id <= 34 || id == 255).then_some(train_id);
        assert_eq!(CITYSCAPES_IDS.get(id), expected, "{id}");
        let expected = (id <= 18 || id == 255).then_some(id as u8);
        assert_eq!(TRAIN_IDS.get(id), expected, "{id}");
    }
}

#[test]
fn synthias_classes_are_the_first_channel_of_sixteen_bits() {
    let train_ids = [
        (3, 0),
        (4, 1),
        (2, 2),
        (21, 3),
        (5, 4),
        (7, 5),
        (15, 6),
        (9, 7),
        (6, 8),
        (16, 9),
        (1, 10),
        (10, 11),
        (17, 12),
        (8, 13),
        (18, 14),
        (19, 15),
        (20, 16),
        (12, 17),
        (11, 18),
    ];
    for id in 0..=300 {
        let train_id = train_ids.iter().find(|p| p.0 == id).map_or(255, |p| p.1);
        assert_eq!(SYNTHIA_IDS.get(id), (id <= 22).then_some(train_id), "{id}");
    }
    let kinds = [
        (ColorType::Grayscale, 1),
        (ColorType::GrayscaleAlpha, 2),
        (ColorType::Rgb, 3),
        (ColorType::Rgba, 4),
    ];
    let label = |path: &Path| LabelFile { path: path.to_owned(), ids: SYNTHIA_IDS.clone() }.load();
    let wide = |ids: &[u16], channels: usize| -> Vec<u8> {
        // The other channels hold instance ids, which must be ignored.
        let pixel =
            |&id: &u16| (0..channels as u16).map(move |c| if c == 0 { id } else { 700 + c });
        ids.iter().flat_map(pixel).flat_map(u16::to_be_bytes).collect()
    };
    for (color, channels) in kinds {
        let (_folder, path) =
            file(&png([3, 2], color, BitDepth::Sixteen, &wide(&[3, 0, 11, 22, 8, 3], channels)));
        assert_eq!(label(&path).unwrap(), plane([3, 2], vec![0, 255, 18, 255, 13, 0]), "{color:?}");
        let (_folder, path) =
            file(&png([2, 1], color, BitDepth::Sixteen, &wide(&[3, 0x0300], channels)));
        assert_eq!(label(&path).unwrap().data, [0, 255], "{color:?}");
        let (_folder, path) =
            file(&png([2, 1], color, BitDepth::Sixteen, &wide(&[23, 0x0300], channels)));
        message(label(&path), &path, &["SYNTHIA label id 23, 768", "expected 0 to 22"]);
    }
    let (_folder, path) = file(&png([1, 1], ColorType::Rgb, BitDepth::Eight, &[3, 0, 0]));
    message(label(&path), &path, &["Rgb pixels of 8 bits", "16-bit PNG whose first channel"]);
}

#[test]
fn labels_of_fewer_bits_are_unpacked() {
    // Rows of 3 pixels: 2-bit indices 1, 2, 3 and 0, 1, 0, each row padded to a byte.
    let packed = [0b01_10_11_00, 0b00_01_00_00];
    let (_folder, path) = file(&png([3, 2], ColorType::Indexed, BitDepth::Two, &packed));
    assert_eq!(train_ids(&path).unwrap().data, [1, 2, 3, 0, 1, 0]);
    let packed = [0x12, 0x30, 0xf0, 0x70];
    let (_folder, path) = file(&png([3, 2], ColorType::Grayscale, BitDepth::Four, &packed));
    assert_eq!(train_ids(&path).unwrap().data, [1, 2, 3, 15, 0, 7]);
    let (_folder, path) =
        file(&png([9, 1], ColorType::Grayscale, BitDepth::One, &[0b1010_0001, 0x80]));
    assert_eq!(train_ids(&path).unwrap().data, [1, 0, 1, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn an_id_out_of_range_is_named_with_its_place() {
    let (_folder, path) = file(&palette([4, 2], &[7, 7, 7, 7, 7, 0, 35, 99]));
    let label = LabelFile { path: path.clone(), ids: TRAIN_IDS.clone() };
    message(label.load(), &path, &["train id 35 at x 2, y 1", "0 to 18"]);
    // In a downloaded label, it is unlabeled and counted.
    let label = LabelFile { path: path.clone(), ids: CITYSCAPES_IDS.clone() };
    let (found, outside) = label.load_counted().unwrap();
    assert_eq!(found.data, [0, 0, 0, 0, 0, 255, 255, 255]);
    assert_eq!(outside.pixels(), 2);
    let described = label.ids.describe(&outside);
    assert_eq!(described, "label id 35, 99 (expected 0 to 34, or 255)");
    assert_eq!(label.load().unwrap(), found);
}

#[test]
fn a_label_that_is_a_picture_is_refused() {
    let (_folder, path) = file(&located([4, 4], 9));
    message(train_ids(&path), &path, &["Rgb pixels of 8 bits", "palette or grayscale"]);
    let (_folder, path) = file(&png([2, 1], ColorType::Grayscale, BitDepth::Sixteen, &[0; 4]));
    message(train_ids(&path), &path, &["16 bits"]);
    let (_folder, path) = file(b"GIF89a");
    message(train_ids(&path), &path, &["not a PNG file"]);
    let (_folder, path) = file(b"");
    message(train_ids(&path), &path, &["not a PNG file"]);
}

#[test]
fn truncated_and_damaged_files_are_told_apart() {
    let label = gray([64, 64], &(0..64 * 64).map(|i| (i * i % 19) as u8).collect::<Vec<_>>());
    let picture = located([64, 64], 9);
    for cut in [20, 60, 100] {
        let (_folder, path) = file(&label[..label.len() - cut]);
        message(train_ids(&path), &path, &["truncated"]);
        let (_folder, path) = file(&picture[..picture.len() - cut]);
        message(load_rgb(&path), &path, &["truncated"]);
    }
    let mut damaged = picture.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x40;
    let (_folder, path) = file(&damaged);
    message(load_rgb(&path), &path, &["damaged PNG file"]);
    let missing = path.with_file_name("other.png");
    message(load_rgb(&missing), &missing, &["cannot read"]);
    message(train_ids(&missing), &missing, &["cannot read"]);
    let (_folder, path) = file(b"hello, this is text");
    message(load_rgb(&path), &path, &["not a PNG or JPEG"]);
}

#[test]
fn pictures_of_every_storage_become_rgb() {
    use {BitDepth::*, ColorType::*};
    let cases: [(ColorType, BitDepth, &[u8], [u8; 6]); 6] = [
        (Rgb, Eight, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (Rgba, Eight, &[1, 2, 3, 0, 4, 5, 6, 9], [1, 2, 3, 4, 5, 6]),
        (Grayscale, Eight, &[7, 8], [7, 7, 7, 8, 8, 8]),
        (GrayscaleAlpha, Eight, &[7, 0, 8, 1], [7, 7, 7, 8, 8, 8]),
        (Indexed, Eight, &[0, 10], [255, 0, 7, 245, 5, 7]),
        (Rgb, Sixteen, &[1, 99, 2, 99, 3, 99, 4, 99, 5, 99, 6, 99], [1, 2, 3, 4, 5, 6]),
    ];
    for (color, depth, data, expected) in cases {
        let (_folder, path) = file(&png([2, 1], color, depth, data));
        let picture = load_rgb(&path).unwrap();
        assert_eq!(picture.size, Size::new(2, 1));
        assert_eq!(picture.rgb, expected, "{color:?} {depth:?}");
    }
}

#[test]
fn jpeg_is_read_by_content() {
    let mut bytes = Vec::new();
    let pixels = [[200u8, 30, 60]; 16 * 8].concat();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode(&pixels, 16, 8, image::ExtendedColorType::Rgb8)
        .unwrap();
    let (_folder, path) = file(&bytes);
    let picture = load_rows(&path, |size| Ok(2..size.height - 1)).unwrap();
    assert_eq!((picture.size, picture.top), (Size::new(16, 8), 2));
    assert_eq!(picture.rgb.len(), 16 * 5 * 3);
    let far = picture
        .rgb
        .chunks_exact(3)
        .flat_map(|p| p.iter().zip([200u8, 30, 60]).map(|(a, b)| a.abs_diff(b)));
    assert!(far.max().unwrap() <= 3);
    assert_eq!(decode::size(&path).unwrap(), Size::new(16, 8));
    // The decoder itself fills in what is missing without an error.
    for length in [100, bytes.len() - 2, bytes.len() - 1] {
        let (_folder, path) = file(&bytes[..length]);
        message(load_rgb(&path), &path, &["the JPEG file is truncated", "download it again"]);
    }
    // Bytes behind the end are nobody's.
    let (_folder, path) = file(&[&bytes[..], b"\0\0\0"].concat());
    assert_eq!(load_rgb(&path).unwrap().size, Size::new(16, 8));
}

/// A picture of a telephone that was held upright: 16×8 as stored, 8×16 as seen.
#[test]
fn the_orientation_of_a_jpeg_counts_for_its_size_too() {
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95)
        .encode(&[90; 16 * 8 * 3], 16, 8, image::ExtendedColorType::Rgb8)
        .unwrap();
    // An EXIF segment with one entry: orientation (0x0112), a short, 1 value: 6.
    let exif =
        b"\xFF\xE1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let (_folder, path) = file(&[&jpeg[..2], &exif[..], &jpeg[2..]].concat());
    assert_eq!(decode::size(&path).unwrap(), Size::new(8, 16));
    assert_eq!(load_rgb(&path).unwrap().size, Size::new(8, 16));
}

/// macOS leaves a file `._NAME` for every file in archives and on other systems' disks.
#[test]
fn hidden_files_are_no_data() {
    let sets = Sets::bands();
    let layout = layouts::find("gta").unwrap();
    let before = layout.images(&sets.gta(), Split::Train).unwrap();
    for name in ["images/._00001.png", "labels/._00001.png", "images/.hidden/00009.png"] {
        write(&sets.gta().join(name), b"resource fork");
    }
    assert_eq!(layout.images(&sets.gta(), Split::Train).unwrap(), before);
    assert_eq!(layout.raw_labels(&sets.gta()).unwrap().len(), before.len());
}

/// Encodes two rows of one pixel and relabels them as one interlaced row of two pixels: the bytes
/// of its passes 1 and 6 are the same.
fn interlaced(color: ColorType, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 2);
    encoder.set_color(color);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    // Signature 8, length 4, "IHDR" 4, then width, height, depth, color type, two zeros,
    // interlacing.
    (bytes[19], bytes[23], bytes[28]) = (2, 1, 1);
    let crc = bytes[12..29].iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ byte as u32, |c, _| c >> 1 ^ if c & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn interlaced_files_are_read_whole() {
    let (_folder, path) = file(&interlaced(ColorType::Rgb, &[1, 2, 3, 4, 5, 6]));
    let picture = load_rgb(&path).unwrap();
    assert_eq!((picture.size, picture.rgb), (Size::new(2, 1), vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(load_rows(&path, |_| Ok(1..1)).unwrap().rgb, [0u8; 0]);
    let (_folder, path) = file(&interlaced(ColorType::Grayscale, &[9, 4]));
    assert_eq!(load_rgb(&path).unwrap().rgb, [9, 9, 9, 4, 4, 4]);
    assert_eq!(train_ids(&path).unwrap(), plane([2, 1], vec![9, 4]));
}

#[test]
fn only_the_rows_asked_for_are_decoded() {
    let bytes = located([32, 200], 5);
    let (_folder, path) = file(&bytes);
    let whole = load_rgb(&path).unwrap();
    for rows in [0..200, 0..1, 10..17, 199..200, 50..50] {
        let part = load_rows(&path, |size| {
            assert_eq!(size, Size::new(32, 200));
            Ok(rows.clone())
        })
        .unwrap();
        assert_eq!(part.top, rows.start);
        assert_eq!(part.rgb, whole.rgb[rows.start * 96..rows.end * 96]);
    }
    // The end of the file is not read when the requested rows come before it.
    let (_folder, path) = file(&bytes[..bytes.len() - 30]);
    assert!(load_rows(&path, |_| Ok(0..1)).is_ok());
    assert!(load_rows(&path, |_| Ok(0..200)).is_err());
}

#[test]
fn encoded_labels_read_back() {
    for size in [[1, 1], [1, 9], [7, 3], [640, 480]] {
        let data = (0..size[0] * size[1]).map(|i| [0, 18, 255, 4][i / 5 % 4]).collect();
        let plane = plane(size, data);
        let (_folder, path) = file(&encode(&plane));
        assert_eq!(LabelFile { path, ids: TRAIN_IDS.clone() }.load().unwrap(), plane);
    }
}

#[test]
fn layouts_list_sorted_pairs() {
    let sets = Sets::new();
    for number in [9, 1, 5] {
        sets.add_gta(number, [4, 2], &[7; 8]);
        sets.add_cityscapes("val", number, [4, 2], &[7; 8]);
    }
    let gta = layouts::find("gta").unwrap();
    let pairs = gta.pairs(&sets.gta(), Split::Train).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let images: Vec<_> = pairs.iter().map(|p| name(&p.image)).collect();
    assert_eq!(images, ["00001.png", "00005.png", "00009.png"]);
    assert!(pairs.iter().all(|p| p.label.ids == *CITYSCAPES_IDS));
    let cityscapes = layouts::find("cityscapes").unwrap();
    let pairs = cityscapes.pairs(&sets.cityscapes(), Split::Val).unwrap();
    assert_eq!(name(&pairs[2].label.path), "ulm_000009_000019_gtFine_labelIds.png");

    // A prepared label is preferred, and a temporary file is no label.
    let labels = sets.gta().join("labels");
    write(&labels.join("00005_labelTrainIds.png"), b"");
    write(&labels.join("00009_labelTrainIds.png.17.tmp"), b"");
    let pairs = gta.pairs(&sets.gta(), Split::Train).unwrap();
    assert_eq!(pairs.len(), 3);
    assert_eq!(name(&pairs[1].label.path), "00005_labelTrainIds.png");
    assert_eq!(pairs[1].label.ids, *TRAIN_IDS);
    assert_eq!(name(&pairs[2].label.path), "00009.png");
    assert_eq!(gta.raw_labels(&sets.gta()).unwrap().len(), 3);
}

#[test]
fn missing_folders_labels_and_layouts_are_explained() {
    let sets = Sets::new();
    let gta = layouts::find("gta").unwrap();
    let expected = ["missing", "download.visinf.tu-darmstadt.de", "udass-raw toy"];
    message(gta.pairs(&sets.gta(), Split::Train), &sets.gta().join("images"), &expected);
    let cityscapes = layouts::find("cityscapes").unwrap();
    let folder = sets.cityscapes().join("leftImg8bit/train");
    let expected = ["missing", "www.cityscapes-dataset.com", "udass-raw toy"];
    message(cityscapes.images(&sets.cityscapes(), Split::Train), &folder, &expected);
    std::fs::create_dir_all(&folder).unwrap();
    let empty = cityscapes.images(&sets.cityscapes(), Split::Train);
    message(empty, &folder, &["no files of the dataset", "udass-raw toy"]);

    let synthia = layouts::find("synthia").unwrap();
    let root = sets.folder.path().join("synthia");
    let expected = ["missing", "SYNTHIA-RAND-CITYSCAPES", "GT/LABELS", "udass-raw toy"];
    message(synthia.pairs(&root, Split::Train), &root.join("RGB"), &expected);

    sets.add_gta(1, [4, 2], &[7; 8]);
    let orphan = sets.gta().join("images/00002.png");
    write(&orphan, &located([4, 2], 2));
    let expected = ["no label", "00002_labelTrainIds.png", "labels/00002.png"];
    message(gta.pairs(&sets.gta(), Split::Train), &orphan, &expected);
    let error = layouts::find("gtav").err().unwrap().to_string();
    assert!(error.contains("\"gtav\"") && error.contains("gta, synthia, cityscapes"), "{error}");
}
