//! Kernels that are not the program's own: a file with another version of one, compiled at run time
//! with the program's headers.

use std::path::Path;

use super::handle::Device;
use super::launch::Kernel;
use super::sources::SOURCES;
use crate::file::{MAX_TEXT, read_text};
use crate::{Error, Result};

impl Device {
    /// Compiles another version of `kernel`: a file with a `KERNEL(name, …)` of the same name and
    /// types of parameters, which may include the headers in `kernels/`. A GPU's code is compiled by
    /// NVRTC when the kernel is first launched, the host's by the C++ compiler at once. What is
    /// loaded stays in memory to the end of the process.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if the file has no such kernel or does not compile;
    /// [`Error::Device`] if the device has no compiler.
    ///
    /// # Safety
    /// The file's code runs in this process. It must stay within the tensors that the signature of
    /// the kernel declares.
    pub unsafe fn compile_kernel(
        &self,
        kernel: &'static Kernel,
        file: &Path,
    ) -> Result<&'static Kernel> {
        let text = read_text(file, MAX_TEXT).map_err(|e| Error::io(file, "read", e))?;
        let own = SOURCES.iter().find(|(name, _)| *name == kernel.file).map(|(_, text)| *text);
        let wanted = own.and_then(|text| signature(text, kernel.name)).unwrap_or_default();
        let Some(found) = signature(&text, kernel.name) else {
            let name = kernel.name;
            let problem =
                format!("has no KERNEL({name}, …), which would take {}", wanted.join(", "));
            return Err(Error::data(file, problem));
        };
        if found != wanted {
            let problem = format!(
                "its {} takes {}; the program launches it with {}",
                kernel.name,
                found.join(", "),
                wanted.join(", ")
            );
            return Err(Error::data(file, problem));
        }
        self.0.backend.compile_kernel(kernel, self.0.types, file, text)
    }
}

/// Returns the types of a kernel's parameters in a source file.
fn signature(source: &str, kernel: &str) -> Option<Vec<String>> {
    let source = without_comments(source);
    let mut rest = source.as_str();
    loop {
        let (_, after) = rest.split_once("KERNEL(")?;
        rest = after;
        let (name, parameters) = after.split_once(',')?;
        if name.trim() != kernel {
            continue;
        }
        let end = parameters.find(')')?;
        return Some(parameters[..end].split(',').map(type_of).collect());
    }
}

/// Returns the type in a parameter's declaration: all but its name, and without the mark of a
/// pointer that may be null.
fn type_of(parameter: &str) -> String {
    let spaced = parameter.replace('*', " * ");
    let mut words: Vec<&str> = spaced.split_whitespace().filter(|w| *w != "OPTIONAL").collect();
    words.pop();
    words.join(" ").replace(" *", "*")
}

fn without_comments(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        text.push_str(&rest[..at]);
        text.push(' ');
        let end = if rest[at..].starts_with("//") { "\n" } else { "*/" };
        rest = rest[at + 2..].split_once(end).map_or("", |(_, rest)| rest);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Precision;
    use crate::device::kernels::ALL;

    #[test]
    fn every_kernel_has_as_many_types_as_parameters() {
        for kernel in ALL {
            let (_, source) = SOURCES.iter().find(|(file, _)| *file == kernel.file).unwrap();
            let types = signature(source, kernel.name).unwrap();
            assert_eq!(types.len(), kernel.parameters.len(), "{}", kernel.name);
            let known = ["T", "real", "uint8_t", "int32_t", "int64_t", "uint64_t", "bool"];
            for one in types {
                let base = one.trim_start_matches("const ").trim_end_matches('*');
                assert!(known.contains(&base), "{}: {one}", kernel.name);
            }
        }
    }

    #[test]
    fn names_comments_and_line_breaks_do_not_matter() {
        let ours = "// a\nKERNEL(add,\n  const T* x /* n */, T *y /* n,(2) */, int64_t n) {}";
        let theirs =
            "KERNEL(sub, int64_t n) {} KERNEL( add , const T *a, T* OPTIONAL b, int64_t c) {";
        assert_eq!(signature(ours, "add"), signature(theirs, "add"));
        assert_eq!(signature(ours, "add").unwrap(), ["const T*", "T*", "int64_t"]);
        assert_eq!(signature(theirs, "mul"), None);
    }

    #[test]
    fn a_file_without_the_kernel_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cu");
        let device = Device::host_in(1, Precision::F32).unwrap();
        let fill = ALL.iter().find(|kernel| kernel.name == "fill").unwrap();
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            // SAFETY: nothing is launched.
            unsafe { device.compile_kernel(fill, &path) }.unwrap_err().to_string()
        };
        let told = refused("KERNEL(full, real* y, real value, int64_t n) {}");
        assert!(
            told.contains("has no KERNEL(fill, …), which would take real*, real, int64_t"),
            "{told}"
        );
        let told = refused("KERNEL(fill, real* y, int64_t n, real value) {}");
        assert!(told.contains("its fill takes real*, int64_t, real; the program"), "{told}");
        let told = refused("KERNEL(fill, real* y, real value, int64_t n) { nonsense; }");
        assert!(told.contains("nonsense"), "{told}");
    }
}
