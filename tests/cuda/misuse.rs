//! Tests that the stand-in reports misuse that a real GPU would ignore, or answer with wrong
//! numbers much later.

use udass_raw::device::cuda::{Argument, Driver, Event, Graph, Launch, Stream};
use udass_raw::device::{Grid, LibraryOp, Matmul, Matrix, Types, kernels};
use udass_raw::tensor::DType;

use crate::stand_in::{StandIn, WORKSPACE};

const BYTES: usize = 256;

/// Returns a GPU, its stream, device memory and pinned memory.
fn gpu() -> (StandIn, Stream, u64, u64) {
    let gpu = StandIn::new();
    let stream = gpu.stream().unwrap();
    let device = gpu.allocate(BYTES).unwrap();
    let host = gpu.allocate_host(BYTES).unwrap();
    (gpu, stream, device, host)
}

#[track_caller]
fn told<T>(result: udass_raw::Result<T>) -> String {
    result.err().expect("was not noticed").to_string()
}

fn fill(address: u64, lent: usize, n: u64) -> Launch {
    let word = |word| Argument { word, bytes: None, written: false };
    let y = Argument { word: address, bytes: Some(lent), written: true };
    let arguments = vec![y, word(2f32.to_bits() as u64), word(n)];
    Launch { kernel: &kernels::FILL, types: Types::F32, grid: Grid::blocks(1), arguments }
}

#[test]
fn work_waits_for_its_stream() {
    let (gpu, stream, device, host) = gpu();
    gpu.launch(stream, &fill(device, 16, 4)).unwrap();
    gpu.copy_out(stream, device, host, 16).unwrap();
    assert_eq!(gpu.kernels(), Vec::<&str>::new(), "nothing runs before it is waited for");
    let mut read = [0u8; 16];
    let problem = told(gpu.read_host(host, &mut read));
    assert_eq!(problem, "read_host: before the stream was waited for: `copy_out`");
    gpu.synchronize(stream).unwrap();
    gpu.read_host(host, &mut read).unwrap();
    assert_eq!(bytemuck::cast_slice::<u8, f32>(&read), [2.0; 4]);
    assert_eq!(gpu.kernels(), ["fill"]);
}

#[test]
fn an_event_is_waited_for_and_no_more() {
    let (gpu, stream, device, host) = gpu();
    let event = gpu.event().unwrap();
    let problem = told(gpu.wait(event));
    assert_eq!(problem, "wait: event 0 was not recorded");
    gpu.write_host(host, &[7; 8]).unwrap();
    gpu.copy_in(stream, host, device, 8).unwrap();
    let problem = told(gpu.write_host(host, &[8; 4]));
    assert_eq!(problem, "write_host: `copy_in` has yet to use the memory");
    gpu.record(stream, event).unwrap();
    gpu.launch(stream, &fill(device + 64, 16, 4)).unwrap();
    gpu.wait(event).unwrap();
    gpu.write_host(host, &[8; 4]).unwrap();
    assert_eq!(gpu.kernels(), Vec::<&str>::new(), "the launch stands behind the event");
    assert_eq!(told(gpu.record(stream, Event(9))), "record: event 9 is not there");
}

#[test]
fn use_after_free() {
    let (gpu, stream, device, _) = gpu();
    gpu.free(device).unwrap();
    let problem = told(gpu.launch(stream, &fill(device, 16, 4)));
    assert_eq!(problem, format!("launch of fill: use of {device:#x} after it was freed"));
    assert_eq!(told(gpu.free(device)), format!("free: {device:#x} twice"));
    assert_eq!(told(gpu.zero(stream, 64, 8)), "zero: 0x40 is not allocated");
}

#[test]
fn use_of_a_tensor_after_it_was_given_back() {
    let (gpu, stream, device, host) = gpu();
    gpu.on_alloc(device, 64).unwrap();
    gpu.zero(stream, device, 64).unwrap();
    let problem = told(gpu.zero(stream, device, 65));
    assert_eq!(problem, "zero: runs 1 bytes over a tensor's end");
    gpu.on_free(device, 64);
    let problem = told(gpu.copy_out(stream, device, host, 64));
    assert_eq!(problem, format!("copy_out: use of {device:#x} after it was freed"));
}

#[test]
fn memory_freed_under_waiting_work() {
    let (gpu, stream, device, host) = gpu();
    gpu.copy_out(stream, device, host, 8).unwrap();
    assert_eq!(told(gpu.free(device)), "free: `copy_out` has yet to use the memory");
    assert_eq!(told(gpu.free_host(host)), "free_host: `copy_out` has yet to use the memory");
}

