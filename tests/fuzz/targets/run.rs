//! JSON and TOML of runs and of prepared data: saved configurations, evaluations and logs as reports
//! read them, class statistics, and the list of the files that a run trains on.

use std::path::{Path, PathBuf};

use udass_raw::checkpoint::state::Position;
use udass_raw::config::{Config, RareClassSampling};
use udass_raw::data::inventory::Inventory;
use udass_raw::data::labels::{LabelFile, TRAIN_IDS};
use udass_raw::data::layouts::Pair;
use udass_raw::data::sampling::{
    CLASS_STATS, FilesByClass, RareClassSampler, SAMPLES_WITH_CLASS, rare_class_probabilities,
    read_class_stats,
};
use udass_raw::rng::{Draw, Purpose};
use udass_raw::run::comparison::Comparison;
use udass_raw::run::train::best::Best;
use udass_raw::run::train::log::run_of;
use udass_raw::run::train::resume::{DATA, ResumeOptions, check_data};

use super::{file, place, preset};

/// The input, under every name that a reader knows. Two of the files can differ, as those of the
/// class statistics do: a zero byte separates them.
pub fn run(bytes: &[u8]) {
    let zero = bytes.iter().position(|&byte| byte == 0);
    let (first, second) = zero.map_or((bytes, bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    let input = file(first);
    let folder = place(".folder");
    if !folder.is_dir() {
        std::fs::create_dir(&folder).expect("a place for the input");
        for name in ["log.jsonl", CLASS_STATS, DATA] {
            std::os::unix::fs::symlink(&input, folder.join(name)).expect("a link");
        }
    }
    std::fs::write(folder.join(SAMPLES_WITH_CLASS), second).expect("a place for the input");
    reports(&input, &folder);
    statistics(&folder);
    if let Ok(text) = std::str::from_utf8(first) {
        saved_configuration(text);
        inventory(text, &folder);
    }
}

fn reports(input: &Path, folder: &Path) {
    for paths in
        [vec![folder.into()], vec![input.into(), PathBuf::from(folder)], vec![input.into()]]
    {
        if let Ok(comparison) = Comparison::read(&paths) {
            let pages = [comparison.terminal(), comparison.markdown(), comparison.html()];
            assert!(pages.iter().all(|page| !page.is_empty()));
        }
    }
    let log = folder.join("log.jsonl");
    let _ = (run_of(&log), Best::of_log(&log, true), Best::of_log(&log, false));
}

fn statistics(folder: &Path) {
    let label = |name: &str| Pair {
        image: name.into(),
        label: LabelFile { path: folder.join(name), ids: TRAIN_IDS.clone() },
    };
    let pairs = ["a.png", "b.png"].map(label);
    if let Ok(stats) = read_class_stats(folder, 19) {
        let (classes, shares) = rare_class_probabilities(&stats, 0.01);
        assert_eq!(classes.len(), shares.len());
    }
    let Ok(files) = FilesByClass::read(folder, &pairs, 19) else { return };
    let _ = files.largest(3);
    let config = RareClassSampling { min_pixels: 2, ..preset().rare_class_sampling.clone() };
    let Ok(sampler) = RareClassSampler::new(&config, folder, &files) else { return };
    let draw = |purpose| Draw::new(0, 0, purpose, 0, 0);
    let (class, file) = sampler.draw(draw(Purpose::SourceClass), draw(Purpose::SourceFile));
    assert!(class < 19 && file < pairs.len());
}

/// A configuration that a run saved may be an earlier version's: it is compared without being
/// checked.
fn saved_configuration(text: &str) {
    let differences = preset().differences(text);
    if let Ok(config) = Config::from_toml(text, "fuzz") {
        // One that is read can be compared, unless it names another as its base.
        let written = config.to_toml().expect("what was text is text");
        assert!(config.differences(&written).expect("TOML").is_empty());
        let _ = (differences, config.compared(preset()), config.determining());
    }
}

fn inventory(text: &str, folder: &Path) {
    let inventory = Inventory::from_text(text);
    let written = inventory.to_text();
    let again = Inventory::from_text(&written);
    // The end of a line with a carriage return is another one; no name has any.
    if !text.contains('\r') {
        assert_eq!(again, inventory);
        assert!(again.changes(&inventory.summary(), &inventory).is_empty());
    }
    for data in [inventory.summary(), Inventory::default().summary()] {
        let position = Position { data, ..Position::default() };
        let _ = check_data(folder, &position, &Inventory::default(), ResumeOptions::default());
    }
}
