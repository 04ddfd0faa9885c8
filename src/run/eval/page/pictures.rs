//! Pictures of an image for a page: the image, its label, the prediction and their difference.

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::data::classes::{Classes, IGNORE};
use crate::data::eval::EvalSample;
use crate::data::resize::{Rows, Size, Window, cv_bilinear};
use crate::run::eval::images::{ImageView, colors, overlay, rgb_png};
use crate::{Error, Result};

/// Longest side of a picture, pixels.
const SIDE: usize = 512;
/// Quality of photographs as JPEG, from 1 to 100.
const QUALITY: u8 = 80;
/// Opacity of the colors over an image.
const OPACITY: f32 = 0.5;
/// Color of wrong pixels in the difference.
const WRONG: [u8; 3] = [235, 40, 60];

/// The pictures of an image as data URLs, and their size.
pub struct Panels {
    /// Size of each picture.
    pub size: Size,
    /// Image, label over the image, prediction over the image, and difference.
    pub urls: [String; 4],
}

/// What stands above the pictures.
pub const TITLES: [&str; 4] = ["image", "label", "prediction", "difference"];

/// Draws the pictures of an image. `prediction` has the label's size.
pub fn panels(sample: &EvalSample, prediction: &[u8], classes: &Classes) -> Result<Panels> {
    let own = sample.original();
    if prediction.len() != own.pixels() {
        let problem = format!("{} predicted pixels for a label of {own}", prediction.len());
        return Err(Error::shape("picture", problem));
    }
    let size = match own.width.max(own.height) > SIDE {
        true => own.fitted([SIDE, SIDE]),
        false => own,
    };
    let rows = Rows::whole(sample.fitted, 3, &sample.rgb);
    let rgb = cv_bilinear(rows, size, Window::whole(size));
    let [label, prediction] =
        [&sample.label.data[..], prediction].map(|ids| nearest(ids, own, size));
    let view = ImageView { width: size.width, height: size.height, rgb: &rgb };
    let over = |ids: &[u8]| jpeg(size, &overlay(view, ids, classes, OPACITY)?);
    let urls = [
        jpeg(size, &rgb)?,
        over(&label)?,
        over(&prediction)?,
        png(size, &difference(&rgb, &label, &prediction))?,
    ];
    Ok(Panels { size, urls })
}

/// Draws the image in gray, darker where nothing is labeled, with the wrong pixels in color.
fn difference(rgb: &[u8], label: &[u8], prediction: &[u8]) -> Vec<u8> {
    let pixels = rgb.chunks_exact(3).zip(label.iter().zip(prediction));
    pixels
        .flat_map(|(pixel, (&label, &predicted))| {
            let gray = pixel.iter().map(|&channel| u16::from(channel)).sum::<u16>() / 3;
            match label {
                // Few gray levels make a small PNG.
                IGNORE => [(gray / 4) as u8 & 0xf8; 3],
                _ if label == predicted => [(96 + gray / 2) as u8 & 0xf8; 3],
                _ => WRONG,
            }
        })
        .collect()
}

/// Scales ids without mixing them.
fn nearest(ids: &[u8], from: Size, to: Size) -> Vec<u8> {
    let row = |y: usize| (y * from.height / to.height) * from.width;
    let pixel = |y: usize, x: usize| ids[row(y) + x * from.width / to.width];
    (0..to.height)
        .flat_map(|y| (0..to.width).map(move |x| (y, x)))
        .map(|(y, x)| pixel(y, x))
        .collect()
}

fn jpeg(size: Size, rgb: &[u8]) -> Result<String> {
    let mut bytes = Vec::new();
    let (width, height) = (size.width as u32, size.height as u32);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::shape("picture", e.to_string()))?;
    Ok(url("jpeg", &bytes))
}

fn png(size: Size, rgb: &[u8]) -> Result<String> {
    Ok(url("png", &rgb_png(size.width, size.height, rgb)?))
}

fn url(kind: &str, bytes: &[u8]) -> String {
    use base64::Engine;
    format!("data:image/{kind};base64,{}", base64::prelude::BASE64_STANDARD.encode(bytes))
}

/// Returns a swatch of a class as CSS.
pub fn css(classes: &Classes, class: usize) -> String {
    let id = u8::try_from(class).unwrap_or(IGNORE);
    match colors(&[id], classes)[..] {
        [r, g, b] => format!("#{r:02x}{g:02x}{b:02x}"),
        _ => "transparent".into(),
    }
}
