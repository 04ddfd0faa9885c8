//! PyTorch's files that are deep, that contain themselves, or that share one storage many times.

use std::io::Write;

use udass_raw::checkpoint::pth::{self, MAX_DEPTH, Node};
use udass_raw::checkpoint::tensor_file::TensorFile;

use crate::{file, folder, refused, run, text};

fn string(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// A dictionary of items.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().map(|(key, value)| [string(key), value.clone()].concat());
    [b"}(".as_slice(), &items.collect::<Vec<_>>().concat(), b"u"].concat()
}

/// A tensor of all `count` numbers of storage 0.
fn tensor(count: u32) -> Vec<u8> {
    let number = [b"J".as_slice(), &count.to_le_bytes()].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        string("storage").as_slice(),
        b"ctorch\nFloatStorage\n",
        string("0").as_slice(),
        string("cpu").as_slice(),
        &number,
        b"tQK\0(",
        &number,
        b"t(K\x01t\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A file of this value and a storage of `count` zeros.
fn zipped(value: &[u8], count: u32) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let pickle = [b"\x80\x02", value, b"."].concat();
    for (name, bytes) in [("data.pkl", pickle), ("data/0", vec![0; 4 * count as usize])] {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Returns a container with `levels` levels of containers in it, in values or in keys.
fn nested(kind: u8, levels: usize) -> Vec<u8> {
    (0..levels).fold(b"}".to_vec(), |inner, _| match kind {
        0 => [b"](", inner.as_slice(), b"e"].concat(),
        1 => [b"(", inner.as_slice(), b"t"].concat(),
        2 => [b"}(K\x01", inner.as_slice(), b"u"].concat(),
        3 => [b"}(", inner.as_slice(), b"K\x01u"].concat(),
        _ => [b"ccollections\nOrderedDict\n)R(K\x01", inner.as_slice(), b"u"].concat(),
    })
}

#[test]
fn a_dictionary_that_is_its_own_key_is_refused() {
    let folder = folder();
    let itself = b"}q\0h\0Ns";
    let inside = dict(&[("a", tensor(4)), ("b", itself.to_vec())]);
    let foreign = [b"cmine\nThing\n(", itself.as_slice(), b"tR"].concat();
    let foreign = dict(&[("state_dict", dict(&[("a", tensor(4))])), ("meta", foreign)]);
    for value in [itself.to_vec(), inside, foreign] {
        let path = file(folder.path(), "cycle.pth", &zipped(&value, 4));
        for words in [["inspect", text(&path)], ["verify", text(&path)]] {
            let words = ["weights", words[0], words[1]];
            refused(folder.path(), &words, &["cycle.pth: is nested more than 41 deep"]);
        }
    }
}

#[test]
fn what_is_read_can_be_converted_and_read_back_and_what_is_deeper_is_refused_before() {
    let folder = folder();
    let out = folder.path().join("out.safetensors");
    let back = folder.path().join("back.pth");
    for kind in 0..5 {
        // The root is a level of its own, and its values are the next.
        let of = |levels| zipped(&dict(&[("a", tensor(4)), ("b", nested(kind, levels))]), 4);
        let path = file(folder.path(), "deep.pth", &of(MAX_DEPTH - 1));
        for (from, to) in [(&path, &out), (&out, &back)] {
            let output = run(folder.path(), &["weights", "convert", text(from), text(to)]);
            assert!(output.status.success(), "{kind}: {}", crate::stderr(&output));
        }
        let tree = |path| TensorFile::open(path).unwrap().tree().unwrap();
        assert_eq!(tree(&path), tree(&back), "{kind}");
        std::fs::remove_file(&out).unwrap();
        let path = file(folder.path(), "deep.pth", &of(MAX_DEPTH));
        let words = ["weights", "convert", text(&path), text(&out)];
        refused(folder.path(), &words, &["deep.pth: is nested more than 41 deep"]);
        assert!(!out.exists());
    }
    // The writer has the reader's limit.
    let deep = |levels| (0..levels).fold(Node::None, |inner, _| Node::List(vec![inner]));
    pth::write(&back, &deep(MAX_DEPTH), Vec::new()).unwrap();
    let told = pth::write(&back, &deep(MAX_DEPTH + 1), Vec::new()).unwrap_err().to_string();
    assert!(told.contains("41 deep"), "{told}");
    Node::from_json(&deep(MAX_DEPTH).to_json()).unwrap();
    assert!(Node::from_json(&deep(MAX_DEPTH + 1).to_json()).is_err());
}

#[test]
fn tied_weights_are_read_and_thousands_of_tensors_in_one_storage_are_refused() {
    let folder = folder();
    let of = |tensors: usize| {
        let names: Vec<String> = (0..tensors).map(|i| format!("t{i}")).collect();
        let items: Vec<_> = names.iter().map(|name| (name.as_str(), tensor(1 << 18))).collect();
        zipped(&dict(&items), 1 << 18)
    };
    let out = folder.path().join("out.safetensors");
    for tensors in [1, 2, 8] {
        let path = file(folder.path(), "tied.pth", &of(tensors));
        let output = run(folder.path(), &["weights", "convert", text(&path), text(&out)]);
        assert!(output.status.success(), "{tensors}: {}", crate::stderr(&output));
    }
    std::fs::remove_file(&out).unwrap();
    for tensors in [9, 3000] {
        let path = file(folder.path(), "shared.pth", &of(tensors));
        let words = ["weights", "convert", text(&path), text(&out)];
        refused(folder.path(), &words, &["shared.pth: its tensors share storages so often"]);
        assert!(!out.exists());
    }
}
