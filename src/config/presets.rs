//! The configuration files that are built into the program.

/// The preset that states every key, and thereby defines which keys exist.
pub(super) const COMPLETE: &str = "gta_vit";

/// Expands to the names and texts of files in `configs/`.
macro_rules! configs {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../configs/", $name, ".toml")))),*]
    };
}

/// The presets, each with its name and text.
pub(super) const PRESETS: [(&str, &str); 24] = configs![
    "gta_vit",
    "gta_cnn",
    "syn_vit",
    "syn_cnn",
    "gta_vit_512",
    "gta_cnn_512",
    "daformer_syn",
    "cs_acdc",
    "cs_dz",
    "cs_acdc_512",
    "cs_dz_512",
    "toy_vit",
    "toy_cnn",
    "toy_syn",
    "source_only",
    "dacs",
    "daformer",
    "hrda",
    "mic",
    "quadmix",
    "gta_vit_640",
    "sepico",
    "sepico_vit",
    "sepico_cnn"
];

/// The presets that are methods: the keys that they state themselves apply to any size and network.
pub const METHODS: [&str; 7] =
    ["source_only", "dacs", "daformer", "hrda", "mic", "quadmix", "sepico"];

/// Returns the built-in presets, each with the first sentence of what its file says about it.
pub fn preset_notes() -> impl Iterator<Item = (&'static str, String)> {
    PRESETS.iter().map(|(name, text)| {
        let comment = text.lines().map_while(|line| line.strip_prefix('#'));
        let comment = comment.take_while(|line| !line.is_empty()).collect::<String>();
        let about = comment.split_once(": ").map_or("", |(_, about)| about);
        let sentence = about.split_once(". ").map_or(about, |(first, _)| first);
        (*name, sentence.trim_end_matches('.').to_owned())
    })
}

/// Returns the names that [`Config::load`](super::Config::load) accepts without a file.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}
