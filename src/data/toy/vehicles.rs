//! Cars, trucks, buses and trains: from the front or rear in perspective, and from the side.

use super::dice::Dice;
use super::id;
use super::look::Material as M;
use super::stage::{Board, Stage, Stuff, octagon};

/// Orientation of a vehicle relative to the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pose {
    Ahead,
    Oncoming,
    Across,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vehicle {
    Car,
    Truck,
    Bus,
    Train,
}

impl Vehicle {
    /// Returns width, length and height in meters.
    pub fn size(self) -> [f32; 3] {
        match self {
            Vehicle::Car => [1.9, 4.2, 1.55],
            Vehicle::Truck => [2.6, 7.2, 3.7],
            Vehicle::Bus => [2.6, 9.0, 3.1],
            Vehicle::Train => [2.8, 22.0, 3.9],
        }
    }

    pub fn shadow(self, stage: &mut Stage, x: f32, z: f32, pose: Pose) {
        let [width, length, height] = self.size();
        let (w, d) = if pose == Pose::Across { (length, width) } else { (width, length) };
        stage.cast_shadow(x, z, w, d, height);
    }

    pub fn draw(self, stage: &mut Stage, x: f32, z: f32, pose: Pose, mut dice: Dice) {
        let variant = dice.below(12);
        if pose == Pose::Across {
            let flip = dice.sign();
            match self {
                Vehicle::Car => car_across(&mut stage.board(x, z, flip, 1.0, id::CAR), variant),
                Vehicle::Truck => {
                    truck_across(&mut stage.board(x, z, flip, 1.0, id::TRUCK), variant)
                }
                Vehicle::Bus => bus_across(&mut stage.board(x, z, flip, 1.0, id::BUS), variant),
                Vehicle::Train => {
                    train_across(&mut stage.board(x, z, flip, 1.0, id::TRAIN), variant)
                }
            }
            return;
        }
        let [width, length, _] = self.size();
        let body = Box3 { x, z, half: 0.5 * width, length, oncoming: pose == Pose::Oncoming };
        match self {
            Vehicle::Car => car(stage, body, variant),
            Vehicle::Truck => truck(stage, body, variant),
            Vehicle::Bus => bus(stage, body, variant),
            Vehicle::Train => train(stage, body, variant),
        }
    }
}

/// A vehicle parallel to the road whose near end is at depth `z`.
#[derive(Clone, Copy)]
struct Box3 {
    x: f32,
    z: f32,
    half: f32,
    length: f32,
    oncoming: bool,
}

impl Box3 {
    /// Returns the plane of the long side that the camera sees, and the light on it, or None if the
    /// camera is directly behind or in front.
    fn flank(&self, stage: &Stage) -> Option<(f32, f32)> {
        let off = self.x - stage.camera.x;
        if off.abs() <= self.half {
            return None;
        }
        let normal = -off.signum();
        Some((self.x + normal * self.half, stage.side_light(normal)))
    }

    /// Returns the depth of a point `along` meters from the front of the vehicle.
    fn depth(&self, along: f32) -> f32 {
        if self.oncoming { self.z + along } else { self.z + self.length - along }
    }

    fn span(&self, from: f32, to: f32) -> [f32; 2] {
        let (a, b) = (self.depth(from), self.depth(to));
        [a.min(b), a.max(b)]
    }
}

fn wheels(stage: &mut Stage, body: &Box3, plane: f32, label: u8, at: &[f32], r: f32) {
    for &along in at {
        let z = body.depth(along);
        stage.side(plane, &octagon(z, r, r), Stuff::new(M::Tyre, 0, label));
        stage.side(plane, &octagon(z, r, 0.5 * r), Stuff::new(M::Hub, 0, label));
    }
}

