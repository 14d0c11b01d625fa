"""Presentation attack detection: one network that answers what Minivision's pair answers together.

On ordinary faces the teachers nearly always say "bona fide", so pictures must cross their boundary: faces shown again on
paper and screens, drawn here. No label says what was drawn; only the teachers' answers are learned.

Usage: attacks.py generate --models DIR --work DIR --ring DIR [--pool N] [--workers N] [--duty D]   (work: of detector.py prepare)
       attacks.py train --ring DIR --out DIR [--steps N] [--anneal]
       attacks.py export AVERAGE.pt FILE.onnx
       attacks.py figures FILE.onnx --faces DIR --models DIR
       attacks.py preview --work DIR --out PICTURE.png
"""
import argparse
import glob
import json
import multiprocessing
import os
import time

import cv2
import numpy as np

import common
from augment import photometry, recode
from detector import Composer

SIDE, SCALE = 112, 4.0  # of the student: the 2.7 crop of the second teacher lies inside
TEACHERS = (('minifasnet_v2_2.7_80x80.onnx', 2.7), ('minifasnet_v1se_4.0_80x80.onnx', 4.0))
FRAME = 400


def crop(im, box, scale, side):
    """Minivision's crop: the window is shifted into the picture, not padded; the aspect is not kept."""
    h, w = im.shape[:2]
    x, y, bw, bh = box
    s = min((h - 1) / bh, (w - 1) / bw, scale)
    nw, nh = bw * s, bh * s
    cx, cy = x + bw / 2, y + bh / 2
    left, top, right, bottom = cx - nw / 2, cy - nh / 2, cx + nw / 2, cy + nh / 2
    if left < 0:
        left, right = 0, right - left
    if top < 0:
        top, bottom = 0, bottom - top
    if right > w - 1:
        left, right = left - (right - w + 1), w - 1
    if bottom > h - 1:
        top, bottom = top - (bottom - h + 1), h - 1
    return cv2.resize(im[max(0, int(top)):int(bottom) + 1, max(0, int(left)):int(right) + 1], (side, side))


