//! One launch, run in lockstep and by its reference on copies of the same memory.

use std::ffi::c_void;
use std::ops::Range;

use crate::Error;
use crate::block::{Block, Setting};
use crate::library::{Library, OrderedLaunch};
use crate::memory::{Memory, Region};

/// Bytes around a copy, so that what is out of bounds hits nobody else's memory.
const GUARD: usize = 4096;

/// A tensor as a kernel's argument.
#[derive(Clone, Debug)]
pub struct Argument {
    pub name: &'static str,
    pub address: u64,
    pub bytes: usize,
    /// Bytes of an element.
    pub element: usize,
    pub written: bool,
}

#[derive(Clone, Debug)]
pub enum Value {
    Pointer(Argument),
    Null,
    /// A number, in the low bytes.
    Word(u64),
}

/// A kernel, its arguments and its grid.
pub struct Launch<'a> {
    pub kernel: &'a str,
    pub values: Vec<Value>,
    pub blocks: i64,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// A copy of memory that arguments point into.
struct Copied {
    original: Range<u64>,
    /// Its arguments' names, and what is common to them.
    name: String,
    element: usize,
    written: bool,
    /// Guards around it; aligned as the arena's tensors are.
    storage: Vec<u8>,
    start: usize,
}

impl Copied {
    fn content(&self) -> &[u8] {
        let length = (self.original.end - self.original.start) as usize;
        &self.storage[self.start..self.start + length]
    }

    fn address(&self) -> u64 {
        self.content().as_ptr() as u64
    }
}

/// Runs a launch in blocks of `threads`, in the order of threads and blocks that `seed` gives, and
/// by the reference; every bit that they leave in memory must be the same.
pub fn compare(
    lockstep: &Library,
    reference: &Library,
    launch: &Launch,
    threads: usize,
    seed: u64,
) -> Result<(), Error> {
    let expected = run_reference(reference, launch, threads)?;
    let got = run_lockstep(lockstep, launch, threads, seed)?;
    for (expected, got) in expected.iter().zip(&got) {
        let (e, g) = (expected.content(), got.content());
        if let Some(byte) = (0..e.len()).find(|&i| e[i] != g[i]) {
            let at = byte / expected.element * expected.element;
            let number = |bytes: &[u8]| number_of(&bytes[at..at + expected.element]);
            let differing = e.chunks(expected.element).zip(g.chunks(expected.element));
            return Err(Error::Difference(format!(
                "{}: `{}`[{}] is {}, one thread alone makes it {} ({} of {} elements differ)",
                launch.kernel,
                expected.name,
                at / expected.element,
                number(g),
                number(e),
                differing.filter(|(e, g)| e != g).count(),
                e.len() / expected.element,
            )));
        }
    }
    Ok(())
}

fn number_of(bytes: &[u8]) -> String {
    match *bytes {
        [a, b, c, d] => {
            let bits = [a, b, c, d];
            format!("{:e} ({})", f32::from_ne_bytes(bits), i32::from_ne_bytes(bits))
        }
        [a, b, c, d, e, f, g, h] => {
            let bits = [a, b, c, d, e, f, g, h];
            format!("{:e} ({})", f64::from_ne_bytes(bits), i64::from_ne_bytes(bits))
        }
        _ => format!("{bytes:?}"),
    }
}

/// Copies what the arguments point to; arguments that overlap share a copy.
fn copies_of(values: &[Value]) -> Vec<Copied> {
    let mut pointers: Vec<&Argument> = (values.iter())
        .filter_map(|value| match value {
            Value::Pointer(argument) if argument.bytes > 0 => Some(argument),
            _ => None,
        })
        .collect();
    pointers.sort_by_key(|argument| argument.address);
    let mut copies: Vec<Copied> = Vec::new();
    for argument in pointers {
        let range = argument.address..argument.address + argument.bytes as u64;
        match copies.last_mut().filter(|last| range.start < last.original.end) {
            Some(last) => {
                last.original.end = last.original.end.max(range.end);
                if !last.name.split('/').any(|name| name == argument.name) {
                    last.name = format!("{}/{}", last.name, argument.name);
                }
                last.element = last.element.min(argument.element);
                last.written |= argument.written;
            }
            None => copies.push(Copied {
                original: range,
                name: argument.name.into(),
                element: argument.element,
                written: argument.written,
                storage: Vec::new(),
                start: 0,
            }),
        }
    }
    for copy in &mut copies {
        let length = (copy.original.end - copy.original.start) as usize;
        copy.storage = vec![0xFF; length + 2 * GUARD + 64];
        let address = copy.storage.as_ptr() as usize + GUARD;
        copy.start = GUARD + address.next_multiple_of(64) - address;
        // SAFETY: callers pass the ranges of live tensors.
        let original =
            unsafe { std::slice::from_raw_parts(copy.original.start as *const u8, length) };
        copy.storage[copy.start..copy.start + length].copy_from_slice(original);
    }
    copies
}

