//! Tests how build.rs parses kernel signatures, shapes, exported constants and lists of GPUs.

#[path = "../build/archs.rs"]
mod archs;
#[path = "../build/constants.rs"]
#[allow(dead_code)]
mod constants;
#[path = "../build/shape.rs"]
#[allow(dead_code)]
mod shape;
#[path = "../build/signature.rs"]
#[allow(dead_code)]
mod signature;

use constants::Constant;
use shape::{Dim, Operation};
use signature::{Kernel, Kind, Scalar};

fn constants() -> Vec<Constant> {
    let mut constants = Vec::new();
    let text =
        "// Keys of a tile.\nEXPORTED constexpr int64_t KEYS = 64;\nconstexpr int64_t OWN = 3;\n";
    constants::read(text, "tiles.cuh", &mut constants).unwrap();
    constants
}

fn read(text: &str) -> Result<Vec<Kernel>, String> {
    signature::read(text, "k.cu", &constants())
}

#[track_caller]
fn refused(text: &str, problem: &str) {
    let told = read(text).err().unwrap_or_else(|| panic!("{text} was read"));
    assert!(told.contains(problem), "{told}");
}

#[test]
fn gpus_are_known_by_their_compute_capability() {
    assert_eq!(archs::read(archs::USUAL).unwrap(), ["9.0a"]);
    assert_eq!(archs::read("8.0;9.0a, 12.0").unwrap(), ["8.0", "9.0a", "12.0"]);
    let options = archs::options(&["8.6", "9.0a"]);
    let wanted = [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_80,code=compute_80",
    ];
    assert_eq!(options, wanted);
    for (wrong, problem) in [
        ("7.5", "`7.5` is unknown; known are 8.0, 8.6, 8.9, 9.0a, 10.0, 12.0"),
        ("9.0a;sm_80", "`sm_80` is unknown"),
        (" ; ", "UDASS_CUDA_ARCHS is empty"),
    ] {
        let told = archs::read(wrong).unwrap_err();
        assert!(told.contains(problem), "{told}");
    }
}

#[test]
fn a_signature_may_stand_on_several_lines() {
    let text = "#include \"simt.cuh\"

// Sums rows.
// Of anything.
KERNEL(sum_rows,
       const T* x /* rows,channels */, const real* OPTIONAL bias /* channels */,
       uint8_t* y
           /* rows */,
       int64_t rows, int64_t channels, bool relu,
       real eps) {
    y[0] = f(x, (rows));
}
KERNEL(one, int32_t* y /* 1 */) {
}
";
    let kernels = read(text).unwrap();
    let [sum, one] = kernels.as_slice() else { panic!("{} kernels", kernels.len()) };
    assert_eq!((sum.name.as_str(), sum.line), ("sum_rows", 5));
    assert_eq!(sum.comment, ["Sums rows.", "Of anything."]);
    assert_eq!((one.name.as_str(), one.line, one.comment.len()), ("one", 13, 0));
    let told: Vec<String> = (sum.arguments.iter())
        .map(|argument| match &argument.kind {
            Kind::Pointer { element, written, optional, text, .. } => {
                format!("{} {element} {written} {optional} {text}", argument.name)
            }
            Kind::Scalar(scalar) => format!("{} {scalar:?}", argument.name),
        })
        .collect();
    let wanted = [
        "x Operand false false rows,channels",
        "bias Real false true channels",
        "y U8 true false rows",
        "rows Size",
        "channels Size",
        "relu Switch",
        "eps Number",
    ];
    assert_eq!(told, wanted);
    assert!(matches!(sum.arguments[3].kind, Kind::Scalar(Scalar::Size)));
}

fn shape_of(shape: &str) -> shape::Shape {
    let text = format!("KERNEL(k, int64_t n, real* x /* {shape} */, int64_t m) {{\n}}\n");
    let Kind::Pointer { shape, .. } = read(&text).unwrap().remove(0).arguments.remove(1).kind
    else {
        panic!("no pointer");
    };
    shape
}