def softmax(v):
    e = np.exp(v - v.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Pair:
    """Minivision's two networks."""

    def __init__(self, models):
        self.nets = [(common.session(os.path.join(models, 'standard', name)), scale) for name, scale in TEACHERS]

    def __call__(self, im, box):
        """Logits [2,3]."""
        return np.stack([s.run(None, {'input': crop(im, box, scale, 80).transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
                         for s, scale in self.nets])


# ---------------------------------------------------------------------------------------- samples

class Recapture:
    """Draws a frame: a face as it is, or a face on paper or a screen before the camera."""

    def __init__(self, work, seed):
        self.compose = Composer(work, seed)
        self.rng = self.compose.rng
        self.faces = self.compose.faces[self.compose.faces[:, 3] >= 48]

    def portrait(self, side, room):
        r, face = self.rng, self.faces[self.rng.integers(len(self.faces))]
        size = max(face[3], face[4]) * room
        return self.compose.window(self.compose.pictures[int(face[0])], face[1] + face[3] / 2 + r.normal(0, 0.08) * size,
                                   face[2] + face[4] / 2 + r.normal(0, 0.08) * size, size, r.normal(0, 0.08), side)

    def scene(self):
        return cv2.resize(self.compose.scene(), (FRAME, FRAME))

    def printed(self, im):
        """Ink on paper: little contrast, a tint, a raster, grain, perhaps streaks."""
        r, n = self.rng, im.shape[0]
        f = im.astype(np.float32) / 255
        black, white = r.uniform(0.05, 0.28), r.uniform(0.75, 1.0)
        f = black + f ** np.exp(r.normal(0, 0.2)) * (white - black)
        f *= np.exp(r.normal(0, 0.06, 3)).astype(np.float32)
        if r.random() < 0.4:  # raster
            y, x = np.mgrid[:n, :n].astype(np.float32)
            turn, pitch = r.uniform(0, np.pi), r.uniform(1.8, 5.0)
            u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            f += (r.uniform(0.02, 0.14) * np.cos(2 * np.pi * u / pitch) * np.cos(2 * np.pi * v / pitch))[..., None]
        if r.random() < 0.3:
            f += (r.normal(0, 0.02, (n, 1, 1)) if r.random() < 0.5 else r.normal(0, 0.02, (1, n, 1)))
        if r.random() < 0.15:
            f = np.repeat(f.mean(2, keepdims=True), 3, 2)
        return np.clip(f * 255, 0, 255).astype(np.uint8)

    def shown(self, im):
        """A lit screen: blue white, lifted blacks, a pixel grid that beats against the sensor, banding, a reflection."""
        r, n = self.rng, im.shape[0]
        f = (im.astype(np.float32) / 255) ** np.float32(np.exp(r.normal(0.1, 0.25)))
        f = r.uniform(0.0, 0.12) + f * r.uniform(0.8, 1.25)
        f *= np.array([r.uniform(1.0, 1.2), r.uniform(0.95, 1.05), r.uniform(0.85, 1.0)], np.float32)
        y, x = np.mgrid[:n, :n].astype(np.float32)
        if r.random() < 0.6:
            for c in range(3):
                turn, pitch = r.normal(0, 0.15) + (np.pi / 2 if r.random() < 0.3 else 0), np.exp(r.uniform(np.log(2.2), np.log(14)))
                bend = r.normal(0, 1.5) * np.sin(2 * np.pi * y / n * r.uniform(0.3, 2))
                f[..., c] *= 1 + r.uniform(0.01, 0.10) * np.cos(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn) + bend) / pitch)
        if r.random() < 0.25:
            f *= 1 + (r.uniform(0.02, 0.12) * np.sin(2 * np.pi * y / r.uniform(20, 150) + r.uniform(0, 6)))[..., None]
        if r.random() < 0.3:
            cx, cy, s = r.uniform(0, n), r.uniform(0, n), r.uniform(0.08, 0.5) * n
            f += (r.uniform(0.1, 0.7) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / s ** 2))[..., None]
        return np.clip(f * 255, 0, 255).astype(np.uint8)

    def held(self, im, screen):
        """The sheet or device with its edge, in perspective, before a scene."""
        r, n = self.rng, im.shape[0]
        rim = int(n * r.uniform(0.0, 0.12))
        colour = r.integers(0, 50, 3) if screen else r.integers(190, 256, 3) if r.random() < 0.7 else r.integers(0, 256, 3)
        sheet = cv2.copyMakeBorder(im, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=[int(c) for c in colour])
        m = sheet.shape[0]
        size = FRAME * np.exp(r.uniform(np.log(0.45), np.log(1.5)))
        middle, turn = FRAME / 2 + r.normal(0, 0.08, 2) * FRAME, r.normal(0, 0.12)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2 * (1, np.exp(r.normal(0, 0.1)))
        c, s = np.cos(turn), np.sin(turn)
        corners = corners @ np.array([[c, s], [-s, c]]) + middle + r.normal(0, 0.03, (4, 2)) * size
        w = cv2.getPerspectiveTransform(np.float32([[0, 0], [m, 0], [m, m], [0, m]]), corners.astype(np.float32))
        mask = cv2.warpPerspective(np.full((m, m), 255, np.uint8), w, (FRAME, FRAME))
        out = cv2.warpPerspective(sheet, w, (FRAME, FRAME), flags=cv2.INTER_AREA)
        mask = cv2.GaussianBlur(mask, (0, 0), r.uniform(0.5, 1.5)).astype(np.float32)[..., None] / 255
        return (out * mask + self.scene() * (1 - mask)).astype(np.uint8)

    def __call__(self):
        r = self.rng
        u = r.random()
        if u < 0.3:
            out = self.portrait(FRAME, np.exp(r.uniform(np.log(1.3), np.log(5))))
        else:
            im = self.portrait(int(r.integers(220, 420)), np.exp(r.uniform(np.log(1.2), np.log(3))))
            if r.random() < 0.4:
                im = recode(im, r)
            screen = u > 0.65
            im = self.shown(im) if screen else self.printed(im)
            out = self.held(im, screen)
        return photometry(out, r) if r.random() < 0.8 else out


