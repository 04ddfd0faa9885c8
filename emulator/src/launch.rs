//! Runs one launch in the block emulator and by its reference, on copies of the same memory.

use std::ffi::c_void;
use std::ops::Range;

use crate::block::{Block, Setting};
use crate::error::Error;
use crate::library::{Library, OrderedLaunch};
use crate::memory::{Memory, Region};

/// Guard bytes around a copy, so that an out-of-bounds access does not damage other memory.
const GUARD: usize = 4096;

/// A tensor passed to a kernel.
#[derive(Clone, Debug)]
pub struct Argument {
    /// Name of the parameter.
    pub name: &'static str,
    /// Address of the first element.
    pub address: u64,
    /// Size of the tensor.
    pub bytes: usize,
    /// Bytes of an element.
    pub element: usize,
    /// The kernel may write it.
    pub written: bool,
    /// It holds f32 numbers, which a kernel built for bf16 takes as bf16.
    pub operand: bool,
}

/// An argument of a launch.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor.
    Pointer(Argument),
    /// An optional tensor that is absent.
    Null,
    /// A scalar, in the low bytes.
    Word(u64),
}

/// A kernel, its arguments and its grid.
pub struct Launch<'a> {
    /// Name of the kernel.
    pub kernel: &'a str,
    /// Arguments in the order of the signature.
    pub values: Vec<Value>,
    /// Number of blocks in the grid.
    pub blocks: i64,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// The libraries are built for bf16: operands are rounded to it.
    pub bf16: bool,
}

impl Launch<'_> {
    /// Returns whether operands can be rounded to bf16: there are some, and none shares memory with
    /// an argument that keeps its type.
    pub fn can_be_bf16(&self) -> bool {
        let arguments = || {
            self.values.iter().filter_map(|value| match value {
                Value::Pointer(argument) => Some(argument),
                _ => None,
            })
        };
        let apart = |a: &Argument, b: &Argument| {
            a.address + a.bytes as u64 <= b.address || b.address + b.bytes as u64 <= a.address
        };
        let mut pairs = arguments().flat_map(|a| arguments().map(move |b| (a, b)));
        arguments().any(|a| a.operand) && pairs.all(|(a, b)| a.operand == b.operand || apart(a, b))
    }
}

/// A copy of the memory that one or more arguments point into.
struct Copied {
    original: Range<u64>,
    /// Names of its arguments, and their common properties.
    name: String,
    element: usize,
    written: bool,
    /// The copy is in bf16 and half as large as the original.
    halved: bool,
    /// The copy with guards around it, aligned like the arena's tensors.
    storage: Vec<u8>,
    start: usize,
}

impl Copied {
    fn content(&self) -> &[u8] {
        let length = self.offset_of(self.original.end) as usize;
        &self.storage[self.start..self.start + length]
    }

    /// Returns the offset in the copy that belongs to an address of the original.
    fn offset_of(&self, address: u64) -> u64 {
        (address - self.original.start) >> u32::from(self.halved)
    }

    fn address(&self) -> u64 {
        self.content().as_ptr() as u64
    }
}

