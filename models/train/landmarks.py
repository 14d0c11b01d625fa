"""The second stage for the five points: a detector's coarse points in, the teacher's points out.

The face is brought to TEMPLATE by the coarse points, so what is left to learn are small offsets. Labels are the
mean of YuNet's points over sizes and mirror images, moved with the picture; coarse points are these points with noise.

Usage: landmarks.py train --work DIR --out DIR [--steps N] [--anneal]      (work: that of embedding.py prepare)
       landmarks.py export AVERAGE.pt FILE.onnx
       landmarks.py figures LANDMARKS.onnx DETECTOR.onnx --faces DIR --models DIR
"""
import argparse
import glob
import json
import os
import time

import cv2
import numpy as np

import common
from augment import ARCFACE, CANVAS, photometry

SIDE = 64
SCALE = 0.54  # 119 pixels of ArcFace's 112-pixel alignment: the whole chin and brow
TEMPLATE = (ARCFACE - 56) * SCALE + SIDE / 2
EYES = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
MIRROR = [1, 0, 2, 4, 3]


def tensors(bgr):
    return np.ascontiguousarray(((bgr[..., ::-1].astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2))


class Samples:
    """Crops [64,64,3] and the offsets [10] that lead from TEMPLATE to the points, in units of EYES."""

    def __init__(self, work, seed):
        cv2.setNumThreads(1)
        self.rng = np.random.default_rng(seed)
        self.crops, self.points = np.load(f'{work}/crops.npy', mmap_mode='r'), np.load(f'{work}/points.npy')

    def __call__(self):
        r = self.rng
        k = r.integers(len(self.crops))
        im, points = np.array(self.crops[k]), self.points[k]
        if r.random() < 0.5:
            im, points = np.ascontiguousarray(im[:, ::-1]), (points * (-1, 1) + (CANVAS - 1, 0))[MIRROR]
        if r.random() < 0.3:  # faces of other shapes
            wide = np.exp(r.normal(0, 0.07))
            m = np.array([[wide, r.normal(0, 0.06), 0], [r.normal(0, 0.04), 1, 0]])
            m[:, 2] = CANVAS / 2 - m[:, :2] @ (CANVAS / 2, CANVAS / 2)
            im = cv2.warpAffine(im, m, (CANVAS, CANVAS), borderMode=cv2.BORDER_REFLECT_101)
            points = points @ m[:, :2].T + m[:, 2]
        eyes = np.linalg.norm(points[1] - points[0])
        coarse = points + r.normal(0, 1, (5, 2)) * eyes * r.uniform(0.01, 0.14) + r.normal(0, 0.05, 2) * eyes
        turn, shrink = r.normal(0, 0.06), np.exp(r.normal(0, 0.06))
        c, s = np.cos(turn) * shrink, np.sin(turn) * shrink
        middle = coarse.mean(0)
        coarse = (coarse - middle) @ np.array([[c, s], [-s, c]]) + middle
        m = common.similarity(coarse, TEMPLATE)
        crop = common.align(im, coarse, SIDE, TEMPLATE)
        found = points @ m[:, :2].T + m[:, 2]
        if r.random() < 0.7:
            crop = photometry(crop, r)
        if r.random() < 0.1:  # something in front
            h, w = r.integers(6, 30, 2)
            y, x = r.integers(0, SIDE - h), r.integers(0, SIDE - w)
            crop[y:y + h, x:x + w] = r.integers(0, 256, 3)
        return crop, ((found - TEMPLATE) / EYES).ravel()


def network():
    from torch import nn

    def cbr(i, o, stride=1, kernel=3):
        return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))

    return nn.Sequential(cbr(3, 16, 2), cbr(16, 32, 2), cbr(32, 32), cbr(32, 48, 2), cbr(48, 48), cbr(48, 64, 2), cbr(64, 24, 1, 1),
                         nn.Flatten(), nn.Linear(24 * 16, 64), nn.ReLU(inplace=True), nn.Linear(64, 10))


def train(a):
    import torch
    import torch.nn.functional as F
    from loop import Run
    net = network()
    run = Run(net, a.out, a)
    print('parameters', sum(p.numel() for p in net.parameters()), flush=True)
    workers = torch.utils.data.DataLoader(stream(a.work, a.batch, a.seed + run.step), batch_size=None, num_workers=a.workers)
    for x, t in until_stopped(workers, run):
        with torch.autocast(run.device, torch.bfloat16):
            o = run.net(x.to(run.device))
        o, t = o.float().view(-1, 5, 2), t.to(run.device).view(-1, 5, 2)
        distance = (o - t).norm(dim=2).mean()
        run.update(F.smooth_l1_loss(o, t, beta=0.02) * 10 + distance, dict(distance=distance.detach()))
    run.finish()


def stream(work, batch, seed):
    """Batches without end; one generator of random numbers for each worker."""
    import torch

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            info = torch.utils.data.get_worker_info()
            draw = Samples(work, (seed, info.id if info else 0))
            while True:
                crops, offsets = zip(*(draw() for _ in range(batch)))
                yield torch.from_numpy(tensors(np.stack(crops))), torch.from_numpy(np.stack(offsets).astype(np.float32))

    return Stream()


