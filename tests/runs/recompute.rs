//! Blocks that run again on the way back: the same bits, in less memory.

use udass_raw::data::loader::Loader;
use udass_raw::device::{Device, MemoryReport};
use udass_raw::run::build;
use udass_raw::uda::inputs::StepInputs;
use udass_raw::uda::step::Report;

use crate::support::settings;

/// Three iterations, the last two mixing four ways, dropping on: reports, all gradients and state, and
/// what memory they took.
fn train(preset: &str, more: &[&str]) -> (Vec<Report>, Vec<Vec<f32>>, MemoryReport) {
    let larger = ["data.crop=128", "network.hrda.detail_crop=64", "quadmix.resize=[256, 128]"];
    let more = ["quadmix.start=1", "source.fit=[256, 140]", "target.fit=[256, 128]"]
        .iter()
        .chain(&larger)
        .chain(more)
        .map(|set| set.to_string());
    let sets: Vec<String> = settings().into_iter().chain(more).collect();
    let config = udass_raw::config::Config::load(preset, &sets).unwrap();
    let device = Device::host(2).unwrap();
    let mut learner = build::learner(&config, &device, None).unwrap();
    let mut loader = Loader::new(&config, 0).unwrap();
    let mut numbers = Vec::new();
    let mut reports = Vec::new();
    for iteration in 0..3 {
        let batch = learner.upload(&loader.next().unwrap()).unwrap();
        reports.push(learner.step(&batch, &StepInputs::draw(&config, iteration), None).unwrap());
        let (student, teacher) = (&learner.student, learner.teacher.as_ref().unwrap());
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
        let (reports, numbers, whole) = train(preset, &[]);
        assert!(reports.iter().all(|report| !report.failed), "{preset}");
        assert!(reports[2].terms.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg"));
        let (again, same, less) = train(preset, &["network.recompute=true"]);
        assert_eq!(again, reports, "{preset}");
        for (i, (a, b)) in same.iter().zip(&numbers).enumerate() {
            let differ = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!(differ, 0, "{preset}: {i}, of {}", a.len());
        }
        // Beside the state, which is most of it at this size.
        let [less, whole] = [less, whole].map(|report| report.peak - report.used);
        assert!(4 * less < 3 * whole, "{preset}: {less} of {whole}");
    }
}