/// Runs a launch in the block emulator, in blocks of `threads` and with the order of threads and
/// blocks that `seed` determines, and by the reference. Both must leave the same bits in memory.
///
/// # Errors
/// Returns an error if a thread breaks a rule, or if the results differ.
pub fn compare(
    emulator: &Library,
    reference: &Library,
    launch: &Launch,
    threads: usize,
    seed: u64,
) -> Result<(), Error> {
    let expected = run_reference(reference, launch, threads)?;
    let got = run_emulated(emulator, launch, threads, seed)?;
    for (expected, got) in expected.iter().zip(&got) {
        let (e, g) = (expected.content(), got.content());
        if let Some(byte) = (0..e.len()).find(|&i| e[i] != g[i]) {
            let at = byte / expected.element * expected.element;
            let number = |bytes: &[u8]| number_of(&bytes[at..at + expected.element]);
            let differing = e.chunks(expected.element).zip(g.chunks(expected.element));
            return Err(Error::Difference(format!(
                "{}: `{}`[{}] is {}, the serial build gives {} ({} of {} elements differ)",
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
        [a, b] => format!("{:e}", f32::from_bits((u16::from_ne_bytes([a, b]) as u32) << 16)),
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

/// Copies what the arguments point to; overlapping arguments share a copy.
fn copies_of(launch: &Launch) -> Vec<Copied> {
    let mut pointers: Vec<&Argument> = (launch.values.iter())
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
                halved: launch.bf16 && argument.operand,
                storage: Vec::new(),
                start: 0,
            }),
        }
    }
    for copy in &mut copies {
        let length = (copy.original.end - copy.original.start) as usize;
        // SAFETY: the arguments are live tensors of the caller, which nothing writes meanwhile.
        let original =
            unsafe { std::slice::from_raw_parts(copy.original.start as *const u8, length) };
        let content = match copy.halved {
            true => original.as_chunks().0.iter().flat_map(|&x| bf16(x).to_ne_bytes()).collect(),
            false => original.to_vec(),
        };
        copy.element >>= u32::from(copy.halved);
        copy.storage = vec![0xFF; content.len() + 2 * GUARD + 64];
        let address = copy.storage.as_ptr() as usize + GUARD;
        copy.start = GUARD + address.next_multiple_of(64) - address;
        copy.storage[copy.start..copy.start + content.len()].copy_from_slice(&content);
    }
    copies
}

/// Rounds an f32 to bf16: to nearest, ties to even.
fn bf16(x: [u8; 4]) -> u16 {
    let bits = u32::from_ne_bytes(x);
    if f32::from_bits(bits).is_nan() {
        0x7FFF
    } else {
        ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
    }
}

/// Returns the argument words of a launch on copies of its memory.
fn words_of(values: &[Value], copies: &[Copied]) -> Vec<u64> {
    let word = |value: &Value| match value {
        Value::Word(word) => *word,
        Value::Null => 0,
        Value::Pointer(argument) => {
            let home = copies.iter().find(|copy| copy.original.contains(&argument.address));
            home.map_or(argument.address, |copy| copy.address() + copy.offset_of(argument.address))
        }
    };
    values.iter().map(word).collect()
}

fn pointers_to(words: &[u64]) -> Vec<*mut c_void> {
    words.iter().map(|word| word as *const u64 as *mut c_void).collect()
}

/// Runs a launch in the block emulator and copies the results to the original memory.
///
/// # Errors
/// Returns an error if a thread breaks a rule.
pub fn watch(emulator: &Library, launch: &Launch, threads: usize, seed: u64) -> Result<(), Error> {
    for copy in run_emulated(emulator, launch, threads, seed)? {
        let content = copy.content();
        // SAFETY: the range is that of a live tensor of the caller, and the copy is separate
        // memory. Tensors that the kernel only reads are overwritten by equal bytes.
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

/// Runs a launch by the reference, on the original memory.
///
/// # Errors
/// Returns an error if the library lacks the kernel.
pub fn perform(reference: &Library, launch: &Launch, threads: usize) -> Result<(), Error> {
    call_reference(reference, launch, threads, words_of(&launch.values, &[]))
}

fn run_reference(library: &Library, launch: &Launch, threads: usize) -> Result<Vec<Copied>, Error> {
    let copies = copies_of(launch);
    call_reference(library, launch, threads, words_of(&launch.values, &copies))?;
    Ok(copies)
}

/// Bytes that shared memory is aligned to: a pack of four double-precision numbers takes 32.
const LINE: usize = 64;

#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

fn call_reference(
    library: &Library,
    launch: &Launch,
    threads: usize,
    words: Vec<u64>,
) -> Result<(), Error> {
    let body = library.ordered(launch.kernel)?;
    let mut pointers = pointers_to(&words);
    let mut shared = vec![Line([0; LINE]); launch.shared.div_ceil(LINE) + 1];
    let how = OrderedLaunch {
        begin: 0,
        end: launch.blocks,
        count: launch.blocks,
        shared: shared.as_mut_ptr().cast(),
        threads: threads as i64,
    };
    // SAFETY: the words are the arguments of this kernel, each as wide as its signature says, and
    // `shared` is as large as the launch requires.
    unsafe { body(pointers.as_mut_ptr(), &how) };
    Ok(())
}

fn run_emulated(
    library: &Library,
    launch: &Launch,
    threads: usize,
    seed: u64,
) -> Result<Vec<Copied>, Error> {
    let body = library.threads(launch.kernel)?;
    let copies = copies_of(launch);
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
