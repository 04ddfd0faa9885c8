//! Values that a method was published with and that `--method` leaves to the base, because they
//! depend on the size of images or crops, or on the length of training.

use toml::{Table, Value};

use super::compare::flat;
use super::schema::Config;
use crate::error::{Error, Result};

/// Returns whether a run uses a key and the published value belongs to the same task.
type Applies = fn(run: &Config, published: &Config) -> bool;

const KEYS: &[(&str, Applies)] = &[
    ("source.resize", same_source),
    ("target.resize", same_target),
    ("data.crop", |_, _| true),
    ("rare_class_sampling.min_pixels", |run, _| run.rare_class_sampling.enabled),
    ("rare_class_sampling.min_crop_ratio", |run, _| run.rare_class_sampling.enabled),
    ("network.hrda.detail_crop", |run, _| run.network.hrda.enabled),
    ("pseudo_label.margins", |run, published| run.teacher.enabled && same_target(run, published)),
    ("mask.block", |run, _| run.mask.enabled),
    ("mask.ratio", |run, _| run.mask.enabled),
    ("quadmix.start", |run, published| run.quadmix.enabled && same_task(run, published)),
    ("quadmix.min_pixels", |run, published| run.quadmix.enabled && same_source(run, published)),
    ("quadmix.resize", |run, _| run.quadmix.enabled),
    ("contrast.start", |run, published| run.contrast.enabled && same_task(run, published)),
    ("schedule.warmup", |_, _| true),
    ("run.max_iters", same_task),
];

/// Keys and sections of a method's preset that describe one published run, not the method: with
/// `--method` they stay the base's.
pub(super) const OF_THE_BASE: &[&str] = &["seed", "schedule", "run"];

fn same_task(run: &Config, published: &Config) -> bool {
    let resnet = |c: &Config| c.network.backbone.starts_with("resnet");
    same_source(run, published) && resnet(run) == resnet(published)
}

fn same_source(run: &Config, published: &Config) -> bool {
    run.source.layout == published.source.layout
}

fn same_target(run: &Config, published: &Config) -> bool {
    run.target.layout == published.target.layout
}

/// Returns the keys in `from_base` whose values differ from those that `method` was published with.
pub(super) fn notes(
    run: &Config,
    method: &str,
    from_base: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let published = Config::preset(method)?;
    let values = |config: &Config| -> Result<_> {
        let table: Table =
            config.to_toml()?.parse().map_err(|e| Error::config(format!("{method}: {e}")))?;
        Ok(flat(table))
    };
    let (is, was) = (values(run)?, values(&published)?);
    let told = |key: &str| -> Option<String> {
        let (is, was): (&Value, &Value) = (is.get(key)?, was.get(key)?);
        let differs = is != was && from_base(key);
        differs
            .then(|| format!("{key} = {is} comes from the base; {method} was published with {was}"))
    };
    let applying = KEYS.iter().filter(|(_, applies)| applies(run, &published));
    Ok(applying.filter_map(|(key, _)| told(key)).collect())
}