#[test]
fn fresh_and_freed_memory_is_poisoned() {
    let (gpu, stream, device, host) = gpu();
    let content = || {
        gpu.copy_out(stream, device, host, 16).unwrap();
        gpu.synchronize(stream).unwrap();
        let mut read = [0u8; 16];
        gpu.read_host(host, &mut read).unwrap();
        bytemuck::cast_slice::<u8, f32>(&read).to_vec()
    };
    gpu.on_alloc(device, 16).unwrap();
    assert!(content().iter().all(|x| x.is_nan()), "fresh");
    gpu.launch(stream, &fill(device, 16, 4)).unwrap();
    assert_eq!(content(), [2.0; 4]);
    gpu.on_free(device, 16);
    gpu.on_alloc(device, 16).unwrap();
    assert!(content().iter().all(|x| x.is_nan()), "freed");
}

#[test]
fn a_kernel_that_writes_past_its_tensor() {
    let (gpu, stream, device, _) = gpu();
    gpu.on_alloc(device, 16).unwrap();
    gpu.launch(stream, &fill(device, 16, 5)).unwrap();
    let problem = told(gpu.synchronize(stream));
    assert_eq!(problem, "launch of fill: wrote 0 bytes past a tensor's end");
}

#[test]
fn work_on_the_wrong_stream() {
    let (gpu, stream, device, _) = gpu();
    let problem = told(gpu.zero(Stream(3), device, 8));
    assert_eq!(problem, "zero: stream 3 is not this GPU's");
    let other = gpu.stream().unwrap();
    gpu.zero(stream, device, 64).unwrap();
    gpu.zero(other, device + 64, 64).unwrap();
    let problem = told(gpu.launch(other, &fill(device, 16, 4)));
    let wanted = "launch of fill: on stream 1, while `zero` on stream 0 has yet to use the memory";
    assert_eq!(problem, wanted);
    gpu.synchronize(stream).unwrap();
    gpu.launch(other, &fill(device, 16, 4)).unwrap();
}

#[test]
fn streams_that_wait_for_each_other() {
    let (gpu, stream, device, host) = gpu();
    let (other, third) = (gpu.side_stream().unwrap(), gpu.side_stream().unwrap());
    let [mine, theirs] = [gpu.event().unwrap(), gpu.event().unwrap()];
    assert_eq!(told(gpu.hold(other, mine)), "hold: event 0 was not recorded");
    gpu.zero(stream, device, 16).unwrap();
    gpu.record(stream, mine).unwrap();
    gpu.hold(other, mine).unwrap();
    gpu.launch(other, &fill(device, 16, 4)).unwrap();
    gpu.record(other, theirs).unwrap();
    // Waiting for an event does not cover work that was enqueued after it, but does cover earlier
    // work, even through another stream's event.
    gpu.zero(stream, device + 64, 16).unwrap();
    let problem = told(gpu.launch(other, &fill(device + 64, 16, 4)));
    assert!(problem.contains("while `zero` on stream 0 has yet to use the memory"), "{problem}");
    gpu.hold(third, theirs).unwrap();
    gpu.copy_out(third, device, host, 16).unwrap();
    assert!(!gpu.passed(mine).unwrap() && !gpu.passed(theirs).unwrap());
    gpu.synchronize(third).unwrap();
    assert!(gpu.passed(mine).unwrap() && gpu.passed(theirs).unwrap());
    assert_eq!(gpu.waiting_on(stream), 1);
    let mut read = [0u8; 16];
    gpu.read_host(host, &mut read).unwrap();
    assert_eq!(bytemuck::cast_slice::<u8, f32>(&read), [2.0; 4]);
}

#[test]
fn operands_of_products_are_watched() {
    let (gpu, stream, device, _) = gpu();
    gpu.on_alloc(device, 64).unwrap();
    gpu.on_alloc(device + 128, 16).unwrap();
    let matrix = |address, rows, cols| Matrix {
        address,
        dtype: DType::F32,
        rows,
        cols,
        row_stride: cols as isize,
        col_stride: 1,
    };
    let (a, b) = (matrix(device, 2, 4), matrix(device + 32, 4, 2));
    let out = matrix(device + 128, 2, 2);
    let fits = Matmul::plain(out, a, b, false);
    let space = gpu.allocate(WORKSPACE).unwrap();
    let product = |product| gpu.compute(stream, &LibraryOp::Matmul(product), 0, space);
    product(fits).unwrap();
    let bias = Matmul { bias: Some(device + 60), ..fits };
    assert_eq!(told(product(bias)), "product: runs 4 bytes over a tensor's end");
    let sums = Matmul { row_sums: Some(device + 140), ..fits };
    assert_eq!(told(product(sums)), "product: runs 4 bytes over a tensor's end");
    let over = Matmul { b: matrix(device + 48, 4, 2), ..fits };
    assert_eq!(told(product(over)), "product: runs 16 bytes over a tensor's end");
}

