//! Faults of kernels. A kernel fails after its launch has returned, and from then on every call on
//! its context returns the same error: what is told then is which kernels were launched before.

use std::cell::RefCell;
use std::collections::VecDeque;

use cudarc::driver::sys::CUresult;

/// Number of launches that are remembered.
const REMEMBERED: usize = 8;

thread_local! {
    /// Names of the last launches that have not been waited for, oldest first.
    static LAUNCHED: RefCell<VecDeque<&'static str>> = RefCell::default();
}

/// Remembers a launch.
pub fn launched(name: &'static str) {
    LAUNCHED.with_borrow_mut(|names| {
        if names.len() == REMEMBERED {
            names.pop_front();
        }
        names.push_back(name);
    });
}

/// Forgets the launches: all of them have finished without a fault.
pub fn finished() {
    LAUNCHED.with_borrow_mut(VecDeque::clear);
}

/// Returns whether an error is the fault of a kernel, after which the context cannot be used.
pub fn is_fault(status: CUresult) -> bool {
    matches!(
        status,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
    )
}

/// Returns what to add to the message of a fault.
pub fn advice() -> String {
    possible() + ". Nothing else can run on the GPU in this process"
}

/// Returns what to add to the message of an error that may be the fault of an earlier kernel.
pub fn possible() -> String {
    let names = LAUNCHED.with_borrow(|names| names.iter().copied().collect::<Vec<_>>());
    let blocking = std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value == "1");
    let launches = match &names[..] {
        [] => String::new(),
        [only] => format!(". The last launch before it was {only}"),
        several => format!(". The last launches before it were {}", several.join(", ")),
    };
    let blocked = match blocking {
        true => "",
        false => {
            ". With CUDA_LAUNCH_BLOCKING=1 in the environment and device.cuda_graph = false, the \
             error comes from the launch that failed"
        }
    };
    launches + blocked
}
