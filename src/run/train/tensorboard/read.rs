//! Reads the images of a run's event files.

use std::io::BufReader;
use std::path::Path;

use prost::Message;

use super::message::{Event, START};
use super::{files, record};
use crate::file;

/// Most tags of images that are read; a run has six.
const MAX_TAGS: usize = 64;

/// An image of an event file.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedImage {
    /// The tag, such as `images/source`.
    pub tag: String,
    /// Number of iterations done.
    pub step: u64,
    /// The bytes of a PNG file.
    pub bytes: Vec<u8>,
}

/// Returns the last image of each tag in a folder's event files, in the order in which the tags
/// first occur. What cannot be read is left out: the files are a record, and no run needs them.
pub fn last_images(folder: &Path) -> Vec<SavedImage> {
    let mut images: Vec<SavedImage> = Vec::new();
    for path in files(folder) {
        let Ok(file) = file::open(&path) else { continue };
        let mut file = BufReader::new(file);
        while let Ok(Some(record)) = record::next(&mut file) {
            let Ok(event) = Event::decode(&record[..]) else { break };
            let step = event.step.max(0) as u64;
            if event.session_log.is_some_and(|session| session.status == START) {
                images.retain(|image| image.step < step);
            }
            for value in event.summary.into_iter().flat_map(|summary| summary.value) {
                let Some(image) = value.image else { continue };
                let new = SavedImage { tag: value.tag, step, bytes: image.encoded_image_string };
                match images.iter().position(|known| known.tag == new.tag) {
                    Some(known) => images[known] = new,
                    None if images.len() < MAX_TAGS => images.push(new),
                    None => {}
                }
            }
        }
    }
    images
}
