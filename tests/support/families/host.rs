//! Families that run on the host only: image scaling, metrics, rare-class sampling.

use serde::Deserialize;
use serde_json::{Map, Value};
use udass_raw::data::resize::{
    FirstPass, Rows, Size, Window, cv_bilinear, cv_nearest, flip_horizontally, pil_bilinear_by,
    pil_nearest, valid_mask as mask_of,
};
use udass_raw::data::sampling::{FileStats, rare_class_probabilities};
use udass_raw::device::Device;
use udass_raw::ops::ImageNormalizer;
use udass_raw::run::eval::metrics::{Confusion, percent};

use super::said;
use crate::support::cases::Outcome;
use crate::support::report::Report;

const CLASSES: usize = 19;

fn size([height, width]: [usize; 2]) -> Size {
    Size::new(width, height)
}

/// Scales like Pillow 13, with which the stored numbers were made.
pub fn pil_bilinear(src: Rows, to: Size, window: Window) -> Vec<u8> {
    pil_bilinear_by(src, to, window, FirstPass::since_13(src.size, to))
}

/// Runs both resizers on images and labels, sizes that keep the aspect ratio, and normalization.
pub fn imresize(report: &mut Report, device: &Device) -> Outcome {
    type Resizer = fn(Rows, Size, Window) -> Vec<u8>;
    let case = report.case();
    let numbered = |key: &str| key.parse::<usize>().is_ok();
    let config = case.config.as_object().ok_or("the config is no object")?;
    for key in config.keys().filter(|key| numbered(key)) {
        let from: [usize; 2] = case.read(&[key, "src_hw"])?;
        let to: [usize; 2] = case.read(&[key, "dst_hw"])?;
        let picture = report.input_bytes(&format!("{key}/img"))?;
        let label = report.input_bytes(&format!("{key}/label"))?;
        let resizers: [(&str, usize, Resizer); 4] = [
            ("cv2_bilinear", 3, cv_bilinear),
            ("cv2_nearest", 1, cv_nearest),
            ("pil_bilinear", 3, pil_bilinear),
            ("pil_nearest", 1, pil_nearest),
        ];
        for (name, channels, resize) in resizers {
            let data = if channels == 3 { &picture } else { &label };
            let rows = Rows::whole(size(from), channels, data);
            let got = resize(rows, size(to), Window::whole(size(to)));
            let shape = [to[0], to[1], 3];
            let shape = if channels == 3 { &shape[..] } else { &shape[..2] };
            report.compare(&format!("{key}/{name}"), shape, &got);
        }
    }
    for rule in case.get(&["rescale_size"])?.as_array().into_iter().flatten() {
        let pair = |key: &str| <[usize; 2]>::deserialize(&rule[key]).map_err(|e| e.to_string());
        let ([width, height], want) = (pair("src_wh")?, pair("out_wh")?);
        let got = Size::new(width, height).fitted(pair("scale")?);
        report.require(&format!("{rule} gives {got}"), [got.width, got.height] == want);
    }
    normalize(report, device)?;
    Ok(())
}

fn normalize(report: &mut Report, device: &Device) -> Outcome {
    let &[height, width, 3] = report.case().entry("norm/img_bgr")?.shape.as_slice() else {
        return Err("norm/img_bgr is not H,W,3".into());
    };
    let mut rgb = report.input_bytes("norm/img_bgr")?;
    rgb.chunks_exact_mut(3).for_each(<[u8]>::reverse);
    let run = || {
        let rgb = device.upload(&[1, height, width, 3], &rgb)?;
        device.read_f32(&ImageNormalizer::new(device)?.normalize(device, &rgb, &[])?)
    };
    report.compare("norm/out_rgb", &[height, width, 3], &run().map_err(said)?);
    Ok(())
}

