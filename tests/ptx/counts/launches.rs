//! The launches of an iteration, as a device without memory counts them.

use std::collections::HashMap;

use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::device::profile::{Argument, Launch, Work};
use udass_raw::run::build;
use udass_raw::run::profile::Synthetic;

/// Returns the distinct launches of an iteration, each with how often it is made.
pub fn of(preset: &str, changes: &[String]) -> Vec<(Launch, usize)> {
    let config = Config::load_with(preset, None, changes).unwrap();
    let device = Device::dry(build::precision(&config).unwrap());
    let mut training = Synthetic::new(&device, &config).unwrap();
    let (result, profile) = device.profile(|| training.step()).unwrap();
    result.unwrap();
    let mut found: HashMap<String, usize> = HashMap::new();
    let mut launches: Vec<(Launch, usize)> = Vec::new();
    for call in profile.calls {
        let Work::Kernel(launch) = call.work else { continue };
        // Random numbers and rates change no count.
        let arguments: Vec<&Argument> = (launch.arguments.iter())
            .filter(|argument| !matches!(argument, Argument::U64(_) | Argument::Real(_)))
            .collect();
        let key = format!("{} {:?} {arguments:?}", launch.kernel.name, launch.grid);
        let at = *found.entry(key).or_insert(launches.len());
        match launches.get_mut(at) {
            Some((_, calls)) => *calls += 1,
            None => launches.push((launch, 1)),
        }
    }
    launches
}
