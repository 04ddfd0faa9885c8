//! Measures the cost of loading a 1024×1024 training crop from PNG files of the datasets' sizes.
//!
//! The images are synthetic: smooth shapes under sensor-like noise, so that they compress like
//! photographs (about 2.5 MB for 1914×1052). `elements/s` is samples per second. Single stages run
//! on one core, the loader in `data.workers` threads.

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use udass_raw::{
    config::Config,
    data::{
        crops::Counter,
        decode::{load_rgb, load_rows},
        labels::{LabelFile, Plane, TRAIN_IDS, encode},
        layouts,
        loader::Loader,
        prepare::prepare,
        resize::{
            Size, Window, cv_bilinear, cv_bilinear_rows, cv_nearest_map, pil_bilinear,
            pil_bilinear_rows,
        },
    },
    rng::{Draw, Purpose},
};

const GTA: Size = Size::new(1914, 1052);
const CITYSCAPES: Size = Size::new(2048, 1024);
const CROP: usize = 1024;

fn picture(size: Size, number: u64) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(size.pixels() * 3);
    let mut draw = Draw::new(0, number, Purpose::SourceFile, 0, 0);
    for y in 0..size.height {
        for x in 0..size.width {
            let shade = (x as f32 / 97.0).sin() + (y as f32 / 61.0 + number as f32).cos();
            let noise = draw.bits();
            for channel in 0..3 {
                let noise = (noise >> (channel * 8) & 7) as f32;
                rgb.push((110.0 + 45.0 * shade + 9.0 * channel as f32 + noise) as u8);
            }
        }
    }
    rgb
}

fn write_picture(path: &Path, size: Size, number: u64) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width as u32, size.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Balanced);
    encoder.write_header().unwrap().write_image_data(&picture(size, number)).unwrap();
    write(path, &bytes);
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Generates label ids in patches with ragged edges; every image contains every class.
fn label(size: Size, number: usize) -> Plane {
    let ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33, 0];
    let id = |i: usize| {
        let (x, y) = (i % size.width, i / size.width);
        let (x, y) = (x + (y * 7919 % 13), y + (x * 104_729 % 5));
        ids[(x / 120 * 7 + y / 90 * 3 + number) % ids.len()]
    };
    Plane { size, data: (0..size.pixels()).map(id).collect() }
}

fn make_sets(root: &Path) {
    for n in 0..4 {
        write_picture(&root.join(format!("gta/images/{n:05}.png")), GTA, n);
        let path = root.join(format!("gta/labels/{n:05}.png"));
        write(&path, &encode(&label(GTA, n as usize)));
        let name = format!("cityscapes/leftImg8bit/train/ulm/ulm_{n:06}_000019_leftImg8bit.png");
        write_picture(&root.join(name), CITYSCAPES, n);
    }
    let gta = layouts::find("gta").unwrap();
    prepare(gta, &root.join("gta"), false, &()).unwrap();
}

fn config(root: &Path) -> Config {
    let mut config = Config::load("gta_vit", &[]).unwrap();
    config.quadmix.start = 0;
    config.source.root = root.join("gta");
    config.target.root = root.join("cityscapes");
    config
}

fn stages(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    make_sets(folder.path());
    let image = folder.path().join("gta/images/00001.png");
    let path = folder.path().join("gta/labels/00001_labelTrainIds.png");
    let label_file = LabelFile { path, ids: TRAIN_IDS.clone() };
    let bytes = std::fs::metadata(&image).unwrap().len();
    println!("a source image takes {:.2} MB", bytes as f64 / 1e6);
    let fitted = GTA.fitted([2560, 1440]);
    let window = Window { x: 700, y: 190, width: CROP, height: CROP };
    let pasted = Size::new(2048, 1024);
    let long_tail = Window { x: 500, y: 0, width: CROP, height: CROP };

    let mut group = c.benchmark_group("one core");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("picture, whole", |b| b.iter(|| load_rgb(&image).unwrap()));
    group.bench_function("picture, rows of a crop", |b| {
        b.iter(|| load_rows(&image, |size| Ok(cv_bilinear_rows(size, fitted, window))).unwrap())
    });
    group.bench_function("label", |b| b.iter(|| label_file.load().unwrap()));
    let whole = load_rgb(&image).unwrap();
    let label = label_file.load().unwrap();
    let counter = Counter::new(
        &label,
        cv_nearest_map(GTA.width, fitted.width, 0..fitted.width),
        cv_nearest_map(GTA.height, fitted.height, 0..fitted.height),
    );
    group
        .bench_function("count classes of a crop", |b| b.iter(|| counter.count(black_box(window))));
    group.bench_function("crop of label", |b| b.iter(|| counter.crop(black_box(window))));
    group.bench_function("cv_bilinear of a crop", |b| {
        b.iter(|| cv_bilinear(whole.rows(), fitted, black_box(window)))
    });
    assert_eq!(pil_bilinear_rows(GTA, pasted, long_tail), 0..GTA.height);
    group.bench_function("pil_bilinear of a crop", |b| {
        b.iter(|| pil_bilinear(whole.rows(), pasted, black_box(long_tail)))
    });
    group.finish();

    let mut group = c.benchmark_group("loader");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for (method, samples) in [("source_only", 2), ("dacs", 4), ("quadmix", 12)] {
        for workers in [1, 2] {
            let mut config = config(folder.path());
            config.data.workers = workers;
            config.teacher.enabled = method != "source_only";
            config.quadmix.enabled = method == "quadmix";
            config.mask.enabled = config.quadmix.enabled;
            let mut loader = Loader::new(&config, 0).unwrap();
            group.throughput(Throughput::Elements(samples));
            let name = format!("{method}, {samples} crops, {workers} workers");
            group.bench_function(name, |b| b.iter(|| loader.next().unwrap()));
        }
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
