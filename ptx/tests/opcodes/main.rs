//! Executes small kernels, for each group of opcodes and each rule.

mod arithmetic;
mod conversions;
mod faults;
mod loads;
mod statistics;
mod syntax;
mod tensor_core;
mod warp;

use ptx::{Error, Launch, Memory, Options, Problem, Program, Statistics, Tensor};

/// Bytes of each thread's part of `x` and `y`.
const EACH: usize = 16;

/// Returns a kernel whose threads have %r1 = thread, %rd1 and %rd2 = the addresses of their parts of
/// `x` (const) and `y`, and %rd3 and %rd4 = those of the whole tensors.
pub fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.file 1 \"/kernels/some.cu\"\n\
         .extern .shared .align 16 .b8 dynamic[];\n\
         .visible .entry some_f32(.param .u64 x, .param .u64 y)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %rs<16>;\n.reg .b32 %r<32>;\n.reg .f32 %f<32>;\n\
         .reg .b64 %rd<32>;\n.shared .align 4 .b8 array[256];\n.local .align 16 .b8 own[32];\n\
         ld.param.u64 %rd3, [x];\nld.param.u64 %rd4, [y];\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd5, %r1, {EACH};\nadd.s64 %rd1, %rd3, %rd5;\nadd.s64 %rd2, %rd4, %rd5;\n\
         .loc 1 7 0\n{body}\nret;\n}}\n"
    )
}

pub fn program(body: &str) -> Program {
    let mut programs = ptx::decode(&kernel(body)).unwrap();
    programs.remove(0)
}

/// A launch's size.
#[derive(Clone, Copy)]
pub struct Size {
    pub blocks: u32,
    pub threads: u32,
}

pub const ONE: Size = Size { blocks: 1, threads: 1 };
pub const WARP: Size = Size { blocks: 1, threads: 32 };

/// Runs a kernel on numbers 0, 1, 2, … and returns what it leaves in `y`.
pub fn run(body: &str, size: Size) -> Result<(Vec<u32>, Statistics), Error> {
    run_with(body, size, Options { patience: 1 << 16, ..Options::default() })
}

pub fn run_with(body: &str, size: Size, options: Options) -> Result<(Vec<u32>, Statistics), Error> {
    let program = program(body);
    let mut memory = Memory::default();
    let words = size.threads as usize * EACH / 4;
    let tensor = |name: &str, written| Tensor {
        name: name.into(),
        bytes: (0..words as u32).flat_map(u32::to_le_bytes).collect(),
        element: 4,
        written,
        misalignment: 0,
    };
    let x = memory.add(tensor("x", false));
    let y = memory.add(tensor("y", true));
    let launch = Launch {
        program: &program,
        arguments: &[x, y],
        blocks: size.blocks,
        threads: size.threads,
        shared: 512,
    };
    let statistics = ptx::run(&mut memory, &launch, options)?;
    let words = memory.contents(1).as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
    Ok((words.collect(), statistics))
}

/// Returns what one thread leaves in %r2.
pub fn word(body: &str) -> u32 {
    run(&format!("{body}\nst.global.u32 [%rd2], %r2;"), ONE).unwrap().0[0]
}

/// Returns what one thread leaves in %rd9.
pub fn long(body: &str) -> u64 {
    let (y, _) = run(&format!("{body}\nst.global.u64 [%rd2], %rd9;"), ONE).unwrap();
    u64::from(y[0]) | u64::from(y[1]) << 32
}

/// Returns what one thread leaves in %f2.
pub fn float(body: &str) -> f32 {
    let (y, _) = run(&format!("{body}\nst.global.f32 [%rd2], %f2;"), ONE).unwrap();
    f32::from_bits(y[0])
}

/// Returns what each lane of a warp leaves in %r2.
pub fn each_lane(body: &str) -> Vec<u32> {
    let (y, _) = run(&format!("{body}\nst.global.u32 [%rd2], %r2;"), WARP).unwrap();
    y.into_iter().step_by(EACH / 4).collect()
}

/// Returns the problem that a kernel has, its thread and its block.
pub fn problem(body: &str, size: Size) -> (Problem, u32, u32) {
    match run(body, size) {
        Err(Error::Fault(fault)) => {
            assert_eq!(fault.kernel, "some_f32");
            assert_eq!(fault.lines, ["some.cu:7"], "{fault}");
            (fault.problem, fault.thread, fault.block)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing was found"),
    }
}
