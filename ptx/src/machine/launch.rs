//! Runs the blocks of a launch.

use super::block;
use super::context::{Context, Options};
use super::warp::Warp;
use crate::error::Error;
use crate::lanes::{LANES, Registers};
use crate::memory::{Memory, Shared};
use crate::program::{Program, Special};
use crate::statistics::Statistics;

/// The largest number of threads in a block.
const MOST_THREADS: u32 = 1024;

/// A launch's configuration.
pub struct Launch<'a> {
    /// The kernel.
    pub program: &'a Program,
    /// Arguments in the order of the signature: addresses from [`Memory::add`], or the low bytes of
    /// scalars.
    pub arguments: &'a [u64],
    /// Number of blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// Executes a launch; its results are in the memory's tensors.
///
/// # Errors
/// Returns an error if the arguments do not fit the kernel, or at the first rule that a thread
/// breaks.
pub fn run(memory: &mut Memory, launch: &Launch, options: Options) -> Result<Statistics, Error> {
    let Launch { program, arguments, blocks, threads, shared } = *launch;
    if arguments.len() != program.parameters.len() {
        let (got, wanted) = (arguments.len(), program.parameters.len());
        let problem = format!("{}: {got} arguments instead of {wanted}", program.name);
        return Err(Error::Launch(problem));
    }
    if !(1..=MOST_THREADS).contains(&threads) {
        return Err(Error::Launch(format!("{}: {threads} threads per block", program.name)));
    }
    let end = program.parameters.iter().map(|(offset, bytes)| offset + bytes).max();
    let mut parameters = vec![0; end.unwrap_or(0) as usize];
    for (&(offset, bytes), argument) in program.parameters.iter().zip(arguments) {
        let bytes = bytes as usize;
        parameters[offset as usize..][..bytes].copy_from_slice(&argument.to_le_bytes()[..bytes]);
    }
    memory.begin_launch();
    let mut context = Context {
        program,
        options,
        memory,
        shared: Shared::new(program, shared),
        parameters: &parameters,
        statistics: Statistics::default(),
        tick: 0,
        begin: 0,
        barrier: 0,
        patience: options.patience,
    };
    let count = threads.div_ceil(LANES as u32);
    let mut warps: Vec<Warp> = (0..count)
        .map(|index| {
            let lanes = (threads - index * LANES as u32).min(LANES as u32);
            let registers = Registers::new(program.words, program.longs, program.predicates);
            Warp::new(index, lanes as usize, registers, program.local)
        })
        .collect();
    let step = options.one_block_of.max(1);
    for index in (0..blocks).step_by(step as usize) {
        for warp in &mut warps {
            for &(special, slot) in &program.specials {
                let value = std::array::from_fn(|lane| match special {
                    Special::Thread => warp.index * LANES as u32 + lane as u32,
                    Special::Threads => threads,
                    Special::Block => index,
                    Special::Blocks => blocks,
                    Special::Lane => lane as u32,
                    Special::Warp => warp.index,
                    Special::Zero => 0,
                    Special::One => 1,
                });
                warp.registers.set_word(slot, crate::lanes::FULL, &value);
            }
        }
        block::run(&mut context, &mut warps, index)?;
        context.statistics.blocks += 1;
        if options.warm_up && index == 0 && step < blocks {
            context.statistics.forget();
        }
    }
    let mut statistics = context.statistics;
    statistics.launches = 1;
    statistics.warps = statistics.blocks * u64::from(count);
    Ok(statistics)
}
