//! Recognizes files that are no weights, so that an error can call them by their name. Links to
//! weights often lead to a page, and repositories often hold pointers.

/// Returns what a file is and what to do, if it is a known kind of file without tensors.
pub(super) fn describe(bytes: &[u8]) -> Option<&'static str> {
    const DOWNLOAD: &str = "is a web page, not weights (a download link often leads to one that \
                            asks for a confirmation): open it in a browser and download the file";
    let start = bytes.get(..4096.min(bytes.len())).unwrap_or(bytes).trim_ascii_start();
    let begins = |text: &str| {
        start.get(..text.len()).is_some_and(|s| s.eq_ignore_ascii_case(text.as_bytes()))
    };
    if start.is_empty() && bytes.len() < 4096 {
        return Some("is empty: copy or download it again");
    }
    if begins("<!doctype") || begins("<html") || begins("<?xml") {
        return Some(DOWNLOAD);
    }
    if begins("version https://git-lfs") {
        return Some("is a Git LFS pointer, not the file itself: run `git lfs pull`");
    }
    if begins("{") || begins("[") {
        return Some("is a JSON file, not weights (of a model's folder, give the weights' file)");
    }
    let archives: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "is a gzip archive: unpack it and give the file in it"),
        (b"BZh", "is a bzip2 archive: unpack it and give the file in it"),
        (b"\xfd7zXZ\0", "is an xz archive: unpack it and give the file in it"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it and give the file in it"),
        (b"Rar!", "is a RAR archive: unpack it and give the file in it"),
    ];
    if let Some((_, what)) = archives.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(what);
    }
    let images: [&[u8]; 2] = [b"\x89PNG", b"\xff\xd8\xff"];
    if images.iter().any(|magic| bytes.starts_with(magic)) {
        return Some("is an image, not weights");
    }
    bytes.starts_with(b"\x89HDF\r\n\x1a\n").then_some(
        "is an HDF5 file (Keras, TensorFlow): only PyTorch's and safetensors files are read",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_tensors_are_called_by_their_names() {
        for (bytes, expected) in [
            (&b""[..], "is empty"),
            (b"  \n", "is empty"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\n<HTML>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"{\"model_type\": \"segformer\"}", "JSON"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x89PNG\r\n\x1a\n", "image"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
        ] {
            assert!(describe(bytes).is_some_and(|what| what.contains(expected)), "{expected}");
        }
        // A safetensors file begins with the length of its header.
        assert_eq!(describe(b"\x08\0\0\0\0\0\0\0{}      "), None);
        assert_eq!(describe(b"PK\x03\x04"), None);
    }
}
