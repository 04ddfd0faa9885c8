//! The configuration files that the binary brings along.

/// The preset that holds every key, and so says which keys there are.
pub(super) const COMPLETE: &str = "gta_vit";

/// Names and texts of files in `configs/`.
macro_rules! configs {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../configs/", $name, ".toml")))),*]
    };
}

/// What the binary brings along: name and text.
pub(super) const PRESETS: [(&str, &str); 17] = configs![
    "gta_vit",
    "gta_cnn",
    "syn_vit",
    "syn_cnn",
    "gta_vit_512",
    "gta_cnn_512",
    "cs_acdc",
    "cs_dz",
    "toy_vit",
    "toy_cnn",
    "toy_syn",
    "source_only",
    "dacs",
    "daformer",
    "hrda",
    "mic",
    "quadmix"
];

/// The presets whose own keys are what a method consists of, at any size and with any network.
pub const METHODS: [&str; 6] = ["source_only", "dacs", "daformer", "hrda", "mic", "quadmix"];

/// Names that [`Config::load`](super::Config::load) knows without any file.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}
