//! Cases that turn batches into mixed, augmented and masked images, with the functions that an
//! iteration calls.

use serde_json::json;
use udass_raw::config::Config;
use udass_raw::ops::ImageNormalizer;
use udass_raw::ops::augment::{Augmentation, augment, block_mask};
use udass_raw::ops::mix::{self, Candidates, CropNormalization, Labeled, Layer, Mix, RareCrops};
use udass_raw::tensor::Tensor;
use udass_raw::uda::inputs::mask_cells;

use super::{Bed, List};

pub fn add(list: &mut List, config: &Config) {
    let (batch, side) = (config.data.batch, config.data.crop);
    let pictures = Pictures { batch, side, classes: config.network.classes };
    pictures.normalize(list);
    pictures.class_mix(list);
    pictures.quad_mix(list);
    pictures.augment(list);
    pictures.mask(list, mask_cells(side, config.mask.block), config.mask.ratio);
}

#[derive(Clone, Copy)]
struct Pictures {
    batch: usize,
    side: usize,
    classes: usize,
}

impl Pictures {
    fn colors(self) -> [usize; 4] {
        [self.batch, self.side, self.side, 3]
    }

    fn maps(self) -> [usize; 3] {
        [self.batch, self.side, self.side]
    }

    fn labeled(self, bed: &Bed, slot: u64) -> Labeled {
        Labeled {
            image: bed.numbers(&self.colors(), slot),
            label: bed.labels(self.maps(), self.classes, slot),
            weight: Some(bed.numbers(&self.maps(), slot + 1)),
        }
    }

    fn normalize(self, list: &mut List) {
        let shape = json!({"batch": self.batch, "side": self.side});
        list.plain("normalize", shape, move |bed: &Bed| {
            let normalizer = ImageNormalizer::new(&bed.device).unwrap();
            let make = |slot: u64| bed.bytes(&self.colors(), |i| (i as u64 * 31 + slot) as u8);
            bed.rotating(make, move |device, rgb| normalizer.normalize(device, rgb, &[]).unwrap())
        });
    }

    /// ClassMix: pastes half of the source's classes onto the target.
    fn class_mix(self, list: &mut List) {
        let shape = json!({"batch": self.batch, "side": self.side});
        list.plain("class_mix", shape, move |bed: &Bed| {
            let uniforms = bed.device.upload_real(&[self.batch, 16], &vec![0.3; 16 * self.batch]);
            let (uniforms, normalizer) =
                (uniforms.unwrap(), ImageNormalizer::new(&bed.device).unwrap());
            let make = |slot| [slot, slot + 3].map(|slot| self.labeled(bed, slot));
            bed.rotating(make, move |device, [source, target]: &mut [Labeled; 2]| {
                let all = Candidates::All;
                let table = mix::choose_half(device, &source.label, &uniforms, all).unwrap();
                let half = Layer { of: source, table: &table, confident: None };
                let mixed = Mix { under: target, layers: [Some(half), None], rare: None };
                mix::mix(device, &normalizer, mixed, None).unwrap()
            })
        });
    }

    /// One of QuadMix's images: pastes template classes of both domains, then the rare-class crops.
    fn quad_mix(self, list: &mut List) {
        let shape = json!({"batch": self.batch, "side": self.side});
        list.plain("quad_mix", shape, move |bed: &Bed| {
            let uniforms = bed.device.upload_real(&[self.batch, 2], &vec![0.3; 2 * self.batch]);
            let (uniforms, normalizer) =
                (uniforms.unwrap(), ImageNormalizer::new(&bed.device).unwrap());
            let gain = bed.device.upload_real(&[3], &[1.0 / 255.0; 3]).unwrap();
            let colors = CropNormalization { gain, reversed: true };
            let make = |slot| {
                let templates = [slot, slot + 3, slot + 5].map(|slot| self.labeled(bed, slot));
                let confident = bed.bytes(&self.maps(), |i| (i / 64 % 3 > 0) as u8);
                (templates, confident, self.rare(bed, slot))
            };
            type Sets = ([Labeled; 3], Tensor, RareCrops);
            bed.rotating(make, move |device, (pictures, confident, rare): &mut Sets| {
                let ([source, target, under], all) = (pictures, Candidates::All);
                let choose = |label: &Tensor, avoid: Option<&Tensor>| {
                    mix::choose_two(device, label, &uniforms, all, avoid, avoid.is_none()).unwrap()
                };
                let (table, chosen) = choose(&source.label, None);
                let lower = Layer { of: source, table: &table, confident: None };
                let (table, _) = choose(&target.label, Some(&chosen));
                let upper = Layer { of: target, table: &table, confident: Some(confident) };
                let (layers, rare) = ([Some(lower), Some(upper)], Some((&*rare, &colors)));
                mix::mix(device, &normalizer, Mix { under, layers, rare }, None).unwrap()
            })
        });
    }

    /// Crops to paste rare classes from, labeled in one square each.
    fn rare(self, bed: &Bed, slot: u64) -> RareCrops {
        let Pictures { batch, side, .. } = self;
        let inside = move |i: usize| (i / side % side).max(i % side) < side / 4;
        RareCrops {
            rgb: bed.bytes(&[batch, 2, side, side, 3], |i| (i as u64 * 29 + slot) as u8),
            label: bed.bytes(&[batch, 2, side, side], |i| if inside(i) { 12 } else { 255 }),
            classes: bed.device.upload(&[2], &[12u8, 15]).unwrap(),
        }
    }

    /// Color jitter and blur, with mild factors that leave an image nearly unchanged.
    fn augment(self, list: &mut List) {
        let shape = json!({"batch": self.batch, "side": self.side});
        list.plain("jitter_blur", shape, move |bed: &Bed| {
            let (device, batch) = (&bed.device, self.batch);
            let normalizer = ImageNormalizer::new(device).unwrap();
            let factors = [1.0, 1.0, 1.0, 0.02].repeat(batch);
            let how = Augmentation {
                factors: device.upload_real(&[batch, 4], &factors).unwrap(),
                order: device.upload(&[batch, 4], &[2i32, 0, 3, 1].repeat(batch)).unwrap(),
                sigma: device.upload_real(&[batch], &vec![0.8; batch]).unwrap(),
                switches: device.upload(&[2], &[1i32, 1]).unwrap(),
            };
            let make = |slot| bed.numbers(&self.colors(), slot);
            bed.rotating(make, move |device, image| {
                augment(device, &normalizer, image, &how).unwrap()
            })
        });
    }

    fn mask(self, list: &mut List, cells: usize, ratio: f32) {
        let shape = json!({"batch": self.batch, "side": self.side, "cells": cells});
        list.plain("block_mask", shape, move |bed: &Bed| {
            let make = |slot| {
                let grid = bed.numbers(&[self.batch, cells, cells], slot);
                (bed.numbers(&self.colors(), slot), grid)
            };
            bed.rotating(make, move |device, (image, grid)| {
                block_mask(device, image, grid, [cells; 2], ratio).unwrap()
            })
        });
    }
}
