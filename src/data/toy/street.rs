//! Street scenes: sky, road and sidewalks, buildings and parks along the road, and road users.

use super::cast::{self, Carries, Cycle};
use super::dice::Dice;
use super::id;
use super::look::{Look, Material as M};
use super::stage::{Camera, Shape, Stage, Stuff, Surface};
use super::vehicles::{Pose, Vehicle};

/// The object that a scene is guaranteed to show near the camera. Scenes cycle through the
/// features, so that even a small split contains every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    Cyclist,
    Truck,
    Wall,
    Bus,
    Walker,
    Biker,
    Train,
    Fence,
    Signals,
    ParkedBicycle,
    ParkedMotorcycle,
}

const FEATURES: [Feature; 11] = [
    Feature::Cyclist,
    Feature::Truck,
    Feature::Wall,
    Feature::Bus,
    Feature::Walker,
    Feature::Biker,
    Feature::Train,
    Feature::Fence,
    Feature::Signals,
    Feature::ParkedBicycle,
    Feature::ParkedMotorcycle,
];

/// Composes scene `index` from the draws of `dice`. If `own_car` is set, the hood of the ego
/// vehicle may be visible.
pub fn street<'a>(
    look: &'a Look,
    aspect: f32,
    index: usize,
    own_car: bool,
    dice: &Dice,
) -> Stage<'a> {
    let mut lens = dice.child(1);
    let lanes = lens.range(3.4, 5.2);
    let camera = Camera {
        aspect,
        center: aspect * (0.5 + lens.range(-0.05, 0.05)),
        horizon: lens.range(0.40, 0.48),
        x: lens.range(-0.2, 0.5) * lanes,
        height: lens.range(1.4, 1.75),
    };
    let stage = Stage { look, camera, sun: lens.sign(), prims: Vec::new() };
    let mut kerbs = dice.child(2);
    let plan = Plan::new(lanes, &mut kerbs);
    let feature = FEATURES[index % FEATURES.len()];
    let mut scene = Scene { stage, plan, feature, actors: Vec::new() };
    scene.backdrop(dice.child(3));
    scene.ground(dice.child(4));
    scene.cast(dice.child(5));
    scene.shadows();
    scene.lining(-1.0, dice.child(6));
    scene.lining(1.0, dice.child(7));
    scene.perform();
    let mut hood = dice.child(8);
    if own_car && hood.chance(0.6) {
        let rise = hood.range(0.025, 0.05);
        cast::hood(&mut scene.stage, rise);
    }
    scene.stage
}

/// Widths of the road, sidewalks and verges in meters. Pairs are left and right.
struct Plan {
    road: f32,
    walk: [f32; 2],
    verge: [f32; 2],
}

impl Plan {
    fn new(road: f32, dice: &mut Dice) -> Plan {
        let walk = [0, 1].map(|_| dice.range(2.0, 3.2));
        let verge = [0, 1].map(|_| if dice.chance(0.6) { dice.range(1.8, 4.0) } else { 0.0 });
        Plan { road, walk, verge }
    }

    /// Returns the distance from the middle of the road to the outer edge of the sidewalk.
    fn walk_end(&self, side: f32) -> f32 {
        self.road + self.walk[usize::from(side > 0.0)]
    }

    /// Returns the distance from the middle of the road to the building fronts.
    fn front(&self, side: f32) -> f32 {
        self.walk_end(side) + self.verge[usize::from(side > 0.0)]
    }
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Person,
    Cycle(Cycle, bool),
    Vehicle(Vehicle, Pose),
    Pole(Carries),
    Tree,
    Bush,
    Bin,
}

/// A road user or object at its position.
struct Actor {
    role: Role,
    x: f32,
    z: f32,
    /// Horizontal screen interval that it covers.
    span: [f32; 2],
    featured: bool,
    dice: Dice,
}

struct Scene<'a> {
    stage: Stage<'a>,
    plan: Plan,
    feature: Feature,
    actors: Vec<Actor>,
}

