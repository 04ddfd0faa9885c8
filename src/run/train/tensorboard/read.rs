//! Reads the images of a run's event files.

use std::io::BufReader;
use std::path::Path;

use prost::Message;

use super::message::{Event, START, Value};
use super::{files, record};
use crate::file;

/// Most tags of images that are read; a run has six.
const MAX_TAGS: usize = 64;

/// Events at a file's beginning, among which its session starts.
const BEGINNING: usize = 2;

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
    let files = files(folder);
    for (place, path) in files.iter().enumerate() {
        // A resumed run repeats what earlier files hold from its first step on.
        let end = files[place + 1..].iter().filter_map(|later| first_step(later)).min();
        for (step, value) in events(path).flat_map(values) {
            let Some(image) = value.image.filter(|_| end.is_none_or(|end| step < end)) else {
                continue;
            };
            let new = SavedImage { tag: value.tag, step, bytes: image.encoded_image_string };
            match images.iter().position(|known| known.tag == new.tag) {
                Some(known) => images[known] = new,
                None if images.len() < MAX_TAGS => images.push(new),
                None => {}
            }
        }
    }
    images
}

/// Reads a file's events, up to the first that cannot be read.
fn events(path: &Path) -> impl Iterator<Item = Event> + use<> {
    let mut file = file::open(path).ok().map(BufReader::new);
    std::iter::from_fn(move || Event::decode(&record::next(file.as_mut()?).ok()??[..]).ok())
}

fn step(event: &Event) -> u64 {
    event.step.max(0) as u64
}

fn values(event: Event) -> impl Iterator<Item = (u64, Value)> {
    let step = step(&event);
    event.summary.into_iter().flat_map(|summary| summary.value).map(move |value| (step, value))
}

/// Returns the step at which the session of a file begins, which its first events say.
fn first_step(path: &Path) -> Option<u64> {
    let starts = |event: &Event| event.session_log.as_ref().is_some_and(|log| log.status == START);
    events(path).take(BEGINNING).find(starts).map(|event| step(&event))
}
