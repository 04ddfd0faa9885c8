//! Tests the formula against known values, and the recorded draws of training iterations against
//! what the stored iterations computed from them.

mod support;

use support::cases::{Case, folder, read_folder};
use support::formula::{bits, image, label, name_hash, scaled_weight, unit, weight};
use support::report::Report;
use support::uda::{Choice, Iteration, Mix, QuadMix, RareCrop, iterations};

/// Key, shape and index; then the hash, bits and value of that element.
type Known = (&'static str, &'static [usize], usize, u64, u64, f64);

#[test]
fn weights_are_the_known_ones() {
    let known: [Known; 6] = [
        (
            "backbone.patch_embed1.proj.weight",
            &[32, 3, 7, 7],
            0,
            0xac71c8a78e26c1b8,
            0x4d7962fd933b845a,
            -0.05639045685529709,
        ),
        (
            "backbone.patch_embed1.proj.weight",
            &[32, 3, 7, 7],
            4703,
            0xac71c8a78e26c1b8,
            0xf9c4ede8939264bf,
            0.13590316474437714,
        ),
        (
            "decode_head.head.conv_seg.weight",
            &[19, 256, 1, 1],
            4863,
            0xe0489b8fd4ae1faa,
            0x3db5453ec1c1eca2,
            -0.05606492608785629,
        ),
        (
            "backbone.norm1.weight",
            &[32],
            3,
            0x6643266ef22ba453,
            0x701c0525532f9b66,
            0.9875854849815369,
        ),
        (
            "decode_head.head.conv_seg.bias",
            &[19],
            18,
            0x34f1ea2eb17f31f7,
            0x0e8bcfc61f927fa3,
            -0.04431791976094246,
        ),
        (
            "backbone.layer1.0.bn1.running_mean",
            &[64],
            7,
            0x66774364a383e918,
            0x3fdf7c557ca088af,
            -0.05009923130273819,
        ),
    ];
    for (key, shape, i, hash, x, value) in known {
        assert_eq!(name_hash(key), hash, "{key}");
        assert_eq!(bits(hash, i), x, "{key} at {i}");
        assert_eq!(f64::from(weight(key, shape).unwrap()[i]), value, "{key} at {i}");
    }
    let variance = weight("backbone.layer1.0.bn1.running_var", &[64]).unwrap()[7];
    assert_eq!(f64::from(variance), 1.0786014795303345);
    assert_eq!(weight("backbone.layer1.0.bn1.num_batches_tracked", &[]), None);
}

#[test]
fn a_scale_multiplies_the_rounded_weight() {
    let key = "decode_head.head.conv_seg.weight";
    let plain = weight(key, &[19, 256, 1, 1]).unwrap();
    let scale = [("conv_seg.weight".to_string(), 14.0), ("bn3".to_string(), 0.2)];
    let scaled = scaled_weight(key, &[19, 256, 1, 1], &scale).unwrap();
    assert!(plain.iter().zip(&scaled).all(|(a, b)| a * 14.0 == *b));
    let bias = "decode_head.head.conv_seg.bias";
    assert_eq!(scaled_weight(bias, &[19], &scale), weight(bias, &[19]));
}

#[test]
fn inputs_are_the_known_ones() {
    let pixels = image("input/demo/img", 3 * 32 * 32);
    assert_eq!(f64::from(pixels[1000]), -0.15094590187072754);
    let share = unit("input/demo/img", 1001)[1000];
    assert_eq!(f64::from(share), (-0.07547295093536377 + 1.0) / 2.0);
    assert_eq!(support::formula::bytes("input/demo/img", 1001)[1000], 0x76);
    let map = label("input/demo/label", [2, 64, 64], 16, &[]);
    let known: [[u8; 16]; 2] = [
        [3, 2, 5, 10, 9, 4, 0, 12, 17, 11, 255, 11, 17, 10, 4, 6],
        [13, 0, 15, 8, 7, 255, 5, 8, 15, 17, 9, 8, 17, 16, 2, 18],
    ];
    for (i, &class) in map.iter().enumerate() {
        let (image, y, x) = (i / 4096, i / 64 % 64, i % 64);
        assert_eq!(class, known[image][y / 16 * 4 + x / 16], "image {image} at {y},{x}");
    }
}

