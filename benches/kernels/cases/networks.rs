//! Cases of the layers of both networks: backbones on a batch of context or detail crops, then the
//! heads.

use udass_raw::config::Config;
use udass_raw::nn::Segmentor;
use udass_raw::ops::Conv;

use super::List;
use super::layers::{Filter, Map};

const HEADS: [usize; 4] = [1, 2, 5, 8];
const REDUCTIONS: [usize; 4] = [8, 4, 2, 1];

pub fn add(list: &mut List, config: &Config) {
    let network = Segmentor::new(&config.network).unwrap();
    let widths = network.backbone().widths();
    // Context and detail crops have the same size in pixels.
    let (batch, side) = (config.data.batch, config.network.hrda.detail_crop);
    list.halve(Map { batch, side: config.data.crop, channels: 3 });
    if config.network.backbone.starts_with("mit") {
        // A MiT processes both scales as one batch.
        mit(list, widths, 2 * batch, side);
        daformer(list, widths, Map { batch, side: side / 4, channels: config.network.channels });
        let grid = Map { batch, side: side / 4, channels: config.network.channels };
        list.dropout(grid, config.network.dropout);
        list.classifier(grid.rows(), grid.channels, config.network.classes);
    } else {
        resnet(list, widths, batch, side);
        let last = Map { batch, side: side / 8, channels: widths[3] };
        for &dilation in &config.network.dilations {
            list.conv3x3(last, config.network.classes, dilation, true);
        }
        list.add(Map { channels: config.network.classes, ..last }, false);
    }
}

fn mit(list: &mut List, widths: [usize; 4], batch: usize, side: usize) {
    let mut from = Map { batch, side, channels: 3 };
    for (stage, width) in widths.into_iter().enumerate() {
        let (kernel, stride) = if stage == 0 { (7, 4) } else { (3, 2) };
        let geometry = Conv::strided(stride, kernel / 2);
        let filter = Filter { out: width, kernel, geometry, bias: true };
        list.conv("patch_embed", from, filter, true);
        let map = Map { batch, side: side / (4 << stage), channels: width };
        let (heads, ratio) = (HEADS[stage], REDUCTIONS[stage]);
        let (rows, keys) = (map.rows(), (map.side / ratio).pow(2).max(1));
        list.layernorm(rows, width);
        list.linear(rows, width, width, true);
        if ratio > 1 {
            let geometry = Conv::strided(ratio, 0);
            let filter = Filter { out: width, kernel: ratio, geometry, bias: true };
            list.conv("reduction", map, filter, true);
            list.layernorm(batch * keys, width);
        }
        list.linear(batch * keys, width, 2 * width, true);
        list.attention(batch, heads, [map.side * map.side, keys], width / heads);
        list.add_layernorm(batch, map.side * map.side, width, 0.1);
        list.linear(rows, width, 4 * width, true);
        list.depthwise_gelu(Map { channels: 4 * width, ..map });
        list.linear(rows, 4 * width, width, true);
        // Sums the gradients of an activation that has two consumers.
        list.add(map, false);
        from = map;
    }
}

/// `grid` is the finest level, with the decoder's number of channels.
fn daformer(list: &mut List, widths: [usize; 4], grid: Map) {
    let Map { batch, side, channels } = grid;
    for (stage, width) in widths.into_iter().enumerate() {
        list.linear(batch * (side >> stage).pow(2), width, channels, true);
    }
    list.bilinear(Map { side: (side / 8).max(1), ..grid }, side);
    list.bilinear(Map { side: side / 2, ..grid }, side);
    list.resize_concat(grid);
    list.linear_of_resized(grid, channels);
    list.folded_linear_of_resized(widths, grid, channels);
    let joined = Map { channels: 4 * channels, ..grid };
    for dilation in [6, 12, 18] {
        list.depthwise(joined, dilation);
    }
    list.batchnorm(joined, true);
    list.linear(grid.rows(), 4 * channels, channels, false);
    list.batchnorm(grid, true);
    list.concat(grid, 4);
    list.conv3x3(joined, channels, 1, false);
}

fn resnet(list: &mut List, widths: [usize; 4], batch: usize, side: usize) {
    let strided = |out: usize, kernel: usize, stride: usize| Filter {
        out,
        kernel,
        geometry: Conv::strided(stride, kernel / 2),
        bias: false,
    };
    let half = |channels: usize| Map { batch, side: side / 2, channels };
    list.conv("conv_strided", Map { batch, side, channels: 3 }, strided(32, 3, 2), false);
    list.conv3x3(half(32), 32, 1, false);
    list.conv3x3(half(32), 64, 1, false);
    list.batchnorm(half(32), true);
    list.batchnorm(half(64), true);
    list.max_pool(half(64));
    let mut from = Map { batch, side: side / 4, channels: 64 };
    for (stage, outer) in widths.into_iter().enumerate() {
        let inner = outer / 4;
        let side = if stage == 0 { side / 4 } else { side / 8 };
        let [inside, outside] = [inner, outer].map(|channels| Map { batch, side, channels });
        // The first block's input convolution and shortcut, then the input convolution of all other
        // blocks.
        list.linear(from.rows(), from.channels, inner, false);
        if from.side == side {
            list.linear(from.rows(), from.channels, outer, false);
        } else {
            list.batchnorm(Map { channels: inner, ..from }, true);
            list.conv("conv_strided", Map { channels: inner, ..from }, strided(inner, 3, 2), false);
            list.conv("conv_strided", from, strided(outer, 1, 2), false);
        }
        list.linear(outside.rows(), outer, inner, false);
        let dilations = [1, 1, 2, 4];
        list.conv3x3(inside, inner, dilations[stage], false);
        list.linear(outside.rows(), inner, outer, false);
        list.batchnorm(inside, true);
        list.batchnorm(outside, false);
        list.batchnorm_running(inside);
        list.add(outside, true);
        from = outside;
    }
}
