//! Launches one kernel directly: the way from a signature in `kernels/*.cu` to a call in Rust.
//!
//! `KERNEL(add, const T* x, const T* y, T* z, bool relu, int64_t elements)` in kernels/elementwise.cu
//! becomes the struct `kernels::Add`. The same call runs on a GPU and, as here, on the CPU.

use udass_raw::device::{Device, kernels};

fn main() -> udass_raw::Result<()> {
    let device = Device::host(0)?;
    let x = device.upload_real(&[2, 3], &[1.0, -2.0, 3.0, -4.0, 5.0, -6.0])?;
    let y = device.upload_real(&[2, 3], &[0.5; 6])?;
    let mut z = device.empty(&[2, 3])?;

    let grid = device.elements(z.len());
    kernels::Add { x: &x, y: &y, z: &mut z, relu: true, elements: 6 }.launch(&device, grid)?;
    println!("relu(x + y) = {:?}", device.read_f32(&z)?);

    // Sizes are checked against the shapes in the signature before anything runs.
    let wrong = kernels::Add { x: &x, y: &y, z: &mut z, relu: true, elements: 7 };
    match wrong.launch(&device, grid) {
        Err(problem) => println!("refused: {problem}"),
        Ok(()) => unreachable!("seven elements do not fit six"),
    }
    Ok(())
}
