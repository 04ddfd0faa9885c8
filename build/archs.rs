//! The GPUs that nvcc builds machine code for.

/// Compute capabilities that `UDASS_CUDA_ARCHS` may name, as nvcc 13.0 knows them.
pub const KNOWN: [&str; 6] = ["8.0", "8.6", "8.9", "9.0a", "10.0", "12.0"];
/// Those that machine code is built for by default.
pub const USUAL: &str = "9.0a";

/// Reads a list such as `8.0;9.0a`.
///
/// # Errors
/// Fails if the list is empty or names an unknown compute capability.
pub fn read(list: &str) -> Result<Vec<&'static str>, String> {
    let names = list.split([';', ',', ' ']).filter(|name| !name.is_empty());
    let known = |name: &str| {
        let found = KNOWN.iter().find(|known| **known == name).copied();
        found.ok_or_else(|| {
            let known = KNOWN.join(", ");
            format!("UDASS_CUDA_ARCHS: `{name}` is unknown; known are {known}, as in `8.0;9.0a`")
        })
    };
    let archs = names.map(known).collect::<Result<Vec<_>, _>>()?;
    match archs.is_empty() {
        true => Err(format!("UDASS_CUDA_ARCHS is empty; known are {}", KNOWN.join(", "))),
        false => Ok(archs),
    }
}

/// Returns nvcc's options for machine code of these GPUs, and for the PTX that newer and other ones
/// from 8.0 on compile when they load it.
pub fn options(archs: &[&str]) -> Vec<String> {
    let number = |arch: &str| arch.replace('.', "");
    let machine_code = |arch: &&str| format!("-gencode=arch=compute_{0},code=sm_{0}", number(arch));
    let mut options: Vec<String> = archs.iter().map(machine_code).collect();
    options.push("-gencode=arch=compute_80,code=compute_80".into());
    options
}
