//! Calls into NVIDIA's libraries.

use std::mem::transmute_copy;

/// Calls a function at the address that it has in the library that was checked: `call!(DRIVER,
/// sys::cuInit(0))`. Its signature is that of cudarc's function of the same name, which is not
/// called.
macro_rules! call {
    ($library:ident, $sys:ident::$function:ident($($argument:expr),* $(,)?)) => {{
        static ADDRESS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let library = &$crate::device::cuda::nvidia::libraries::$library;
        let address = *ADDRESS.get_or_init(|| library.address(stringify!($function)));
        let declared: unsafe fn($(any_type!($argument)),*) -> _ = $sys::$function;
        $crate::device::cuda::nvidia::call::at(address, declared)($($argument),*)
    }};
}

/// The type of an argument, which the compiler infers.
macro_rules! any_type {
    ($argument:expr) => {
        _
    };
}

/// A function as cudarc declares it.
pub(super) trait Declared {
    /// The library's function.
    type Function;
}

macro_rules! declare {
    ($($argument:ident)*) => {
        impl<R, $($argument),*> Declared for unsafe fn($($argument),*) -> R {
            type Function = unsafe extern "C" fn($($argument),*) -> R;
        }
    };
}

declare!();
declare!(A);
declare!(A B);
declare!(A B C);
declare!(A B C D);
declare!(A B C D E);
declare!(A B C D E F);
declare!(A B C D E F G);
declare!(A B C D E F G H);
declare!(A B C D E F G H I);
declare!(A B C D E F G H I J);
declare!(A B C D E F G H I J K);
declare!(A B C D E F G H I J K L M N O P);

/// Returns the function at an address, as `declared` describes it.
///
/// # Safety
/// The function at the address has the declared signature.
pub(super) unsafe fn at<D: Declared>(address: usize, _declared: D) -> D::Function {
    // SAFETY: a function pointer is as large as an address, and the caller guarantees its type.
    unsafe { transmute_copy(&address) }
}
