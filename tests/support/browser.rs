//! A headless browser that opens a page, where one is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds a browser; `None`, with a message, if none is installed.
fn find() -> Option<PathBuf> {
    let named = std::env::var_os("UDASS_BROWSER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"];
    let places = std::env::split_paths(&path);
    let mut known = places.flat_map(|folder| names.map(|name| folder.join(name)));
    let found = named.or_else(|| known.find(|path| path.is_file()));
    if found.is_none() {
        eprintln!("skipped: no browser (chromium, or what UDASS_BROWSER names)");
    }
    found
}

/// Opens a page and returns what its document is after its scripts have run; `None` if no browser is
/// installed. `folder` is a place for the browser's own files.
pub fn opened(folder: &Path, page: &Path) -> Option<String> {
    let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"];
    let quiet = ["--no-first-run", "--disable-background-networking", "--disable-quic"];
    let data = format!("--user-data-dir={}", folder.join("browser").display());
    let url = format!("file://{}", page.display());
    let output = Command::new(find()?)
        .args(flags)
        .args(quiet)
        .args([&data, "--dump-dom", &url])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("<body"), "{}", String::from_utf8_lossy(&output.stderr));
    Some(shown)
}
