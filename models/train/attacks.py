"""Presentation attack detection: two networks that answer what Minivision's two answer, each to the very crop of its teacher.

On ordinary faces the teachers nearly always say "bona fide", so pictures must cross their boundary: faces shown again on
paper and screens, drawn here, and mixtures of their crops. No label says what was drawn; only the teachers' answers are learned.

Usage: attacks.py generate --models DIR --work DIR --ring DIR [--pool N] [--workers N] [--duty D]   (work: of detector.py prepare)
       attacks.py train --ring DIR --out DIR [--steps N] [--anneal]
       attacks.py export AVERAGE.pt FOLDER
       attacks.py figures FOLDER --faces DIR --models DIR
       attacks.py preview --work DIR --out PICTURE.png
"""
import argparse
import collections
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

SIDE = 80
TEACHERS = (('minifasnet_v2_2.7_80x80.onnx', 2.7), ('minifasnet_v1se_4.0_80x80.onnx', 4.0))
STUDENTS = ('builtin_attacks_near.onnx', 'builtin_attacks_far.onnx')  # 2.7 and 4.0 times the face
FRAMES = (300, 720)  # sides of drawn frames
VIEWS = 6            # samples of one frame
# Shares of crops that are mixtures (of a frame's views all but the first), and of frames and crops under other light and noise. With .3 and .5 to .8 the students
# were good at the odd and weak on clean pictures, which are what a door sees.
MIXED, DISTURBED = 0.12, 0.25


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
    """Minivision's two networks by OpenVINO: three times as fast as ONNX Runtime, and equal to 1e-6."""

    def __init__(self, models):
        os.environ.setdefault('OPENVINO_TELEMETRY', '0')
        import openvino
        core = openvino.Core()
        self.nets = [core.compile_model(core.read_model(os.path.join(models, 'standard', name)), 'CPU', {
            'INFERENCE_NUM_THREADS': 1, 'NUM_STREAMS': 1, 'INFERENCE_PRECISION_HINT': 'f32'}).create_infer_request() for name, _ in TEACHERS]

    def __call__(self, crops):
        """Logits [n,2,3] of crops [n,2,80,80,3]."""
        planes = np.ascontiguousarray(crops.transpose(1, 0, 4, 2, 3), np.float32)
        return np.stack([next(iter(net.infer({0: x}).values())).copy() for net, x in zip(self.nets, planes)], 1)


def crops_of(im, box):
    return np.stack([crop(im, box, scale, SIDE) for _, scale in TEACHERS])


# ---------------------------------------------------------------------------------------- samples

class Recapture:
    """Draws a frame: a face as it is, or a face on paper or a screen before the camera."""

    def __init__(self, work, seed):
        self.compose = Composer(work, seed)
        self.rng = self.compose.rng
        self.faces = self.compose.faces[self.compose.faces[:, 3] >= 48]
        self.photographs = self.faces[np.isin(self.faces[:, 0].astype(int), self.compose.big)]

    def portrait(self, side, room):
        r = self.rng
        faces = self.photographs if r.random() < 0.35 else self.faces  # most others are small press pictures
        face = faces[r.integers(len(faces))]
        size = max(face[3], face[4]) * room
        return self.compose.window(self.compose.pictures[int(face[0])], face[1] + face[3] / 2 + r.normal(0, 0.08) * size,
                                   face[2] + face[4] / 2 + r.normal(0, 0.08) * size, size, r.normal(0, 0.08), side)

    def scene(self, side):
        return cv2.resize(self.compose.scene(), (side, side))

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

    def held(self, im, screen, frame):
        """The sheet or device with its edge, in perspective, before a scene."""
        r, n = self.rng, im.shape[0]
        rim = int(n * r.uniform(0.0, 0.12))
        colour = r.integers(0, 50, 3) if screen else r.integers(190, 256, 3) if r.random() < 0.7 else r.integers(0, 256, 3)
        sheet = cv2.copyMakeBorder(im, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=[int(c) for c in colour])
        m = sheet.shape[0]
        size = frame * np.exp(r.uniform(np.log(0.45), np.log(1.5)))
        middle, turn = frame / 2 + r.normal(0, 0.08, 2) * frame, r.normal(0, 0.12)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2 * (1, np.exp(r.normal(0, 0.1)))
        c, s = np.cos(turn), np.sin(turn)
        corners = corners @ np.array([[c, s], [-s, c]]) + middle + r.normal(0, 0.03, (4, 2)) * size
        w = cv2.getPerspectiveTransform(np.float32([[0, 0], [m, 0], [m, m], [0, m]]), corners.astype(np.float32))
        mask = cv2.warpPerspective(np.full((m, m), 255, np.uint8), w, (frame, frame))
        out = cv2.warpPerspective(sheet, w, (frame, frame), flags=cv2.INTER_AREA)
        mask = cv2.GaussianBlur(mask, (0, 0), r.uniform(0.5, 1.5)).astype(np.float32)[..., None] / 255
        return (out * mask + self.scene(frame) * (1 - mask)).astype(np.uint8)

    def __call__(self):
        r = self.rng
        u, frame = r.random(), int(np.exp(r.uniform(*np.log(FRAMES))))
        if u < 0.3:
            out = self.portrait(frame, np.exp(r.uniform(np.log(1.3), np.log(5))))
        else:
            im = self.portrait(int(frame * r.uniform(0.55, 1.05)), np.exp(r.uniform(np.log(1.2), np.log(3))))
            if r.random() < 0.4:
                im = recode(im, r)
            screen = u > 0.65
            im = self.shown(im) if screen else self.printed(im)
            out = self.held(im, screen, frame)
        return photometry(out, r) if r.random() < DISTURBED else out


