//! ResNet v1c.

use crate::Result;
use crate::onnx::{Value, Window};

use super::super::resnet::{Bottleneck, ConvNorm, ResNet};
use super::Export;

impl Export<'_> {
    pub(super) fn resnet(&mut self, resnet: &ResNet, image: &Value) -> Result<Vec<Value>> {
        let mut x = image.clone();
        for layer in &resnet.stem {
            x = self.conv_norm_relu(layer, &x)?;
        }
        let window = Window { kernel: 3, stride: 2, padding: 1, dilation: 1, groups: 1 };
        x = self.graph.max_pool(&x, window);
        let mut features = Vec::with_capacity(resnet.stages.len());
        for stage in &resnet.stages {
            for block in stage {
                x = self.bottleneck(block, &x)?;
            }
            features.push(x.clone());
        }
        Ok(features)
    }

    fn bottleneck(&mut self, block: &Bottleneck, x: &Value) -> Result<Value> {
        let [first, second, third] = &block.branch;
        let inner = self.conv_norm_relu(first, x)?;
        let inner = self.conv_norm_relu(second, &inner)?;
        let outer = self.conv_norm(third, &inner)?;
        let kept = match &block.shortcut {
            Some(shortcut) => self.conv_norm(shortcut, x)?,
            None => x.clone(),
        };
        let sum = self.graph.binary("Add", &outer, &kept);
        Ok(self.graph.unary("Relu", &sum))
    }

    fn conv_norm(&mut self, layer: &ConvNorm, x: &Value) -> Result<Value> {
        let y = self.convolution(&layer.conv, x)?;
        self.batch_norm(&layer.norm, &y)
    }

    fn conv_norm_relu(&mut self, layer: &ConvNorm, x: &Value) -> Result<Value> {
        let y = self.conv_norm(layer, x)?;
        Ok(self.graph.unary("Relu", &y))
    }
}
