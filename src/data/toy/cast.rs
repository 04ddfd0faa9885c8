//! People, two-wheelers and street furniture.

use super::dice::Dice;
use super::id;
use super::look::Material as M;
use super::stage::{Board, Shape, Stage, Stuff, Surface};

fn shadow(stage: &mut Stage, x: f32, z: f32, width: f32, height: f32) {
    stage.cast_shadow(x, z, width, 0.4, height);
}

pub fn person_shadow(stage: &mut Stage, x: f32, z: f32) {
    shadow(stage, x, z, 0.6, 1.7);
}

pub fn person(stage: &mut Stage, x: f32, z: f32, mut dice: Dice) {
    let size = dice.range(0.95, 1.2);
    let stride = dice.range(0.02, 0.26);
    let [skin, hair, shirt, legs] = std::array::from_fn(|_| dice.below(12));
    let mut b = stage.board(x, z, dice.sign(), size, id::PERSON);
    b.limb([-0.10, 0.95], [-0.10 - stride, 0.0], 0.22, M::Trousers, legs);
    b.limb([0.10, 0.95], [0.10 + stride, 0.0], 0.22, M::Trousers, legs);
    b.rect([-stride - 0.2, -stride + 0.06], [0.0, 0.08], M::Tyre, 0);
    b.rect([stride, stride + 0.26], [0.0, 0.08], M::Tyre, 0);
    b.limb([-0.26, 1.42], [-0.36 - 0.4 * stride, 0.85], 0.14, M::Shirt, shirt);
    b.limb([0.26, 1.42], [0.36 + 0.4 * stride, 0.85], 0.14, M::Shirt, shirt);
    b.poly(
        &[[-0.22, 0.82], [0.22, 0.82], [0.32, 1.40], [0.18, 1.50], [-0.18, 1.50], [-0.32, 1.40]],
        M::Shirt,
        shirt,
    );
    b.disk([0.0, 1.66], 0.17, M::Hair, hair);
    b.disk([0.02, 1.63], 0.14, M::Skin, skin);
}

/// Type of a two-wheeler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycle {
    Bicycle,
    Motorcycle,
}

pub fn cycle_shadow(stage: &mut Stage, x: f32, z: f32, ridden: bool) {
    shadow(stage, x, z, 1.7, if ridden { 1.8 } else { 0.9 });
}

/// Draws a two-wheeler from the side, with or without its rider.
pub fn cycle(stage: &mut Stage, x: f32, z: f32, kind: Cycle, ridden: bool, mut dice: Dice) {
    let size = dice.range(1.1, 1.25);
    let variant = dice.below(4);
    let flip = dice.sign();
    let mut b = stage.board(x, z, flip, size, id::BICYCLE);
    match kind {
        Cycle::Bicycle => bicycle(&mut b, variant),
        Cycle::Motorcycle => motorcycle(&mut b, variant),
    }
    if ridden {
        b.label = id::RIDER;
        rider(&mut b, kind, &mut dice);
    }
}

fn bicycle(b: &mut Board, variant: usize) {
    b.label = id::BICYCLE;
    let (back, front, crank) = ([-0.56, 0.37], [0.56, 0.37], [-0.08, 0.34]);
    for hub in [back, front] {
        b.hoop(hub, 0.38, 0.27, M::Tyre);
        b.limb([hub[0] - 0.28, hub[1]], [hub[0] + 0.28, hub[1]], 0.04, M::Hub, 0);
        b.limb([hub[0], hub[1] - 0.28], [hub[0], hub[1] + 0.28], 0.04, M::Hub, 0);
    }
    let (saddle, head) = ([-0.22, 0.84], [0.40, 0.86]);
    for (from, to) in
        [(back, crank), (back, saddle), (crank, saddle), (saddle, head), (crank, head)]
    {
        b.limb(from, to, 0.11, M::BikeFrame, variant);
    }
    b.limb(front, [0.38, 1.02], 0.09, M::BikeFrame, variant);
    b.limb([0.28, 1.04], [0.50, 1.00], 0.08, M::Tyre, 0);
    b.limb([-0.36, 0.93], [-0.10, 0.91], 0.10, M::Tyre, 0);
}

