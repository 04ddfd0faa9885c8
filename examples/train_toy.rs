//! Trains a small network on a generated world, from a program of your own, and prints the result.
//!
//! `cargo run --release --example train_toy` takes about ten seconds on two cores.

use std::path::Path;

use udass_raw::config::Config;
use udass_raw::data::toy;
use udass_raw::observer::Observer;
use udass_raw::run::train::signal::Stop;
use udass_raw::run::train::trainer::{End, Start, train};

/// Prints the library's messages. The library itself prints nothing.
struct Messages;

impl Observer for Messages {
    fn begin(&self, _done: usize, _total: usize) {}

    fn advance(&self, done: usize, total: usize, detail: &str) {
        if done == total {
            println!("{done} of {total}: {detail}");
        }
    }

    fn message(&self, text: &str) {
        println!("{text}");
    }
}

fn main() -> udass_raw::Result<()> {
    let folder = Path::new("target/examples/train_toy");
    let world = toy::ToyWorld {
        source_size: (120, 66),
        target_size: (128, 64),
        source_train: 24,
        target_train: 24,
        target_val: 8,
        ..toy::ToyWorld::default()
    };
    toy::make(&folder.join("world"), &world, &())?;

    let settings = [
        format!("source.root={}", folder.join("world/gta").display()),
        format!("target.root={}", folder.join("world/cityscapes").display()),
        format!("run.out={}", folder.join("run").display()),
        "source.resize=[128, 70]".into(),
        "target.resize=[128, 64]".into(),
        "eval.resize=[128, 64]".into(),
        "eval.window=64".into(),
        "eval.stride=32".into(),
        "data.toy=".into(),
        "data.crop=64".into(),
        "network.channels=32".into(),
        "network.hrda.detail_crop=32".into(),
        "quadmix.start=10".into(),
        "quadmix.resize=[128, 64]".into(),
        "rare_class_sampling.min_pixels=2".into(),
        "run.max_iters=20".into(),
        "run.eval_interval=20".into(),
    ];
    // A run's folder holds one run: an earlier one makes room.
    if folder.join("run").exists() {
        std::fs::remove_dir_all(folder.join("run"))
            .map_err(|e| udass_raw::Error::io(folder.join("run"), "remove", e))?;
    }
    let config = Config::load("toy_vit", &settings)?;
    match train(&config, Start::Weights, &Stop::new(), &Messages)? {
        End::Finished(Some(report)) => println!("{}", report.table()),
        _ => println!("the run ended without an evaluation"),
    }
    Ok(())
}
