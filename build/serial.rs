//! Flags for compiling kernels with the host C++ compiler.

/// No fast-math and no contraction to FMA: the arithmetic is exactly what the kernel says. The
/// flags about errno and traps do not change results, but let loops over sqrt and floor vectorize.
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

/// Returns the flags for number types (as in the macro `UDASS_…`), a variant of `Level` in
/// src/device/launch.rs, and the suffix of the symbols.
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
