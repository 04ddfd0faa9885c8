//! Tests datasets that are not quite what was published: pairs of two sizes, images without labels.

use udass_raw::config::Config;
use udass_raw::data::eval::EvalSet;
use udass_raw::data::labels::{LabelFile, TRAIN_IDS};
use udass_raw::data::layouts;
use udass_raw::data::loader::Loader;
use udass_raw::data::prepare::prepare;
use udass_raw::data::resize::{Rows, Size, Window, cv_bilinear, cv_nearest};

use crate::support::{Sets, gray, located, palette, write};

const SIDE: usize = 16;

/// Sets whose source images are drawn without statistics.
fn plain(sets: &Sets) -> Config {
    let mut config = sets.config();
    (config.quadmix.enabled, config.rare_class_sampling.enabled) = (false, false);
    config
}

/// What the reference makes of a label that is resized by itself, cropped where its image is, and
/// then flipped and padded.
fn expected_label(label: &[u8], size: Size, [x, y]: [usize; 2], flip: bool) -> Vec<u8> {
    let mut expected = vec![255; SIDE * SIDE];
    let width = SIDE.min(size.width.saturating_sub(x));
    for row in 0..SIDE.min(size.height.saturating_sub(y)) {
        for column in 0..width {
            let from = if flip { width - 1 - column } else { column };
            expected[row * SIDE + column] = label[(y + row) * size.width + x + from];
        }
    }
    expected
}

#[test]
fn a_label_of_another_size_is_resized_by_itself_and_padded() {
    for label_size in [[40, 20], [36, 24], [40, 30], [20, 6]] {
        let sets = Sets::bands();
        let ids: Vec<u8> = (0..label_size[0] * label_size[1])
            .map(|i| [7, 8, 11, 21][i as usize * 7 % 4])
            .collect();
        for number in 0..5u8 {
            let path = sets.gta().join(format!("labels/{number:05}.png"));
            write(&path, &palette(label_size, &ids));
        }
        prepare(layouts::find("gta").unwrap(), &sets.gta(), false, &()).unwrap();
        let config = plain(&sets);
        let (size, fitted) = (Size::new(40, 24), Size::new(60, 36));
        let label = LabelFile {
            path: sets.gta().join("labels/00001_labelTrainIds.png"),
            ids: TRAIN_IDS.clone(),
        };
        let label = label.load().unwrap();
        let own = label.size.fitted([60, 36]);
        let scaled_label = cv_nearest(label.rows(), own, Window::whole(own));
        let mut padded = 0;
        let mut loader = Loader::new(&config, 0).unwrap();
        for batch in (0..12).map(|_| loader.next().unwrap()) {
            for (index, file) in batch.source.files.iter().enumerate() {
                let name = file.file_stem().unwrap().to_str().unwrap();
                let number: u8 = name.parse().unwrap();
                let image: Vec<u8> = (0..size.pixels())
                    .flat_map(|i| [(i % size.width) as u8, (i / size.width) as u8, number])
                    .collect();
                let rgb = cv_bilinear(Rows::whole(size, 3, &image), fitted, Window::whole(fitted));
                let got = &batch.source.rgb[index * SIDE * SIDE * 3..][..SIDE * SIDE * 3];
                let places = (0..=fitted.height - SIDE)
                    .flat_map(|y| (0..=fitted.width - SIDE).map(move |x| [x, y]))
                    .flat_map(|place| [false, true].map(|flip| (place, flip)));
                let (place, flip) = places
                    .into_iter()
                    .find(|([x, y], flip)| {
                        (0..SIDE * SIDE).all(|i| {
                            let column = if *flip { SIDE - 1 - i % SIDE } else { i % SIDE };
                            let at = (y + i / SIDE) * fitted.width + x + column;
                            got[i * 3..][..3] == rgb[at * 3..][..3]
                        })
                    })
                    .expect("the crop is a part of its image");
                let expected = expected_label(&scaled_label, own, place, flip);
                padded += expected.contains(&255) as usize;
                let got = &batch.source.label[index * SIDE * SIDE..][..SIDE * SIDE];
                assert_eq!(got, expected, "{label_size:?} at {place:?}, flipped: {flip}");
            }
        }
        assert_eq!(padded > 0, own.width < fitted.width || own.height < fitted.height);
    }
}

#[test]
fn images_without_a_label_are_left_out_on_request() {
    let sets = Sets::bands();
    write(&sets.gta().join("images/00007.png"), &located([40, 24], 7));
    let mut config = plain(&sets);
    let error = Loader::new(&config, 0).err().unwrap().to_string();
    assert!(error.contains("00007.png") && error.contains("skip_unlabeled = true"), "{error}");
    config.source.skip_unlabeled = true;
    let mut loader = Loader::new(&config, 0).unwrap();
    let note = loader.note().unwrap();
    assert!(note.contains("1 of 6 images have no label"), "{note}");
    for batch in (0..8).map(|_| loader.next().unwrap()) {
        assert!(batch.source.files.iter().all(|file| !file.ends_with("00007.png")));
    }
    assert_eq!(Loader::new(&plain(&Sets::bands()), 0).unwrap().note(), None);

    for number in 0..3 {
        sets.add_cityscapes("val", number, [4, 2], &[7; 8]);
    }
    let label = "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png";
    std::fs::remove_file(sets.cityscapes().join(label)).unwrap();
    let error = EvalSet::new(&config.target, 19, [4, 2]).unwrap_err().to_string();
    assert!(error.contains("ulm_000001") && error.contains("skip_unlabeled"), "{error}");
    config.target.skip_unlabeled = true;
    let set = EvalSet::new(&config.target, 19, [4, 2]).unwrap();
    assert_eq!(set.len(), 2);
    assert!(set.note().unwrap().contains("1 of 3 images have no label"));
    // Not even then may nothing be left.
    std::fs::remove_dir_all(sets.cityscapes().join("gtFine")).unwrap();
    assert!(EvalSet::new(&config.target, 19, [4, 2]).is_err());
}

#[test]
fn converted_labels_of_another_kind_are_noticed() {
    let sets = Sets::bands();
    let config = plain(&sets);
    let path = |number| sets.gta().join(format!("labels/{number:05}_labelTrainIds.png"));
    // Another way of drawing the outlines changes a few pixels.
    let mut ids = crate::support::train_ids(&path(0)).unwrap().data;
    ids[..90].fill(18);
    write(&path(0), &gray([40, 24], &ids));
    Loader::new(&config, 0).unwrap();
    ids.fill(3);
    write(&path(0), &gray([40, 24], &ids));
    let error = Loader::new(&config, 0).err().unwrap().to_string();
    for part in ["00000_labelTrainIds.png", "does not hold what", "udass-raw prepare"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    prepare(layouts::find("gta").unwrap(), &sets.gta(), false, &()).unwrap();
    Loader::new(&config, 0).unwrap();
}

#[test]
fn problems_of_both_domains_are_listed_at_once() {
    let sets = Sets::bands();
    std::fs::remove_dir_all(sets.cityscapes()).unwrap();
    write(&sets.gta().join("images/00007.png"), &located([40, 24], 7));
    let error = Loader::new(&sets.config(), 0).err().unwrap().to_string();
    for part in ["2 problems", "00007.png", "no label", "leftImg8bit", "missing"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
