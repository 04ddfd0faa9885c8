//! What to do when training runs out of memory.

use crate::Result;
use crate::config::Config;

/// Appends settings with which training needs less memory to an out-of-memory error. `captured`
/// says whether iterations are captured as CUDA graphs.
pub fn with_advice<R>(result: Result<R>, config: &Config, captured: bool) -> Result<R> {
    result.map_err(|error| error.with_less_memory(|| settings(config, captured)))
}

fn settings(config: &Config, captured: bool) -> Vec<String> {
    let (network, data) = (&config.network, &config.data);
    let mut settings = Vec::new();
    if network.batch_student_passes && network.backbone.starts_with("mit") {
        settings.push("network.batch_student_passes = false (slower)".to_string());
    }
    if !network.activation_checkpointing {
        settings
            .push("network.activation_checkpointing = true (slower, the same numbers)".to_string());
    }
    if captured {
        settings.push("device.cuda_graph = false (up to an eighth)".to_string());
    }
    if data.batch > 1 {
        settings.push(format!("data.batch = {} instead of {}", data.batch / 2, data.batch));
    }
    let crop = format!("data.crop = {} instead of {}", data.crop / 128 * 64, data.crop);
    settings.push(match network.hrda.enabled {
        true => format!("{crop}, with network.hrda.detail_crop = {}", data.crop / 128 * 32),
        false => crop,
    });
    settings
}
