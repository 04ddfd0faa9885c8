//! Pictures that claim more pixels than they hold, or than anybody should decode.

use std::path::Path;

use udass_raw::data::decode::{load_rgb, size};

use crate::jpeg::progressive;
use crate::{file, folder};

/// Replaces the size in the frame header of a JPEG file.
fn claiming(mut jpeg: Vec<u8>, width: u16, height: u16) -> Vec<u8> {
    let frame = jpeg.windows(2).position(|pair| pair[0] == 0xff && matches!(pair[1], 0xc0..=0xc2));
    let frame = frame.unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

fn baseline() -> Vec<u8> {
    let mut jpeg = Vec::new();
    let pixels = [[90u8, 120, 30]; 64 * 64].concat();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg)
        .encode(&pixels, 64, 64, image::ExtendedColorType::Rgb8)
        .unwrap();
    jpeg
}

fn told(path: &Path) -> String {
    load_rgb(path).unwrap_err().to_string()
}

#[test]
fn jpegs_are_refused_before_their_claim_is_allocated() {
    let folder = folder();
    for (kind, jpeg) in [("baseline", baseline()), ("progressive", progressive(64, 1))] {
        let path = file(folder.path(), "good.jpg", &jpeg);
        assert_eq!(load_rgb(&path).unwrap().rgb.len(), 64 * 64 * 3, "{kind}");
        for (width, height, problem) in [
            (30_000, 30_000, "too large"),
            (65_535, 65_535, "too large"),
            (16_384, 16_385, "too large"),
            (16_384, 16_384, "too short for an image of 16384x16384"),
            (65_535, 4_000, "too short"),
        ] {
            let path = file(folder.path(), "bomb.jpg", &claiming(jpeg.clone(), width, height));
            let told = told(&path);
            assert!(told.contains("bomb.jpg") && told.contains(problem), "{kind}: {told}");
            if problem == "too large" {
                assert!(size(&path).unwrap_err().to_string().contains(problem), "{kind}");
            }
        }
    }
}

#[test]
fn a_jpeg_of_the_least_bytes_for_its_pixels_is_read() {
    // 8 bytes of codes for 64 blocks would do for 8 times as many pixels; the headers are spare.
    let jpeg = progressive(64, 1);
    let side = ((jpeg.len() * 512) as f64).sqrt() as u16;
    let folder = folder();
    load_rgb(&file(folder.path(), "least.jpg", &claiming(jpeg.clone(), side, side))).unwrap();
    let over = file(folder.path(), "over.jpg", &claiming(jpeg, side + 1, side + 1));
    assert!(told(&over).contains("too short"));
}