fn motorcycle(b: &mut Board, variant: usize) {
    b.label = id::MOTORCYCLE;
    for hub in [[-0.68, 0.36], [0.70, 0.36]] {
        b.disk(hub, 0.37, M::Tyre, 0);
        b.disk(hub, 0.17, M::Hub, 0);
    }
    b.poly(&[[-0.45, 0.22], [0.35, 0.22], [0.42, 0.62], [-0.40, 0.62]], M::MotorMetal, 0);
    b.limb([0.70, 0.36], [0.42, 1.02], 0.12, M::Hub, 0);
    b.limb([-0.85, 0.28], [-0.1, 0.28], 0.12, M::Hub, 0);
    let body =
        [[-0.98, 0.82], [-0.60, 0.58], [0.30, 0.56], [0.52, 0.90], [0.20, 1.04], [-0.20, 0.80]];
    b.poly(&body, M::MotorBody, variant);
    b.poly(&[[-0.75, 0.84], [-0.15, 0.80], [-0.15, 0.92], [-0.75, 0.94]], M::Tyre, 0);
    b.poly(&[[0.44, 0.84], [0.66, 0.88], [0.54, 1.12], [0.38, 1.08]], M::MotorBody, variant);
    b.limb([0.24, 1.16], [0.46, 1.08], 0.09, M::Tyre, 0);
    b.disk([0.62, 0.94], 0.09, M::HeadLamp, 0);
}

fn rider(b: &mut Board, kind: Cycle, dice: &mut Dice) {
    let [suit, legs, helmet, skin] = std::array::from_fn(|_| dice.below(12));
    let (hip, foot) = match kind {
        Cycle::Bicycle => ([-0.20, 0.98], [0.02, 0.22]),
        Cycle::Motorcycle => ([-0.34, 0.94], [0.06, 0.26]),
    };
    let knee = [0.20, 0.66];
    b.limb([hip[0] - 0.04, hip[1]], knee, 0.24, M::RiderLegs, legs);
    b.limb(knee, foot, 0.20, M::RiderLegs, legs);
    b.limb([foot[0] - 0.08, foot[1]], [foot[0] + 0.18, foot[1]], 0.10, M::Tyre, 0);
    let torso =
        [[hip[0] - 0.22, 0.92], [hip[0] + 0.20, 0.88], [0.24, 1.46], [0.06, 1.62], [-0.16, 1.52]];
    b.poly(&torso, M::RiderSuit, suit);
    b.limb([0.10, 1.46], [0.40, 1.10], 0.15, M::RiderSuit, suit);
    b.disk([0.22, 1.74], 0.17, M::Skin, skin);
    b.disk([0.18, 1.80], 0.18, M::Helmet, helmet);
}

/// The object on a pole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Light,
    Sign,
    Lamp,
}

pub fn pole_shadow(stage: &mut Stage, x: f32, z: f32) {
    shadow(stage, x, z, 0.25, 3.5);
}

/// Draws a pole on the given `side` of the road. The arm of a lamp reaches over the road.
pub fn pole(stage: &mut Stage, x: f32, z: f32, carries: Carries, side: f32, mut dice: Dice) {
    let variant = dice.below(2);
    let mut b = stage.board(x, z, -side, 1.0, id::POLE);
    match carries {
        Carries::Lamp => {
            b.rect([-0.16, 0.16], [0.0, 5.6], M::Metal, variant);
            b.rect([-0.24, 0.24], [0.0, 0.7], M::Metal, variant);
            b.limb([0.0, 5.5], [1.7, 5.9], 0.22, M::Metal, variant);
            b.poly(&[[1.3, 5.7], [2.2, 5.85], [2.1, 6.1], [1.4, 6.0]], M::Metal, variant);
        }
        Carries::Light => {
            let top = dice.range(4.2, 4.6);
            b.rect([-0.15, 0.15], [0.0, top - 1.7], M::Metal, variant);
            b.label = id::LIGHT;
            b.rect([-0.42, 0.42], [top - 2.0, top], M::LightBox, 0);
            let on = dice.below(3);
            for (i, lamp) in [M::LampRed, M::LampAmber, M::LampGreen].into_iter().enumerate() {
                let light = std::mem::replace(&mut b.light, if i == on { 1.0 } else { 0.45 });
                b.disk([0.0, top - 0.36 - 0.64 * i as f32], 0.26, lamp, 0);
                b.light = light;
            }
        }
        Carries::Sign => {
            let v = dice.range(2.7, 3.3);
            b.rect([-0.14, 0.14], [0.0, v], M::Metal, variant);
            b.label = id::SIGN;
            sign(&mut b, v, dice.below(3));
        }
    }
}

