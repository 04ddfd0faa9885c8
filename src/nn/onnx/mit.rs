//! The Mix Transformer.

use std::f32::consts::FRAC_1_SQRT_2;

use crate::Result;
use crate::onnx::{Dim, Value};

use super::super::mit::{Attention, Block, Mit, Stage};
use super::Export;

/// Height and width of the maps that tokens stand for.
type Sides = [Dim; 2];

impl Export<'_> {
    pub(super) fn mit(&mut self, mit: &Mit, image: &Value) -> Result<Vec<Value>> {
        let mut features: Vec<Value> = Vec::with_capacity(mit.stages.len());
        for stage in &mit.stages {
            let feature = self.mit_stage(stage, features.last().unwrap_or(image))?;
            features.push(feature);
        }
        Ok(features)
    }

    fn mit_stage(&mut self, stage: &Stage, input: &Value) -> Result<Value> {
        let embedded = self.convolution(&stage.embed, input)?;
        let sides = [self.graph.dim(&embedded, 2), self.graph.dim(&embedded, 3)];
        let tokens = self.tokens(&embedded);
        let mut x = self.layer_norm(&stage.embed_norm, &tokens)?;
        for block in &stage.blocks {
            x = self.mit_block(block, &x, &sides)?;
        }
        let normed = self.layer_norm(&stage.norm, &x)?;
        Ok(self.map(&normed, &sides))
    }

    fn mit_block(&mut self, block: &Block, x: &Value, sides: &Sides) -> Result<Value> {
        let normed = self.layer_norm(&block.norm1, x)?;
        let attended = self.attention(&block.attention, &normed, sides)?;
        let x = self.graph.binary("Add", x, &attended);
        let normed = self.layer_norm(&block.norm2, &x)?;
        let hidden = self.linear(&block.fc1, &normed)?;
        let hidden = self.map(&hidden, sides);
        let hidden = self.depthwise(&block.depthwise, &hidden)?;
        let hidden = self.gelu(&hidden);
        let hidden = self.tokens(&hidden);
        let mixed = self.linear(&block.fc2, &hidden)?;
        Ok(self.graph.binary("Add", &x, &mixed))
    }

    fn attention(&mut self, layer: &Attention, x: &Value, sides: &Sides) -> Result<Value> {
        let q = self.linear(&layer.q, x)?;
        let kv = match &layer.reduction {
            Some((conv, norm)) => {
                let map = self.map(x, sides);
                let reduced = self.convolution(conv, &map)?;
                let tokens = self.tokens(&reduced);
                let normed = self.layer_norm(norm, &tokens)?;
                self.linear(&layer.kv, &normed)?
            }
            None => self.linear(&layer.kv, x)?,
        };
        let g = &mut self.graph;
        g.within(&layer.name);
        let (heads, width) = (layer.heads as i64, q.shape[2].unwrap_or(1));
        let depth = width / heads;
        let split = [0, -1, heads, depth].map(Dim::Known);
        let scale = g.constant(&format!("scale.{depth}"), &[], &[1.0 / (depth as f32).sqrt()]);
        let q = g.binary("Mul", &q, &scale);
        let q = g.reshape(&q, &split);
        let q = g.transpose(&q, &[0, 2, 1, 3]);
        let k = g.slice(&kv, 2, 0..width);
        let k = g.reshape(&k, &split);
        let k = g.transpose(&k, &[0, 2, 3, 1]);
        let v = g.slice(&kv, 2, width..2 * width);
        let v = g.reshape(&v, &split);
        let v = g.transpose(&v, &[0, 2, 1, 3]);
        let scores = g.matmul(&q, &k);
        let shares = g.softmax(&scores);
        let attended = g.matmul(&shares, &v);
        let attended = g.transpose(&attended, &[0, 2, 1, 3]);
        let joined = g.reshape(&attended, &[0, -1, width].map(Dim::Known));
        self.linear(&layer.proj, &joined)
    }

    /// The exact GELU: x/2·(1 + erf(x/√2)).
    fn gelu(&mut self, x: &Value) -> Value {
        let g = &mut self.graph;
        let [half, one] = [0.5, 1.0].map(|n: f32| g.constant(&format!("number.{n}"), &[], &[n]));
        let slope = g.constant("gelu.sqrt_half", &[], &[FRAC_1_SQRT_2]);
        let scaled = g.binary("Mul", x, &slope);
        let erf = g.unary("Erf", &scaled);
        let share = g.binary("Add", &erf, &one);
        let product = g.binary("Mul", x, &share);
        g.binary("Mul", &product, &half)
    }

    /// Returns a map B,C,H,W as tokens B,N,C.
    fn tokens(&mut self, map: &Value) -> Value {
        let channels = map.shape[1].unwrap_or(0);
        let rows = self.graph.reshape(map, &[0, channels, -1].map(Dim::Known));
        self.graph.transpose(&rows, &[0, 2, 1])
    }

    /// Returns tokens B,N,C as a map B,C,H,W.
    fn map(&mut self, tokens: &Value, [height, width]: &Sides) -> Value {
        let rows = self.graph.transpose(tokens, &[0, 2, 1]);
        self.graph.reshape(&rows, &[Dim::Known(0), Dim::Known(0), height.clone(), width.clone()])
    }
}
