//! Images as programs have them.

use std::borrow::Cow;

use crate::{Error, Result};

/// The order of the bytes of a pixel. Alpha is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Red, green, blue, alpha.
    Rgba,
    /// Blue, green, red, alpha.
    Bgra,
    /// One byte for all three.
    Gray,
}

impl PixelFormat {
    /// Returns the bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            PixelFormat::Rgb | PixelFormat::Bgr => 3,
            PixelFormat::Rgba | PixelFormat::Bgra => 4,
            PixelFormat::Gray => 1,
        }
    }

    /// Returns where red, green and blue are in a pixel.
    fn places(self) -> [usize; 3] {
        match self {
            PixelFormat::Rgb | PixelFormat::Rgba => [0, 1, 2],
            PixelFormat::Bgr | PixelFormat::Bgra => [2, 1, 0],
            PixelFormat::Gray => [0, 0, 0],
        }
    }
}

/// An image to segment, which borrows its pixels.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    width: usize,
    height: usize,
    pixels: Pixels<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Pixels<'a> {
    Bytes { data: &'a [u8], format: PixelFormat, stride: usize },
    Planes { data: [&'a [f32]; 3], stride: usize },
    OnDevice { address: u64 },
}

/// The pixels as inference takes them.
pub(super) enum Prepared<'a> {
    Bytes(Cow<'a, [u8]>),
    Reals(Vec<f32>),
    OnDevice(u64),
}

fn wrong(problem: String) -> Error {
    Error::shape("image", problem)
}

/// Returns the elements from the first to the last of `rows` rows, `stride` apart.
fn span(rows: usize, row: usize, stride: usize) -> Option<usize> {
    (stride >= row).then_some(())?;
    rows.checked_sub(1)?.checked_mul(stride)?.checked_add(row)
}

impl<'a> Image<'a> {
    /// Takes 8-bit pixels without gaps between them, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0, or there are more or fewer bytes.
    pub fn new(
        data: &'a [u8],
        format: PixelFormat,
        width: usize,
        height: usize,
    ) -> Result<Image<'a>> {
        let stride = width.saturating_mul(format.bytes());
        let image = Self::with_stride(data, format, width, height, stride)?;
        if Some(data.len()) != stride.checked_mul(height) {
            let problem = format!("{} bytes for {width}x{height} {format:?}", data.len());
            return Err(wrong(problem));
        }
        Ok(image)
    }

    /// Takes 8-bit pixels in rows that begin `stride` bytes apart, such as a part of a larger image.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0, rows overlap, or there are fewer bytes.
    pub fn with_stride(
        data: &'a [u8],
        format: PixelFormat,
        width: usize,
        height: usize,
        stride: usize,
    ) -> Result<Image<'a>> {
        let row = width.checked_mul(format.bytes()).filter(|&row| row > 0);
        let fits = row.and_then(|row| span(height, row, stride));
        if fits.is_none_or(|needed| needed > data.len()) {
            let problem =
                format!("{} bytes in rows of {stride} for {width}x{height} {format:?}", data.len());
            return Err(wrong(problem));
        }
        Ok(Image { width, height, pixels: Pixels::Bytes { data, format, stride } })
    }

    /// Takes planes of red, green and blue, each from 0 to 255, in rows that begin `stride` numbers
    /// apart.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0, rows overlap, or a plane has fewer numbers.
    pub fn planes(
        data: [&'a [f32]; 3],
        width: usize,
        height: usize,
        stride: usize,
    ) -> Result<Image<'a>> {
        let needed = (width > 0).then(|| span(height, width, stride)).flatten();
        let lengths = data.map(<[f32]>::len);
        if lengths.iter().any(|&length| needed.is_none_or(|needed| needed > length)) {
            let problem =
                format!("planes of {lengths:?} numbers in rows of {stride} for {width}x{height}");
            return Err(wrong(problem));
        }
        Ok(Image { width, height, pixels: Pixels::Planes { data, stride } })
    }

    /// Takes RGB bytes in the memory of the model's GPU, without gaps between them, row by row. On
    /// the CPU, this is an address in the memory of the process.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side or the address is 0.
    ///
    /// # Safety
    /// `3·width·height` bytes at `address` are readable until the call that segments them returns,
    /// and what writes them is finished or on the model's stream.
    pub unsafe fn on_device(address: u64, width: usize, height: usize) -> Result<Image<'a>> {
        let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if address == 0 || bytes.is_none_or(|bytes| bytes == 0 || bytes > isize::MAX as usize) {
            return Err(wrong(format!("{width}x{height} at {address:#x}")));
        }
        Ok(Image { width, height, pixels: Pixels::OnDevice { address } })
    }

    /// Returns the width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Gathers the pixels as RGB without gaps.
    pub(super) fn prepare(&self) -> Result<Prepared<'a>> {
        let values = 3 * self.width * self.height;
        let problem = || Error::OutOfMemory(format!("no memory for {values} values of an image"));
        match self.pixels {
            Pixels::OnDevice { address } => Ok(Prepared::OnDevice(address)),
            Pixels::Bytes { data, format: PixelFormat::Rgb, stride }
                if stride == 3 * self.width =>
            {
                Ok(Prepared::Bytes(data[..values].into()))
            }
            Pixels::Bytes { data, format, stride } => {
                let mut rgb = Vec::new();
                rgb.try_reserve_exact(values).map_err(|_| problem())?;
                for row in data.chunks(stride).take(self.height) {
                    let pixels = row.chunks_exact(format.bytes()).take(self.width);
                    rgb.extend(pixels.flat_map(|pixel| format.places().map(|place| pixel[place])));
                }
                Ok(Prepared::Bytes(rgb.into()))
            }
            Pixels::Planes { data, stride } => {
                let mut rgb = Vec::new();
                rgb.try_reserve_exact(values).map_err(|_| problem())?;
                for y in 0..self.height {
                    let rows = data.map(|plane| &plane[y * stride..y * stride + self.width]);
                    rgb.extend((0..self.width).flat_map(|x| rows.map(|row| row[x])));
                }
                Ok(Prepared::Reals(rgb))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(image: Image) -> Vec<u8> {
        match image.prepare().unwrap() {
            Prepared::Bytes(bytes) => bytes.into_owned(),
            Prepared::Reals(reals) => reals.into_iter().map(|x| x as u8).collect(),
            Prepared::OnDevice(_) => unreachable!("the pixels are in a slice"),
        }
    }

    #[test]
    fn pixels_of_every_format_become_rgb() {
        use PixelFormat::*;
        let wanted = [1, 2, 3, 4, 5, 6];
        for (format, data) in [
            (Rgb, &[1, 2, 3, 4, 5, 6][..]),
            (Bgr, &[3, 2, 1, 6, 5, 4]),
            (Rgba, &[1, 2, 3, 9, 4, 5, 6, 9]),
            (Bgra, &[3, 2, 1, 9, 6, 5, 4, 9]),
        ] {
            assert_eq!(rgb(Image::new(data, format, 2, 1).unwrap()), wanted, "{format:?}");
            // The same pixels below each other, with a gap that ends before the last row does.
            let bytes = format.bytes();
            let column = [&data[..bytes], &[7; 5], &data[bytes..]].concat();
            let column = Image::with_stride(&column, format, 1, 2, bytes + 5).unwrap();
            assert_eq!(rgb(column), wanted, "{format:?}");
        }
        assert_eq!(rgb(Image::new(&[8, 9], Gray, 2, 1).unwrap()), [8, 8, 8, 9, 9, 9]);
        let planes = [&[1.0, 4.0, 0.0][..], &[2.0, 5.0], &[3.0, 6.0]];
        assert_eq!(rgb(Image::planes(planes, 2, 1, 2).unwrap()), wanted);
        assert_eq!(rgb(Image::planes(planes, 1, 2, 1).unwrap()), wanted);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let data = [0; 24];
        let (most, rgb) = (usize::MAX, PixelFormat::Rgb);
        for (width, height) in [(0, 1), (1, 0), (0, 0), (2, 3), (4, 3), (most, most), (most, 1)] {
            assert!(Image::new(&data, rgb, width, height).is_err(), "{width}x{height}");
        }
        for (width, height, stride) in [
            (2, 4, 5),
            (2, 4, 7),
            (3, 2, 16),
            (2, 2, most),
            (2, most, 6),
            (2, 0, 6),
            (0, 2, 6),
            (most / 3 + 1, 1, 8),
        ] {
            let image = Image::with_stride(&data, rgb, width, height, stride);
            assert!(image.is_err(), "{width}x{height}, {stride}");
        }
        assert!(Image::with_stride(&data, rgb, 2, 3, 9).is_ok());
        assert!(Image::planes([&[0.0; 6], &[0.0; 6], &[0.0; 5]], 2, 3, 2).is_err());
        assert!(Image::planes([&[0.0; 6]; 3], 2, 3, 1).is_err());
    }
}