def views(r, im, box, earlier):
    """Crops [VIEWS,2,80,80,3] of one face: as it is, then moved, mirrored, under other light, mixed with crops of other frames."""
    out = [crops_of(im, box)]
    mirrored = im[:, ::-1]
    while len(out) < VIEWS:
        flip = r.random() < 0.5
        size = box[2:] * np.exp(r.normal(0, 0.1)) * np.exp(r.normal(0, 0.04, 2))
        x, y = box[:2] + box[2:] / 2 + r.normal(0, 0.06, 2) * size - size / 2
        two = crops_of(mirrored if flip else im, (im.shape[1] - x - size[0] if flip else x, y, *size))
        for k in (0, 1):
            if len(earlier) > 50 and r.random() < MIXED:
                two[k] = mixture(r, two[k], earlier[r.integers(len(earlier))][k])
            if r.random() < DISTURBED:
                two[k] = photometry(two[k], r)
        out.append(two)
    return np.stack(out)


def mixture(r, a, b):
    """A blend, or one within a circle or on one side of a line of the other."""
    w = float(r.uniform(0.2, 0.8))
    if r.random() < 0.4:
        return cv2.addWeighted(a, w, b, 1 - w, 0)
    y, x = np.mgrid[-1:1:SIDE * 1j, -1:1:SIDE * 1j].astype(np.float32)
    turn, soft = r.uniform(0, 2 * np.pi), r.uniform(0.02, 0.3)
    distance = x * np.cos(turn) + y * np.sin(turn) - r.uniform(-0.4, 0.4) if r.random() < 0.5 else np.hypot(x, y) - w
    mask = (1 / (1 + np.exp(np.clip(distance / soft, -30, 30)))).astype(np.float32)
    return cv2.blendLinear(a, b, mask, 1 - mask)


def worker(k, a):
    from ring import Slots, open_ring
    image, logits, count = open_ring(a.ring, ('image', 'logits'), 'r+')
    draw, yunet, pair = Recapture(a.work, (int(time.time()), k)), common.YuNet(a.models), Pair(a.models)
    slots, r, earlier, ready = Slots(k, a.workers, len(image), count, a.duty), np.random.default_rng((int(time.time()), k, 1)), collections.deque(maxlen=1000), []
    while True:
        for i in slots.next(48):
            while not ready:
                im = draw()
                boxes, _, _ = yunet(im)
                if not len(boxes):
                    continue
                seen = views(r, im, boxes[int(np.argmax(boxes[:, 2]))], earlier)
                # Every sample near the teachers' boundary, and only a part of those far from it, which are the most.
                for two, answer in zip(seen, pair(seen)):
                    p = softmax(answer)[:, 1].mean()
                    if r.random() < (1.0 if 0.05 < p < 0.95 else 0.6 if p <= 0.05 else 0.45):
                        ready.append((two.copy(), answer))
                earlier.append(seen[0].copy())
            image[i], logits[i] = ready.pop()
        slots.written(48)


def generate(a):
    from ring import ensure_ring
    ensure_ring(a.ring, a.pool, a.workers, image=(np.uint8, (2, SIDE, SIDE, 3)), logits=(np.float32, (2, 3)))
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
        """80x80x3, 0..255, to three logits: 0 and 2 are attacks, 1 is bona fide."""

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(cbr(3, 32, 2), Residual(32), cbr(32, 48, 2), Residual(48), cbr(48, 64, 2),
                                      Residual(64), cbr(64, 64, 2), cbr(64, 16, 1, 1))
            self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16 * 25, 32), nn.ReLU(inplace=True), nn.Linear(32, 3))

        def forward(self, x):
            return self.head(self.body(x * (1 / 64.0) - 2.0).flatten(1))

    class Both(nn.Module):
        """[N,2,3,80,80] to [N,2,3]; the two share nothing."""

        def __init__(self):
            super().__init__()
            self.nets = nn.ModuleList([Student(), Student()])

        def forward(self, x):
            return torch.stack([net(x[:, k]) for k, net in enumerate(self.nets)], 1)
    return Both()