/// Masks the margins of the full image, then scales, crops and flips the mask like a label.
pub fn valid_mask(report: &mut Report, _: &Device) -> Outcome {
    let case = report.case();
    let margins: [usize; 4] = case.read(&["margins_top_bottom_left_right"])?;
    let [width, height]: [usize; 2] = case.read(&["scale_wh"])?;
    let [top, bottom, left, right]: [usize; 4] = case.read(&["crop_y1y2x1x2"])?;
    let (full, to) = (Size::new(2048, 1024), Size::new(width, height));
    let crop = Window { x: left, y: top, width: right - left, height: bottom - top };
    let whole = mask_of(margins, full, full, Window::whole(full));
    let resized = mask_of(margins, full, to, Window::whole(to));
    let cropped = mask_of(margins, full, to, crop);
    for (name, mask) in [("full", &whole), ("resized", &resized), ("cropped", &cropped)] {
        let counted = mask.iter().map(|&v| f64::from(v)).sum();
        report.number(name, case.read(&["counts", name])?, counted, 0.0);
    }
    let mut flipped = cropped.clone();
    flip_horizontally(&mut flipped, crop.width, 1);
    report.compare("resized", &[height, width], &resized);
    report.compare("cropped", &[crop.height, crop.width], &cropped);
    report.compare("flipped", &[crop.height, crop.width], &flipped);
    Ok(())
}

/// Checks the counts per image, and the metrics over all of them.
pub fn metrics(report: &mut Report, _: &Device) -> Outcome {
    let case = report.case();
    let mut all = Confusion::new(CLASSES);
    for i in (0..).take_while(|i| case.has(&format!("{i}/gt"))) {
        let predicted = report.input_bytes(&format!("{i}/pred"))?;
        let label = report.input_bytes(&format!("{i}/gt"))?;
        let mut one = Confusion::new(CLASSES);
        one.add(&predicted, &label).map_err(said)?;
        let counts = [
            ("intersect", one.intersections()),
            ("union", one.unions()),
            ("area_pred", one.predicted()),
            ("area_label", one.labeled()),
        ];
        for (name, counts) in counts {
            let counts: Vec<f64> = counts.iter().map(|&n| n as f64).collect();
            report.compare(&format!("{i}/{name}"), &[CLASSES], &counts);
        }
        all.merge(&one).map_err(said)?;
    }
    report.compare("IoU", &[CLASSES], &all.iou());
    report.compare("Acc", &[CLASSES], &all.accuracy());
    report.scalar("aAcc", all.all_accuracy());
    report.scalar("mIoU_nanmean", all.mean_iou());
    report.scalar("mAcc_nanmean", all.mean_accuracy());
    report.scalar("mIoU_percent_rounded", percent(all.mean_iou()));
    let rounded: Vec<Option<f64>> = case.read(&["IoU_percent_rounded"])?;
    let same = |(got, want): (&f64, &Option<f64>)| match want {
        Some(want) => percent(*got) == *want,
        None => got.is_nan(),
    };
    let holds = rounded.len() == CLASSES && all.iou().iter().zip(&rounded).all(same);
    report.require("IoU_percent_rounded", holds);
    Ok(())
}

/// Checks the order of classes and their probabilities, at each temperature of the config.
pub fn rare_class_sampling(report: &mut Report, _: &Device) -> Outcome {
    let case = report.case();
    let files: Vec<Map<String, Value>> = case.read(&["sample_class_stats"])?;
    let stats: Vec<FileStats> = files.iter().map(file_stats).collect::<Outcome<_>>()?;
    let config = case.config.as_object().ok_or("the config is no object")?;
    for key in config.keys() {
        let Some(temperature) = key.strip_prefix('T').and_then(|t| t.parse().ok()) else {
            continue;
        };
        let (classes, probabilities) = rare_class_probabilities(&stats, temperature);
        let want: Vec<u8> = case.read(&[key, "classes"])?;
        report.require(&format!("{key} classes"), classes == want);
        let want: Vec<f64> = case.read(&[key, "prob"])?;
        report
            .require(&format!("{key} has one probability per class"), want.len() == classes.len());
        for ((class, got), want) in classes.iter().zip(probabilities).zip(want) {
            // According to the case's note, the temperature amplifies the rounding of the shares.
            report.number(&format!("{key} class {class}"), want, got.into(), 1e-4);
        }
    }
    Ok(())
}

fn file_stats(entry: &Map<String, Value>) -> Outcome<FileStats> {
    let mut stats = FileStats::default();
    for (key, value) in entry {
        match (key.parse(), value.as_u64(), value.as_str()) {
            (Ok(class), Some(pixels), _) => stats.counts.push((class, pixels)),
            (Err(_), _, Some(file)) if key == "file" => stats.file = file.into(),
            _ => return Err(format!("statistics {key}: {value}")),
        }
    }
    Ok(stats)
}
