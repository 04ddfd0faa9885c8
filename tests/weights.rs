//! Tests weight files: PyTorch files are read as data only, identified, and converted both ways.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::Dtype;
use tempfile::TempDir;
use udass_raw::checkpoint::convert::convert;
use udass_raw::checkpoint::identity::{Kind, complete, identify};
use udass_raw::checkpoint::pth::{self, Node};
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::weights::Network;
use udass_raw::checkpoint::writer::{Entry, write};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn command(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_udass-raw")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

// ---- hand-written pickles

/// A string in a pickle.
fn string(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// A function call in a pickle: `posix.system("touch …")`.
fn call() -> Vec<u8> {
    [&b"cposix\nsystem\n"[..], &string("touch run_by_a_pickle"), b"\x85R"].concat()
}

/// A tensor of storage 0 with this storage type, offset, shape and strides.
fn tensor_of(storage: &[u8], offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let sizes = |sizes: &[u8]| {
        let each: Vec<u8> = sizes.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", each.as_slice(), b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        string("storage").as_slice(),
        format!("ctorch\n{}\n", String::from_utf8_lossy(storage)).as_bytes(),
        string("0").as_slice(),
        string("cpu").as_slice(),
        b"K\x06tQK",
        &[offset],
        sizes(shape).as_slice(),
        sizes(strides).as_slice(),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn tensor() -> Vec<u8> {
    tensor_of(b"FloatStorage", 0, &[6], &[1])
}

/// A pickled dictionary.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().map(|(key, value)| [string(key), value.clone()].concat());
    [b"}(".as_slice(), &items.collect::<Vec<_>>().concat(), b"u"].concat()
}

fn pickled(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// The numbers 0 to 5 in f32.
fn storage() -> Vec<u8> {
    (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect()
}

fn zipped(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in records {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn zip_of(value: &[u8]) -> Vec<u8> {
    zipped(&[("data.pkl", &pickled(value)), ("data/0", &storage()), ("version", b"3\n")])
}

fn legacy_of(value: &[u8]) -> Vec<u8> {
    [
        pickled(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"),
        pickled(b"M\xe9\x03"),
        pickled(&dict(&[("little_endian", vec![0x88])])),
        pickled(value),
        pickled(&[b"](", string("0").as_slice(), b"e"].concat()),
        6u64.to_le_bytes().to_vec(),
        storage(),
    ]
    .concat()
}

fn open(bytes: &[u8]) -> Result<TensorFile, String> {
    let folder = folder();
    let path = folder.path().join("file.pth");
    fs::write(&path, bytes).unwrap();
    TensorFile::open(&path).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    let Err(problem) = open(bytes) else { panic!("was read; expected {parts:?}") };
    assert!(problem.contains("file.pth: "), "{problem}");
    for part in parts {
        assert!(problem.contains(part), "{part:?} in: {problem}");
    }
}

#[test]
fn what_a_pickle_would_call_is_refused_by_name_where_tensors_are() {
    for container in [zip_of, legacy_of] {
        refused(&container(&call()), &["`posix.system`", "not executed"]);
        refused(
            &container(&dict(&[("a", tensor()), ("b", call())])),
            &["`b`", "among tensors", "`posix.system`", "not executed"],
        );
        let state = dict(&[("a.weight", tensor()), ("a.bias", call())]);
        refused(&container(&dict(&[("state_dict", state)])), &["`state_dict.a.bias`"]);
        refused(
            &container(&dict(&[("state_dict", call())])),
            &["no tensors", "state_dict", "posix"],
        );
        // A whole module, as `torch.save(model)` writes one.
        let inside = dict(&[("_parameters", dict(&[("weight", tensor())]))]);
        let module = [b"cmodels\nSegmentor\n)\x81", inside.as_slice(), b"b"].concat();
        refused(&container(&module), &["`models.Segmentor`", "state_dict()"]);
        refused(
            &container(&dict(&[("model", module), ("a", tensor())])),
            &["`models.Segmentor`", "not executed"],
        );
        // Attributes and items set on known objects.
        let state = [dict(&[("a", tensor())]), dict(&[("b", tensor())]), b"b".to_vec()].concat();
        refused(&container(&state), &["attributes"]);
    }
    assert!(!Path::new("run_by_a_pickle").exists());
}

#[test]
fn pickles_that_are_no_checkpoints_are_refused_by_name() {
    let known: [&[u8]; 5] = [
        b"cos\nsystem\n(S'touch run_by_a_pickle'\ntR.",
        b"(S'touch run_by_a_pickle'\nios\nsystem\n.",
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93\x8c\x01a\x85R.",
        b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R.",
        b"(cos\nsystem\nS'touch run_by_a_pickle'\no.",
    ];
    for pickle in known {
        refused(pickle, &["`os.system`", "not executed"]);
    }
    refused(&pickled(&dict(&[("a", b"K\x01".to_vec())])), &["not one that PyTorch writes"]);
}

/// `numpy.int64(4000)`, as NumPy pickles it for the protocols 2 and 3.
#[test]
fn scalars_of_numpy_are_metadata_like_others() {
    let scalar = |module: &str, bytes: &[u8]| {
        let dtype = [&b"cnumpy\ndtype\n("[..], &string("i8"), b"\x89\x88tR(K\x03", &string("<")];
        let state = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb";
        let function = format!("c{module}\nscalar\n(");
        [function.as_bytes(), &dtype.concat(), state, bytes, b"tR"].concat()
    };
    let number = 4000i64.to_le_bytes();
    // Protocol 3 has bytes; before it, they are a text that is encoded.
    let short = [&b"C\x08"[..], &number].concat();
    let latin1 = number.map(char::from).iter().collect::<String>();
    let encoded =
        [&b"c_codecs\nencode\n("[..], &string(&latin1), &string("latin1"), b"tR"].concat();
    for (module, bytes) in [("numpy.core.multiarray", &encoded), ("numpy._core.multiarray", &short)]
    {
        let meta = dict(&[("iter", scalar(module, bytes))]);
        let content = dict(&[("meta", meta), ("state_dict", dict(&[("a", tensor())]))]);
        let file = open(&zip_of(&content)).unwrap();
        assert_eq!(identify(&file).unwrap().iteration, Some(4000), "{module}");
        assert_eq!(file.skipped(), [], "{module}");
    }
}

#[test]
fn foreign_metadata_is_skipped_and_told() {
    let meta = dict(&[("iter", b"M\xa0\x0f".to_vec()), ("env", call())]);
    let content = dict(&[("meta", meta), ("state_dict", dict(&[("a", tensor())]))]);
    for bytes in [zip_of(&content), legacy_of(&content)] {
        let file = open(&bytes).unwrap();
        assert_eq!(file.skipped(), [("meta.env".to_owned(), "posix.system".to_owned())]);
        assert!(file.skipped_note().unwrap().contains("meta.env: `posix.system` was not executed"));
        assert_eq!(file.tensors().len(), 1);
        assert_eq!(file.numbers("a").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(identify(&file).unwrap().iteration, Some(4000));
    }
    let folder = folder();
    let path = folder.path().join("mic.pth");
    fs::write(&path, zip_of(&content)).unwrap();
    let output = command(&["weights", "inspect", text(&path)]);
    assert!(
        told(&output).contains("skipped meta.env: `posix.system` was not executed"),
        "{output:?}"
    );
    assert!(told(&output).contains("iteration 4000"));
    assert!(!Path::new("run_by_a_pickle").exists());
}

#[test]
fn views_are_read_as_torch_sees_them() {
    type Case<'a> = (u8, &'a [u8], &'a [u8], &'a [f32]);
    let cases: [Case; 7] = [
        (0, &[2, 3], &[3, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        (0, &[3, 2], &[1, 3], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        (1, &[2], &[2], &[1.0, 3.0]),
        (4, &[2, 2], &[0, 1], &[4.0, 5.0, 4.0, 5.0]),
        (5, &[], &[], &[5.0]),
        (2, &[1, 2], &[77, 1], &[2.0, 3.0]),
        (6, &[0, 3], &[3, 1], &[]),
    ];
    for (offset, shape, strides, expected) in cases {
        let view = tensor_of(b"FloatStorage", offset, shape, strides);
        // Two names for one storage.
        let content = dict(&[("whole", tensor()), ("view", view)]);
        for bytes in [zip_of(&content), legacy_of(&content)] {
            let file = open(&bytes).unwrap();
            let info = file.find("view").unwrap();
            assert!(info.shape.iter().zip(shape).all(|(a, b)| *a == usize::from(*b)));
            assert_eq!(file.numbers("view").unwrap(), expected, "{shape:?} {strides:?}");
            assert_eq!(file.numbers("whole").unwrap().len(), 6);
        }
    }
}

#[test]
fn tensors_that_are_not_there_are_refused() {
    let cases: [(Vec<u8>, &str); 7] = [
        (tensor_of(b"FloatStorage", 0, &[7], &[1]), "beyond its storage"),
        (tensor_of(b"FloatStorage", 5, &[2], &[1]), "beyond its storage"),
        (tensor_of(b"FloatStorage", 0, &[2], &[6]), "beyond its storage"),
        (tensor_of(b"DoubleStorage", 0, &[6], &[1]), "of 6 numbers, but only 3 are present"),
        (tensor_of(b"FloatStorage", 0, &[200, 200, 200], &[0, 0, 0]), "has shape"),
        (tensor_of(b"FloatStorage", 0, &[2, 3], &[1]), "strides and sizes differ in number"),
        (tensor_of(b"ComplexFloatStorage", 0, &[1], &[1]), "torch.ComplexFloatStorage"),
    ];
    for (tensor, problem) in cases {
        let content = dict(&[("weird", tensor)]);
        refused(&zip_of(&content), &[problem]);
        let problem = if problem.contains("3 are present") { "storage" } else { problem };
        refused(&legacy_of(&content), &[problem]);
    }
    refused(&zipped(&[("data.pkl", &pickled(&tensor()))]), &["has no record archive/data/0"]);
    refused(&zipped(&[("data.txt", b"")]), &["no data.pkl"]);
    let other = [("data.pkl", pickled(&tensor())), ("data/0", storage())];
    let big: Vec<(&str, &[u8])> = other.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    refused(&zipped(&[&big[..], &[("byteorder", b"big")]].concat()), &["big-endian"]);
    refused(&zip_of(&dict(&[("a", b"K\x01".to_vec())])), &["holds no tensors"]);
    let twice =
        dict(&[("state_dict", dict(&[("a.b", tensor()), ("a", dict(&[("b", tensor())]))]))]);
    refused(&zip_of(&twice), &["two tensors named `a.b`"]);
}

#[test]
fn a_cut_or_damaged_file_is_refused_and_never_more() {
    for name in ["pub_pth_zip.pth", "pub_pth_legacy.pth", "pub_pth_bare.pth"] {
        let whole = fs::read(golden(name)).unwrap();
        for length in (0..whole.len()).step_by(97) {
            assert!(open(&whole[..length]).is_err(), "{name} cut at {length} was read");
        }
        // A changed byte may alter a number or a name, but nothing worse.
        for at in (0..whole.len()).step_by(61) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let Ok(file) = open(&damaged) else { continue };
            for info in file.tensors() {
                let _ = file.numbers(&info.name);
            }
            if name != "pub_pth_legacy.pth" {
                // Padding between records, and their headers, have no checksum.
                let same = file.digest().unwrap()
                    == TensorFile::open(golden(name)).unwrap().digest().unwrap();
                assert!(same, "{name}: a change at {at} went unnoticed");
            }
        }
    }
}

#[test]
fn hostile_pickles_cost_no_more_than_their_limits() {
    // Nested lists that share elements: 2^40 values if they were copied.
    let mut shared = b"](K\x01K\x01eq\x00".to_vec();
    for level in 1..40u8 {
        shared.extend([b'0', b']', b'(', b'h', level - 1, b'h', level - 1, b'e', b'q', level]);
    }
    refused(&zip_of(&dict(&[("a", tensor()), ("b", shared)])), &["over and over"]);
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    refused(&zip_of(&dict(&[("a", tensor()), ("b", deep)])), &["41 deep"]);
    let itself = b"]q\x00h\x00a".to_vec();
    refused(&zip_of(&dict(&[("a", tensor()), ("b", itself)])), &["41 deep"]);
    refused(&zip_of(&vec![b'('; 70_000]), &["open brackets"]);
    refused(&zip_of(&vec![b']'; 3 << 20]), &["values"]);
    refused(&zip_of(b"X\xff\xff\xff\xff"), &["ends too early"]);
    refused(&zip_of(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), &["ends too early"]);
    for op in [b"R".as_slice(), b"u", b"t", b"a", b"b", b"Q", b"\x85", b"0", b"h\x07", b"(K\x01u"] {
        refused(&zip_of(op), &["of a pickle"]);
    }
}

// ---- conversions

/// Returns every tensor of a file, in order.
fn contents(path: &Path) -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)> {
    let file = TensorFile::open(path).unwrap();
    let of = |info: &udass_raw::checkpoint::tensor_file::TensorInfo| {
        (info.name.clone(), info.dtype, info.shape.clone(), file.data(info).unwrap())
    };
    file.tensors().iter().map(of).collect()
}

#[test]
fn there_and_back_is_exact() {
    let folder = folder();
    for name in ["pub_pth_zip", "pub_pth_legacy", "pub_pth_bare"] {
        let first = golden(&format!("{name}.pth"));
        let (there, back) =
            (folder.path().join(format!("{name}.safetensors")), folder.path().join("back.pth"));
        let again = folder.path().join("again.safetensors");
        let steps = [(&first, &there), (&there, &back), (&back, &again)];
        for (from, to) in steps {
            let output = command(&["weights", "convert", text(from), text(to)]);
            assert!(output.status.success(), "{}", told(&output));
            let mut expected = contents(from);
            let mut got = contents(to);
            // Safetensors are ordered by data offset, which is ambiguous for empty tensors.
            expected.sort();
            got.sort();
            assert!(expected == got, "{name}: {} to {}", from.display(), to.display());
        }
        let [before, after] = [&first, &back].map(|path| TensorFile::open(path).unwrap());
        assert_eq!(before.tree().unwrap(), after.tree().unwrap(), "{name}");
        let order = |file: &TensorFile| -> Vec<String> {
            file.tensors().iter().map(|info| info.name.clone()).collect()
        };
        assert_eq!(order(&before), order(&after));
        assert!(fs::read(&there).unwrap() == fs::read(&again).unwrap(), "{name}: to the byte");
        assert!(after.has_checksums());
    }
    let output = command(&["weights", "convert", text(&golden("pub_pth_bare.pth")), "x.onnx"]);
    assert!(told(&output).contains(".pth or .safetensors"), "{}", told(&output));
    let file = golden("pub_pth_bare.pth");
    let output = command(&["weights", "convert", text(&file), text(&file)]);
    assert!(told(&output).contains("choose another name"), "{}", told(&output));
}

/// Writes a file with the tensors of a state dict; their data is a sparse hole.
fn hollow(path: &Path, keys: &str, rename: impl Fn(&str) -> Option<String>) {
    let json = fs::read_to_string(golden(&format!("state_dicts/{keys}.json"))).unwrap();
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, info) in &json {
        let Some(name) = rename(name) else { continue };
        let shape = info["shape"].as_array().unwrap();
        let numbers: u64 = shape.iter().map(|n| n.as_u64().unwrap()).product();
        let (dtype, size) = if info["dtype"] == "int64" { ("I64", 8) } else { ("F32", 4) };
        let start = end;
        end += numbers * size;
        let info = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [start, end]
        });
        header.insert(name, info);
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// Names that other ways of training leave behind.
#[test]
fn prefixes_and_auxiliary_heads_are_no_obstacle() {
    let folder = folder();
    let path = folder.path().join("file.safetensors");
    let cases = [
        ("backbone_mit_b0", Kind::Backbone),
        ("backbone_r50v1c", Kind::Backbone),
        ("hrda_daformer_mit_b0", Kind::Segmentor),
    ];
    for (keys, kind) in cases {
        hollow(&path, keys, |name| Some(format!("module.{name}")));
        let file = TensorFile::open(&path).unwrap();
        let identity = identify(&file).unwrap();
        assert_eq!(identity.kind, kind, "{keys}");
        complete(&file, &identity).unwrap().unwrap();
    }
}

#[test]
fn official_files_are_recognized_from_their_keys() {
    let folder = folder();
    let path = folder.path().join("file.safetensors");
    let cases = [
        ("backbone_mit_b0", Kind::Backbone, Some("mit_b0"), None, false),
        ("backbone_mit_b1", Kind::Backbone, Some("mit_b1"), None, false),
        ("backbone_mit_b2", Kind::Backbone, Some("mit_b2"), None, false),
        ("backbone_mit_b3", Kind::Backbone, Some("mit_b3"), None, false),
        ("backbone_mit_b4", Kind::Backbone, Some("mit_b4"), None, false),
        ("backbone_mit_b5", Kind::Backbone, Some("mit_b5"), None, false),
        ("backbone_r50v1c", Kind::Backbone, Some("resnet50_v1c"), None, false),
        ("backbone_r101v1c", Kind::Backbone, Some("resnet101_v1c"), None, false),
        ("daformer_mit_b5", Kind::Segmentor, Some("mit_b5"), Some("daformer"), false),
        ("segformer_mit_b5", Kind::Segmentor, Some("mit_b5"), Some("segformer"), false),
        ("dlv2red_r101v1c", Kind::Segmentor, Some("resnet101_v1c"), Some("dlv2"), false),
        ("hrda_daformer_mit_b0", Kind::Segmentor, Some("mit_b0"), Some("daformer"), true),
        ("hrda_dlv2red_r50v1c", Kind::Segmentor, Some("resnet50_v1c"), Some("dlv2"), true),
        ("dacs_hrda_daformer_mit_b5", Kind::Adaptation, Some("mit_b5"), Some("daformer"), true),
        ("dacs_hrda_dlv2red_r101v1c", Kind::Adaptation, Some("resnet101_v1c"), Some("dlv2"), true),
    ];
    for (keys, kind, backbone, head, hrda) in cases {
        hollow(&path, keys, |name| Some(name.into()));
        let file = TensorFile::open(&path).unwrap();
        let identity = identify(&file).unwrap();
        assert_eq!(
            (identity.kind, identity.backbone, identity.head, identity.hrda),
            (kind, backbone, head, hrda),
            "{keys}"
        );
        let whole = kind == Kind::Adaptation;
        assert_eq!((identity.student, identity.teacher, identity.imagenet), (whole, whole, whole));
        assert_eq!(identity.classes, (kind != Kind::Backbone).then_some(19), "{keys}");
        // The file is complete, and is not once a tensor is missing.
        complete(&file, &identity).unwrap().unwrap();
        let resnet = backbone.unwrap().starts_with("resnet");
        let lost = if resnet { "layer2.0.conv1.weight" } else { "patch_embed2.proj.weight" };
        hollow(&path, keys, |name| (!name.ends_with(lost)).then(|| name.into()));
        let file = TensorFile::open(&path).unwrap();
        let problem = complete(&file, &identity).unwrap().unwrap_err().to_string();
        assert!(problem.contains(lost) && problem.contains("missing"), "{problem}");
    }
}

#[test]
fn one_network_of_a_checkpoint_is_taken_out_without_its_prefix() {
    let folder = folder();
    let (from, to) = (folder.path().join("from.pth"), folder.path().join("to.pth"));
    let names = ["model.a", "model.b", "ema_model.a", "ema_model.b", "imnet_model.a"];
    let entries = || -> Vec<Entry> {
        let entry = |(index, name): (usize, &&str)| Entry {
            name: (*name).into(),
            dtype: Dtype::BF16,
            shape: vec![1],
            bytes: Box::new(move || Ok(vec![index as u8; 2])),
        };
        names.iter().enumerate().map(entry).collect()
    };
    let leaf = |name: &&str| (Node::text(*name), Node::Tensor((*name).into()));
    let state = Node::Ordered(names.iter().map(leaf).collect());
    pth::write(&from, &Node::dict([("state_dict", state)]), entries()).unwrap();
    let file = TensorFile::open(&from).unwrap();
    for (which, first) in [(Network::Student, 0), (Network::Teacher, 2)] {
        convert(&file, &to, Some(which)).unwrap();
        let one = |name: &str, byte| (name.to_owned(), Dtype::BF16, vec![1], vec![byte; 2]);
        assert_eq!(contents(&to), [one("a", first), one("b", first + 1)]);
    }
    // Conversion from safetensors works too; a file with only a student has no teacher to extract.
    let plain = folder.path().join("plain.safetensors");
    write(&plain, entries().into_iter().take(2).collect(), Default::default()).unwrap();
    let problem = convert(&TensorFile::open(&plain).unwrap(), &to, Some(Network::Teacher));
    assert!(problem.unwrap_err().to_string().contains("holds no teacher"));
}

#[test]
fn verify_finds_what_is_wrong_with_a_file() {
    let folder = folder();
    let verify = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = command(&["weights", "verify", text(&path)]);
        (output.status.success(), told(&output))
    };
    let good = zip_of(&dict(&[("a", tensor())]));
    let (passed, said) = verify("good.pth", &good);
    assert!(passed && said.contains("1 tensors, 6 numbers, all finite"), "{said}");
    let sha256 = said.trim_end().rsplit(' ').next().unwrap()[..8].to_owned();
    let (passed, said) = verify(&format!("good-{sha256}.pth"), &good);
    assert!(passed && said.contains("as in its name"), "{said}");
    let (passed, said) = verify("good-01234567.pth", &good);
    assert!(!passed && said.contains("starts with 01234567"), "{said}");
    let mut damaged = good.clone();
    let at = damaged.windows(4).position(|w| w == 5f32.to_le_bytes()).unwrap();
    damaged[at] ^= 1;
    let (passed, said) = verify("damaged.pth", &damaged);
    assert!(!passed && said.contains("do not match the stored checksum"), "{said}");
    let nan = [storage()[..20].to_vec(), f32::NAN.to_le_bytes().to_vec()].concat();
    let pickle = pickled(&dict(&[("a", tensor())]));
    let (passed, said) = verify("nan.pth", &zipped(&[("data.pkl", &pickle), ("data/0", &nan)]));
    assert!(!passed && said.contains("`a` holds NaN at 5"), "{said}");
}
