//! A lock that admits one run per folder.
//!
//! Where the file system has locks, the operating system releases it when the process dies. Some
//! network file systems have none; there, a file names the process that holds the folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;

/// Maximum size of the files here in bytes.
const MAX_BYTES: u64 = 4 << 10;
/// The file that names the owner of a folder where there are no locks.
const OWNER: &str = ".lock.owner";

/// A lock on a run's folder, released when dropped.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    marker: Option<Marker>,
    note: Option<String>,
}

impl FolderLock {
    /// Locks the folder for this process, and creates it if necessary.
    ///
    /// # Errors
    /// [`Error::Data`], with the process ID, if another process holds the lock, or might: where
    /// there are no locks, it cannot be known whether a process of another machine still runs, and
    /// the error says which file to remove if it does not. [`Error::Io`].
    pub fn take(folder: &Path) -> Result<FolderLock> {
        FolderLock::take_through(folder, File::try_lock)
    }

    /// Takes a lock by a stand-in for `flock`.
    fn take_through(
        folder: &Path,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<FolderLock> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let path = folder.join(".lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Its content is replaced, so a link must not lead to another file.
        let file = file::open_with(&path, &options, libc::O_NOFOLLOW)
            .map_err(|e| Error::io(&path, "open", e))?;
        let (mut marker, mut note) = (None, None);
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The ID is only used in the message, so a failure to read it is ignored.
                let _ = (&file).take(MAX_BYTES).read_to_string(&mut holder);
                return Err(held(folder, holder.trim()));
            }
            Err(TryLockError::Error(e)) if is_unsupported(&e) => {
                let taken = Marker::take(folder)?;
                note = Some(format!(
                    "{}: this file system has no locks ({e}); {OWNER} marks the folder as this \
                     run's instead",
                    folder.display()
                ));
                marker = Some(taken);
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock", e)),
        }
        let mut lock = FolderLock { file, marker, note };
        lock.sign().map_err(|e| Error::io(&path, "write", e))?;
        Ok(lock)
    }

    /// Writes the process ID, which the message to another run tells.
    fn sign(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        write!(self.file, "{}", std::process::id())
    }

    /// Returns what the user should know about the lock, if there is anything.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Some(marker) = &self.marker {
            marker.remove();
        }
    }
}

/// Returns whether an error of `flock` means that the file system has no locks.
fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::ENOLCK | libc::EOPNOTSUPP))
}

fn held(folder: &Path, process: &str) -> Error {
    let problem = format!(
        "another run (process {process}) is writing to this folder: wait for it, or choose another \
         folder with --out"
    );
    Error::data(folder, problem)
}

/// A process, told apart from later ones with its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    host: String,
    /// The system's identity, which a host's name alone may not be in a cluster.
    machine: String,
    /// The machine's name for the time since it was switched on.
    boot: String,
    /// The namespace, such as a container's, that the number belongs to.
    namespace: String,
    process: u32,
    /// When the process started, in the system's ticks since the machine was switched on.
    start: u64,
}