def until_stopped(workers, run):
    """Batches while the run goes on. A signal to the whole group of processes ends the workers as well: that is no error."""
    try:
        for batch in workers:
            if not run.going():
                return
            yield batch
    except RuntimeError:
        if not run.stopped:
            raise


def export(a):
    import torch
    net = network()
    net.load_state_dict(torch.load(a.average, map_location='cpu', weights_only=True))
    torch.onnx.export(net.eval(), torch.zeros(1, 3, SIDE, SIDE), a.file, input_names=['input'], output_names=['offsets'], opset_version=17)
    print('template', np.round(TEMPLATE, 2).tolist(), 'eyes', round(EYES, 3))


def refine(session, im, points, times=1):
    for _ in range(times):
        m = common.similarity(points, TEMPLATE)
        offsets = session.run(None, {'input': tensors(common.align(im, points, SIDE, TEMPLATE)[None])})[0].reshape(5, 2)
        back = cv2.invertAffineTransform(m)
        points = (TEMPLATE + offsets * EYES) @ back[:, :2].T + back[:, 2]
    return points


MESH_NOSE, MESH_MOUTH = 4, (61, 291)


def mesh_points(points):
    """The five points of a face mesh: middles of the eyes' corners, tip of the nose, corners of the mouth."""
    eye = lambda side: points[[common.EAR[side][0], common.EAR[side][3]], :2].mean(0)
    return np.stack([eye('left'), eye('right'), points[MESH_NOSE, :2], *points[list(MESH_MOUTH), :2]])


def figures(a):
    """Errors on fold 5 in per cent of the distance between the eyes, against three truths: YuNet's mean over ten looks, its one
    look at 320, and the face mesh (after removing each method's mean offset, since it means other points)."""
    from detector import Detector, placed
    cv2.setNumThreads(1)
    teacher, student, stage, mesh = common.YuNet(a.models), Detector(a.detector), common.session(a.landmarks), common.Mesh(a.models)
    whole = [cv2.imread(p) for n in sorted(common.fold5(a.faces)) for p in sorted(glob.glob(f'{a.faces}/lfw/people/{n}/*.jpg'))]
    for name, pictures in (('fold 5, whole', whole), ('fold 5, placed', placed(whole))):
        truths = {'mean of YuNet': [], 'one look of YuNet': [], 'mesh': []}
        found = {'YuNet': [], 'YuNet + stage': [], 'detector': [], 'detector + stage': [], 'detector + stage twice': []}
        eyes_px, spent = [], []
        for im in pictures:
            tb, _, tk = teacher(im, 320, 0.7)
            sb, _, sk = student(im, 320, 0.5)
            for b, k in zip(tb, tk):
                v = common.iou(b, sb) if len(sb) else np.zeros(1)
                j, eyes = int(np.argmax(v)), np.linalg.norm(k[0] - k[1])
                if v[j] < 0.5 or eyes <= 8:
                    continue
                dense, presence, _, _ = mesh(im, b, k)
                if presence < 0.5:
                    continue
                began = time.perf_counter()
                once = refine(stage, im, sk[j])
                spent.append(time.perf_counter() - began)
                # In the face's own upright frame, so that offsets can be averaged over faces.
                mean = common.consensus(teacher, im, k)
                m = common.similarity(mean, TEMPLATE)
                upright = lambda p: (np.asarray(p) @ m[:, :2].T + m[:, 2]) / EYES
                for row, p in zip(truths.values(), (mean, k, mesh_points(dense))):
                    row.append(upright(p))
                for row, p in zip(found.values(), (k, refine(stage, im, k), sk[j], once, refine(stage, im, once))):
                    row.append(upright(p))
                eyes_px.append(eyes)
        print(name, len(eyes_px), 'faces, eyes', round(float(np.median(eyes_px))), f'px apart (median), {1000 * np.median(spent):.2f} ms with alignment')
        for truth, t in truths.items():
            t = np.array(t)
            for method, p in found.items():
                d = np.array(p) - t
                if truth == 'mesh':
                    d = d - d.mean(0)
                e = 100 * np.linalg.norm(d, axis=2).mean(1)
                print(f'  against {truth:18s} {method:23s} mean {e.mean():5.2f}  95 % {np.quantile(e, 0.95):5.2f}', flush=True)


def main():
    from ring import training_options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    p = sub.add_parser('train')
    p.add_argument('--work', required=True)
    p.add_argument('--workers', type=int, default=1)
    training_options(p, lr=3e-3, batch=96, steps=12_000, decay=1e-3)
    p = sub.add_parser('export')
    p.add_argument('average')
    p.add_argument('file')
    p = sub.add_parser('figures')
    p.add_argument('landmarks')
    p.add_argument('detector')
    [p.add_argument(f'--{x}', required=True) for x in ('faces', 'models')]
    a = parser.parse_args()
    dict(train=train, export=export, figures=figures)[a.command](a)


if __name__ == '__main__':
    main()
