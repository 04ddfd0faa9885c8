//! The smallest JPEG files that hold what they claim.

/// A progressive JPEG of one scan, in which each block's code is one bit: a square of `side` pixels
/// with 1 component (gray) or 3 (color).
pub fn progressive(side: u16, components: u8) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8];
    let mut segment = |marker: u8, body: &[u8]| {
        jpeg.extend([0xff, marker]);
        jpeg.extend((body.len() as u16 + 2).to_be_bytes());
        jpeg.extend(body);
    };
    let [high, low] = side.to_be_bytes();
    let numbers = 1..=components;
    let sampled: Vec<u8> = numbers.clone().flat_map(|number| [number, 0x11, 0]).collect();
    let scanned: Vec<u8> = numbers.flat_map(|number| [number, 0]).collect();
    segment(0xdb, &[&[0][..], &[1; 64]].concat());
    segment(0xc2, &[&[8, high, low, high, low, components][..], &sampled].concat());
    // One code of one bit, for the difference 0.
    segment(0xc4, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    segment(0xda, &[&[components][..], &scanned, &[0, 0, 0]].concat());
    jpeg.extend(vec![0; usize::from(components) * (usize::from(side) / 8).pow(2) / 8]);
    jpeg.extend([0xff, 0xd9]);
    jpeg
}