impl Owner {
    fn this_process() -> Owner {
        let text = |text: io::Result<String>| text.unwrap_or_default().trim().to_owned();
        let process = std::process::id();
        Owner {
            host: text(std::fs::read_to_string("/proc/sys/kernel/hostname")),
            machine: text(file::read_text(Path::new("/etc/machine-id"), MAX_BYTES)),
            boot: text(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")),
            namespace: std::fs::read_link("/proc/self/ns/pid")
                .map_or(String::new(), |link| link.to_string_lossy().into_owned()),
            process,
            start: start_of(process).unwrap_or(0),
        }
    }

    /// Returns whether the process runs; `None` if that cannot be known from here.
    fn runs(&self, here: &Owner) -> Option<bool> {
        let same_machine = self.host == here.host && self.machine == here.machine;
        if same_machine && self.boot == here.boot {
            let visible = self.namespace == here.namespace;
            return visible.then(|| start_of(self.process) == Some(self.start));
        }
        // The machine was restarted since.
        (same_machine && !here.machine.is_empty()).then_some(false)
    }
}

/// Returns when a process of this machine started, if it runs.
fn start_of(process: u32) -> Option<u64> {
    let path = format!("/proc/{process}/stat");
    let stat = file::read_text(Path::new(&path), MAX_BYTES).ok()?;
    // The name, in parentheses, may hold spaces; the start is the 20th field after it.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// The file that marks a folder as a process's.
#[derive(Debug)]
struct Marker {
    path: PathBuf,
    owner: Owner,
}

impl Marker {
    fn take(folder: &Path) -> Result<Marker> {
        let marker = Marker { path: folder.join(OWNER), owner: Owner::this_process() };
        let cannot = |action| move |e| Error::io(folder.join(OWNER), action, e);
        if marker.create().map_err(cannot("create"))? {
            return Ok(marker);
        }
        let text = marker.read().map_err(cannot("read"))?;
        let Ok(owner) = serde_json::from_str::<Owner>(&text) else {
            // A process was killed while it wrote, or writes at this moment.
            return Err(marker.unknown("an unknown process"));
        };
        let Owner { host, process, .. } = &owner;
        match owner.runs(&marker.owner) {
            Some(true) => return Err(held(folder, &process.to_string())),
            Some(false) => {}
            None => return Err(marker.unknown(&format!("process {process} of {host}"))),
        }
        // Another process may take it over at the same time: only one can move this very file.
        let aside = folder.join(format!("{OWNER}.{}", marker.owner.process));
        std::fs::rename(&marker.path, &aside).map_err(cannot("replace"))?;
        let moved = Marker { path: aside.clone(), owner: marker.owner.clone() };
        if moved.read().is_ok_and(|moved| moved != text) {
            let _ = std::fs::hard_link(&aside, &marker.path);
        }
        std::fs::remove_file(&aside).map_err(cannot("replace"))?;
        match marker.create().map_err(cannot("create"))? {
            true => Ok(marker),
            false => Err(marker.unknown("another process")),
        }
    }

    /// Writes the file, and returns false if there is one.
    fn create(&self) -> io::Result<bool> {
        let text = serde_json::to_string(&self.owner)?;
        match File::create_new(&self.path) {
            Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    fn read(&self) -> io::Result<String> {
        file::read_text(&self.path, MAX_BYTES)
    }

    /// Removes the file, unless it has become another process's.
    fn remove(&self) {
        let own = |text: String| serde_json::from_str(&text).is_ok_and(|o: Owner| o == self.owner);
        if self.read().is_ok_and(own) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn unknown(&self, who: &str) -> Error {
        let problem = format!(
            "{who} marked this folder as its own, and the file system has no locks that would tell \
             whether it still runs: if it does not, remove this file"
        );
        Error::data(&self.path, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system without locks.
    fn without(code: i32) -> impl Fn(&File) -> Result<(), TryLockError> {
        move |_| Err(TryLockError::Error(io::Error::from_raw_os_error(code)))
    }

    #[test]
    fn without_locks_a_file_names_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OWNER);
        for code in [libc::ENOSYS, libc::ENOLCK, libc::EOPNOTSUPP] {
            let lock = FolderLock::take_through(folder.path(), without(code)).unwrap();
            assert!(lock.note().unwrap().contains("has no locks"), "{:?}", lock.note());
            let told = FolderLock::take_through(folder.path(), without(code)).unwrap_err();
            let process = format!("(process {})", std::process::id());
            assert!(told.to_string().contains(&process), "{told}");
            drop(lock);
            assert!(!path.exists());
        }
        let told = FolderLock::take_through(folder.path(), without(libc::EIO)).unwrap_err();
        assert!(told.to_string().contains(".lock: cannot lock"), "{told}");
    }

    #[test]
    fn what_a_dead_process_left_is_taken_over_and_what_another_machine_left_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OWNER);
        let here = Owner::this_process();
        // No process has this number, or this one has it now, or the machine was restarted.
        let mut dead = vec![
            Owner { process: u32::MAX, ..here.clone() },
            Owner { start: here.start + 1, ..here.clone() },
        ];
        if !here.machine.is_empty() {
            dead.push(Owner { boot: "before".into(), ..here.clone() });
        }
        for owner in dead {
            std::fs::write(&path, serde_json::to_string(&owner).unwrap()).unwrap();
            let lock = FolderLock::take_through(folder.path(), without(libc::ENOSYS)).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<Owner>(&text).unwrap(), here);
            drop(lock);
        }
        let away = Owner { host: "elsewhere".into(), process: 7, ..here.clone() };
        let twin = Owner { machine: "another".into(), boot: "another".into(), ..away.clone() };
        let contained =
            Owner { namespace: "pid:[1]".into(), host: here.host.clone(), ..away.clone() };
        let text = |owner: &Owner| serde_json::to_string(owner).unwrap();
        for (text, who) in [
            (text(&away), "process 7 of elsewhere marked"),
            (text(&twin), "process 7 of elsewhere marked"),
            (text(&contained), "process 7 of"),
            (String::new(), "an unknown process marked"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let told = FolderLock::take_through(folder.path(), without(libc::ENOSYS)).unwrap_err();
            let told = told.to_string();
            assert!(told.contains(who) && told.contains("remove this file"), "{told}");
            assert!(told.contains(OWNER), "{told}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn only_one_of_many_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let dead = Owner { process: u32::MAX, ..Owner::this_process() };
        let text = serde_json::to_string(&dead).unwrap();
        std::fs::write(folder.path().join(OWNER), text).unwrap();
        let take = || FolderLock::take_through(folder.path(), without(libc::ENOSYS));
        let taken: Vec<Result<FolderLock>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(taken.iter().filter(|lock| lock.is_ok()).count() <= 1, "{taken:?}");
    }

    #[test]
    fn a_lock_that_is_a_link_or_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, precious) = (folder.path().join(".lock"), folder.path().join("precious"));
        std::fs::write(&precious, "content").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let told = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(told.contains(".lock: cannot open: it is a symbolic link"), "{told}");
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "content");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let told = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(told.contains(".lock: cannot open: it is a folder"), "{told}");
    }
}