impl Scene<'_> {
    fn backdrop(&mut self, mut dice: Dice) {
        let (aspect, horizon) = (self.stage.camera.aspect, self.stage.camera.horizon);
        let sky = vec![[0.0, 0.0], [aspect, 0.0], [aspect, horizon + 0.1], [0.0, horizon + 0.1]];
        let salt = dice.below(1 << 16);
        // The variant is even, so that the second ink is the color at the horizon.
        let stuff = Stuff::new(M::Sky, salt * 2, id::SKY);
        self.stage.put(Shape::Polygon(sky), Surface::Sky, stuff);
        let light = self.stage.front_light();
        for i in 0..14 {
            let x = -78.0 + 12.0 * i as f32 + dice.range(-2.0, 2.0);
            if dice.chance(0.45) {
                let (width, height) = (dice.range(9.0, 15.0), dice.range(6.0, 16.0));
                let stuff = Stuff::new(M::Facade, dice.below(12), id::BUILDING).lit(light);
                self.stage.front_rect(80.0, [x, x + width], [0.0, height], stuff);
            } else {
                let mut b = self.stage.board(x, 78.0, 1.0, 1.0, id::VEGETATION);
                for j in 0..3 {
                    let at = [dice.range(-5.0, 5.0), dice.range(1.0, 4.0)];
                    b.disk(at, dice.range(3.0, 5.0), M::Leaves, j);
                }
            }
        }
    }

    fn ground(&mut self, mut dice: Dice) {
        let (near, far) = (0.9, 76.0);
        let all = [near, far];
        let shade = dice.below(3);
        let (plan_road, look_shade) = (self.plan.road, dice.below(3));
        let ground = Stuff::new(M::Grass, look_shade, id::TERRAIN);
        self.stage.ground([-120.0, 120.0], all, ground);
        for side in [-1.0, 1.0] {
            let (a, b) = (side * plan_road, side * self.plan.walk_end(side));
            let walk = Stuff::new(M::Sidewalk, shade, id::SIDEWALK);
            self.stage.ground([a.min(b), a.max(b)], all, walk);
        }
        let road = |material, variant| Stuff::new(material, variant, id::ROAD);
        self.stage.ground([-plan_road, plan_road], all, road(M::Road, shade));
        for side in [-1.0, 1.0] {
            let x = side * (plan_road + 0.12);
            let kerb = Stuff::new(M::Kerb, 0, id::SIDEWALK);
            self.stage.ground([x - 0.14, x + 0.14], all, kerb);
            let x = side * (plan_road - 0.35);
            self.stage.ground([x - 0.07, x + 0.07], all, road(M::Marking, 0));
        }
        let phase = dice.range(0.0, 4.0);
        for i in 0..12 {
            let z = 1.0 + phase + 5.0 * i as f32;
            self.stage.ground([-0.09, 0.09], [z, z + 2.2], road(M::Marking, 0));
        }
        if dice.chance(0.3) {
            let z = dice.range(6.0, 11.0);
            let stripes = (plan_road / 0.5) as i32;
            for i in -stripes..stripes {
                let x = 0.5 * i as f32;
                if i % 2 == 0 && x.abs() < plan_road - 0.6 {
                    self.stage.ground([x, x + 0.5], [z, z + 2.6], road(M::Marking, 0));
                }
            }
        }
        if dice.chance(0.35) {
            // Add the shadow of the houses on the sunny side, which starts beyond the first few
            // meters.
            let edge = self.stage.sun * plan_road * dice.range(0.1, 0.9);
            let out = self.stage.sun * 60.0;
            let z = dice.range(4.0, 9.0);
            self.stage.ground_shadow([edge.min(out), edge.max(out)], [z, far]);
        }
    }

    /// Draws everything along one side of the road, far to near.
    fn lining(&mut self, side: f32, mut dice: Dice) {
        let front = self.plan.front(side);
        let start = self.stage.camera.visible_from(side * front, 0.0);
        let wanted = match self.feature {
            Feature::Wall => Some(Lining::Wall),
            Feature::Fence => Some(Lining::Fence),
            _ => None,
        };
        // A featured wall or fence is always on the right, and also on the left in 3 of 4 scenes.
        let featured = wanted.filter(|_| (side > 0.0) == dice.chance(0.5) || dice.chance(0.5));
        let featured = if side > 0.0 && wanted.is_some() { wanted } else { featured };
        let mut segments = Vec::new();
        let mut z = 0.55 * start;
        while z < 70.0 {
            let drawn = match dice.unit() {
                u if u < 0.52 => Lining::Building,
                u if u < 0.63 => Lining::Wall,
                u if u < 0.73 => Lining::Fence,
                _ => Lining::Park,
            };
            let first = segments.is_empty();
            let kind = featured.filter(|_| first).unwrap_or(drawn);
            let reach = if first { start - z } else { 0.0 };
            let length = reach + dice.range(7.0, 15.0);
            segments.push((kind, [z, z + length], dice.child(100 + segments.len() as u64)));
            z += length;
        }
        for (kind, z, dice) in segments.into_iter().rev() {
            self.segment(kind, side, front, z, dice);
        }
    }

    fn segment(&mut self, kind: Lining, side: f32, front: f32, z: [f32; 2], mut dice: Dice) {
        let x = side * front;
        match kind {
            Lining::Building => self.building(side, front, z, dice),
            Lining::Park => self.park(side, front + 1.2, z, dice),
            Lining::Wall => {
                if dice.chance(0.6) {
                    self.building(side, front + 5.0, z, dice.child(1));
                } else {
                    self.park(side, front + 1.5, z, dice.child(1));
                }
                let (height, variant) = (dice.range(2.2, 3.2), dice.below(2));
                let light = self.stage.side_light(-side);
                let wall = |m| Stuff::new(m, variant, id::WALL).lit(light);
                self.stage.side_rect(x, z, [0.0, height], wall(M::Wall));
                self.stage.side_rect(x, z, [height - 0.25, height + 0.05], wall(M::Coping));
                let end = [x.min(x + side * 0.5), x.max(x + side * 0.5)];
                let light = self.stage.front_light();
                let wall = Stuff::new(M::Wall, variant, id::WALL).lit(light);
                self.stage.front_rect(z[0], end, [0.0, height], wall);
            }
            Lining::Fence => {
                self.park(side, front + 2.0, z, dice.child(1));
                self.fence(x, side, z, &mut dice);
            }
        }
    }

    fn fence(&mut self, x: f32, side: f32, z: [f32; 2], dice: &mut Dice) {
        let (height, variant) = (dice.range(1.9, 2.6), dice.below(2));
        let light = self.stage.side_light(-side);
        let bar = Stuff::new(M::Fence, variant, id::FENCE).lit(light);
        self.stage.side_label(x, z, [0.0, height], id::FENCE);
        for y in [0.15, 0.5 * height, height - 0.35] {
            self.stage.side_rect(x, z, [y, y + 0.22], bar);
        }
        let count = ((z[1] - z[0]) / 0.7) as usize;
        for i in 0..=count {
            let at = z[0] + 0.7 * i as f32;
            self.stage.side_rect(x, [at, at + 0.34], [0.0, height], bar);
        }
    }

    fn building(&mut self, side: f32, front: f32, z: [f32; 2], mut dice: Dice) {
        let (height, variant) = (dice.range(6.5, 15.0), dice.below(1 << 12));
        let x = side * front;
        let (flank, face) = (self.stage.side_light(-side), self.stage.front_light());
        let stuff = |m, light| Stuff::new(m, variant, id::BUILDING).lit(light);
        let back = side * (front + 14.0);
        let end = [x.min(back), x.max(back)];
        self.stage.front_rect(z[0], end, [0.0, height], stuff(M::Facade, face));
        self.stage.side_rect(x, z, [0.0, height], stuff(M::Facade, flank));
        self.stage.side_rect(x, z, [height - 0.7, height + 0.2], stuff(M::Roof, flank));
        self.stage.front_rect(z[0], end, [height - 0.7, height + 0.2], stuff(M::Roof, face));
        if dice.chance(0.6) {
            self.stage.side_rect(x, z, [0.0, 2.6], stuff(M::Shop, flank));
            self.stage.front_rect(z[0], end, [0.0, 2.6], stuff(M::Shop, face));
        }
    }

    fn park(&mut self, side: f32, front: f32, z: [f32; 2], mut dice: Dice) {
        let count = ((z[1] - z[0]) / 4.5).ceil() as usize;
        for i in (0..count).rev() {
            let at = z[0] + 4.5 * (i as f32 + dice.range(0.2, 0.7));
            let x = side * (front + dice.range(0.8, 3.5));
            let own = dice.child(i as u64);
            if dice.chance(0.7) {
                cast::tree(&mut self.stage, x, at, own);
            } else {
                cast::bush(&mut self.stage, x, at, own);
            }
        }
    }

    /// Places all actors: first the featured one, then others where there is space.
    fn cast(&mut self, mut dice: Dice) {
        let side = dice.sign();
        self.feature_role(side, &mut dice);
        let chance = |dice: &mut Dice, p: f32| dice.chance(p);
        for lane in [-1.0, 1.0] {
            for _ in 0..1 + dice.below(3) {
                self.driver(Vehicle::Car, lane, 6.5, 32.0, &mut dice);
            }
        }
        for (vehicle, p) in [(Vehicle::Truck, 0.10), (Vehicle::Bus, 0.08), (Vehicle::Train, 0.04)] {
            if chance(&mut dice, p) {
                let lane = dice.sign();
                self.driver(vehicle, lane, 10.0, 26.0, &mut dice);
            }
        }
        for (cycle, ridden, p) in [
            (Cycle::Bicycle, true, 0.16),
            (Cycle::Motorcycle, true, 0.07),
            (Cycle::Bicycle, false, 0.14),
            (Cycle::Motorcycle, false, 0.06),
        ] {
            if chance(&mut dice, p) {
                let side = dice.sign();
                self.cyclist(cycle, ridden, side, false, &mut dice);
            }
        }
        for side in [-1.0, 1.0] {
            for (carries, p) in
                [(Carries::Light, 0.34), (Carries::Sign, 0.42), (Carries::Lamp, 0.6)]
            {
                if chance(&mut dice, p) {
                    self.post(carries, side, 11.0, &mut dice);
                }
            }
            for _ in 0..1 + dice.below(3) {
                self.walker(side, 10.0, false, &mut dice);
            }
            if self.plan.verge[usize::from(side > 0.0)] > 0.0 && chance(&mut dice, 0.6) {
                let x = side * (self.plan.walk_end(side) + 0.8);
                let z = self.stage.camera.visible_from(x, 0.5) + dice.range(1.0, 14.0);
                self.place(Role::Tree, x, z, 2.4, false, &mut dice);
                let z = self.stage.camera.visible_from(x, 0.5) + dice.range(1.0, 14.0);
                self.place(Role::Bush, x, z, 2.0, false, &mut dice);
            }
            if chance(&mut dice, 0.12) {
                let x = side * (self.plan.walk_end(side) - 0.5);
                let z = self.stage.camera.visible_from(x, 0.5) + dice.range(0.0, 8.0);
                self.place(Role::Bin, x, z, 0.7, false, &mut dice);
            }
        }
        if chance(&mut dice, 0.2) {
            let x = dice.range(-0.8, 0.8) * self.plan.road;
            let z = dice.range(6.0, 12.0);
            self.place(Role::Person, x, z, 0.9, false, &mut dice);
        }
        if chance(&mut dice, 0.15) {
            let x = dice.range(-3.0, 3.0);
            let z = dice.range(11.0, 17.0);
            let role = Role::Vehicle(Vehicle::Car, Pose::Across);
            self.place(role, x, z, 4.2, false, &mut dice);
        }
    }

    fn feature_role(&mut self, side: f32, dice: &mut Dice) {
        match self.feature {
            Feature::Cyclist => self.cyclist(Cycle::Bicycle, true, side, true, dice),
            Feature::Biker => self.cyclist(Cycle::Motorcycle, true, side, true, dice),
            Feature::ParkedBicycle => self.cyclist(Cycle::Bicycle, false, side, true, dice),
            Feature::ParkedMotorcycle => self.cyclist(Cycle::Motorcycle, false, side, true, dice),
            Feature::Truck => self.lead(Vehicle::Truck, [7.5, 12.0], side, dice),
            Feature::Bus => self.lead(Vehicle::Bus, [7.5, 12.0], side, dice),
            Feature::Train => self.lead(Vehicle::Train, [8.0, 13.0], side, dice),
            Feature::Walker => self.walker(side, 2.5, true, dice),
            Feature::Signals => {
                self.post(Carries::Light, side, 2.5, dice);
                self.post(Carries::Sign, -side, 2.5, dice);
            }
            // Walls and fences are drawn along the road, so there is nothing to place.
            Feature::Wall | Feature::Fence => {}
        }
    }

    /// Places a featured vehicle, along the road or across it.
    fn lead(&mut self, vehicle: Vehicle, z: [f32; 2], lane: f32, dice: &mut Dice) {
        let depth = dice.range(z[0], z[1]);
        let [width, length, _] = vehicle.size();
        if dice.chance(0.35) {
            let x = dice.range(-2.5, 2.5);
            self.place(Role::Vehicle(vehicle, Pose::Across), x, depth + 3.0, length, true, dice);
        } else {
            let pose = if lane > 0.0 { Pose::Ahead } else { Pose::Oncoming };
            let x = lane * 0.5 * self.plan.road;
            self.place(Role::Vehicle(vehicle, pose), x, depth, width, true, dice);
        }
    }

    fn driver(&mut self, vehicle: Vehicle, lane: f32, near: f32, far: f32, dice: &mut Dice) {
        let pose = if lane > 0.0 { Pose::Ahead } else { Pose::Oncoming };
        for _ in 0..3 {
            let x = lane * 0.5 * self.plan.road + dice.range(-0.3, 0.3);
            // Sample uniformly in 1/z, that is in the image rather than on the road, so that most
            // vehicles are near.
            let z = 1.0 / dice.range(1.0 / far, 1.0 / near);
            let width = vehicle.size()[0];
            if self.place(Role::Vehicle(vehicle, pose), x, z, width, false, dice) {
                return;
            }
        }
    }

    fn cyclist(&mut self, kind: Cycle, ridden: bool, side: f32, featured: bool, dice: &mut Dice) {
        for _ in 0..4 {
            let x = if ridden {
                side * self.plan.road * dice.range(0.3, 0.85)
            } else {
                side * (self.plan.road + dice.range(0.8, 1.4))
            };
            let near = self.stage.camera.visible_from(x, 1.1).max(4.5);
            let z = near + dice.range(0.0, if featured { 2.0 } else { 6.0 });
            if self.place(Role::Cycle(kind, ridden), x, z, 2.0, featured, dice) {
                return;
            }
        }
    }

    fn walker(&mut self, side: f32, depth: f32, featured: bool, dice: &mut Dice) {
        let span = self.plan.walk[usize::from(side > 0.0)];
        for _ in 0..3 {
            let x = side * (self.plan.road + dice.range(0.5, span - 0.3));
            let near = self.stage.camera.visible_from(x, 0.6).max(4.5);
            let z = near + dice.range(0.0, depth);
            if self.place(Role::Person, x, z, 0.9, featured, dice) {
                return;
            }
        }
    }

    fn post(&mut self, carries: Carries, side: f32, depth: f32, dice: &mut Dice) {
        let x = side * (self.plan.road + 0.5);
        for _ in 0..3 {
            let near = self.stage.camera.visible_from(x, 0.8).max(5.5);
            let z = near + dice.range(0.0, depth);
            if self.place(Role::Pole(carries), x, z, 0.9, false, dice) {
                return;
            }
        }
    }

    /// Places an actor, unless it would occlude another one too much, be occluded too much itself,
    /// or collide with another one. Returns whether it was placed.
    fn place(
        &mut self,
        role: Role,
        x: f32,
        z: f32,
        width: f32,
        featured: bool,
        dice: &mut Dice,
    ) -> bool {
        let camera = &self.stage.camera;
        let span = [x - 0.5 * width, x + 0.5 * width].map(|x| camera.project([x, 0.0, z])[0]);
        let own = dice.child(1000 + self.actors.len() as u64);
        let depth = |role: &Role| match role {
            Role::Vehicle(v, Pose::Ahead | Pose::Oncoming) => v.size()[1],
            Role::Vehicle(v, Pose::Across) => v.size()[0],
            _ => 0.6,
        };
        let clash = self.actors.iter().any(|other| {
            let shared = span[1].min(other.span[1]) - span[0].max(other.span[0]);
            if shared <= 0.0 {
                return false;
            }
            let (behind, hides) = if z < other.z {
                (other.span, if other.featured { 0.25 } else { 0.6 })
            } else {
                (span, if featured { 0.25 } else { 0.6 })
            };
            let (front, back) =
                if z < other.z { (&role, other.z - z) } else { (&other.role, z - other.z) };
            shared > hides * (behind[1] - behind[0]) || back < depth(front) + 0.3
        });
        if clash {
            return false;
        }
        self.actors.push(Actor { role, x, z, span, featured, dice: own });
        true
    }

    fn shadows(&mut self) {
        let stage = &mut self.stage;
        for &Actor { role, x, z, .. } in &self.actors {
            match role {
                Role::Person => cast::person_shadow(stage, x, z),
                Role::Cycle(_, ridden) => cast::cycle_shadow(stage, x, z, ridden),
                Role::Vehicle(vehicle, pose) => vehicle.shadow(stage, x, z, pose),
                Role::Pole(_) => cast::pole_shadow(stage, x, z),
                Role::Tree => cast::tree_shadow(stage, x, z),
                Role::Bush | Role::Bin => cast::person_shadow(stage, x, z),
            }
        }
    }

    /// Draws all actors, far to near.
    fn perform(&mut self) {
        self.actors.sort_by(|a, b| b.z.total_cmp(&a.z));
        let stage = &mut self.stage;
        for Actor { role, x, z, dice, .. } in self.actors.drain(..) {
            match role {
                Role::Person => cast::person(stage, x, z, dice),
                Role::Cycle(kind, ridden) => cast::cycle(stage, x, z, kind, ridden, dice),
                Role::Vehicle(vehicle, pose) => vehicle.draw(stage, x, z, pose, dice),
                Role::Pole(carries) => cast::pole(stage, x, z, carries, x.signum(), dice),
                Role::Tree => cast::tree(stage, x, z, dice),
                Role::Bush => cast::bush(stage, x, z, dice),
                Role::Bin => cast::bin(stage, x, z, dice),
            }
        }
    }
}

/// Type of a segment along the road, behind the sidewalk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lining {
    Building,
    Wall,
    Fence,
    Park,
}