#[test]
fn blocks_of_a_label_are_cut_at_the_border() {
    let map = label("input/demo/label", [1, 20, 33], 16, &[7, 9]);
    assert_eq!(map.len(), 20 * 33);
    let h = name_hash("input/demo/label");
    let class = |k: usize| [7, 9][(bits(h, k) % 2) as usize];
    assert_eq!(map[0], class(0));
    assert_eq!(map[32], class(2));
    assert_eq!(map[19 * 33 + 32], class(5));
}

#[test]
fn sequential_draws_make_the_recorded_choice() {
    let choice = Choice { n: 12, positions: vec![10, 4, 11, 0] };
    let mut left: Vec<usize> = (0..12).collect();
    for (u, want) in choice.uniforms().into_iter().zip(&choice.positions) {
        let at = (u * left.len() as f64).floor() as usize;
        assert_eq!(left.remove(at), *want);
    }
}

/// Returns the iterations that are stored here; another folder may have none. SePiCo's have draws of
/// their own, which their family reads.
fn uda_cases() -> Vec<Case> {
    let cases = read_folder(&folder()).expect("the stored cases can be read");
    cases.into_iter().filter(|c| c.name.contains("_uda_") && !c.name.contains("sepico")).collect()
}

#[test]
fn the_draws_of_every_stored_iteration_are_understood() {
    for case in uda_cases() {
        let all = iterations(&case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for Iteration { draws, rates, .. } in &all {
            let [height, width]: [usize; 2] = case.read(&["hr_crop"]).unwrap();
            let mut boxes = vec![draws.source_detail, draws.masked_detail];
            match &draws.mix {
                Mix::Class(mix) => boxes.push(mix.detail),
                Mix::Quad(mix) => boxes.extend([mix.tss_detail, mix.tst_detail]),
            }
            for [y1, y2, x1, x2] in boxes {
                assert_eq!([y2 - y1, x2 - x1], [height, width], "{}", case.name);
            }
            assert!((rates[1] / rates[0] - 10.0).abs() < 1e-12, "{}", case.name);
        }
    }
}

/// The label inputs of a stored single iteration.
struct Labels {
    case: Case,
    size: usize,
    draws: support::uda::UdaDraws,
}

impl Labels {
    fn all() -> Vec<Labels> {
        let single = |c: &Case| c.config.get("local_iter").is_some();
        let labels = |case: Case| {
            let size = case.read(&["size"]).unwrap();
            let draws = iterations(&case).unwrap().remove(0).draws;
            Labels { case, size, draws }
        };
        uda_cases().into_iter().filter(single).map(labels).collect()
    }

    /// Returns each image's map in a stored tensor.
    fn maps(&self, key: &str) -> Vec<Vec<u8>> {
        let values = Report::new(&self.case).unwrap().recorded(key).unwrap();
        let bytes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
        bytes.chunks(self.size * self.size).map(<[u8]>::to_vec).collect()
    }
}

fn classes_in<'a>(maps: impl IntoIterator<Item = &'a u8>) -> Vec<u8> {
    let mut present = [false; 256];
    maps.into_iter().for_each(|&class| present[usize::from(class)] = true);
    (0..=255).filter(|&class| present[usize::from(class)]).collect()
}

fn paste(over: &[u8], from: &[u8], classes: &[u8]) -> Vec<u8> {
    let pick = |(&o, &f): (&u8, &u8)| if classes.contains(&f) { f } else { o };
    over.iter().zip(from).map(pick).collect()
}

#[test]
fn class_choices_mix_the_stored_labels() {
    for labels in Labels::all() {
        let Mix::Class(mix) = &labels.draws.mix else { continue };
        let source = labels.maps("in/label");
        let target = labels.maps("teacher/plabel");
        let classes = classes_in(source.iter().flatten());
        for (i, choice) in mix.classes.iter().enumerate() {
            assert_eq!(choice.n, classes.len());
            let mixed = paste(&target[i], &source[i], &choice.of(&classes));
            assert!(mixed == labels.maps("mix/label")[i], "{} image {i}", labels.case.name);
        }
    }
}