fn car(stage: &mut Stage, body: Box3, variant: usize) {
    let h = body.half;
    if let Some((plane, light)) = body.flank(stage) {
        let stuff = |m, v| Stuff::new(m, v, id::CAR).lit(light);
        stage.side_rect(plane, body.span(0.0, 4.2), [0.28, 0.98], stuff(M::CarBody, variant));
        let cabin = [[1.0, 0.98], [1.6, 1.5], [3.5, 1.5], [4.1, 0.98]];
        stage.side(plane, &cabin.map(|[a, y]| [body.depth(a), y]), stuff(M::CarBody, variant));
        let pane = [[1.25, 0.98], [1.7, 1.42], [3.4, 1.42], [3.9, 0.98]];
        stage.side(plane, &pane.map(|[a, y]| [body.depth(a), y]), stuff(M::Glass, 0));
        wheels(stage, &body, plane, id::CAR, &[0.8, 3.4], 0.36);
    }
    let mut b = stage.board(body.x, body.z, 1.0, 1.0, id::CAR);
    for u in [-h + 0.05, h - 0.4] {
        b.rect([u, u + 0.35], [0.0, 0.5], M::Tyre, 0);
    }
    b.poly(
        &[[-h, 0.28], [h, 0.28], [h, 0.92], [h - 0.1, 1.0], [0.1 - h, 1.0], [-h, 0.92]],
        M::CarBody,
        variant,
    );
    b.poly(
        &[[-h + 0.08, 0.98], [h - 0.08, 0.98], [h - 0.32, 1.55], [0.32 - h, 1.55]],
        M::CarBody,
        variant,
    );
    b.poly(&[[-h + 0.2, 1.0], [h - 0.2, 1.0], [h - 0.4, 1.46], [0.4 - h, 1.46]], M::Glass, 0);
    b.rect([-h, h], [0.24, 0.38], M::Chassis, 0);
    b.light = 1.0;
    let lamp = if body.oncoming { M::HeadLamp } else { M::TailLamp };
    b.rect([-h + 0.04, -h + 0.42], [0.66, 0.88], lamp, 0);
    b.rect([h - 0.42, h - 0.04], [0.66, 0.88], lamp, 0);
    b.rect([-0.26, 0.26], [0.48, 0.62], M::SignRim, 1);
}

fn car_across(b: &mut Board, variant: usize) {
    let body = [
        [-2.1, 0.3],
        [2.1, 0.3],
        [2.12, 0.72],
        [1.95, 0.86],
        [1.1, 0.98],
        [0.45, 1.52],
        [-1.15, 1.52],
        [-1.75, 1.0],
        [-2.1, 0.92],
    ];
    b.poly(&body, M::CarBody, variant);
    b.poly(&[[0.9, 1.0], [0.4, 1.43], [-0.28, 1.43], [-0.28, 1.0]], M::Glass, 0);
    b.poly(&[[-0.4, 1.0], [-0.4, 1.43], [-1.08, 1.43], [-1.5, 1.0]], M::Glass, 0);
    b.rect([-2.0, 2.0], [0.26, 0.38], M::Chassis, 0);
    for u in [-1.3, 1.3] {
        b.disk([u, 0.36], 0.37, M::Tyre, 0);
        b.disk([u, 0.36], 0.19, M::Hub, 0);
    }
    b.rect([1.86, 2.1], [0.66, 0.8], M::HeadLamp, 0);
    b.rect([-2.1, -1.92], [0.72, 0.9], M::TailLamp, 0);
}

