//! Forward passes as captured graphs.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::device::{Device, GraphCache};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Most shapes that have graphs at a time. A graph keeps its memory, and a program that segments
/// images of ever new sizes as a whole would collect them without end.
const MOST: usize = 8;

/// The forward passes of one network with one set of weights, by the shape of their input. Work of
/// a shape is submitted as usual at first; when it recurs, it is captured and then replayed, with
/// its input and output at addresses of its own.
pub(super) struct Captured {
    /// None if the device cannot capture graphs.
    graphs: Option<RefCell<Graphs>>,
}

struct Graphs {
    cache: GraphCache<Vec<usize>, ()>,
    /// Input and output, by the shape of the input.
    places: HashMap<Vec<usize>, [Tensor; 2]>,
}

impl Graphs {
    /// Forgets all graphs, and then the memory that they refer to.
    fn clear(&mut self, device: &Device) {
        self.cache = GraphCache::new(device, true);
        self.places.clear();
    }
}

impl Captured {
    pub fn new(device: &Device) -> Captured {
        let cache = GraphCache::new(device, true);
        let graphs = cache.captures().then(|| Graphs { cache, places: HashMap::new() });
        Captured { graphs: graphs.map(RefCell::new) }
    }

    /// Returns `forward(input)`. The result may be overwritten by the next call.
    pub fn run(
        &self,
        device: &Device,
        input: &Tensor,
        forward: &dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(graphs) = &self.graphs else { return forward(input) };
        let mut graphs = graphs.borrow_mut();
        let Graphs { cache, places } = &mut *graphs;
        let shape = input.shape().to_vec();
        let Some([from, to]) = places.get_mut(&shape) else {
            let output = forward(input)?;
            let full = places.len() >= MOST;
            let made = device.persistent(|| {
                Ok::<_, Error>([device.empty_like(input)?, device.empty_like(&output)?])
            });
            // Without room for them, the work is submitted anew each time.
            if full {
                graphs.clear(device);
            }
            match made {
                Ok(made) => drop(graphs.places.insert(shape, made)),
                Err(Error::OutOfMemory(_)) => {}
                Err(error) => return Err(error),
            }
            return Ok(output);
        };
        device.copy(input, from)?;
        let work = || {
            let output = forward(from)?;
            device.copy(&output, to)
        };
        match cache.run(shape.clone(), work) {
            Ok(_) => Ok(to.clone()),
            Err(error) => {
                graphs.clear(device);
                Err(error)
            }
        }
    }
}
