//! What to do when inference runs out of memory.

use crate::Result;
use crate::config::EvalConfig;

/// Windows are suggested to be at least this large.
const SMALLEST_WINDOW: usize = 256;

/// Appends settings with which inference needs less memory to an out-of-memory error.
pub fn with_advice<R>(result: Result<R>, config: &EvalConfig) -> Result<R> {
    result.map_err(|error| error.with_less_memory(|| settings(config)))
}

fn settings(config: &EvalConfig) -> Vec<String> {
    let mut settings = Vec::new();
    if config.batch > 1 {
        settings.push(format!("eval.batch = {} (the same numbers)", config.batch / 2));
    }
    match config.window {
        0 => settings.push("eval.window = 1024 instead of the whole image at once".into()),
        window if window > SMALLEST_WINDOW => {
            let half = window / 2;
            settings.push(format!("eval.window = {half}, with eval.stride = {}", half / 2));
        }
        _ => {}
    }
    let [width, height] = config.resize.map(|side| side / 2);
    settings.push(format!("smaller images (eval.resize = [{width}, {height}], `--resize`)"));
    settings.push("`--device host`".into());
    settings
}