def worker(k, a):
    from ring import Slots, open_ring
    image, logits, count = open_ring(a.ring, ('image', 'logits'), 'r+')
    draw, yunet, pair = Recapture(a.work, (int(time.time()), k)), common.YuNet(a.models), Pair(a.models)
    slots, r = Slots(k, a.workers, len(image), count, a.duty), np.random.default_rng((int(time.time()), k, 1))
    while True:
        for i in slots.next(8):
            while True:
                im = draw()
                boxes, _, _ = yunet(im)
                if not len(boxes):
                    continue
                box = boxes[int(np.argmax(boxes[:, 2]))]
                box = box + r.normal(0, 0.03, 4) * box[[2, 3, 2, 3]]
                answer = pair(im, box)
                # As many pictures on either side of the teachers' boundary, and many near it.
                p = softmax(answer)[:, 1].mean()
                if r.random() < (1.0 if 0.05 < p < 0.95 else 0.6 if p <= 0.05 else 0.45):
                    break
            image[i], logits[i] = crop(im, box, SCALE, SIDE), answer
        slots.written(8)


def generate(a):
    from ring import ensure_ring
    ensure_ring(a.ring, a.pool, a.workers, image=(np.uint8, (SIDE, SIDE, 3)), logits=(np.float32, (2, 3)))
    workers = [multiprocessing.Process(target=worker, args=(k, a), daemon=True) for k in range(a.workers)]
    [w.start() for w in workers]
    [w.join() for w in workers]


def preview(a):
    draw = Recapture(a.work, 1)
    cv2.imwrite(a.out, np.vstack([np.hstack([cv2.resize(draw(), (200, 200)) for _ in range(8)]) for _ in range(5)]))


# ---------------------------------------------------------------------------------------- network

def network():
    import torch
    from torch import nn

    def cbr(i, o, stride=1, kernel=3):
        return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a, self.b = cbr(c, c), nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

        def forward(self, x):
            return torch.relu(x + self.b(self.a(x)))

    class Student(nn.Module):
        """112x112x3, 0..255, to three logits: 0 and 2 are attacks, 1 is bona fide."""

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(cbr(3, 16, 2), cbr(16, 32, 2), Residual(32), cbr(32, 48, 2), Residual(48), cbr(48, 48, 2),
                                      Residual(48), cbr(48, 16, 1, 1))
            self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16 * 49, 32), nn.ReLU(inplace=True), nn.Linear(32, 3))

        def forward(self, x):
            return self.head(self.body(x * (1 / 64.0) - 2.0).flatten(1))
    return Student()


def train(a):
    import torch
    import torch.nn.functional as F
    from loop import Run
    from ring import filled, open_ring
    image, logits, count = open_ring(a.ring, ('image', 'logits'), wait_for=20 * a.batch)
    net = network()
    run = Run(net, a.out, a)
    print('parameters', sum(p.numel() for p in net.parameters()), flush=True)
    while run.going():
        at = np.sort(run.rng.integers(0, filled(count, len(image)), a.batch))
        x = torch.from_numpy(image[at]).to(run.device)
        flip = torch.from_numpy(run.rng.random(a.batch) < 0.5)
        x[flip] = x[flip].flip(2)
        t = torch.from_numpy(softmax(logits[at]).mean(1)).to(run.device)
        with torch.autocast(run.device, torch.bfloat16):
            o = run.net(x.permute(0, 3, 1, 2).float())
        p = F.log_softmax(o.float(), 1)
        divergence = F.kl_div(p, t, reduction='batchmean')
        agree = ((p.exp()[:, 1] >= 0.5) == (t[:, 1] >= 0.5)).float().mean()
        run.update(divergence, dict(divergence=divergence.detach(), agree=agree))
    run.finish()