fn truck(stage: &mut Stage, body: Box3, variant: usize) {
    let h = body.half;
    if let Some((plane, light)) = body.flank(stage) {
        let stuff = |m, v| Stuff::new(m, v, id::TRUCK).lit(light);
        stage.side_rect(plane, body.span(0.2, 7.0), [0.45, 0.9], stuff(M::Chassis, 0));
        stage.side_rect(plane, body.span(0.0, 1.9), [0.5, 2.9], stuff(M::TruckCab, variant));
        stage.side_rect(plane, body.span(0.3, 1.3), [1.7, 2.6], stuff(M::Glass, 0));
        stage.side_rect(plane, body.span(2.1, 7.2), [0.9, 3.7], stuff(M::TruckBox, variant));
        wheels(stage, &body, plane, id::TRUCK, &[1.0, 4.8, 6.0], 0.5);
    }
    let mut b = stage.board(body.x, body.z, 1.0, 1.0, id::TRUCK);
    for u in [-h + 0.1, h - 0.6] {
        b.rect([u, u + 0.5], [0.0, 0.8], M::Tyre, 0);
    }
    b.rect([-h + 0.1, h - 0.1], [0.45, 0.95], M::Chassis, 0);
    b.rect([-h, h], [0.9, 3.7], M::TruckBox, variant);
    if body.oncoming {
        b.rect([-h, h], [0.5, 2.9], M::TruckCab, variant);
        b.rect([-h + 0.15, h - 0.15], [1.7, 2.65], M::Glass, 0);
        b.rect([-h + 0.4, h - 0.4], [0.8, 1.4], M::Chassis, 0);
    } else {
        b.rect([-h, h], [3.45, 3.7], M::TruckCab, variant);
        b.rect([-0.05, 0.05], [0.95, 3.45], M::Chassis, 0);
        b.rect([-h, h], [0.9, 1.1], M::TruckCab, variant);
    }
    b.light = 1.0;
    let lamp = if body.oncoming { M::HeadLamp } else { M::TailLamp };
    b.rect([-h + 0.1, -h + 0.5], [0.6, 0.85], lamp, 0);
    b.rect([h - 0.5, h - 0.1], [0.6, 0.85], lamp, 0);
}

fn truck_across(b: &mut Board, variant: usize) {
    b.rect([-3.5, 3.5], [0.45, 0.95], M::Chassis, 0);
    b.rect([-3.6, 1.5], [0.9, 3.7], M::TruckBox, variant);
    b.rect([-3.6, 1.5], [3.45, 3.7], M::TruckCab, variant);
    b.poly(&[[1.7, 0.5], [3.6, 0.5], [3.6, 1.6], [3.2, 2.9], [1.7, 2.9]], M::TruckCab, variant);
    b.poly(&[[2.3, 1.6], [3.4, 1.6], [3.1, 2.6], [2.3, 2.6]], M::Glass, 0);
    for u in [-2.6, -1.4, 2.6] {
        b.disk([u, 0.5], 0.5, M::Tyre, 0);
        b.disk([u, 0.5], 0.24, M::Hub, 0);
    }
}

fn bus(stage: &mut Stage, body: Box3, variant: usize) {
    let h = body.half;
    if let Some((plane, light)) = body.flank(stage) {
        let stuff = |m, v| Stuff::new(m, v, id::BUS).lit(light);
        stage.side_rect(plane, body.span(0.0, 9.0), [0.3, 3.1], stuff(M::BusBody, variant));
        stage.side_rect(plane, body.span(0.0, 9.0), [0.9, 1.15], stuff(M::BusTrim, 0));
        for i in 0..5 {
            let at = 0.4 + 1.7 * i as f32;
            stage.side_rect(plane, body.span(at, at + 1.4), [1.5, 2.6], stuff(M::Glass, 0));
        }
        wheels(stage, &body, plane, id::BUS, &[1.9, 6.9], 0.48);
    }
    let mut b = stage.board(body.x, body.z, 1.0, 1.0, id::BUS);
    for u in [-h + 0.1, h - 0.5] {
        b.rect([u, u + 0.4], [0.0, 0.6], M::Tyre, 0);
    }
    let round = [[-h, 0.3], [h, 0.3], [h, 2.9], [h - 0.2, 3.1], [0.2 - h, 3.1], [-h, 2.9]];
    b.poly(&round, M::BusBody, variant);
    b.rect([-h + 0.15, h - 0.15], [1.3, 2.4], M::Glass, 0);
    b.rect([-h + 0.4, h - 0.4], [2.55, 2.9], M::Chassis, 0);
    b.rect([-h, h], [0.3, 0.5], M::BusTrim, 0);
    b.rect([-h, h], [0.95, 1.15], M::BusTrim, 0);
    b.light = 1.0;
    b.rect([-0.6, 0.6], [2.64, 2.82], M::LampAmber, 0);
    let lamp = if body.oncoming { M::HeadLamp } else { M::TailLamp };
    b.rect([-h + 0.1, -h + 0.5], [0.6, 0.85], lamp, 0);
    b.rect([h - 0.5, h - 0.1], [0.6, 0.85], lamp, 0);
}