/// The words of a launch on copies of its memory, and pointers to them.
fn words_of(values: &[Value], copies: &[Copied]) -> Vec<u64> {
    let word = |value: &Value| match value {
        Value::Word(word) => *word,
        Value::Null => 0,
        Value::Pointer(argument) => {
            let home = copies.iter().find(|copy| copy.original.contains(&argument.address));
            home.map_or(argument.address, |copy| {
                copy.address() + (argument.address - copy.original.start)
            })
        }
    };
    values.iter().map(word).collect()
}

fn pointers_to(words: &[u64]) -> Vec<*mut c_void> {
    words.iter().map(|word| word as *const u64 as *mut c_void).collect()
}

/// Runs a launch in lockstep, and leaves in memory what it computed.
pub fn watch(
    lockstep: &Library,
    launch: &Launch,
    threads: usize,
    seed: u64,
) -> Result<(), Error> {
    for copy in run_lockstep(lockstep, launch, threads, seed)? {
        let content = copy.content();
        // SAFETY: callers pass the ranges of live tensors; what was read alone is unchanged.
        unsafe {
            std::ptr::copy_nonoverlapping(
                content.as_ptr(),
                copy.original.start as *mut u8,
                content.len(),
            )
        };
    }
    Ok(())
}

/// Runs a launch by the reference, on the memory itself.
pub fn perform(reference: &Library, launch: &Launch, threads: usize) -> Result<(), Error> {
    call_reference(reference, launch, threads, words_of(&launch.values, &[]))
}

fn run_reference(
    library: &Library,
    launch: &Launch,
    threads: usize,
) -> Result<Vec<Copied>, Error> {
    let copies = copies_of(&launch.values);
    call_reference(library, launch, threads, words_of(&launch.values, &copies))?;
    Ok(copies)
}

fn call_reference(
    library: &Library,
    launch: &Launch,
    threads: usize,
    words: Vec<u64>,
) -> Result<(), Error> {
    let body = library.ordered(launch.kernel)?;
    let mut pointers = pointers_to(&words);
    let mut shared = vec![0u128; launch.shared.div_ceil(16) + 1];
    let how = OrderedLaunch {
        begin: 0,
        end: launch.blocks,
        count: launch.blocks,
        shared: shared.as_mut_ptr().cast(),
        threads: threads as i64,
    };
    // SAFETY: the words are the kernel's arguments, as wide as its signature says.
    unsafe { body(pointers.as_mut_ptr(), &how) };
    Ok(())
}

fn run_lockstep(
    library: &Library,
    launch: &Launch,
    threads: usize,
    seed: u64,
) -> Result<Vec<Copied>, Error> {
    let body = library.threads(launch.kernel)?;
    let copies = copies_of(&launch.values);
    let words = words_of(&launch.values, &copies);
    let mut pointers = pointers_to(&words);
    let mut memory = Memory::default();
    for copy in &copies {
        let length = copy.content().len() as u64;
        let range = copy.address()..copy.address() + length;
        memory.add(Region::new(copy.name.clone(), range, copy.element, copy.written, false));
    }
    let mut setting = Setting {
        kernel: launch.kernel,
        body,
        arguments: &mut pointers,
        blocks: launch.blocks,
        threads,
        shared: launch.shared,
        program: library.bounds.clone(),
    };
    let mut random = Random(seed);
    let mut block = Block::new(memory);
    let mut order: Vec<usize> = (0..launch.blocks as usize).collect();
    random.shuffle(&mut order);
    for index in order {
        block.run(&mut setting, index as i64, |order| random.shuffle(order))?;
    }
    Ok(copies)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}
