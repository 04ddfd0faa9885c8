//! Event files for TensorBoard, of which a report shows the images.

use udass_raw::run::train::tensorboard::last_images;

use super::place;

/// The input as an event file, and as a record of one with its checksums, which no fuzzer would find.
pub fn events(bytes: &[u8]) {
    let folder = place(".events");
    std::fs::create_dir_all(&folder).expect("a place for the input");
    let length = (bytes.len() as u64).to_le_bytes();
    let record =
        [&length[..], &checksum(&length).to_le_bytes(), bytes, &checksum(bytes).to_le_bytes()];
    for file in [bytes.to_vec(), record.concat()] {
        std::fs::write(folder.join("events.out.tfevents.1.a"), file)
            .expect("a place for the input");
        let images = last_images(&folder);
        assert!(images.iter().map(|image| image.bytes.len()).sum::<usize>() <= bytes.len());
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
