"""Trains on the ring that face_state_generate.py fills, and exports.

Usage: face_state_train.py run --ring DIR --out DIR --minutes M [--start CHECKPOINT]
       face_state_train.py export CHECKPOINT FILE.onnx
"""
import argparse
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

from face_state_network import FaceState

WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def losses(o, t):
    """Binary cross-entropy of the four states and the pose's error; nan labels teach nothing."""
    known = ~torch.isnan(t)
    t = torch.nan_to_num(t)
    y = t[:, :4] * 0.98 + 0.01
    state = F.binary_cross_entropy_with_logits(o[:, :4], y, reduction='none')
    state = (state * known[:, :4]).sum(0) / known[:, :4].sum(0).clamp(min=1)
    pose = F.smooth_l1_loss(o[:, 4:], t[:, 4:], reduction='none', beta=0.1)
    pose = (pose * known[:, 4:]).sum() / known[:, 4:].sum().clamp(min=1)
    return state, pose


def batch(im, lab, n, rng, full):
    i = np.sort(rng.integers(0, full, n))
    x, t = torch.from_numpy(im[i]), torch.from_numpy(lab[i])
    x = x.flip(3).permute(0, 3, 1, 2).float()
    flip = torch.from_numpy(rng.random(n) < 0.5)
    x[flip], t[flip] = x[flip].flip(3), t[flip][:, [1, 0, 2, 3, 4, 5]] * torch.tensor([1., 1, 1, 1, -1, 1])
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.1, (n, 3, 1, 1)))).float()
    x = ((x - 127.5) / 127.5 * gain + torch.from_numpy(rng.normal(0, 0.06, (n, 1, 1, 1))).float()).clamp(-1, 1)
    if rng.random() < 0.5:                       # a hole: no single patch may decide
        a, (y0, x0) = int(rng.integers(8, 24)), rng.integers(0, 88, 2)
        j = rng.integers(0, n, n // 8)
        if y0 + a < 30 or y0 > 90:
            x[j, :, y0:y0 + a, x0:x0 + a] = 0
    return x.to(memory_format=torch.channels_last), t


def run(a):
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    os.makedirs(a.out, exist_ok=True)
    im, lab, count = (np.load(f'{a.ring}/{x}.npy', mmap_mode='r') for x in ('im', 'lab', 'count'))
    net, ema = FaceState().to(memory_format=torch.channels_last), FaceState()
    if a.start:
        net.load_state_dict(torch.load(a.start, weights_only=True))
    ema.load_state_dict(net.state_dict())
    opt = torch.optim.AdamW(net.parameters(), lr=a.lr, weight_decay=0.02, betas=(0.9, 0.99))
    rng, start, step, acc = np.random.default_rng(a.seed), time.time(), 0, []
    log = open(f'{a.out}/log.jsonl', 'a')
    while True:
        done = (time.time() - start) / (60 * a.minutes)
        if done >= 1:
            break
        for g in opt.param_groups:
            g['lr'] = a.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * done) + 0.003)
        x, t = batch(im, lab, a.batch, rng, min(len(im), int(count[0])))
        with torch.autocast('cpu', torch.bfloat16):
            o = net(x)
        state, pose = losses(o.float(), t)
        loss = state.sum() + 2 * pose
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        opt.step()
        step += 1
        with torch.no_grad():
            d = min(0.998, (1 + step) / (10 + step))
            pairs = [(p, q) for p, q in zip(ema.state_dict().values(), net.state_dict().values())]
            for p, q in pairs:
                p.lerp_(q, 1 - d) if p.dtype.is_floating_point else p.copy_(q)
        acc.append([*state.tolist(), pose.item()])
        if step % 200 == 0:
            row = dict(step=step, minute=round((time.time() - start) / 60, 2), loss=np.mean(acc, 0).round(4).tolist(),
                       images_per_s=round(step * a.batch / (time.time() - start)))
            acc = []
            print(row, flush=True)
            log.write(json.dumps(row) + '\n')
            log.flush()
        if step % 400 == 0:
            torch.save(ema.state_dict(), f'{a.out}/last.pt')
    torch.save(ema.state_dict(), f'{a.out}/final.pt')


def export(a):
    import onnx
    net = FaceState()
    net.load_state_dict(torch.load(a.checkpoint, weights_only=True))
    net.eval()
    torch.onnx.export(net, torch.zeros(1, 3, 112, 112), a.file, input_names=['input'], output_names=['state'],
                      opset_version=17, do_constant_folding=True)
    m = onnx.load(a.file)
    m.producer_name, m.producer_version, m.doc_string = '', '', ''
    onnx.checker.check_model(m)
    onnx.save(m, a.file)
    print(sorted({n.op_type for n in m.graph.node}), os.path.getsize(a.file), 'bytes, IR', m.ir_version)


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    sub = ap.add_subparsers(dest='cmd', required=True)
    p = sub.add_parser('run')
    p.set_defaults(run=run)
    p.add_argument('--ring', required=True)
    p.add_argument('--out', required=True)
    p.add_argument('--minutes', type=float, required=True)
    p.add_argument('--start')
    p.add_argument('--batch', type=int, default=96)
    p.add_argument('--lr', type=float, default=3e-3)
    p.add_argument('--seed', type=int, default=0)
    p = sub.add_parser('export')
    p.set_defaults(run=export)
    p.add_argument('checkpoint')
    p.add_argument('file')
    args = ap.parse_args()
    args.run(args)
