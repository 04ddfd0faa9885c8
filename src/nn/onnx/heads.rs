//! Decode heads.

use crate::onnx::Value;
use crate::{Error, Result};

use super::super::daformer::{Branch, DaformerHead, Fuse};
use super::super::deeplab::DeepLabHead;
use super::Export;

impl Export<'_> {
    pub(super) fn daformer(&mut self, head: &DaformerHead, features: &[Value]) -> Result<Value> {
        let size = [self.graph.dim(&features[0], 2), self.graph.dim(&features[0], 3)];
        let mut levels = Vec::with_capacity(features.len());
        for (embed, feature) in head.embed.iter().zip(features) {
            let embedded = self.pointwise(embed, feature)?;
            levels.push(self.graph.resize(&embedded, size.clone()));
        }
        let joined = self.graph.concat(&levels, 1);
        let fused = match &head.fuse {
            Fuse::Conv1x1 { conv, norm } => {
                let mixed = self.pointwise(conv, &joined)?;
                self.batch_norm_relu(norm, &mixed)?
            }
            Fuse::Aspp { branches, bottleneck, norm } => {
                let outputs = (branches.iter())
                    .map(|branch| self.branch(branch, &joined))
                    .collect::<Result<Vec<_>>>()?;
                let together = self.graph.concat(&outputs, 1);
                let mixed = self.convolution(bottleneck, &together)?;
                self.batch_norm_relu(norm, &mixed)?
            }
        };
        self.pointwise(&head.classifier, &fused)
    }

    fn branch(&mut self, branch: &Branch, x: &Value) -> Result<Value> {
        match branch {
            Branch::Conv1x1 { conv, norm } => {
                let y = self.pointwise(conv, x)?;
                self.batch_norm_relu(norm, &y)
            }
            Branch::Separable { depthwise, depthwise_norm, pointwise, pointwise_norm } => {
                let y = self.depthwise(depthwise, x)?;
                let y = self.batch_norm_relu(depthwise_norm, &y)?;
                let y = self.pointwise(pointwise, &y)?;
                self.batch_norm_relu(pointwise_norm, &y)
            }
        }
    }

    pub(super) fn deeplab(&mut self, head: &DeepLabHead, features: &[Value]) -> Result<Value> {
        let mut sum: Option<Value> = None;
        for branch in &head.branches {
            let output = self.convolution(branch, &features[features.len() - 1])?;
            sum = Some(match sum {
                Some(sum) => self.graph.binary("Add", &sum, &output),
                None => output,
            });
        }
        sum.ok_or_else(|| Error::config("network.dilations: at least one is needed"))
    }
}
