//! Layers with parameters. Maps are B,C,H,W; tokens are B,N,C.

use crate::Result;
use crate::onnx::{Value, Window};
use crate::params::{BufferId, ParamId};

use super::super::layers::{BatchNorm, Convolution, Depthwise, LayerNorm, Linear};
use super::Export;

impl Export<'_> {
    /// Returns a parameter in the reference's layout, and names the following nodes after its
    /// layer.
    fn parameter(&mut self, id: ParamId) -> Result<Value> {
        let (spec, numbers) = self.weights.reference(self.device, id)?;
        self.graph.within(self.weights.spec().layer_of(id));
        Ok(self.graph.constant(&spec.name, &spec.shape, &numbers))
    }

    fn buffer(&mut self, id: BufferId) -> Result<Value> {
        let (spec, numbers) = self.weights.reference_buffer(self.device, id)?;
        Ok(self.graph.constant(&spec.name, &spec.shape, &numbers))
    }

    /// Applies a linear layer to tokens.
    pub(super) fn linear(&mut self, layer: &Linear, x: &Value) -> Result<Value> {
        let (spec, numbers) = self.weights.reference(self.device, layer.weight)?;
        // ONNX multiplies by C,K from the right; the reference's weights are K,C.
        let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
        let turned: Vec<f32> =
            (0..inputs * outputs).map(|i| numbers[i % outputs * inputs + i / outputs]).collect();
        self.graph.within(self.weights.spec().layer_of(layer.weight));
        let name = format!("{}.transposed", spec.name);
        let weight = self.graph.constant(&name, &[inputs, outputs], &turned);
        let y = self.graph.matmul(x, &weight);
        match layer.bias {
            Some(bias) => {
                let bias = self.parameter(bias)?;
                Ok(self.graph.binary("Add", &y, &bias))
            }
            None => Ok(y),
        }
    }

    /// Applies a linear layer to every position of a map.
    pub(super) fn pointwise(&mut self, layer: &Linear, x: &Value) -> Result<Value> {
        let (spec, numbers) = self.weights.reference(self.device, layer.weight)?;
        self.graph.within(self.weights.spec().layer_of(layer.weight));
        let shape = [spec.shape[0], spec.shape[1], 1, 1];
        let filter = self.graph.constant(&spec.name, &shape, &numbers);
        let window = Window { kernel: 1, stride: 1, padding: 0, dilation: 1, groups: 1 };
        self.convolve(x, &filter, layer.bias, window)
    }

    pub(super) fn convolution(&mut self, layer: &Convolution, x: &Value) -> Result<Value> {
        let filter = self.parameter(layer.weight)?;
        let kernel = filter.shape[2].unwrap_or(1) as usize;
        let (g, groups) = (layer.geometry, 1);
        let (stride, padding, dilation) = (g.stride, g.padding, g.dilation);
        let window = Window { kernel, stride, padding, dilation, groups };
        self.convolve(x, &filter, layer.bias, window)
    }

    pub(super) fn depthwise(&mut self, layer: &Depthwise, x: &Value) -> Result<Value> {
        let filter = self.parameter(layer.weight)?;
        let (groups, dilation) = (filter.shape[0].unwrap_or(1) as usize, layer.dilation);
        let window = Window { kernel: 3, stride: 1, padding: dilation, dilation, groups };
        self.convolve(x, &filter, layer.bias, window)
    }

    fn convolve(
        &mut self,
        x: &Value,
        filter: &Value,
        bias: Option<ParamId>,
        window: Window,
    ) -> Result<Value> {
        let bias = bias.map(|id| self.parameter(id)).transpose()?;
        Ok(self.graph.conv(x, filter, bias.as_ref(), window))
    }

    /// Normalizes tokens.
    pub(super) fn layer_norm(&mut self, layer: &LayerNorm, x: &Value) -> Result<Value> {
        let (scale, bias) = (self.parameter(layer.weight)?, self.parameter(layer.bias)?);
        Ok(self.graph.layer_norm(x, &scale, &bias, layer.eps))
    }

    /// Normalizes a map by the running statistics.
    pub(super) fn batch_norm(&mut self, layer: &BatchNorm, x: &Value) -> Result<Value> {
        let constants = [
            self.parameter(layer.weight)?,
            self.parameter(layer.bias)?,
            self.buffer(layer.mean)?,
            self.buffer(layer.var)?,
        ];
        Ok(self.graph.batch_norm(x, &constants, BatchNorm::EPS))
    }

    pub(super) fn batch_norm_relu(&mut self, layer: &BatchNorm, x: &Value) -> Result<Value> {
        let normed = self.batch_norm(layer, x)?;
        Ok(self.graph.unary("Relu", &normed))
    }
}
