//! The autotune cache: a file with one line per shape, the name of the fastest candidate after a
//! tab. Candidates that failed are noted in comments.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::file;
use crate::hex::hex;
use crate::{Error, Result};

pub(super) struct Choices {
    file: PathBuf,
    gpu: String,
}

/// What came of timing a candidate.
pub(super) enum Trial {
    Seconds(f64),
    /// There was too little memory to try it.
    NoRoom,
    Failed(Error),
}

impl Choices {
    /// `gpu` describes everything that timings depend on, and selects the file in `folder`.
    pub fn new(folder: &Path, gpu: &str) -> Choices {
        let digest = Sha256::digest(gpu);
        let name = hex(&digest[..8]);
        Choices { file: folder.join(format!("{name}.txt")), gpu: gpu.into() }
    }

    /// Returns the index of the cached candidate for a shape, or times all of them and caches the
    /// fastest. `time` takes a candidate and the best time so far. Returns None, and caches
    /// nothing, for lack of memory or where the cache cannot be written.
    ///
    /// # Errors
    /// Fails if `time` does, or if every candidate failed.
    pub fn fastest(
        &self,
        shape: &str,
        names: &[&str],
        time: &dyn Fn(usize, f64) -> Result<Trial>,
    ) -> Result<Option<usize>> {
        let Ok(mut file) = self.open() else { return Ok(None) };
        if let Ok((Some(kept), _)) = self.locked(&mut file, |file| look_up(file, shape, names)) {
            return Ok(Some(kept));
        }
        // The file is not locked while the device works, which may take long or never end.
        let (mut best, mut no_room, mut failed) = (None, false, Vec::new());
        for (candidate, name) in names.iter().enumerate() {
            let so_far = best.map_or(f64::INFINITY, |(_, seconds)| seconds);
            match time(candidate, so_far)? {
                Trial::Seconds(seconds) if seconds < so_far => best = Some((candidate, seconds)),
                Trial::Seconds(_) => {}
                Trial::NoRoom => no_room = true,
                Trial::Failed(problem) => failed.push(format!("{name} failed: {problem}")),
            }
        }
        let Some((fastest, _)) = best else {
            return match no_room {
                true => Ok(None),
                false => Err(Error::device(format!("nothing computes {shape}: {failed:?}"))),
            };
        };
        let kept = self.locked(&mut file, |file| {
            let (kept, text) = look_up(file, shape, names)?;
            if kept.is_none() {
                self.append(file, &text, shape, names[fastest], &failed)?;
            }
            Ok(kept)
        });
        // If another process has cached its choice meanwhile, that counts for both.
        Ok(Some(kept.ok().flatten().unwrap_or(fastest)))
    }

    fn open(&self) -> std::io::Result<File> {
        self.file.parent().map_or(Ok(()), create_dir_all)?;
        file::open_with(&self.file, OpenOptions::new().read(true).append(true).create(true), 0)
    }

    fn locked<R>(
        &self,
        file: &mut File,
        f: impl FnOnce(&mut File) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        file.lock()?;
        let result = f(file);
        file.unlock()?;
        result
    }

    fn append(
        &self,
        file: &mut File,
        text: &str,
        shape: &str,
        name: &str,
        failed: &[String],
    ) -> std::io::Result<()> {
        let mut lines = match text {
            "" => format!("# {}\n", self.gpu),
            // A process was killed while writing its line.
            text if !text.ends_with('\n') => "\n".into(),
            _ => String::new(),
        };
        for problem in failed {
            lines += &format!("# {shape}\t{}\n", problem.replace('\n', " "));
        }
        lines += &format!("{shape}\t{name}\n");
        file.write_all(lines.as_bytes())
    }
}

/// Returns the index of the cached candidate, and the file's text.
fn look_up(
    file: &mut File,
    shape: &str,
    names: &[&str],
) -> std::io::Result<(Option<usize>, String)> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let kept = lines
        .filter(|(of, _)| *of == shape)
        .find_map(|(_, kept)| names.iter().position(|name| *name == kept));
    Ok((kept, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_can_use_the_file_while_the_device_works_and_the_first_choice_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, theirs) =
            (Choices::new(folder.path(), "gpu"), Choices::new(folder.path(), "gpu"));
        let names = ["a", "b"];
        let slow = |candidate: usize, _| {
            let open = theirs.open().unwrap();
            open.try_lock().expect("the file is locked during a trial");
            open.unlock().unwrap();
            let other = |candidate, _| Ok(Trial::Seconds([2.0, 1.0][candidate]));
            assert_eq!(theirs.fastest("shape", &names, &other).unwrap(), Some(1));
            Ok(Trial::Seconds([1.0, 2.0][candidate]))
        };
        assert_eq!(mine.fastest("shape", &names, &slow).unwrap(), Some(1));
        let text = std::fs::read_to_string(&mine.file).unwrap();
        assert_eq!(text, "# gpu\nshape\tb\n");
    }
}
