//! How the host's C++ compiler builds kernels.

/// No fast-math and no implicit FMA: what a kernel says is what is computed. Not trapping and not
/// setting errno change no value, and let loops over sqrt and floor vectorise.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O3",
    "-fopenmp-simd",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-unknown-pragmas",
    "-fPIC",
    "-Wall",
    "-Werror=return-type",
];

/// For number types (as the kernels are told), a variant of `Level` in src/device/launch.rs and the
/// end of the symbols.
pub fn flags(types: &str, level: &str, suffix: &str) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.map(Into::into).to_vec();
    match level {
        "V3" => flags.push("-march=x86-64-v3".into()),
        "V4" => flags.push("-march=x86-64-v4".into()),
        _ => {}
    }
    flags.push(format!("-DUDASS_{types}"));
    flags.push(format!("-DUDASS_SUFFIX={suffix}"));
    flags
}
