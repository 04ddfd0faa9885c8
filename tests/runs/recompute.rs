//! Tests trading memory for time: activation checkpointing, and student passes run as one batch.

use udass_raw::data::loader::Loader;
use udass_raw::device::{Device, MemoryReport};
use udass_raw::run::train::initial_state;
use udass_raw::uda::report::Report;

use crate::support::settings;

/// Runs three iterations, the last two with QuadMix, with dropout on. Returns reports, all
/// gradients and state, and the memory used.
fn train(
    device: &Device,
    preset: &str,
    more: &[&str],
) -> (Vec<Report>, Vec<Vec<f32>>, MemoryReport) {
    let larger = ["data.crop=128", "network.hrda.detail_crop=64", "quadmix.resize=[256, 128]"];
    let more = ["quadmix.start=1", "source.resize=[256, 140]", "target.resize=[256, 128]"]
        .iter()
        .chain(&larger)
        .chain(more)
        .map(|set| set.to_string());
    let sets: Vec<String> = settings().into_iter().chain(more).collect();
    let config = udass_raw::config::Config::load(preset, &sets).unwrap();
    let mut training = initial_state::build(&config, device, None).unwrap();
    let mut loader = Loader::new(&config, 0).unwrap();
    let mut numbers = Vec::new();
    let mut reports = Vec::new();
    for iteration in 0..3 {
        reports.push(training.step(&loader.next().unwrap(), iteration).unwrap());
        let (student, teacher) = (&training.student, training.teacher.as_ref().unwrap());
        let all = [
            student.grads.as_ref().unwrap(),
            &student.values,
            &student.buffers,
            &teacher.values,
            &teacher.buffers,
        ];
        numbers.extend(all.map(|tensor| device.read_f32(tensor).unwrap()));
    }
    (reports, numbers, device.memory())
}

#[test]
fn recomputed_blocks_give_the_same_bits_in_less_memory() {
    for preset in ["toy_vit", "toy_cnn"] {
        let (reports, numbers, whole) = train(&Device::host(2).unwrap(), preset, &[]);
        assert!(reports.iter().all(|report| !report.failed), "{preset}");
        assert!(reports[2].terms.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg"));
        let (again, same, less) =
            train(&Device::host(2).unwrap(), preset, &["network.activation_checkpointing=true"]);
        assert_eq!(again, reports, "{preset}");
        for (i, (a, b)) in same.iter().zip(&numbers).enumerate() {
            let differ = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!(differ, 0, "{preset}: {i}, of {}", a.len());
        }
        // Excludes the state, which dominates at this size.
        let [less, whole] = [less, whole].map(|report| report.peak - report.used);
        assert!(4 * less < 3 * whole, "{preset}: {less} of {whole}");
    }
}

#[test]
fn joined_passes_give_the_same_numbers() {
    // Random drops of a larger batch differ.
    let still = ["network.drop_path=0"];
    let joined = ["network.drop_path=0", "network.batch_student_passes=true"];
    let device = || Device::host_f64().unwrap();
    let (reports, numbers, apart) = train(&device(), "toy_vit", &still);
    let (again, same, together) = train(&device(), "toy_vit", &joined);
    // Sums in another order differ in double precision; the reports are rounded to single
    // precision.
    for (report, again) in reports.iter().zip(&again) {
        assert!(!again.failed);
        for (a, b) in report.terms.iter().zip(&again.terms) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() <= 1e-6 * a.1.abs(), "{a:?}, joined {b:?}");
        }
    }
    for (i, (a, b)) in numbers.iter().zip(&same).enumerate() {
        let largest = a.iter().fold(0f32, |most, x| most.max(x.abs()));
        let differ = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(differ <= 1e-6 * largest, "{i}: by {differ} of {largest}");
    }
    assert!(together.peak > apart.peak);
    // Activation checkpointing works in batched passes as in separate ones.
    let checkpointed = [&joined[..], &["network.activation_checkpointing=true"]].concat();
    let (checkpointed, bits, _) = train(&device(), "toy_vit", &checkpointed);
    assert_eq!(checkpointed, again);
    assert!(bits == same);
    // A ResNet's passes stay separate.
    let of_a_resnet = |sets: &[&str]| train(&Device::host(2).unwrap(), "toy_cnn", sets);
    let ((reports, apart, _), (again, same, _)) = (of_a_resnet(&still), of_a_resnet(&joined));
    assert_eq!(again, reports);
    assert!(same == apart);
}