/// Resizes with nearest neighbor as PIL does it, crops, and maps raw ids to training ids.
fn rare_label(labels: &Labels, crop: &RareCrop) -> Vec<u8> {
    const RAW: [u8; 19] =
        [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
    let key = format!("src/{}/rawlabel", crop.file);
    let [h, w] = labels.case.entry(&key).unwrap().shape[..] else { panic!("{key} is no map") };
    let raw = Report::new(&labels.case).unwrap().input_bytes(&key).unwrap();
    let [wide, high]: [usize; 2] = labels.case.read(&["rand_mixer", "resize_wh"]).unwrap();
    let from = |at: usize, n: usize, to: usize| ((at as f64 + 0.5) * n as f64 / to as f64) as usize;
    let mut out = Vec::new();
    for y in crop.y..crop.y + labels.size {
        for x in crop.x..crop.x + labels.size {
            let id = raw[from(y, h, high) * w + from(x, w, wide)];
            out.push(RAW.iter().position(|&r| r == id).map_or(255, |train| train as u8));
        }
    }
    out
}

#[test]
fn quad_choices_mix_the_stored_labels() {
    for labels in Labels::all() {
        let Mix::Quad(mix) = &labels.draws.mix else { continue };
        check_quad(&labels, mix);
    }
}

fn check_quad(labels: &Labels, mix: &QuadMix) {
    let name = &labels.case.name;
    let template = labels.maps("in/tmpl_label");
    let template_target = labels.maps("in/tmpl_plabel");
    let confident = labels.maps("in/tmpl_confident");
    for (i, source) in mix.source.iter().enumerate() {
        let classes = classes_in(&template[i]);
        assert_eq!(source.n, classes.len(), "{name} image {i}");
        let chosen = source.of(&classes);
        let excluded = |class: &u8| source.positions.contains(&usize::from(*class));
        let mut left = classes_in(&template_target[i]);
        left.retain(|class| !excluded(class));
        let target = mix.target[i].as_ref().map_or(Vec::new(), |choice| {
            assert_eq!(choice.n, left.len(), "{name} image {i}");
            choice.of(&left)
        });
        let chosen_here = |(&class, &sure): (&u8, &u8)| u8::from(target.contains(&class)) * sure;
        let mask: Vec<u8> = template_target[i].iter().zip(&confident[i]).map(chosen_here).collect();
        let sides = [
            ("tss", &labels.maps("in/label"), &mix.tss),
            ("tst", &labels.maps("teacher/plabel"), &mix.tst),
        ];
        for (side, base, quad) in sides {
            let background = paste(&base[i], &template[i], &chosen);
            let key = format!("quad/{side}{i}");
            assert!(
                labels.maps(&format!("{key}/background_label"))[0] == background,
                "{name} {key}"
            );
            assert!(labels.maps(&format!("{key}/mask"))[0] == mask, "{name} {key}");
            let pick = |j: usize| if mask[j] == 1 { template_target[i][j] } else { background[j] };
            let mut mixed: Vec<u8> = (0..mask.len()).map(pick).collect();
            for (crop, &class) in quad[i].rare.iter().zip(&mix.rare_classes) {
                assert_eq!((crop.class, crop.rejected), (class, 0));
                mixed = paste(&mixed, &rare_label(labels, crop), &[class]);
            }
            assert!(labels.maps(&format!("mix_{side}/label"))[i] == mixed, "{name} {key}");
        }
    }
}

/// In a chain, the templates come from the iteration before: the choices must fit what it stored.
#[test]
fn quad_choices_of_a_chain_fit_the_iteration_before() {
    for case in uda_cases().into_iter().filter(|c| c.config.get("local_iters").is_some()) {
        let stored = |key: &str| Report::new(&case).unwrap().recorded(key).unwrap();
        let per_image = |key: &str| -> Vec<Vec<u8>> {
            let values: Vec<u8> = stored(key).iter().map(|&v| v as u8).collect();
            values.chunks(values.len() / 2).map(classes_in).collect()
        };
        for (t, iteration) in iterations(&case).unwrap().iter().enumerate() {
            let Mix::Quad(mix) = &iteration.draws.mix else { continue };
            let labels = per_image(&format!("it{}/label", t - 1));
            let mut left = per_image(&format!("it{}/teacher_plabel", t - 1));
            for (i, source) in mix.source.iter().enumerate() {
                assert_eq!(source.n, labels[i].len());
                left[i].retain(|&class| !source.positions.contains(&usize::from(class)));
                assert_eq!(mix.target[i].as_ref().map(|c| c.n), Some(left[i].len()));
            }
        }
    }
}

#[test]
fn the_mask_grid_is_of_the_recorded_blocks() {
    for case in uda_cases() {
        let size: usize = case.read(&["size"]).unwrap();
        let block: usize = case.read(&["mask_block"]).unwrap();
        for iteration in iterations(&case).unwrap() {
            let [_, _, rows, columns] = iteration.draws.grid_shape;
            assert_eq!([rows * block, columns * block], [size, size], "{}", case.name);
        }
    }
}