def train(a):
    import torch
    import torch.nn.functional as F
    from loop import Run
    from ring import filled, open_ring
    image, logits, count = open_ring(a.ring, ('image', 'logits'), wait_for=20 * a.batch)
    net = network()
    run = Run(net, a.out, a)
    forward = torch.compile(net) if a.compile else net
    print('parameters', sum(p.numel() for p in net.parameters()), flush=True)
    while run.going():
        at = np.sort(run.rng.integers(0, filled(count, len(image)), a.batch))
        x = torch.from_numpy(image[at]).to(run.device)
        t = torch.from_numpy(logits[at]).to(run.device)
        with torch.autocast(run.device, torch.bfloat16):
            o = forward(x.permute(0, 1, 4, 2, 3).float())
        # At temperature 1 what is decided, at 3 how sure the teachers are of what is clear. The gradient falls with d squared;
        # times d the second weighs a third of the first.
        losses = [F.kl_div(F.log_softmax(o.float() / d, 2).flatten(0, 1), F.softmax(t / d, 2).flatten(0, 1), reduction='batchmean') * d
                  for d in (1.0, 3.0)]
        live = F.softmax(o.detach().float(), 2)[..., 1].mean(1), F.softmax(t, 2)[..., 1].mean(1)
        agree = ((live[0] >= 0.5) == (live[1] >= 0.5)).float().mean()
        run.update(sum(losses), dict(divergence=losses[0].detach(), soft=losses[1].detach(), agree=agree))
    run.finish()


def export(a):
    import torch
    both = network()
    both.load_state_dict(torch.load(a.average, map_location='cpu', weights_only=True))
    for net, name in zip(both.eval().nets, STUDENTS):
        torch.onnx.export(net, torch.zeros(1, 3, SIDE, SIDE), f'{a.folder}/{name}', input_names=['input'], output_names=['logits'],
                          dynamic_axes={'input': {0: 'N'}, 'logits': {0: 'N'}}, opset_version=17)
        common.halve(f'{a.folder}/{name}')


# ---------------------------------------------------------------------------------------- figures

def figures(a):
    """Agreement with the teachers on people of fold 5, as they are and shown again, and the few real attacks."""
    cv2.setNumThreads(1)
    yunet, pair, students = common.YuNet(a.models), Pair(a.models), [common.session(f'{a.folder}/{n}') for n in STUDENTS]
    paths = [p for n in sorted(common.fold5(a.faces)) for p in sorted(glob.glob(f'{a.faces}/lfw/people/{n}/*.jpg'))]
    draw = Recapture.__new__(Recapture)
    draw.compose = Composer.__new__(Composer)
    draw.compose.rng = draw.rng = np.random.default_rng(11)
    draw.compose.pictures = [cv2.imread(p) for p in paths]
    draw.compose.faces = draw.faces = draw.photographs = np.array([(i, *yunet(im)[0][0]) for i, im in enumerate(draw.compose.pictures)], np.float32)
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
            two = crops_of(im, box)
            answers = [s.run(None, {'input': c.transpose(2, 0, 1)[None].astype(np.float32)})[0][0] for s, c in zip(students, two)]
            spent.append(time.perf_counter() - began)
            rows.append([softmax(np.stack(v))[:, 1].mean() for v in (answers, pair(two[None])[0])])
        p, t = np.array(rows).T
        row = dict(n=len(p), live_student=int((p >= 0.5).sum()), live_teachers=int((t >= 0.5).sum()),
                   agree=round(100 * float(((p >= 0.5) == (t >= 0.5)).mean()), 2), r=round(float(np.corrcoef(p, t)[0, 1]), 3))
        if len(p) < 10:
            row['scores'] = [f'{x:.2f}/{y:.2f}' for x, y in rows]
        print(name, json.dumps(row), flush=True)
    print(f'{sum(os.path.getsize(f"{a.folder}/{n}") for n in STUDENTS)} bytes, {1000 * np.median(spent):.2f} ms')


def main():
    from ring import generate_options, training_options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    generate_options(sub, 60_000, 38, duty=0.25)
    p = sub.add_parser('preview')
    [p.add_argument(f'--{x}', required=True) for x in ('work', 'out')]
    p = sub.add_parser('train')
    p.add_argument('--ring', required=True)
    training_options(p, lr=2e-3, batch=96, steps=15_000)
    p.add_argument('--compile', action='store_true')
    p = sub.add_parser('export')
    p.add_argument('average')
    p.add_argument('folder')
    p = sub.add_parser('figures')
    p.add_argument('folder')
    [p.add_argument(f'--{x}', required=True) for x in ('faces', 'models')]
    a = parser.parse_args()
    dict(generate=generate, preview=preview, train=train, export=export, figures=figures)[a.command](a)


if __name__ == '__main__':
    main()
