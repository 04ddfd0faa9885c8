//! Attention: packing, forward, backward.

use udass_raw::device::constants::attention::{KEYS, PAD, QUERIES};
use udass_raw::device::{Grid, kernels};
use udass_raw::tensor::Tensor;

use crate::{GRID, Host, at, close, each};

const BATCH: usize = 2;
const N: usize = 101;
const M: usize = 67;
const HEADS: usize = 3;
const SIZE: usize = 5;
const TILES: usize = 2;

fn pack(host: &Host, kv: &Tensor, part: usize, across: bool) -> Tensor {
    let mut packed = host.room(&[BATCH, HEADS, TILES, KEYS * PAD]);
    let (key_step, channel_step) = if across { (1, KEYS) } else { (PAD, 1) };
    kernels::AttentionPack {
        kv,
        packed: &mut packed,
        part,
        batch: BATCH,
        keys: M,
        heads: HEADS,
        head_dim: SIZE,
        width: PAD,
        key_step,
        channel_step,
    }
    .launch(&host.device, GRID)
    .unwrap();
    packed
}

#[test]
fn attention() {
    let host = Host::double();
    let device = &host.device;
    let (q_shape, kv_shape) = ([BATCH, N, HEADS, SIZE], [BATCH, M, 2, HEADS, SIZE]);
    let (q, qs) = host.reals(&q_shape);
    let (kv, kvs) = host.reals(&kv_shape);
    let (dy, dys) = host.reals(&q_shape);

    for (part, across) in [(0, true), (0, false), (1, true), (1, false)] {
        let shape = [BATCH, HEADS, TILES];
        let mut expected = vec![0.0; BATCH * HEADS * TILES * KEYS * PAD];
        for [b, key, head, d] in each([BATCH, M, HEADS, SIZE]) {
            let place = if across { d * KEYS + key % KEYS } else { key % KEYS * PAD + d };
            expected[at(shape, [b, head, key / KEYS]) * KEYS * PAD + place] =
                kvs[at(kv_shape, [b, key, part, head, d])];
        }
        close("attention_pack", &host.read(&pack(&host, &kv, part, across)), &expected);
    }

    let (keys_across, key_rows) = (pack(&host, &kv, 0, true), pack(&host, &kv, 0, false));
    let (values_across, values) = (pack(&host, &kv, 1, true), pack(&host, &kv, 1, false));
    let (mut y, mut log_sum_exp) = (host.room(&q_shape), host.room(&[BATCH, HEADS, N]));
    let mut without_logs = host.room(&q_shape);
    let grid = |blocks: usize, tiles: usize, scores: usize| {
        let numbers = (tiles * QUERIES + KEYS) * PAD + scores * QUERIES * KEYS;
        Grid::blocks(BATCH * HEADS * blocks).threads(128).shared(numbers * 8)
    };
    let blocks = N.div_ceil(QUERIES);
    for (y, log_sum_exp) in [(&mut y, Some(&mut log_sum_exp)), (&mut without_logs, None)] {
        kernels::AttentionForward {
            q: &q,
            keys_across: &keys_across,
            values: &values,
            y,
            log_sum_exp,
            queries: N,
            keys: M,
            heads: HEADS,
            head_dim: SIZE,
            width: PAD,
        }
        .launch(device, grid(blocks, 2, 1))
        .unwrap();
    }

    let mut wanted_y = vec![0.0; qs.len()];
    let mut wanted_logs = vec![0.0; BATCH * HEADS * N];
    let (mut wanted_dq, mut wanted_dkv) = (vec![0.0; qs.len()], vec![0.0; kvs.len()]);
    let scale = 1.0 / (SIZE as f64).sqrt();
    for [b, head, n] in each([BATCH, HEADS, N]) {
        let query = |d: usize| at(q_shape, [b, n, head, d]);
        let key = |m: usize, d: usize| at(kv_shape, [b, m, 0, head, d]);
        let value = |m: usize, d: usize| at(kv_shape, [b, m, 1, head, d]);
        let dot = |f: &dyn Fn(usize) -> f64| (0..SIZE).map(f).sum::<f64>();
        let scores: Vec<f64> =
            (0..M).map(|m| scale * dot(&|d| qs[query(d)] * kvs[key(m, d)])).collect();
        let log = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
        wanted_logs[at([BATCH, HEADS, N], [b, head, n])] = log;
        let share = |m: usize| (scores[m] - log).exp();
        for d in 0..SIZE {
            wanted_y[query(d)] = (0..M).map(|m| share(m) * kvs[value(m, d)]).sum();
        }
        let back = |m: usize| dot(&|d| dys[query(d)] * kvs[value(m, d)]);
        let delta: f64 = (0..M).map(|m| share(m) * back(m)).sum();
        for m in 0..M {
            let derivative = share(m) * (back(m) - delta) * scale;
            for d in 0..SIZE {
                wanted_dq[query(d)] += derivative * kvs[key(m, d)];
                wanted_dkv[key(m, d)] += derivative * qs[query(d)];
                wanted_dkv[value(m, d)] += share(m) * dys[query(d)];
            }
        }
    }
    close("y", &host.read(&y), &wanted_y);
    assert_eq!(host.read(&without_logs), host.read(&y));
    close("logs", &host.read(&log_sum_exp), &wanted_logs);

    // The tensor-core kernels, which double precision does not use.
    let (mut mma_y, mut mma_logs) = (host.room(&q_shape), host.room(&[BATCH, HEADS, N]));
    let kept = Some(&mut mma_logs);
    let blocks = |n: usize| Grid::blocks(BATCH * HEADS * n).shared(2 * 64 * (SIZE + 2) * 8);
    let by = blocks(N.div_ceil(31));
    kernels::AttentionMmaForward {
        q: &q,
        kv: &kv,
        y: &mut mma_y,
        log_sum_exp: kept,
        chunk: 31,
        resident: 64,
        queries: N,
        keys: M,
        heads: HEADS,
        head_dim: SIZE,
    }
    .launch(device, by)
    .unwrap();
    close("attention_mma_forward: y", &host.read(&mma_y), &wanted_y);
    close("attention_mma_forward: logs", &host.read(&mma_logs), &wanted_logs);
    let (mut mma_dq, mut delta) = (host.room(&q_shape), host.room(&[BATCH, HEADS, N]));
    kernels::AttentionMmaQueries {
        q: &q,
        kv: &kv,
        y: &y,
        dy: &dy,
        log_sum_exp: &log_sum_exp,
        dq: &mut mma_dq,
        delta: &mut delta,
        chunk: 31,
        resident: 64,
        queries: N,
        keys: M,
        heads: HEADS,
        head_dim: SIZE,
    }
    .launch(device, by)
    .unwrap();
    let wanted_delta: Vec<f64> = each([BATCH, HEADS, N])
        .map(|[b, head, n]| {
            let place = |d: usize| at(q_shape, [b, n, head, d]);
            (0..SIZE).map(|d| wanted_y[place(d)] * dys[place(d)]).sum()
        })
        .collect();
    close("attention_mma_queries: delta", &host.read(&delta), &wanted_delta);
    close("attention_mma_queries: dq", &host.read(&mma_dq), &wanted_dq);
    let chunks = N.div_ceil(37);
    let mut parts = host.room(&[chunks, 2, BATCH, HEADS, TILES, KEYS, SIZE]);
    let by = blocks(TILES * chunks);
    kernels::AttentionMmaKeys {
        q: &q,
        kv: &kv,
        dy: &dy,
        log_sum_exp: &log_sum_exp,
        delta: &delta,
        partial: &mut parts,
        chunk: 37,
        queries: N,
        keys: M,
        heads: HEADS,
        head_dim: SIZE,
    }
    .launch(device, by)
    .unwrap();
    let mut sums = vec![0.0; kvs.len()];
    let parts = host.read(&parts);
    for [chunk, part, b, head, key, d] in each([chunks, 2, BATCH, HEADS, M, SIZE]) {
        let shape = [chunks, 2, BATCH, HEADS, TILES * KEYS, SIZE];
        sums[at(kv_shape, [b, key, part, head, d])] +=
            parts[at(shape, [chunk, part, b, head, key, d])];
    }
    close("attention_mma_keys", &sums, &wanted_dkv);

    // First one query tile per block, then two.
    for (chunk, chunks) in [(32, 4), (64, 2)] {
        let mut dq = host.room(&q_shape);
        let mut partial = host.room(&[chunks, 2, BATCH, HEADS, TILES, KEYS * PAD]);
        kernels::AttentionBackward {
            q: &q,
            keys_across: &keys_across,
            values_across: &values_across,
            key_rows: &key_rows,
            y: &y,
            dy: &dy,
            log_sum_exp: &log_sum_exp,
            dq: &mut dq,
            partial: &mut partial,
            chunk,
            queries: N,
            keys: M,
            heads: HEADS,
            head_dim: SIZE,
            width: PAD,
        }
        .launch(device, grid(chunks, 3, 2))
        .unwrap();
        close("dq", &host.read(&dq), &wanted_dq);
        let mut dkv = host.room(&kv_shape);
        kernels::AttentionKeysGradient {
            partial: &mut partial,
            dkv: &mut dkv,
            chunks,
            batch: BATCH,
            keys: M,
            heads: HEADS,
            head_dim: SIZE,
            width: PAD,
        }
        .launch(device, GRID)
        .unwrap();
        close("dkv", &host.read(&dkv), &wanted_dkv);
    }
}