#[test]
fn shapes_are_expressions_over_sizes_constants_and_blocks() {
    let two = |operation, a, b| Dim::Two(operation, Box::new([a, b]));
    let (n, m) = (|| Dim::Size(0), || Dim::Size(2));
    let dims = |shape| shape_of(shape).dims;
    assert_eq!(dims("n,m,3"), [n(), m(), Dim::Number(3)]);
    assert_eq!(dims("2*n"), [two(Operation::Product, Dim::Number(2), n())]);
    let sum = two(Operation::Sum, two(Operation::Product, n(), m()), Dim::Number(1));
    assert_eq!(dims("n*m+1,blocks"), [sum, Dim::Blocks]);
    let nested = two(Operation::Product, n(), two(Operation::Difference, m(), Dim::Number(1)));
    assert_eq!(dims("n*(m-1)"), [nested]);
    assert_eq!(dims("floor(n/m)"), [two(Operation::Floor, n(), m())]);
    let tiles = two(Operation::Ceil, n(), Dim::Number(64));
    assert_eq!(dims("blocks/ceil(n/KEYS)"), [two(Operation::Quotient, Dim::Blocks, tiles)]);
    assert!(!shape_of("n").at_least);
    assert!(shape_of(">= n").at_least);
}

#[test]
fn anything_else_is_refused_with_its_file_and_line() {
    let inside = |arguments: &str| format!("\nKERNEL(k,\n       {arguments}) {{\n}}\n");
    for (arguments, problem) in [
        ("real* x, int64_t n", "kernels/k.cu:3: `x` has no shape"),
        (
            "real* x /* n */, int64_t m",
            "`n` is neither an int64_t of the kernel nor an exported constant",
        ),
        ("real* x /* OWN */", "`OWN` is neither an int64_t"),
        ("real* x /* eps */, real eps", "`eps` is neither an int64_t"),
        ("real* x /*  */", "it ends unexpectedly"),
        ("real* x /* n, */, int64_t n", "it ends unexpectedly"),
        ("real* x /* n n */, int64_t n", "`n` is not expected there"),
        ("real* x /* n? */, int64_t n", "`?` is not expected"),
        ("real* x /* (n */, int64_t n", "a parenthesis is not closed"),
        ("real* x /* ceil(n) */, int64_t n", "`ceil` is part of a division"),
        ("int64_t n /* 3 */", "`n` is a number, so it has no shape"),
        ("int32_t n", "`int32_t n` is not of the form"),
        ("const int64_t n", "is not of the form"),
        ("float* x /* 1 */", "is not of the form"),
        ("real *x /* 1 */", "is not of the form"),
        ("real& x /* 1 */", "is not of the form"),
        ("real* x /* 1 */ y", "`y` after a shape"),
        ("real* x /* 1 */ /* 2 */", "an argument has two comments"),
        ("real* x /* 1", "a comment does not end on its line"),
        ("int64_t n, // how many\n int64_t m", "kernels/k.cu:3: `/` in a kernel's signature"),
        ("int64_t n = f()", "`(` in a kernel's signature"),
        ("int64_t n, int64_t n", "`n` twice"),
        ("int64_t blocks", "`blocks` is reserved for the launch"),
        ("int64_t", "is not of the form"),
        ("", "is not of the form"),
    ] {
        refused(&inside(arguments), problem);
    }
    refused("KERNEL(k, int64_t n)\n{\n}\n", "kernels/k.cu:1: a kernel's signature ends in `) {`");
    refused("KERNEL(k, int64_t n", "kernels/k.cu:1: a signature does not end");
    refused("KERNEL(a b, int64_t n) {\n}\n", "`a b` is not a kernel name");
}

#[test]
fn constants_are_exported_by_one_form() {
    let all = constants();
    let [keys] = all.as_slice() else { panic!("{} constants", all.len()) };
    assert_eq!((keys.name.as_str(), keys.value, keys.file.as_str()), ("KEYS", 64, "tiles.cuh"));
    let text = constants::generate(&all);
    assert!(text.contains("pub mod tiles {"), "{text}");
    assert!(text.contains("/// Keys of a tile.\n    pub const KEYS: usize = 64;"), "{text}");
    for (line, problem) in [
        (
            "EXPORTED constexpr int64_t KEYS = 32;",
            "k.cu:1: `KEYS` is already exported by tiles.cuh",
        ),
        ("EXPORTED constexpr int64_t N = 2 * 3;", "k.cu:1: not of the form"),
        ("EXPORTED constexpr int N = 6;", "k.cu:1: not of the form"),
    ] {
        let told = constants::read(line, "k.cu", &mut constants()).unwrap_err();
        assert!(told.contains(problem), "{told}");
    }
}
