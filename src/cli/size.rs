//! `WxH` on the command line.

use std::str::FromStr;

/// Width and height, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once(['x', 'X']).and_then(|(width, height)| {
            Some(Size { width: width.parse().ok()?, height: height.parse().ok()? })
        });
        sides
            .filter(|size| {
                (1..=65_535).contains(&size.width) && (1..=65_535).contains(&size.height)
            })
            .ok_or_else(|| "expected WIDTHxHEIGHT in pixels, as in 2048x1024".into())
    }
}