#[test]
fn what_holds_up_the_host_inside_a_capture() {
    let (gpu, stream, device, host) = gpu();
    let event = gpu.event().unwrap();
    gpu.record(stream, event).unwrap();
    gpu.begin_capture(stream).unwrap();
    assert_eq!(told(gpu.synchronize(stream)), "synchronize: inside a capture");
    assert_eq!(told(gpu.wait(event)), "wait: inside a capture");
    assert_eq!(told(gpu.passed(event)), "passed: inside a capture");
    assert_eq!(told(gpu.hold(stream, event)), "hold: inside a capture");
    assert_eq!(told(gpu.allocate(8)), "allocate: inside a capture");
    assert_eq!(told(gpu.allocate_host(8)), "allocate_host: inside a capture");
    assert_eq!(told(gpu.free(device)), "free: inside a capture");
    assert_eq!(told(gpu.free_host(host)), "free_host: inside a capture");
    assert_eq!(told(gpu.begin_capture(stream)), "begin_capture: inside a capture");
    assert_eq!(told(gpu.replay(stream, Graph(0))), "replay: inside a capture");
    gpu.copy_out(stream, device, host, 8).unwrap();
    let problem = told(gpu.read_host(host, &mut [0; 8]));
    assert_eq!(problem, "read_host: before the stream was waited for: `copy_out`");
    gpu.end_capture(stream).unwrap();
    assert_eq!(told(gpu.end_capture(stream)), "end_capture: nothing is captured on stream 0");
    assert_eq!(told(gpu.replay(stream, Graph(1))), "replay: graph 1 is not there");
}

#[test]
fn a_capture_runs_when_it_is_replayed_at_the_addresses_it_saw() {
    let (gpu, stream, device, host) = gpu();
    gpu.begin_capture(stream).unwrap();
    gpu.launch(stream, &fill(device, 16, 4)).unwrap();
    let graph = gpu.end_capture(stream).unwrap();
    gpu.zero(stream, device, 16).unwrap();
    let content = || {
        gpu.copy_out(stream, device, host, 16).unwrap();
        gpu.synchronize(stream).unwrap();
        let mut read = [0u8; 16];
        gpu.read_host(host, &mut read).unwrap();
        bytemuck::cast_slice::<u8, f32>(&read).to_vec()
    };
    assert_eq!(content(), [0.0; 4], "a capture runs nothing");
    gpu.replay(stream, graph).unwrap();
    assert_eq!(content(), [2.0; 4]);
    gpu.free(device).unwrap();
    let problem = told(gpu.replay(stream, graph));
    let wanted = format!("replay of launch of fill: use of {device:#x} after it was freed");
    assert_eq!(problem, wanted);
}

#[test]
fn a_replay_needs_the_tensors_it_was_recorded_with() {
    let (gpu, stream, device, _) = gpu();
    gpu.on_alloc(device, 16).unwrap();
    gpu.begin_capture(stream).unwrap();
    gpu.on_alloc(device + 128, 16).unwrap();
    gpu.launch(stream, &fill(device + 128, 16, 4)).unwrap();
    gpu.copy(stream, device + 128, device, 16).unwrap();
    gpu.on_free(device + 128, 16);
    let graph = gpu.end_capture(stream).unwrap();
    gpu.replay(stream, graph).unwrap();
    gpu.synchronize(stream).unwrap();
    // Memory that the capture lent must not belong to another tensor at replay.
    gpu.on_alloc(device + 120, 64).unwrap();
    let problem = told(gpu.replay(stream, graph));
    let wanted = format!("{:#x} was given to another tensor", device + 128);
    assert_eq!(problem, format!("replay of launch of fill: {wanted}"));
    gpu.on_free(device + 120, 64);
    gpu.replay(stream, graph).unwrap();
    gpu.on_free(device, 16);
    let problem = told(gpu.replay(stream, graph));
    assert_eq!(problem, format!("replay of copy: use of {device:#x} after it was freed"));
    gpu.discard(graph);
    assert_eq!(told(gpu.replay(stream, graph)), "replay: graph 0 is not there");
}

#[test]
fn memory_runs_out() {
    let gpu = StandIn::with_memory(1 << 20);
    let problem = told(gpu.allocate(3 << 20));
    assert_eq!(problem, "3 MiB are requested, 1 are free");
}
