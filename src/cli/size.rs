//! Parses `WxH` arguments.

use udass_raw::data::resize::Size;

/// Parses width and height in pixels; each must be from 1 to 65 535.
pub fn parse(text: &str) -> Result<Size, String> {
    let sides = text.split_once(['x', 'X']).and_then(|(width, height)| {
        Some(Size { width: width.parse().ok()?, height: height.parse().ok()? })
    });
    let possible = |side: usize| (1..=65_535).contains(&side);
    sides
        .filter(|size| possible(size.width) && possible(size.height))
        .ok_or_else(|| "expected WIDTHxHEIGHT in pixels, as in 2048x1024".into())
}