fn sign(b: &mut Board, v: f32, kind: usize) {
    match kind {
        0 => {
            b.disk([0.0, v], 0.72, M::SignRim, 0);
            b.disk([0.0, v], 0.50, M::SignFace, 0);
            b.rect([-0.3, 0.3], [v - 0.09, v + 0.09], M::Tyre, 0);
        }
        1 => {
            b.rect([-0.70, 0.70], [v - 0.70, v + 0.70], M::SignRim, 1);
            b.rect([-0.60, 0.60], [v - 0.60, v + 0.60], M::SignFace, 1);
            b.limb([0.0, v - 0.42], [0.0, v + 0.2], 0.18, M::SignFace, 0);
            b.poly(&[[-0.32, v + 0.08], [0.32, v + 0.08], [0.0, v + 0.48]], M::SignFace, 0);
        }
        _ => {
            let triangle =
                |r: f32| [[-0.95 * r, v - 0.6 * r], [0.95 * r, v - 0.6 * r], [0.0, v + r]];
            b.poly(&triangle(0.92), M::SignRim, 0);
            b.poly(&triangle(0.54), M::SignFace, 2);
        }
    }
}

/// Draws a tree: a trunk, and a crown of clumps with the sunlit ones last.
pub fn tree(stage: &mut Stage, x: f32, z: f32, mut dice: Dice) {
    let (height, spread) = (dice.range(3.6, 5.2), dice.range(1.2, 1.9));
    let sun = stage.sun;
    let mut b = stage.board(x, z, 1.0, 1.0, id::VEGETATION);
    b.rect([-0.2, 0.2], [0.0, height - 0.6], M::Trunk, 0);
    let light = b.light;
    for i in 0..9 {
        let angle = i as f32 / 8.0;
        let u = dice.range(-1.0, 1.0) * spread * 0.75 + sun * 0.35 * (angle - 0.5);
        let v = height + dice.range(-0.7, 0.8) * spread * 0.7 + 0.7 * (angle - 0.5);
        b.light = light * (0.78 + 0.30 * angle);
        b.disk([u, v], spread * dice.range(0.45, 0.7), M::Leaves, i + dice.below(2));
    }
}

pub fn tree_shadow(stage: &mut Stage, x: f32, z: f32) {
    stage.cast_shadow(x - stage.sun * 1.5, z, 2.4, 1.5, 1.2);
}

/// Draws a hedge or bush.
pub fn bush(stage: &mut Stage, x: f32, z: f32, mut dice: Dice) {
    let mut b = stage.board(x, z, 1.0, 1.0, id::VEGETATION);
    let light = b.light;
    for i in 0..6 {
        let r = dice.range(0.35, 0.7);
        b.light = light * dice.range(0.8, 1.05);
        b.disk([dice.range(-0.9, 0.9), 0.8 * r], r, M::Leaves, i);
    }
}

/// Draws a litter bin, which belongs to none of the 19 classes.
pub fn bin(stage: &mut Stage, x: f32, z: f32, mut dice: Dice) {
    let mut b = stage.board(x, z, 1.0, dice.range(0.9, 1.2), id::NONE);
    b.poly(&[[-0.26, 0.0], [0.26, 0.0], [0.32, 0.9], [-0.32, 0.9]], M::Bin, 0);
    b.rect([-0.36, 0.36], [0.88, 1.0], M::Chassis, 0);
}

/// Draws the hood of the ego vehicle at the bottom of the image.
pub fn hood(stage: &mut Stage, rise: f32) {
    let aspect = stage.camera.aspect;
    let c = stage.camera.center;
    let outline = [
        [c - 0.36 * aspect, 1.01],
        [c - 0.27 * aspect, 1.0 - 0.6 * rise],
        [c - 0.15 * aspect, 1.0 - rise],
        [c + 0.15 * aspect, 1.0 - rise],
        [c + 0.27 * aspect, 1.0 - 0.6 * rise],
        [c + 0.36 * aspect, 1.01],
    ];
    let shape = Shape::Polygon(outline.to_vec());
    let surface = Surface::Front { x: 0.0, z: 1.0 };
    stage.put(shape, surface, Stuff::new(M::Hood, 0, id::EGO));
}
