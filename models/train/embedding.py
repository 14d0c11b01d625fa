"""The embedding network: learns to answer what MobileFaceNet answers to the same picture.

No identity label is used. Whatever is drawn (augment.py), teacher and student see the same picture.

Usage: embedding.py prepare --faces DIR --models DIR --work DIR
       embedding.py generate --models DIR --work DIR --ring DIR [--pool N] [--workers N] [--duty D]
       embedding.py train --ring DIR --out DIR [--steps N] [--anneal]
       embedding.py export AVERAGE.pt FILE --work DIR        FILE.onnx, FILE_int8.onnx
       embedding.py figures FILE.onnx ... --faces DIR --models DIR
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
from augment import ARCFACE, CANVAS, Faces, ON_CANVAS, SIZE, ZOOM

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
TEACHER = 'standard/mobilefacenet_foamliu.onnx'
HINT = '/conv2/conv2.2/Clip_output_0'  # the teacher's last map, 512 x 7 x 7, values 0..6
CHANNELS = 512


# ---------------------------------------------------------------------------------------- samples

def prepare(a):
    """Every face that may be trained on, on a canvas with room around it; fold 5 of LFW stays out.

    The canvas is aligned by one look of YuNet, as a device does it; `points` are the mean of many (common.consensus)."""
    os.makedirs(a.work, exist_ok=True)
    yunet, held = common.YuNet(a.models), common.fold5(a.faces)
    crops, points, groups, scenes = [], [], [], []
    lists = [(p, 'lfw', 320) for s in ('people', 'strangers') for p in sorted(glob.glob(f'{a.faces}/lfw/{s}/*/*.jpg'))
             if os.path.basename(os.path.dirname(p)) not in held]
    lists += [(p, 'occlusion', 320) for p in sorted(glob.glob(f'{a.faces}/occlusion/*/*.*'))]
    lists += [(p, 'photos', 640) for p in sorted(glob.glob(f'{a.faces}/photos/**/*.*', recursive=True))]
    for path, kind, size in lists:
        im = cv2.imread(path)
        if im is None:
            continue
        boxes, _, found = yunet(im, size)
        if kind == 'lfw' and len(boxes) > 1:  # the person named is the one in the middle
            away = boxes[:, :2] + boxes[:, 2:] / 2 - np.array([im.shape[1], im.shape[0]]) / 2
            boxes, found = (v[[np.argmin((away ** 2).sum(1))]] for v in (boxes, found))
        for box, five in zip(boxes, found):
            if box[2] < 36:
                continue
            m = common.similarity(five, ON_CANVAS)
            crops.append(cv2.warpAffine(im, m, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
            points.append(common.consensus(yunet, im, five, size) @ m[:, :2].T + m[:, 2])
            groups.append(os.path.dirname(path) if kind == 'lfw' else path)
        if len(scenes) < (1000 if kind == 'lfw' else 1500):
            small = 256 / min(im.shape[:2]) < 1
            scenes.append(cv2.resize(im, (256, 256), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR))
    ids = np.unique(groups, return_inverse=True)[1]
    for name, value in (('crops', np.stack(crops)), ('points', np.stack(points)), ('ids', ids), ('scenes', np.stack(scenes))):
        np.save(f'{a.work}/{name}.npy', value)
    print(len(crops), 'faces', ids.max() + 1, 'people or pictures', len(scenes), 'scenes')


def tensors(bgr):
    """BGR bytes [n,112,112,3] to the networks' input."""
    return np.ascontiguousarray(((bgr[..., ::-1] - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


class Teacher:
    """MobileFaceNet by OpenVINO in bf16: several times faster than ONNX Runtime in fp32, cosine .9996 to it."""

    def __init__(self, models):
        os.environ.setdefault('OPENVINO_TELEMETRY', '0')
        import openvino
        core = openvino.Core()
        model = core.read_model(os.path.join(models, TEACHER))
        model.add_outputs(HINT)
        self.request = core.compile_model(model, 'CPU', {'INFERENCE_NUM_THREADS': 1, 'NUM_STREAMS': 1,
                                                         'INFERENCE_PRECISION_HINT': 'bf16'}).create_infer_request()

    def __call__(self, bgr):
        """Embeddings [n,128] and maps [n,7,7,512] as bytes (0..6 to 0..255)."""
        out = list(self.request.infer({0: tensors(bgr)}).values())
        embedding, maps = out if out[0].ndim == 2 else out[::-1]
        return embedding.copy(), np.clip(maps.transpose(0, 2, 3, 1) * (255 / 6) + 0.5, 0, 255).astype(np.uint8)


def worker(k, a):
    from ring import Slots, open_ring
    image, embedding, hint, count = open_ring(a.ring, ('image', 'embedding', 'hint'), 'r+')
    faces, teacher = Faces(a.work, (int(time.time()), k)), Teacher(a.models)
    slots = Slots(k, a.workers, len(image), count, a.duty)
    while True:
        at = slots.next(32)
        ims = np.stack([faces() for _ in range(32)])
        image[at], (embedding[at], hint[at]) = ims, teacher(ims)
        slots.written(32)


def generate(a):
    from ring import ensure_ring
    ensure_ring(a.ring, a.pool, a.workers, image=(np.uint8, (SIZE, SIZE, 3)), embedding=(np.float32, (128,)),
                    hint=(np.uint8, (7, 7, CHANNELS)))
    workers = [multiprocessing.Process(target=worker, args=(k, a), daemon=True) for k in range(a.workers)]
    [w.start() for w in workers]
    [w.join() for w in workers]


# ---------------------------------------------------------------------------------------- network

def network():
    from torch import nn

    def cbr(i, o, kernel=3, stride=1, act=True):
        return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o),
                             nn.ReLU(inplace=True) if act else nn.Identity())

    class Block(nn.Module):
        def __init__(self, i, o, stride=1):
            super().__init__()
            self.body = nn.Sequential(cbr(i, o, 3, stride), cbr(o, o, act=False))
            self.skip = cbr(i, o, 1, stride, act=False) if stride > 1 or i != o else nn.Identity()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.body(x) + self.skip(x))

    class Student(nn.Module):
        """112x112x3 to 128: 0.92 M parameters, 94 MMAC. Widths are multiples of 32: others train half as fast."""

        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(cbr(3, 32, 3, 2), cbr(32, 32, 3, 2), Block(32, 32),
                                       Block(32, 64, 2), Block(64, 64), Block(64, 64),
                                       Block(64, 128, 2), Block(128, 128))
            self.expand = nn.Sequential(nn.Conv2d(128, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU6())
            self.pool = nn.Conv2d(CHANNELS, CHANNELS, 7, groups=CHANNELS, bias=False)
            self.pool_bn = nn.BatchNorm2d(CHANNELS)
            self.out = nn.Conv2d(CHANNELS, 128, 1)
            nn.init.normal_(self.pool.weight, 0, 0.05)

        def forward(self, x):
            f = self.expand(self.trunk(x))
            if self.export:
                return self.out(self.pool_bn(self.pool(f))).flatten(1)
            # The same as self.pool(f), written so that its gradient is cheap.
            p = (f * self.pool.weight.squeeze(1)).sum((2, 3), keepdim=True)
            return self.out(self.pool_bn(p)).flatten(1), f

        export = False

    return Student()


def train(a):
    import torch
    import torch.nn.functional as F
    from loop import Run
    from ring import filled, open_ring
    image, embedding, hint, count = open_ring(a.ring, ('image', 'embedding', 'hint'), wait_for=20 * a.batch)
    net = network()
    run = Run(net, a.out, a)
    forward = torch.compile(net) if a.compile else net
    mean, std = (torch.from_numpy(v).view(1, 3, 1, 1).to(run.device) for v in (MEAN, STD))
    off = ~torch.eye(a.batch, dtype=torch.bool, device=run.device)
    while run.going():
        at = np.sort(run.rng.integers(0, filled(count, len(image)), a.batch))
        x = torch.from_numpy(image[at][..., ::-1].copy()).to(run.device).permute(0, 3, 1, 2)
        te = F.normalize(torch.from_numpy(embedding[at]).to(run.device))
        weight = a.hint * max(0.0, 1 - run.step / a.hint_steps)
        with torch.autocast(run.device, torch.bfloat16):
            e, f = forward((x.float() - mean) / std)
        se = F.normalize(e.float())
        cosine = 1 - (se * te).sum(1).mean()
        relation = ((se @ se.T - te @ te.T)[off] ** 2).mean()
        loss, maps = cosine + a.relation * relation, torch.zeros(())
        if weight > 0:
            tf = torch.from_numpy(hint[at]).to(run.device).permute(0, 3, 1, 2).float() * (6 / 255)
            maps = F.mse_loss(f.float(), tf)
            loss = loss + weight * maps
        run.update(loss, dict(cosine=cosine.detach(), relation=relation.detach(), maps=maps.detach()))
    run.finish()


# ---------------------------------------------------------------------------------------- export

def export(a):
    import torch
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    net = network()
    net.load_state_dict(torch.load(a.average, map_location='cpu', weights_only=True))
    net.eval()
    net.export = True
    fp32 = f'{a.file}.onnx'
    torch.onnx.export(net, torch.zeros(1, 3, SIZE, SIZE), fp32, input_names=['input'], output_names=['embedding'],
                      dynamic_axes={'input': {0: 'N'}, 'embedding': {0: 'N'}}, opset_version=17)
    crops = np.load(f'{a.work}/crops.npy', mmap_mode='r')
    m = np.array([[1 / ZOOM, 0, SIZE / 2 - CANVAS / 2 / ZOOM], [0, 1 / ZOOM, SIZE / 2 - CANVAS / 2 / ZOOM]])

    class Reader(CalibrationDataReader):
        """Training faces only."""

        def __init__(self):
            chosen = np.random.default_rng(0).permutation(len(crops))[:300]
            self.rows = iter([{'input': tensors(cv2.warpAffine(np.array(crops[i]), m, (SIZE, SIZE))[None])} for i in chosen])

        def get_next(self):
            return next(self.rows, None)
    ready = f'{a.file}_ready.onnx'
    quant_pre_process(fp32, ready, skip_symbolic_shape=True)
    # Percentile 99.99 of the activations: the greatest value (MinMax) loses 1.5 points of TAR.
    quantize_static(ready, f'{a.file}_int8.onnx', Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
                    calibrate_method=CalibrationMethod.Percentile, extra_options={'CalibPercentile': 99.99})
    os.remove(ready)


# ---------------------------------------------------------------------------------------- figures

def held_out(a):
    """Aligned pictures (YuNet's points), people and pairs of fold 5."""
    held, yunet = sorted(common.fold5(a.faces)), common.YuNet(a.models)
    paths = [p for n in held for p in sorted(glob.glob(f'{a.faces}/lfw/people/{n}/*.jpg'))]
    ims = []
    for p in paths:
        im = cv2.imread(p)
        boxes, _, points = yunet(im)
        away = boxes[:, :2] + boxes[:, 2:] / 2 - np.array([im.shape[1], im.shape[0]]) / 2
        ims.append(common.align(im, points[np.argmin((away ** 2).sum(1))], SIZE, ARCFACE))
    at = {os.path.relpath(p, f'{a.faces}/lfw/people'): i for i, p in enumerate(paths)}
    name = lambda n, k: f'{n}/{n}_{int(k):04d}.jpg'
    lines = [l.split() for l in open(f'{a.faces}/lfw/pairs.txt').read().splitlines()[1:]][2400:]
    pairs = np.array([(at[name(l[0], l[1])], at[name(l[-2] if len(l) == 4 else l[0], l[-1])]) for l in lines])
    ids = np.unique([p.split(os.sep)[-2] for p in paths], return_inverse=True)[1]
    return np.stack(ims), ids, pairs, np.array([len(l) == 3 for l in lines])


def embed(path, ims):
    s = common.session(path)
    out, spent = [], []
    for im in ims:
        x = tensors(im[None])
        began = time.perf_counter()
        out.append(s.run(None, {'input': x})[0].ravel())
        spent.append(time.perf_counter() - began)
    return np.stack(out), 1000 * float(np.median(spent))


def measure(e, ids, pairs, same):
    """Ten folds over the 600 pairs of fold 5, and all pairs of all its pictures."""
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    s = (e[pairs[:, 0]] * e[pairs[:, 1]]).sum(1)
    fold = np.random.default_rng(5).permutation(len(s)) % 10
    grid = np.arange(-0.2, 0.9, 0.0025)
    right = []
    for k in range(10):
        rest = fold != k
        best = grid[np.argmax([((s[rest] > g) == same[rest]).mean() for g in grid])]
        right.append(((s[~rest] > best) == same[~rest]).mean())
    m = e @ e.T
    upper, equal = np.triu(np.ones_like(m, bool), 1), ids[:, None] == ids[None]
    genuine, impostor = m[upper & equal], np.sort(m[upper & ~equal])[::-1]
    row = dict(accuracy=round(100 * np.mean(right), 2), spread=round(100 * np.std(right), 2))
    for rate in (1e-2, 1e-3, 1e-4):
        limit = impostor[int(rate * len(impostor))]
        row[f'tar_{rate:.0e}'], row[f'at_{rate:.0e}'] = round(100 * float((genuine > limit).mean()), 2), round(float(limit), 3)
    return dict(row, genuine=len(genuine), impostor=len(impostor))


def figures(a):
    cv2.setNumThreads(1)
    ims, ids, pairs, same = held_out(a)
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)
    teacher, ms = embed(os.path.join(a.models, TEACHER), ims)
    print('teacher', json.dumps(dict(measure(teacher, ids, pairs, same), ms=round(ms, 2))), flush=True)
    for path in a.models_to_measure:
        e, ms = embed(path, ims)
        row = dict(measure(e, ids, pairs, same), cosine=round(float((unit(e) * unit(teacher)).sum(1).mean()), 4),
                   ms=round(ms, 2), kB=round(os.path.getsize(path) / 1000))
        print(os.path.basename(path), json.dumps(row), flush=True)


def main():
    from ring import generate_options, prepare_options, training_options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    prepare_options(sub)
    generate_options(sub, 120_000, 63)
    p = sub.add_parser('train')
    p.add_argument('--ring', required=True)
    training_options(p, lr=2.5e-3, batch=128, steps=100_000)
    p.add_argument('--relation', type=float, default=5.0, help='weight of the cosines between samples of a batch')
    p.add_argument('--hint', type=float, default=1.0, help="weight of the teacher's last map")
    p.add_argument('--hint-steps', type=int, default=8_000, help='until when that weight has gone')
    p.add_argument('--compile', action='store_true')
    p = sub.add_parser('export')
    p.add_argument('average')
    p.add_argument('file')
    p.add_argument('--work', required=True)
    p = sub.add_parser('figures')
    p.add_argument('models_to_measure', nargs='*')
    [p.add_argument(f'--{x}', required=True) for x in ('faces', 'models')]
    a = parser.parse_args()
    dict(prepare=prepare, generate=generate, train=train, export=export, figures=figures)[a.command](a)


if __name__ == '__main__':
    main()
