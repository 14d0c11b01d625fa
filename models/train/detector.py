"""The detector: learns to answer what YuNet answers, cell by cell, to composed pictures.

Dense function matching: the teacher runs on every composite, so its score at every cell is the label, and its box and
points wherever it sees a face; faces that happen to be in a background are handled too. Names and decoding are YuNet's.

Usage: detector.py prepare --faces DIR --models DIR --work DIR
       detector.py generate --models DIR --work DIR --ring DIR [--pool N] [--workers N] [--duty D]
       detector.py train --ring DIR --out DIR [--steps N] [--anneal]
       detector.py export AVERAGE.pt FILE --ring DIR         FILE.onnx, FILE_int8.onnx
       detector.py figures FILE.onnx ... --faces DIR --models DIR
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

SIDE = 320
STRIDES = (8, 16, 32)
CELLS = [(SIDE // s) ** 2 for s in STRIDES]
TOTAL = sum(CELLS)  # 2100
MOST = 96           # cells of one picture whose box and points are kept: those with the best scores
SURE = 0.35         # from this score of the teacher on


# ---------------------------------------------------------------------------------------- samples

def prepare(a):
    """Every picture that may be trained on (long side at most 640), and the teacher's confident faces on it."""
    os.makedirs(a.work, exist_ok=True)
    yunet, held = common.YuNet(a.models), common.fold5(a.faces)
    paths = [p for p in sorted(glob.glob(f'{a.faces}/lfw/*/*/*.jpg')) if os.path.basename(os.path.dirname(p)) not in held]
    paths += sorted(glob.glob(f'{a.faces}/occlusion/*/*.*')) + sorted(glob.glob(f'{a.faces}/photos/**/*.*', recursive=True))
    pictures, faces = [], []
    for p in paths:
        im = cv2.imread(p)
        if im is None:
            continue
        scale = min(1, 640 / max(im.shape[:2]))
        im = cv2.resize(im, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else im
        boxes, _, _ = yunet(im, 320 if max(im.shape) <= 320 else 640, 0.7)
        faces += [(len(pictures), *b) for b in boxes if b[2] >= 24]
        pictures.append(im)
    kept = np.empty(len(pictures), object)
    kept[:] = pictures
    np.save(f'{a.work}/pictures.npy', kept, allow_pickle=True)
    np.save(f'{a.work}/faces.npy', np.array(faces, np.float32))
    print(len(pictures), 'pictures', len(faces), 'faces')


class Composer:
    """Draws one composite, 320x320 BGR."""

    def __init__(self, work, seed):
        cv2.setNumThreads(1)
        self.rng = np.random.default_rng(seed)
        self.pictures = np.load(f'{work}/pictures.npy', allow_pickle=True)
        self.faces = np.load(f'{work}/faces.npy')
        self.big = [i for i, p in enumerate(self.pictures) if max(p.shape) > 400]

    def window(self, im, cx, cy, size, turn, out, border=cv2.BORDER_REFLECT_101):
        """A turned square window of a picture, resampled to out x out; halved first while much larger."""
        while size > 2.2 * out:
            im = cv2.resize(im, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            cx, cy, size = cx / 2, cy / 2, size / 2
        c, s = np.cos(turn) * size / out, np.sin(turn) * size / out
        flip = -1 if self.rng.random() < 0.5 else 1
        m = np.array([[flip * c, -s, cx - (flip * c - s) * out / 2], [flip * s, c, cy - (flip * s + c) * out / 2]])
        return cv2.warpAffine(im, m, (out, out), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)

    def scene(self):
        """A background: part of a picture, a mosaic of small parts, or noise."""
        r, u = self.rng, self.rng.random()
        if u < 0.6:
            im = self.pictures[r.choice(self.big) if r.random() < 0.3 else r.integers(len(self.pictures))]
            h, w = im.shape[:2]
            return self.window(im, r.uniform(0, w), r.uniform(0, h), min(h, w) * np.exp(r.uniform(-1.6, 0.6)),
                               r.uniform(-np.pi, np.pi), SIDE)
        if u < 0.8:
            n = int(r.integers(2, 7))
            t = -(-SIDE // n)
            out = np.zeros((t * n, t * n, 3), np.uint8)
            for y in range(0, t * n, t):
                for x in range(0, t * n, t):
                    im = self.pictures[r.integers(len(self.pictures))]
                    h, w = im.shape[:2]
                    out[y:y + t, x:x + t] = self.window(im, r.uniform(0, w), r.uniform(0, h), r.uniform(20, 160),
                                                        r.uniform(-np.pi, np.pi), t)
            return out[:SIDE, :SIDE]
        n = int(2 ** r.uniform(1, 8))
        g = r.uniform(0, 255, (n, n, 3 if r.random() < 0.6 else 1)).astype(np.float32)
        g = g.mean() + (g - g.mean()) * r.uniform(0.1, 1)
        g = cv2.resize(np.repeat(g, 3, 2) if g.shape[2] == 1 else g, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        return np.clip(g, 0, 255).astype(np.uint8)

    def real(self):
        """One real picture, a face of it at a random size and place."""
        r = self.rng
        face = self.faces[r.integers(len(self.faces))]
        im = self.pictures[int(face[0])]
        if r.random() < 0.3:
            im = self.pictures[r.choice(self.big)]
            h, w = im.shape[:2]
            return self.window(im, r.uniform(0.3, 0.7) * w, r.uniform(0.3, 0.7) * h, max(h, w) * np.exp(r.uniform(-1, 0.3)),
                               r.normal(0, 0.15), SIDE, cv2.BORDER_CONSTANT)
        wanted = np.exp(r.uniform(np.log(20), np.log(290)))
        size = face[3] * SIDE / wanted
        away = max(0.0, 1 - wanted / SIDE) * size / 2
        return self.window(im, face[1] + face[3] / 2 + r.uniform(-away, away), face[2] + face[4] / 2 + r.uniform(-away, away),
                           size, r.normal(0, 0.2), SIDE, cv2.BORDER_CONSTANT if r.random() < 0.5 else cv2.BORDER_REFLECT_101)

    def paste(self, out):
        """One face, with something around it, on clutter."""
        r = self.rng
        face = self.faces[r.integers(len(self.faces))]
        room = r.uniform(1.3, 2.6)
        n = int(min(np.exp(r.uniform(np.log(9), np.log(200))) * room, 310))
        if n < 10:
            return
        w = self.window(self.pictures[int(face[0])], face[1] + face[3] / 2, face[2] + face[4] / 2, max(face[3], face[4]) * room,
                        r.normal(0, 0.35) if r.random() < 0.9 else r.uniform(-np.pi, np.pi), n)
        y, x = r.integers(-n // 5, SIDE - n + n // 5 + 1, 2)
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + n, SIDE), min(x + n, SIDE)
        w = w[y0 - y:y1 - y, x0 - x:x1 - x]
        if r.random() < 0.6:  # a soft oval, else a hard square
            gy, gx = np.mgrid[y0 - y:y1 - y, x0 - x:x1 - x].astype(np.float32)
            m = np.clip((1 - ((gx - n / 2) ** 2 + (gy - n / 2) ** 2) / (n / 2) ** 2) * 5, 0, 1)[..., None]
            w = (w * m + out[y0:y1, x0:x1] * (1 - m)).astype(np.uint8)
        out[y0:y1, x0:x1] = w

    def __call__(self):
        r, u = self.rng, self.rng.random()
        if u < 0.45:
            out = self.real()
        else:
            out = np.ascontiguousarray(self.scene())
            for _ in range(int(r.integers(1, 6)) if u < 0.85 else 0):
                self.paste(out)
        if r.random() < 0.7:
            gain = np.exp(r.normal(0, 0.25)) * np.exp(r.normal(0, 0.07, 3))
            table = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + r.normal(0, 22), 0, 255).astype(np.uint8)
            out = cv2.LUT(out, table[None])
        if r.random() < 0.12:
            out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if r.random() < 0.2:
            out = cv2.GaussianBlur(out, (0, 0), r.uniform(0.4, 1.8))
        if r.random() < 0.2:
            out = cv2.add(out, cv2.randn(np.zeros_like(out, np.int16), 0, abs(r.normal(0, 9))), dtype=cv2.CV_8U)
        if r.random() < 0.2:
            out = cv2.imdecode(cv2.imencode('.jpg', out, [1, int(r.integers(25, 90))])[1], 1)
        return out


def labels(out):
    """The teacher's outputs: scores [TOTAL] as bytes; index, box and points of the best cells."""
    rows = []
    for s in STRIDES:
        score = np.sqrt(np.clip(out[f'cls_{s}'].ravel(), 0, 1) * np.clip(out[f'obj_{s}'].ravel(), 0, 1))
        rows.append(np.concatenate([score[:, None], out[f'bbox_{s}'].reshape(-1, 4), out[f'kps_{s}'].reshape(-1, 10)], 1))
    rows = np.concatenate(rows)
    best = np.argsort(-rows[:, 0])[:MOST]
    best = best[rows[best, 0] > SURE]
    index, cells = np.full(MOST, -1, np.int16), np.zeros((MOST, 14), np.float16)
    index[:len(best)], cells[:len(best)] = best, rows[best, 1:]
    return (rows[:, 0] * 255 + 0.5).astype(np.uint8), index, cells


def worker(k, a):
    from ring import Slots, open_ring
    image, score, index, cells, count = open_ring(a.ring, ('image', 'score', 'index', 'cells'), 'r+')
    draw, yunet = Composer(a.work, (int(time.time()), k)), common.YuNet(a.models)
    slots = Slots(k, a.workers, len(image), count, a.duty)
    while True:
        for i in slots.next(16):
            im = draw()
            out = dict(zip(yunet.names, yunet.s.run(None, {'input': im.transpose(2, 0, 1)[None].astype(np.float32)})))
            image[i], (score[i], index[i], cells[i]) = im, labels(out)
        slots.written(16)


def generate(a):
    from ring import ensure_ring
    ensure_ring(a.ring, a.pool, a.workers, image=(np.uint8, (SIDE, SIDE, 3)), score=(np.uint8, (TOTAL,)), index=(np.int16, (MOST,)),
                    cells=(np.float16, (MOST, 14)))
    workers = [multiprocessing.Process(target=worker, args=(k, a), daemon=True) for k in range(a.workers)]
    [w.start() for w in workers]
    [w.join() for w in workers]


# ---------------------------------------------------------------------------------------- network

def network():
    import torch
    from torch import nn

    def cbr(i, o, stride=1, kernel=3):
        return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))

    class Student(nn.Module):
        """Dense 3x3 convolutions, a one-way feature pyramid, one 3x3 convolution before each head."""

        def __init__(self):
            super().__init__()
            a, b, c = 16, 32, 48
            self.s4 = nn.Sequential(cbr(3, a, 2), cbr(a, a, 2))
            self.s8 = nn.Sequential(cbr(a, b, 2), cbr(b, b))
            self.s16 = nn.Sequential(cbr(b, c, 2), cbr(c, c))
            self.s32 = nn.Sequential(cbr(c, c, 2), cbr(c, c), cbr(c, c))
            self.to16, self.to8 = cbr(c, c, 1, 1), cbr(c, b, 1, 1)
            self.heads = nn.ModuleList([nn.Sequential(cbr(w, w), nn.Conv2d(w, 15, 1)) for w in (b, c, c)])
            for h in self.heads:
                nn.init.constant_(h[1].bias, 0)
                nn.init.constant_(h[1].bias[:1], -4.0)  # starts from "no face"

        def forward(self, x):
            """BGR 0..255 to [N, cells, 15] for each stride: logit, box, points."""
            up = lambda t: nn.functional.interpolate(t, scale_factor=2, mode='nearest')
            p8 = self.s8(self.s4(x * (1 / 64.0) - 2.0))
            p16 = self.s16(p8)
            p32 = self.s32(p16)
            p16 = p16 + up(self.to16(p32))
            p8 = p8 + up(self.to8(p16))
            return [h(p).permute(0, 2, 3, 1).flatten(1, 2) for h, p in zip(self.heads, (p8, p16, p32))]
    return Student()


def mirror():
    """Where each cell goes in a mirrored picture."""
    out, first = [], 0
    for s, n in zip(STRIDES, CELLS):
        w = SIDE // s
        i = np.arange(n)
        out.append(first + i // w * w + (w - 1 - i % w))
        first += n
    return np.concatenate(out)


MIRROR = mirror()
SWAPPED = [2, 3, 0, 1, 4, 5, 8, 9, 6, 7]


def overlap_loss(p, t):
    """1 - GIoU of boxes coded as offsets of the centre (in cells) and log sizes (in cells)."""
    import torch
    corners = lambda v: (v[:, :2] - v[:, 2:].clamp(max=6).exp() / 2, v[:, :2] + v[:, 2:].clamp(max=6).exp() / 2)
    (pl, pr), (tl, tr) = corners(p), corners(t)
    inter = (torch.minimum(pr, tr) - torch.maximum(pl, tl)).clamp(min=0).prod(1)
    union = (pr - pl).prod(1) + (tr - tl).prod(1) - inter
    hull = (torch.maximum(pr, tr) - torch.minimum(pl, tl)).prod(1)
    return 1 - inter / union.clamp(min=1e-6) + (hull - union) / hull.clamp(min=1e-6)


def batch(ring, at, rng):
    """Pictures, scores, and the sure cells: (row of the batch, cell), box and points. Half of them mirrored."""
    import torch
    image, score, index, cells = ring
    x = torch.from_numpy(image[at])
    s, i, c = score[at].astype(np.float32) / 255, index[at].astype(np.int64), cells[at].astype(np.float32)
    flip = rng.random(len(at)) < 0.5
    x[flip] = x[flip].flip(2)
    s[flip] = s[flip][:, MIRROR]
    c[flip, :, 0] = 1 - c[flip, :, 0]
    points = c[flip][:, :, 4:]
    points[..., 0::2] = 1 - points[..., 0::2]
    c[flip, :, 4:] = points[..., SWAPPED]
    i[flip] = np.where(i[flip] >= 0, MIRROR[i[flip]], -1)
    row, k = np.nonzero(i >= 0)
    return x, torch.from_numpy(s), torch.from_numpy(row), torch.from_numpy(i[row, k]), torch.from_numpy(c[row, k])


def train(a):
    import torch
    import torch.nn.functional as F
    from loop import Run
    from ring import filled, open_ring
    *ring, count = open_ring(a.ring, ('image', 'score', 'index', 'cells'), wait_for=20 * a.batch)
    net = network()
    run = Run(net, a.out, a)
    print('parameters', sum(p.numel() for p in net.parameters()), flush=True)
    forward = torch.compile(net) if a.compile else net
    while run.going():
        at = np.sort(run.rng.integers(0, filled(count, len(ring[0])), a.batch))
        x, ts, row, cell, target = (v.to(run.device) for v in batch(ring, at, run.rng))
        with torch.autocast(run.device, torch.bfloat16):
            o = forward(x.permute(0, 3, 1, 2).float())
        o = torch.cat([v.float() for v in o], 1)
        sure = ts[row, cell]
        total = sure.sum().clamp(min=1)
        # Every cell learns the teacher's score; cells where the two differ count most.
        gap = (torch.sigmoid(o[..., 0]).detach() - ts).abs()
        score = (F.binary_cross_entropy_with_logits(o[..., 0], ts, reduction='none') * (gap ** 1.5 + 0.02)).sum() / total
        found = o[row, cell]
        box = (overlap_loss(found[:, 1:5], target[:, :4]) * sure).sum() / total
        size = (F.smooth_l1_loss(found[:, 1:5], target[:, :4], reduction='none', beta=0.1).mean(1) * sure).sum() / total
        points = (F.smooth_l1_loss(found[:, 5:], target[:, 4:], reduction='none', beta=0.1).mean(1) * sure).sum() / total
        loss = score + 2 * box + 2 * size + a.points * points
        run.update(loss, dict(score=score.detach(), box=box.detach(), size=size.detach(), points=points.detach()))
    run.finish()


# ---------------------------------------------------------------------------------------- export

def export(a):
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    net = network()
    net.load_state_dict(torch.load(a.average, map_location='cpu', weights_only=True))

    class Deployed(torch.nn.Module):
        """YuNet's outputs; cls = obj = the one score."""

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            o = self.net(x)
            score = [torch.sigmoid(v[..., :1]) for v in o]
            return (*score, *[v * 1.0 for v in score], *[v[..., 1:5] for v in o], *[v[..., 5:] for v in o])

    names = [f'{n}_{s}' for n in ('cls', 'obj', 'bbox', 'kps') for s in STRIDES]
    fp32 = f'{a.file}.onnx'
    torch.onnx.export(Deployed().eval(), torch.zeros(1, 3, SIDE, SIDE), fp32, input_names=['input'], output_names=names,
                      dynamic_axes={'input': {2: 'H', 3: 'W'}}, opset_version=17)
    image = np.load(f'{a.ring}/image.npy', mmap_mode='r')

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter([{'input': image[i].transpose(2, 0, 1)[None].astype(np.float32)} for i in range(200)])

        def get_next(self):
            return next(self.rows, None)
    ready = f'{a.file}_ready.onnx'
    quant_pre_process(fp32, ready, skip_symbolic_shape=True)
    quantize_static(ready, f'{a.file}_int8.onnx', Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    op_types_to_quantize=['Conv', 'Add', 'Resize', 'Relu'], weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8)
    os.remove(ready)


# ---------------------------------------------------------------------------------------- figures

class Detector(common.YuNet):
    """Any file with YuNet's names and decoding."""

    def __init__(self, path):
        self.s = common.session(path)
        self.names = [o.name for o in self.s.get_outputs()]


def compare(pictures, teacher, student, floor):
    """Recall of the teacher's confident faces, boxes where it sees nothing, error of the points."""
    faces = found = extra = 0
    errors = []
    for im in pictures:
        tb, ts, tk = teacher(im, SIDE, 0.3)
        sb, _, sk = student(im, SIDE, floor)
        used = np.zeros(len(sb), bool)
        for b, s, k in zip(tb, ts, tk):
            v = common.iou(b, sb) if len(sb) else np.zeros(0)
            j = int(np.argmax(v)) if len(v) else -1
            hit = j >= 0 and v[j] >= 0.5
            if hit:
                used[j] = True
            if s >= 0.7:
                faces, found = faces + 1, found + hit
                eyes = np.linalg.norm(k[0] - k[1])
                if hit and eyes > 1:
                    errors.append(np.linalg.norm(k - sk[j], axis=1).mean() / eyes)
        extra += int((~used).sum())
    e = 100 * np.array(errors or [0.0])
    return dict(pictures=len(pictures), faces=faces, recall=round(100 * found / max(1, faces), 2), found=int(found), extra=extra,
                extra_per_picture=round(extra / len(pictures), 4), point_error=round(e.mean(), 2), point_error_95=round(float(np.quantile(e, 0.95)), 2))


def placed(pictures):
    """The same pictures at scales .25 to 2.2, turned a little, anywhere in 320x320."""
    rng, out = np.random.default_rng(7), []
    for im in pictures:
        scale, turn = np.exp(rng.uniform(np.log(0.25), np.log(2.2))), rng.normal(0, 0.12)
        away = max(0.0, SIDE / scale / 2 - 60)
        c, s = np.cos(turn) / scale, np.sin(turn) / scale
        cx, cy = im.shape[1] / 2 + rng.uniform(-away, away), im.shape[0] / 2 + rng.uniform(-away, away)
        m = np.array([[c, -s, cx - (c - s) * SIDE / 2], [s, c, cy - (s + c) * SIDE / 2]])
        if scale < 0.5:
            im, m = cv2.resize(im, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), m / 2
        out.append(cv2.warpAffine(im, m, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return out


def figures(a):
    cv2.setNumThreads(1)
    teacher = common.YuNet(a.models)
    whole = [cv2.imread(p) for n in sorted(common.fold5(a.faces)) for p in sorted(glob.glob(f'{a.faces}/lfw/people/{n}/*.jpg'))]
    sets = (('fold 5, whole', whole), ('fold 5, placed', placed(whole)))
    for path in a.models_to_measure:
        student, spent = Detector(path), []
        for _ in range(100):
            began = time.perf_counter()
            student.s.run(None, {'input': np.zeros((1, 3, SIDE, SIDE), np.float32)})
            spent.append(time.perf_counter() - began)
        print(os.path.basename(path), f'{os.path.getsize(path) / 1000:.0f} kB, {1000 * np.median(spent):.2f} ms', flush=True)
        for floor in a.floors:
            for name, pictures in sets:
                print(f'  {floor} {name:16s}', json.dumps(compare(pictures, teacher, student, floor)), flush=True)


def main():
    from ring import generate_options, prepare_options, training_options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    prepare_options(sub)
    generate_options(sub, 16_000, 312)
    p = sub.add_parser('train')
    p.add_argument('--ring', required=True)
    training_options(p, lr=3e-3, batch=24, steps=30_000, decay=1e-3)
    p.add_argument('--points', type=float, default=4.0, help='weight of the points')
    p.add_argument('--compile', action='store_true')
    p = sub.add_parser('export')
    p.add_argument('average')
    p.add_argument('file')
    p.add_argument('--ring', required=True)
    p = sub.add_parser('figures')
    p.add_argument('models_to_measure', nargs='+')
    p.add_argument('--floors', type=float, nargs='+', default=[0.4, 0.5, 0.6])
    [p.add_argument(f'--{x}', required=True) for x in ('faces', 'models')]
    a = parser.parse_args()
    dict(prepare=prepare, generate=generate, train=train, export=export, figures=figures)[a.command](a)


if __name__ == '__main__':
    main()