fn bus_across(b: &mut Board, variant: usize) {
    let body = [[-4.5, 0.3], [4.5, 0.3], [4.5, 2.8], [4.2, 3.1], [-4.4, 3.1], [-4.5, 2.9]];
    b.poly(&body, M::BusBody, variant);
    b.rect([-4.5, 4.5], [0.95, 1.15], M::BusTrim, 0);
    for i in 0..6 {
        let u = -4.2 + 1.45 * i as f32;
        b.rect([u, u + 1.2], [1.45, 2.6], M::Glass, 0);
    }
    for u in [-2.6, 2.6] {
        b.disk([u, 0.48], 0.48, M::Tyre, 0);
        b.disk([u, 0.48], 0.24, M::Hub, 0);
    }
}

fn train(stage: &mut Stage, body: Box3, variant: usize) {
    let h = body.half;
    if let Some((plane, light)) = body.flank(stage) {
        let stuff = |m, v| Stuff::new(m, v, id::TRAIN).lit(light);
        stage.side_rect(plane, body.span(0.0, 22.0), [0.2, 3.9], stuff(M::TrainBody, variant));
        stage.side_rect(plane, body.span(0.0, 22.0), [0.9, 1.5], stuff(M::TrainStripe, 0));
        stage.side_rect(plane, body.span(0.0, 22.0), [3.5, 3.9], stuff(M::TrainStripe, 0));
        for i in 0..9 {
            let at = 0.8 + 2.3 * i as f32;
            stage.side_rect(plane, body.span(at, at + 1.6), [1.8, 3.1], stuff(M::Glass, 0));
        }
        stage.side_rect(plane, body.span(0.0, 22.0), [0.0, 0.3], stuff(M::Chassis, 0));
    }
    let mut b = stage.board(body.x, body.z, 1.0, 1.0, id::TRAIN);
    b.rect([-h + 0.2, h - 0.2], [0.0, 0.4], M::Chassis, 0);
    let nose = [[-h, 0.2], [h, 0.2], [h, 3.2], [h - 0.5, 3.9], [0.5 - h, 3.9], [-h, 3.2]];
    b.poly(&nose, M::TrainBody, variant);
    b.poly(&[[-h, 0.5], [h, 0.5], [h, 1.5], [0.0, 1.1], [-h, 1.5]], M::TrainStripe, 0);
    b.poly(&[[-h + 0.3, 1.8], [h - 0.3, 1.8], [h - 0.5, 3.1], [0.5 - h, 3.1]], M::Glass, 0);
    b.rect([-h + 0.5, h - 0.5], [3.6, 3.9], M::TrainStripe, 0);
    b.light = 1.0;
    b.disk([-h + 0.4, 0.8], 0.2, M::HeadLamp, 0);
    b.disk([h - 0.4, 0.8], 0.2, M::HeadLamp, 0);
}

fn train_across(b: &mut Board, variant: usize) {
    b.rect([-10.6, 10.6], [0.0, 0.4], M::Chassis, 0);
    let body = [
        [-11.0, 0.2],
        [11.0, 0.2],
        [11.0, 1.4],
        [10.2, 3.4],
        [9.6, 3.9],
        [-9.6, 3.9],
        [-10.2, 3.4],
        [-11.0, 1.4],
    ];
    b.poly(&body, M::TrainBody, variant);
    b.rect([-11.0, 11.0], [0.9, 1.5], M::TrainStripe, 0);
    b.rect([-9.7, 9.7], [3.55, 3.9], M::TrainStripe, 0);
    for i in 0..8 {
        let u = -9.3 + 2.35 * i as f32;
        b.rect([u, u + 1.75], [1.8, 3.1], M::Glass, 0);
    }
}
