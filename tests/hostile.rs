//! Tests inputs that caused trouble in fuzzing or are deliberately malicious:
//! `tests/fuzz/<reader>/*` goes through that reader. None may crash, hang or use excessive memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "fuzz/targets.rs"]
mod targets;

#[test]
fn found_cases_stay_solved() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let mut count = 0;
    for (name, target) in targets::ALL {
        let Ok(cases) = fs::read_dir(folder.join(name)) else { continue };
        for case in cases {
            let case = case.unwrap().path();
            let begun = Instant::now();
            target(&fs::read(&case).unwrap());
            assert!(begun.elapsed() < Duration::from_secs(20), "{} takes too long", case.display());
            count += 1;
        }
    }
    assert!(count > 0, "no cases in {}", folder.display());
}

#[test]
fn every_reader_reads_what_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/golden");
    for name in ["pub_pth_zip.pth", "pub_pth_legacy.pth", "pub_pth.safetensors"] {
        let bytes = fs::read(golden.join(name)).unwrap();
        let target = if name.ends_with("pth") { targets::pth } else { targets::safetensors };
        target(&bytes);
    }
    targets::config(&fs::read(root.join("configs/gta_vit.toml")).unwrap());
    targets::log(b"{\"event\": \"iteration\", \"iteration\": 2}\n{\"torn");
    for name in ["log.jsonl", "evaluation.json", "mine.toml"] {
        targets::run(&fs::read(root.join("tests/formats").join(name)).unwrap());
    }
    targets::image(&png(24, 17, &[7; 24 * 17]));
    for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg] {
        let picture =
            image::RgbImage::from_fn(24, 17, |x, y| [9 * x as u8, 11 * y as u8, 3].into());
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        targets::image(bytes.get_ref());
    }
}

/// A PNG that declares this size and stores `pixels`.
fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

#[test]
fn a_picture_that_claims_to_be_larger_than_its_file_is_refused_before_it_is_allocated() {
    use udass_raw::data::decode::load_rgb;
    use udass_raw::data::labels::{CITYSCAPES_IDS, LabelFile};
    let good = png(4, 2, &[7; 8]);
    targets::label(&good);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("label.png");
    for (width, height, problem) in [
        (16_000u32, 16_000u32, "too short for an image"),
        (1 << 20, 1 << 20, "too large"),
        (0x7fff_ffff, 0x7fff_ffff, "too large"),
    ] {
        let mut claims = good.clone();
        claims[16..20].copy_from_slice(&width.to_be_bytes());
        claims[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32fast::hash(&claims[12..29]);
        claims[29..33].copy_from_slice(&crc.to_be_bytes());
        fs::write(&path, &claims).unwrap();
        let label = LabelFile { path: path.clone(), ids: CITYSCAPES_IDS.clone() };
        for told in [label.load().unwrap_err(), load_rgb(&path).unwrap_err()] {
            assert!(told.to_string().contains(problem), "{told}");
        }
    }
}
