//! How much memory the machine has for this process, within the limits of its control groups.
//!
//! Linux hands out more memory than there is, and kills a process that then uses it. What is large
//! is therefore compared with what is left before it is allocated.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::{MAX_TEXT, read_text};

/// Requests below this many bytes are not checked.
pub(crate) const SMALL: usize = 64 << 20;

/// Memory of the machine, or of the tightest control group, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All that this process could ever have.
    pub total: usize,
    /// What could be allocated now without taking it from another process. Caches of files count,
    /// since the system gives them up, and so does free swap space.
    pub available: usize,
}

impl Memory {
    /// Returns what the system reports now; `None` where it does not.
    pub fn now() -> Option<Memory> {
        Memory::under(Path::new("/"))
    }

    /// Returns what the files of a system below `root` report.
    fn under(root: &Path) -> Option<Memory> {
        let info = read_text(&root.join("proc/meminfo"), MAX_TEXT).ok()?;
        let kib = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name));
            value?.trim().trim_end_matches(" kB").parse::<usize>().ok()
        };
        let total = kib("MemTotal:")?.saturating_mul(1024);
        let free = kib("MemAvailable:").map_or(total, |kib| kib.saturating_mul(1024));
        let swap = kib("SwapFree:").unwrap_or(0).saturating_mul(1024);
        let available = free.saturating_add(swap);
        let mut memory = Memory { total, available };
        for group in groups(root) {
            memory.total = memory.total.min(group.total);
            memory.available = memory.available.min(group.available);
        }
        Some(memory)
    }

    /// Returns what is left if a share stays free for everything that is not counted.
    pub fn spare(self) -> usize {
        self.available.saturating_sub((self.total / 20).clamp(SMALL, 512 << 20))
    }
}

/// Fails if the machine has less memory left than the bytes of `what`.
///
/// # Errors
/// [`Error::OutOfMemory`], before anything is allocated.
pub(crate) fn require(bytes: usize, what: impl FnOnce() -> String) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    match Memory::now().map(Memory::spare) {
        Some(left) if left < bytes => Err(Error::OutOfMemory(format!(
            "{} needs {} MiB, but this machine has only {} MiB left for this process",
            what(),
            bytes >> 20,
            left >> 20
        ))),
        _ => Ok(()),
    }
}

/// Returns the limits of the control groups that this process is in, and of those around them, in
/// versions 1 and 2.
fn groups(root: &Path) -> Vec<Memory> {
    let listed = read_text(&root.join("proc/self/cgroup"), MAX_TEXT).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let mut found = Vec::new();
    for line in listed.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, names) = match controllers {
            "" => (mounts.clone(), ["memory.max", "memory.current", "inactive_file "]),
            _ if controllers.split(',').any(|name| name == "memory") => (
                mounts.join("memory"),
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "],
            ),
            _ => continue,
        };
        // In a container the path may be the host's; then only the mount itself is there.
        for above in Path::new(path).ancestors() {
            let folder = mount.join(above.strip_prefix("/").unwrap_or(above));
            found.extend(group(&folder, names));
        }
    }
    found
}

fn group(folder: &Path, [limit, usage, cached]: [&str; 3]) -> Option<Memory> {
    let text = |path: PathBuf| read_text(&path, MAX_TEXT).ok();
    // A group without a limit says `max`.
    let total: usize = text(folder.join(limit))?.trim().parse().ok()?;
    let used: usize = text(folder.join(usage))?.trim().parse().ok()?;
    let stat = text(folder.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse().ok());
    let used = used.saturating_sub(cached.unwrap_or(0));
    Some(Memory { total, available: total.saturating_sub(used) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 16000 kB\nMemFree: 1 kB\nMemAvailable: 9000 kB\n";

    fn system(files: &[(&str, &str)]) -> Option<Memory> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Memory::under(root.path())
    }

    fn kib(total: usize, available: usize) -> Option<Memory> {
        Some(Memory { total: total << 10, available: available << 10 })
    }

    #[test]
    fn the_machine_and_every_control_group_around_the_process_count() {
        assert_eq!(system(&[]), None);
        let machine = ("proc/meminfo", MEMINFO);
        assert_eq!(system(&[machine]), kib(16_000, 9_000));
        let swapping = format!("{MEMINFO}SwapTotal: 5000 kB\nSwapFree: 4000 kB\n");
        assert_eq!(system(&[(machine.0, &swapping)]), kib(16_000, 13_000));
        let second = [
            machine,
            ("proc/self/cgroup", "0::/jobs/mine\n"),
            ("sys/fs/cgroup/jobs/mine/memory.max", "max\n"),
            ("sys/fs/cgroup/jobs/mine/memory.current", "1\n"),
            ("sys/fs/cgroup/jobs/memory.max", "4096000\n"),
            ("sys/fs/cgroup/jobs/memory.current", "2048000\n"),
            ("sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 1024000\n"),
        ];
        assert_eq!(system(&second), kib(4_000, 3_000));
        let first = [
            machine,
            ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/\n"),
            // The path is the host's; the container sees its own group as the root.
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "6144000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n"),
        ];
        assert_eq!(system(&first), kib(8_000, 2_000));
        // Version 1 has a number without a meaning where there is no limit.
        let none = [machine, first[1], (first[2].0, "9223372036854771712\n"), first[3]];
        assert_eq!(system(&none), kib(16_000, 9_000));
    }

    #[test]
    fn what_is_more_than_there_is_is_refused() {
        let told = require(usize::MAX, || "a picture".into()).unwrap_err().to_string();
        assert!(told.starts_with("a picture needs "), "{told}");
        require(SMALL - 1, || unreachable!()).unwrap();
    }
}
