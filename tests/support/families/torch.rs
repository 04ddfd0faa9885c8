//! PyTorch files: every tensor of each must be bit-identical.

use safetensors::Dtype;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::device::Device;

use super::said;
use crate::support::cases::{Outcome, folder, numbers};
use crate::support::report::Report;

fn called(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F64 => "float64",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::I64 => "int64",
        Dtype::I32 => "int32",
        Dtype::I16 => "int16",
        Dtype::I8 => "int8",
        Dtype::U8 => "uint8",
        Dtype::BOOL => "bool",
        _ => "another type",
    }
}

/// Reads the files that the case names; each contains all of its tensors.
pub fn files(report: &mut Report, _: &Device) -> Outcome {
    let case = report.case();
    let names: Vec<String> = case.read(&["files"])?;
    report.require("files are named", !names.is_empty());
    for name in names {
        let file = TensorFile::open(folder().join(&name)).map_err(said)?;
        let none = file.skipped().is_empty();
        report.require(&format!("{name}: nothing is skipped"), none);
        for (key, entry) in &case.tensors {
            let info = file.find(key).ok_or_else(|| format!("{name} lacks {key}"))?;
            let dtype = called(info.dtype);
            report.require(&format!("{name}: {key} is {}", entry.dtype), dtype == entry.dtype);
            let values = numbers(info.dtype, &file.data(info).map_err(said)?)?;
            report.compare(key, &info.shape, &values);
        }
    }
    Ok(())
}