def export(a):
    import torch
    net = network()
    net.load_state_dict(torch.load(a.average, map_location='cpu', weights_only=True))
    torch.onnx.export(net.eval(), torch.zeros(1, 3, SIDE, SIDE), a.file, input_names=['input'], output_names=['logits'],
                      dynamic_axes={'input': {0: 'N'}, 'logits': {0: 'N'}}, opset_version=17)


# ---------------------------------------------------------------------------------------- figures

def figures(a):
    """Agreement with the teachers on people of fold 5, as they are and shown again, and the few real attacks."""
    cv2.setNumThreads(1)
    yunet, pair, student = common.YuNet(a.models), Pair(a.models), common.session(a.file)
    paths = [p for n in sorted(common.fold5(a.faces)) for p in sorted(glob.glob(f'{a.faces}/lfw/people/{n}/*.jpg'))]
    draw = Recapture.__new__(Recapture)
    draw.compose = Composer.__new__(Composer)
    draw.compose.rng = draw.rng = np.random.default_rng(11)
    draw.compose.pictures = [cv2.imread(p) for p in paths]
    draw.compose.faces = draw.faces = np.array([(i, *yunet(im)[0][0]) for i, im in enumerate(draw.compose.pictures)], np.float32)
    draw.compose.big = list(range(len(paths)))
    sets = {'fold 5 as it is': draw.compose.pictures, 'fold 5, drawn attacks and controls': [draw() for _ in range(1000)]}
    for kind in ('bona-fide', 'attack'):
        found = sorted(glob.glob(f'{a.faces}/spoof/{kind}/**/*.*', recursive=True))
        sets[f'real {kind}'] = [im for im in map(cv2.imread, found) if im is not None]
    spent = []
    for name, pictures in sets.items():
        rows = []
        for im in pictures:
            boxes, _, _ = yunet(im)
            if not len(boxes):
                continue
            box = boxes[int(np.argmax(boxes[:, 2]))]
            began = time.perf_counter()
            p = softmax(student.run(None, {'input': crop(im, box, SCALE, SIDE).transpose(2, 0, 1)[None].astype(np.float32)})[0])[0, 1]
            spent.append(time.perf_counter() - began)
            rows.append((p, softmax(pair(im, box))[:, 1].mean()))
        p, t = np.array(rows).T
        row = dict(n=len(p), live_student=int((p >= 0.5).sum()), live_teachers=int((t >= 0.5).sum()),
                   agree=round(100 * float(((p >= 0.5) == (t >= 0.5)).mean()), 2), r=round(float(np.corrcoef(p, t)[0, 1]), 3))
        if len(p) < 10:
            row['scores'] = [f'{x:.2f}/{y:.2f}' for x, y in rows]
        print(name, json.dumps(row), flush=True)
    print(f'{os.path.getsize(a.file)} bytes, {1000 * np.median(spent):.2f} ms')


def main():
    from ring import generate_options, training_options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    generate_options(sub, 40_000, 38, duty=0.25)
    p = sub.add_parser('preview')
    [p.add_argument(f'--{x}', required=True) for x in ('work', 'out')]
    p = sub.add_parser('train')
    p.add_argument('--ring', required=True)
    training_options(p, lr=2e-3, batch=96, steps=15_000)
    p = sub.add_parser('export')
    p.add_argument('average')
    p.add_argument('file')
    p = sub.add_parser('figures')
    p.add_argument('file')
    [p.add_argument(f'--{x}', required=True) for x in ('faces', 'models')]
    a = parser.parse_args()
    dict(generate=generate, preview=preview, train=train, export=export, figures=figures)[a.command](a)


if __name__ == '__main__':
    main()
