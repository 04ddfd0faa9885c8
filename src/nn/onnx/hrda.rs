//! HRDA's two scales: the context, and detail windows that slide over the image.

use crate::Result;
use crate::onnx::{Dim, Graph, Value};

use super::super::segmentor::{Hrda, Segmentor};
use super::Export;

/// Windows along one side of an image. The last one is moved back to the edge.
struct Windows {
    /// The positions that the windows cover, one window after the other.
    positions: Value,
    count: Dim,
    /// Positions of a window.
    size: Dim,
    /// Positions of the side.
    length: Dim,
}

impl Export<'_> {
    pub(super) fn hrda(
        &mut self,
        network: &Segmentor,
        hrda: &Hrda,
        image: &Value,
    ) -> Result<Value> {
        self.graph.within("context");
        let context = self.graph.scale(image, 1.0 / hrda.factor as f32);
        let features = self.backbone(&network.backbone, &context)?;
        let low = self.head(&network.head, &features)?;
        let attention = match &hrda.attention {
            Some(head) => Some(self.head(head, &features)?),
            None => None,
        };
        let cropped = self.graph.crops(image, hrda);
        // These nodes read the same constants as the context's, which go by the parameters' names.
        let details = self.backbone(&network.backbone, &cropped)?;
        let details = self.head(&network.head, &details)?;
        let high = self.graph.average(image, &details, hrda, network.stride());

        let g = &mut self.graph;
        g.within("fuse");
        let factor = hrda.factor as f32;
        let one = g.constant("number.1", &[], &[1.0]);
        let attention = match attention {
            Some(logits) => g.unary("Sigmoid", &logits),
            None => g.constant("number.0.5", &[], &[0.5]),
        };
        let rest = g.binary("Sub", &one, &attention);
        let scaled = g.binary("Mul", &rest, &low);
        let scaled = g.scale(&scaled, factor);
        let share = match attention.shape.is_empty() {
            true => attention,
            false => g.scale(&attention, factor),
        };
        let detail = g.binary("Mul", &share, &high);
        Ok(g.binary("Add", &detail, &scaled))
    }
}

impl Graph {
    /// Cuts an image into the detail windows, n·B,3,h,w in the order of [`crate::ops::Windows`].
    fn crops(&mut self, image: &Value, hrda: &Hrda) -> Value {
        self.within("windows");
        let [rows, columns] = [2, 3].map(|axis| {
            let length = self.dim(image, axis);
            self.windows(&length, hrda.detail_crop, hrda.step)
        });
        let cut = self.gather(image, &rows.positions, 2);
        let cut = self.gather(&cut, &columns.positions, 3);
        let (batch, channels) = (self.dim(image, 0), self.dim(image, 1));
        let Windows { count: ny, size: height, .. } = rows;
        let Windows { count: nx, size: width, .. } = columns;
        let sizes = [batch, channels.clone(), ny, height.clone(), nx, width.clone()];
        let cut = self.reshape(&cut, &sizes);
        let cut = self.transpose(&cut, &[2, 4, 0, 1, 3, 5]);
        self.reshape(&cut, &[Dim::Known(-1), channels, height, width])
    }

    /// Averages the logits of the windows where they overlap. Windows cover a product of rows and
    /// columns, so that the mean is one over rows and then one over columns, each the product with
    /// a matrix.
    fn average(&mut self, image: &Value, logits: &Value, hrda: &Hrda, stride: usize) -> Value {
        self.within("windows");
        let [rows, columns] = [2, 3].map(|axis| {
            let side = self.dim(image, axis);
            let length = self.dim_div(&side, &Dim::Known(stride as i64));
            self.windows(&length, hrda.detail_crop / stride, hrda.step / stride)
        });
        let (batch, classes) = (self.dim(image, 0), self.dim(logits, 1));
        let [(ny, height), (nx, width)] =
            [&rows, &columns].map(|side| (side.count.clone(), side.size.clone()));
        let joined = [&rows, &columns].map(|side| self.dim_mul(&side.count, &side.size));
        let sizes = [ny, nx, batch.clone(), classes.clone(), height, width];
        let grid = self.reshape(logits, &sizes);
        let grid = self.transpose(&grid, &[2, 3, 0, 4, 1, 5]);
        let [joined_rows, joined_columns] = joined;
        let grid = self.reshape(&grid, &[batch, classes, joined_rows, joined_columns]);
        let (over_rows, over_columns) = (self.means(&rows), self.means(&columns));
        let averaged = self.matmul(&over_rows, &grid);
        let over_columns = self.transpose(&over_columns, &[1, 0]);
        self.matmul(&averaged, &over_columns)
    }

    /// Places windows along a side.
    fn windows(&mut self, length: &Dim, window: usize, step: usize) -> Windows {
        let (step, one) = (Dim::Known(step as i64), Dim::Known(1));
        let size = self.dim_min(&Dim::Known(window as i64), length);
        let last = self.dim_sub(length, &size);
        // ⌈last / step⌉ + 1
        let up = self.dim_add(&last, &step);
        let up = self.dim_sub(&up, &one);
        let steps = self.dim_div(&up, &step);
        let count = self.dim_add(&steps, &one);
        let positions = match (&last, &step, &count, &size) {
            (Dim::Known(last), Dim::Known(step), Dim::Known(count), Dim::Known(size)) => {
                let starts = (0..*count).map(|i| (i * step).min(*last));
                let positions = starts.flat_map(|start| start..start + size);
                self.integers(&positions.collect::<Vec<_>>())
            }
            _ => {
                let [last, step] = [&last, &step].map(|dim| self.dims(std::slice::from_ref(dim)));
                let starts = self.range(&count);
                let starts = self.binary("Mul", &starts, &step);
                let starts = self.binary("Min", &starts, &last);
                let starts = self.unsqueeze(&starts, 1);
                let within = self.range(&size);
                let within = self.unsqueeze(&within, 0);
                let positions = self.binary("Add", &starts, &within);
                self.reshape(&positions, &[Dim::Known(-1)])
            }
        };
        Windows { positions, count, size, length: length.clone() }
    }

    /// Returns the matrix by which windows' positions, one window after the other, become positions
    /// of the side: each the mean of the windows that cover it.
    fn means(&mut self, windows: &Windows) -> Value {
        let side = self.range(&windows.length);
        let side = self.unsqueeze(&side, 1);
        let covered = self.unsqueeze(&windows.positions, 0);
        let same = self.binary("Equal", &side, &covered);
        let same = self.float(&same);
        let count = self.sum(&same, 1);
        self.binary("Div", &same, &count)
    }
}
