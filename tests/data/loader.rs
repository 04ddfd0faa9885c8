//! Tests batches: their contents, retries, and that they depend on the iteration only.

use std::path::Path;

use udass_raw::{
    config::Config,
    data::{
        Batch, Crops, PAD_RGB,
        crops::{Counter, is_varied, varied_window},
        eval::EvalSet,
        layouts,
        loader::Loader,
        prepare::prepare,
        resize::{
            Rows, Size, Window, cv_bilinear, cv_nearest, cv_nearest_map, pil_bilinear, pil_nearest,
        },
    },
    rng::{Draw, Purpose},
};

use crate::support::{Sets, located, plane, write};

fn batches(config: &Config, start: u64, count: usize) -> Vec<Batch> {
    let mut loader = Loader::new(config, start).unwrap();
    (0..count).map(|_| loader.next().unwrap()).collect()
}

fn with_workers(config: &Config, workers: usize, prefetch: usize) -> Config {
    let mut config = config.clone();
    (config.data.workers, config.data.prefetch) = (workers, prefetch);
    config
}

fn number(file: &Path) -> u8 {
    let name = file.file_name().unwrap().to_str().unwrap();
    let digits: String =
        name.trim_start_matches("ulm_").chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn batches_have_their_shapes_and_the_long_tail_starts_on_time() {
    let sets = Sets::bands();
    for batch in batches(&sets.config(), 1, 4) {
        for crops in [&batch.source, &batch.target] {
            assert_eq!((crops.batch, crops.size), (2, Size::new(16, 16)));
            assert_eq!(crops.rgb.len(), 2 * 16 * 16 * 3);
            assert_eq!(crops.extent, [[16, 16]; 2]);
            assert_eq!(crops.files.len(), 2);
        }
        assert_eq!(batch.source.label.len(), 2 * 16 * 16);
        assert!(batch.target.label.is_empty());
        assert_eq!(batch.valid.len(), 2 * 16 * 16);
        assert!(batch.valid.iter().all(|&v| v <= 1));
        assert_eq!(batch.rare.is_some(), batch.iteration >= 3);
        let Some(rare) = batch.rare else { continue };
        assert_eq!((rare.crops.batch, rare.crops.size), (8, Size::new(16, 16)));
        assert_eq!(rare.crops.rgb.len(), 8 * 16 * 16 * 3);
        for (i, label) in rare.crops.label.chunks_exact(16 * 16).enumerate() {
            let class = rare.classes[i % 2];
            let held = label.iter().filter(|&&l| l == class).count();
            assert!(held > 10, "{held} pixels of class {class}");
        }
        // Each pasted crop has its own file and position.
        let first = &rare.crops.rgb[..16 * 16 * 3];
        assert!(rare.crops.rgb.chunks_exact(16 * 16 * 3).any(|crop| crop != first));
    }
}

#[test]
fn the_number_of_workers_and_where_a_run_resumes_change_nothing() {
    let sets = Sets::bands();
    let config = sets.config();
    let expected = batches(&with_workers(&config, 1, 1), 0, 6);
    assert_ne!(expected[4].source, expected[5].source);
    for (workers, prefetch) in [(2, 1), (3, 5), (8, 2)] {
        let config = with_workers(&config, workers, prefetch);
        assert!(batches(&config, 0, 6) == expected, "{workers} workers");
        assert!(batches(&config, 4, 2) == expected[4..], "resumed, {workers} workers");
    }
    let mut other = config.clone();
    other.seed = 2;
    assert_ne!(batches(&other, 0, 1)[0].source, expected[0].source);
}

/// Checks that a crop and its label equal those of scaling the whole image and cropping it.
fn check_crop(
    crops: &Crops,
    index: usize,
    scale: impl Fn(&Rows<'_>, &Rows<'_>) -> (Vec<u8>, Vec<u8>),
    scaled: Size,
    source: (&[u8], &[u8], Size),
) -> (bool, usize, usize) {
    let side = crops.size.width;
    let (rgb, label) =
        scale(&Rows::whole(source.2, 3, source.0), &Rows::whole(source.2, 1, source.1));
    let got = &crops.rgb[index * side * side * 3..][..side * side * 3];
    for flip in [false, true] {
        for y in 0..=scaled.height - side {
            for x in 0..=scaled.width - side {
                let pixel = |i: usize| {
                    let (row, column) = (i / side, i % side);
                    let column = if flip { side - 1 - column } else { column };
                    (y + row) * scaled.width + x + column
                };
                let same = (0..side * side)
                    .all(|i| got[i * 3..i * 3 + 3] == rgb[pixel(i) * 3..pixel(i) * 3 + 3]);
                if same {
                    let expected: Vec<u8> = (0..side * side).map(|i| label[pixel(i)]).collect();
                    if !crops.label.is_empty() {
                        assert_eq!(crops.label[index * side * side..][..side * side], expected);
                    }
                    return (flip, x, y);
                }
            }
        }
    }
    panic!("crop {index} is no part of its image");
}

#[test]
fn crops_are_parts_of_the_scaled_images_with_their_labels() {
    let sets = Sets::bands();
    let config = sets.config();
    let (mut flips, mut places) = ([0; 2], std::collections::HashSet::new());
    let image = |n: u8, size: Size| -> Vec<u8> {
        (0..size.pixels())
            .flat_map(|i| [(i % size.width) as u8, (i / size.width) as u8, n])
            .collect()
    };
    let train_ids = |n: u8| {
        let path = sets.gta().join(format!("labels/{n:05}_labelTrainIds.png"));
        crate::support::train_ids(&path).unwrap().data
    };
    for batch in batches(&config, 3, 12) {
        let (size, fitted) = (Size::new(40, 24), Size::new(60, 36));
        for (i, file) in batch.source.files.iter().enumerate() {
            let n = number(file);
            let whole = Window::whole(fitted);
            let scale = |a: &Rows<'_>, b: &Rows<'_>| {
                (cv_bilinear(*a, fitted, whole), cv_nearest(*b, fitted, whole))
            };
            let source = (&image(n, size)[..], &train_ids(n)[..], size);
            let (flip, x, y) = check_crop(&batch.source, i, scale, fitted, source);
            flips[flip as usize] += 1;
            places.insert((x, y));
        }
        let rare = batch.rare.unwrap();
        let to = Size::new(36, 20);
        for (i, file) in rare.crops.files.iter().enumerate() {
            let n = number(file);
            let whole = Window::whole(to);
            let scale = |a: &Rows<'_>, b: &Rows<'_>| {
                (pil_bilinear(*a, to, whole), pil_nearest(*b, to, whole))
            };
            let source = (&image(n, size)[..], &train_ids(n)[..], size);
            assert!(!check_crop(&rare.crops, i, scale, to, source).0, "long-tail crops never flip");
        }
        let size = Size::new(48, 24);
        for (i, file) in batch.target.files.iter().enumerate() {
            let scale = |a: &Rows<'_>, b: &Rows<'_>| (a.data.to_vec(), b.data.to_vec());
            let source = (&image(number(file), size)[..], &vec![0; size.pixels()][..], size);
            let (flip, x, y) = check_crop(&batch.target, i, scale, size, source);
            // Margins of the 48 x 24 image: top 2, bottom 5, left 3, right 1.
            for (j, &valid) in batch.valid[i * 256..][..256].iter().enumerate() {
                let column = x + if flip { 15 - j % 16 } else { j % 16 };
                let row = y + j / 16;
                let inside = (2..19).contains(&row) && (3..47).contains(&column);
                assert_eq!(valid, inside as u8, "target crop {i}, row {row}, column {column}");
            }
        }
    }
    assert!(flips[0] > 3 && flips[1] > 3, "{flips:?}");
    assert!(places.len() > 12, "{places:?}");
}

/// Uses an image of one class with a block of another in its corner, which few crops touch.
#[test]
fn a_crop_is_redrawn_until_it_holds_its_class() {
    let sets = Sets::new();
    let label: Vec<u8> =
        (0..64 * 64).map(|i| if i % 64 >= 52 && i / 64 >= 52 { 17 } else { 7 }).collect();
    sets.add_gta(1, [64, 64], &label);
    sets.add_cityscapes("train", 1, [64, 64], &[0; 64 * 64]);
    let gta = layouts::find("gta").unwrap();
    prepare(gta, &sets.gta(), false, &()).unwrap();
    let mut config = sets.config();
    config.quadmix.enabled = false;
    (config.source.resize, config.target.resize) = ([64, 64], [64, 64]);
    // Class 5 is the rare one and is drawn nearly always; at least 60 of its pixels are required.
    config.rare_class_sampling.min_pixels = 60;
    config.rare_class_sampling.min_crop_ratio = 1.0;
    let qualifying = |config: &Config| {
        let crops = batches(config, 0, 30);
        let labels = crops.iter().flat_map(|b| b.source.label.chunks_exact(256));
        labels.filter(|l| l.iter().filter(|&&id| id == 5).count() > 60).count()
    };
    config.data.max_class_share = 1.0;
    config.rare_class_sampling.attempts = 0;
    let without = qualifying(&config);
    config.rare_class_sampling.attempts = 10;
    let some = qualifying(&config);
    config.rare_class_sampling.attempts = 10_000;
    let all = qualifying(&config);
    assert!(without < 6 && without < some && some < 50, "{without}, {some}");
    assert_eq!(all, 60);
    // The other rule on its own: more than one class, none above its maximum share.
    config.rare_class_sampling.attempts = 0;
    config.data.max_class_share = 0.9;
    config.data.crop_attempts = 10_000;
    for batch in batches(&config, 0, 10) {
        for label in batch.source.label.chunks_exact(256) {
            let of_5 = label.iter().filter(|&&id| id == 5).count();
            assert!(of_5 > 25, "{of_5}");
        }
    }
}

#[test]
fn the_only_qualifying_crop_is_found_or_the_last_one_kept() {
    // Two classes meet in the middle of a line of 40: of the 8 x 1 crops, one is half and half.
    let label = plane([40, 1], (0..40).map(|x| if x < 20 { 3 } else { 9 }).collect());
    let counter = Counter::new(&label, (0..40).collect(), vec![0]);
    let window = |share, redraws, slot| {
        let mut draw = Draw::new(1, 0, Purpose::SourceCrop, slot, 0);
        varied_window(&counter, label.size, 8, share, redraws, &mut draw)
    };
    for slot in 0..50 {
        let (found, held) = window(0.55, 5000, slot);
        assert_eq!(found, Window { x: 16, y: 0, width: 8, height: 1 });
        assert_eq!((held[3], held[9]), (4, 4));
        // Without redraws, and with a share that every window meets, the first window is taken.
        let (first, _) = window(0.55, 0, slot);
        assert_eq!(window(1.0, 5000, slot).0, first);
    }
    let found = (0..50).filter(|&slot| window(0.55, 10, slot).0.x == 16).count();
    assert!((5..40).contains(&found), "{found}");
}

#[test]
fn variety_counts_labeled_pixels_only() {
    let mut histogram = [0u32; 256];
    assert!(!is_varied(&histogram, 0.75), "nothing labeled");
    histogram[255] = 1000;
    histogram[4] = 30;
    assert!(!is_varied(&histogram, 0.75), "one class");
    histogram[7] = 10;
    assert!(!is_varied(&histogram, 0.75), "exactly the share");
    histogram[7] = 11;
    assert!(is_varied(&histogram, 0.75));
}

#[test]
fn counting_without_scaling_equals_counting_the_scaled_label() {
    for (from, to) in [([13, 9], [40, 31]), ([40, 31], [13, 9]), ([16, 16], [16, 16])] {
        let data = (0..from[0] * from[1]).map(|i| [0, 5, 255, 18][i * i / 7 % 4]).collect();
        let label = plane(from, data);
        let to = Size::new(to[0], to[1]);
        let counter = Counter::new(
            &label,
            cv_nearest_map(from[0], to.width, 0..to.width),
            cv_nearest_map(from[1], to.height, 0..to.height),
        );
        for window in [Window::whole(to), Window { x: 3, y: 2, width: 7, height: 5 }] {
            let scaled = cv_nearest(label.rows(), to, window);
            assert_eq!(counter.crop(window), (scaled.clone(), window.width));
            let histogram = counter.count(window);
            for id in 0..=255u8 {
                let expected = scaled.iter().filter(|&&l| l == id).count();
                assert_eq!(histogram[id as usize] as usize, expected);
            }
        }
    }
}

/// The presets with crops of 512 hide 15 and 120 rows of an image that is as high as a crop, whatever
/// its own size.
#[test]
fn margins_are_those_of_the_resized_image() {
    let sets = Sets::bands();
    let mut config = sets.config();
    config.target.resize = [24, 12];
    (config.data.crop, config.quadmix.enabled) = (12, false);
    config.pseudo_label.margins = [2, 5, 0, 0];
    for batch in batches(&config, 0, 3) {
        for (i, &valid) in batch.valid.iter().enumerate() {
            let row = i / 12 % 12;
            assert_eq!(valid == 1, (2..7).contains(&row), "row {row}");
        }
    }
}

/// The run would otherwise end when QuadMix starts, hours later.
#[test]
fn a_class_that_no_crop_can_hold_is_refused_at_the_start() {
    let sets = Sets::bands();
    let mut config = sets.config();
    config.quadmix.min_pixels = 1_000_000;
    let told = Loader::new(&config, 0).err().unwrap().to_string();
    for part in ["class 2 of quadmix.classes has at most", "quadmix.min_pixels = 1000000"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn images_smaller_than_a_crop_are_padded_right_and_below() {
    let sets = Sets::new();
    sets.add_gta(1, [9, 5], &(0..45).map(|i| if i % 2 == 0 { 7 } else { 8 }).collect::<Vec<_>>());
    sets.add_cityscapes("train", 1, [3, 30], &[0; 90]);
    prepare(layouts::find("gta").unwrap(), &sets.gta(), false, &()).unwrap();
    let mut config = sets.config();
    config.quadmix.enabled = false;
    (config.source.resize, config.target.resize) = ([9, 5], [30, 3]);
    config.pseudo_label.margins = [0; 4];
    for batch in batches(&config, 0, 4) {
        assert_eq!(batch.source.extent, [[9, 5]; 2]);
        assert_eq!(batch.target.extent, [[3, 16]; 2]);
        for i in 0..512 {
            let (x, y) = (i % 16, i / 16 % 16);
            let inside = x < 9 && y < 5;
            assert_eq!(batch.source.label[i] == 255, !inside);
            let padded = batch.source.rgb[i * 3..i * 3 + 3] == PAD_RGB;
            assert_eq!(padded, !inside);
            assert_eq!(batch.valid[i], (x < 3) as u8);
        }
    }
}

#[test]
fn labels_all_unlabeled_load() {
    let sets = Sets::bands();
    sets.add_gta(1, [40, 24], &[0; 960]);
    let mut config = sets.config();
    config.quadmix.enabled = false;
    config.rare_class_sampling.enabled = false;
    // The data is as downloaded, not prepared: without rare-class sampling, training needs no
    // statistics.
    for n in 0..5 {
        std::fs::remove_file(sets.gta().join(format!("labels/{n:05}_labelTrainIds.png"))).unwrap();
    }
    std::fs::remove_file(sets.gta().join("sample_class_stats.json")).unwrap();
    let unlabeled = batches(&config, 0, 10)
        .iter()
        .flat_map(|b| {
            b.source
                .label
                .chunks_exact(256)
                .map(|l| l.iter().all(|&id| id == 255))
                .collect::<Vec<_>>()
        })
        .filter(|&all| all)
        .count();
    assert!((1..10).contains(&unlabeled), "{unlabeled}");
}

#[test]
fn without_rare_classes_every_pair_comes_once_an_epoch() {
    let sets = Sets::bands();
    let mut config = sets.config();
    config.quadmix.enabled = false;
    config.rare_class_sampling.enabled = false;
    config.data.batch = 3;
    let epoch = |start: u64| {
        let batches = batches(&config, start, 5);
        let pairs = batches.iter().flat_map(|b| {
            b.source.files.iter().zip(&b.target.files).map(|(s, t)| (number(s), number(t)))
        });
        pairs.collect::<Vec<_>>()
    };
    let (first, second) = (epoch(0), epoch(5));
    assert_ne!(first, second);
    for mut pairs in [first, second] {
        pairs.sort_unstable();
        let all = (0..5).flat_map(|s| (0..3).map(move |t| (s, t)));
        assert!(pairs.into_iter().eq(all));
    }
    (config.teacher.enabled, config.quadmix.enabled) = (false, false);
    let batch = &batches(&config, 0, 1)[0];
    assert_eq!((batch.target.batch, batch.target.rgb.len(), batch.valid.len()), (0, 0, 0));
    assert_eq!(batch.source.batch, 3);
}

#[test]
fn source_only_needs_no_target() {
    let sets = Sets::bands();
    std::fs::remove_dir_all(sets.cityscapes()).unwrap();
    let mut config = sets.config();
    let error = Loader::new(&config, 0).err().unwrap().to_string();
    assert!(error.contains("leftImg8bit") && error.contains("udass-raw toy"), "{error}");
    (config.teacher.enabled, config.quadmix.enabled) = (false, false);
    assert!(Loader::new(&config, 0).unwrap().next().is_ok());
}

#[test]
fn a_damaged_file_is_named_and_the_others_go_on() {
    let sets = Sets::bands();
    let mut config = sets.config();
    config.quadmix.enabled = false;
    config.rare_class_sampling.enabled = false;
    let damaged = sets.gta().join("images/00002.png");
    let bytes = located([40, 24], 2);
    write(&damaged, &bytes[..bytes.len() - 40]);
    let mut loader = Loader::new(&config, 0).unwrap();
    let results: Vec<_> = (0..15).map(|_| loader.next()).collect();
    let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!((3..=6).contains(&errors.len()), "{}", errors.len());
    for error in errors {
        let error = error.to_string();
        assert!(error.contains("00002.png") && error.contains("truncated"), "{error}");
    }
    for (iteration, batch) in results.iter().enumerate() {
        assert!(batch.as_ref().map_or(true, |b| b.iteration == iteration as u64));
    }
}

#[test]
fn what_the_data_cannot_give_is_said_at_the_start_or_by_class() {
    let sets = Sets::bands();
    let fails = |change: &dyn Fn(&mut Config), parts: &[&str]| {
        let mut config = sets.config();
        change(&mut config);
        let error = match Loader::new(&config, 3) {
            Ok(mut loader) => loader.next().unwrap_err(),
            Err(error) => error,
        };
        for part in parts {
            assert!(error.to_string().contains(part), "{part:?} in: {error}");
        }
    };
    fails(&|c| c.quadmix.classes = vec![2, 16], &["class 16", "quadmix.classes"]);
    fails(&|c| c.quadmix.classes = vec![5], &["at least two classes"]);
    fails(&|c| c.quadmix.resize = [36, 15], &["[36, 15]", "data.crop = 16"]);
    fails(&|c| c.data.crop = 0, &["data.crop"]);
    fails(&|c| c.target.resize = [0, 9], &["target.resize"]);
    fails(&|c| c.source.layout = "gtav".into(), &["\"gtav\""]);
    let too_many = |c: &mut Config| {
        c.quadmix.classes = vec![5, 5];
        c.quadmix.min_pixels = 200;
    };
    fails(&too_many, &["class 5", "at most 36 pixels", "quadmix.min_pixels"]);
}

#[test]
fn duplicates_in_the_long_tail_list_can_both_be_drawn() {
    let sets = Sets::bands();
    let mut config = sets.config();
    config.quadmix.classes = vec![2, 2, 8];
    let pairs: Vec<_> =
        batches(&config, 3, 20).iter().map(|b| b.rare.as_ref().unwrap().classes).collect();
    assert!(pairs.contains(&[2, 2]) && pairs.contains(&[2, 8]) && pairs.contains(&[8, 2]));
    assert!(!pairs.contains(&[8, 8]));
}

#[test]
fn evaluation_images_are_scaled_and_their_labels_untouched() {
    let sets = Sets::new();
    for number in [2, 0, 1] {
        let label: Vec<u8> = (0..20 * 12).map(|i| if i < 100 { 26 } else { 3 }).collect();
        sets.add_cityscapes("val", number, [20, 12], &label);
    }
    let config = sets.config();
    let mut set = EvalSet::new(&config.target, 19, [40, 30]).unwrap();
    assert_eq!(set.len(), 3);
    let fitted = Size::new(40, 24);
    for (n, sample) in set.iter().unwrap().enumerate() {
        let sample = sample.unwrap();
        assert_eq!((sample.fitted, sample.original()), (fitted, Size::new(20, 12)));
        assert_eq!(number(&sample.file) as usize, n);
        assert_eq!(sample.rgb.len(), 40 * 24 * 3);
        assert!(sample.rgb.chunks_exact(3).all(|p| p[2] as usize == n));
        assert!(
            sample.label.data.iter().enumerate().all(|(i, &l)| l == if i < 100 { 13 } else { 255 })
        );
    }
    let image = set.pairs()[1].image.clone();
    write(&image, b"\x89PNG\r\n\x1a\n\0\0");
    let results: Vec<_> = set.iter().unwrap().collect();
    assert_eq!(results.len(), 3);
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(error.contains(image.to_str().unwrap()) && error.contains("truncated"), "{error}");
    set.truncate(1);
    assert_eq!(set.iter().unwrap().count(), 1);
}
