//! Converts the optimizer and schedule settings of the configuration to those of the engine.

use crate::config::{OptimizerConfig, ScheduleConfig};
use crate::optimizer::{AdamWSettings, Schedule};

impl From<&OptimizerConfig> for AdamWSettings {
    fn from(config: &OptimizerConfig) -> AdamWSettings {
        let OptimizerConfig { betas, eps, weight_decay, .. } = *config;
        AdamWSettings { betas, eps, weight_decay }
    }
}

impl From<&ScheduleConfig> for Schedule {
    fn from(config: &ScheduleConfig) -> Schedule {
        let ScheduleConfig { warmup, warmup_ratio, end } = *config;
        Schedule { warmup, warmup_ratio, end }
    }
}
