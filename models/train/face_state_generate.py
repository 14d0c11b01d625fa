"""Draws training pictures into a ring of slots that face_state_train.py reads.

Usage: face_state_generate.py canvases --faces DIR --work DIR        once: every face, aligned, with room around it
       face_state_generate.py ring --work DIR --ring DIR --pool N [--rounds R] [--duty D]
       face_state_generate.py preview --work DIR --out PICTURE.png
"""
import argparse
import csv
import os
import time

import cv2
import numpy as np

import common
import face_state_effects as effects

ZOOM, MARGIN = 1.25, 26           # a canvas pixel is 1/ZOOM template pixels; room on every side
CANVAS = int(common.SIZE * ZOOM) + 2 * MARGIN  # 192
LABELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'face_state_labels')
NARROW = 0.12                     # below this eye aspect ratio only hand labels are believed


def canvases(a):
    f = dict(np.load(f'{a.work}/faces.npz'))  # once: an npz reads a whole array at every access
    template = common.TEMPLATE * ZOOM + MARGIN
    n = len(f['path'])
    ims = np.lib.format.open_memmap(f'{a.work}/canvas.npy', mode='w+', dtype=np.uint8, shape=(n, CANVAS, CANVAS, 3))
    mesh, points, hashes = np.zeros((n, 478, 3), np.float32), np.zeros((n, 5, 2)), []
    textures = []
    for i in range(n):
        path = f'{a.faces}/{f["path"][i]}'
        im = cv2.imread(path)
        hashes.append(common.file_hash(path))
        ims[i] = common.align(im, f['points'][i], CANVAS, template)
        m = common.similarity(f['points'][i], template)
        mesh[i, :, :2] = f['mesh'][i, :, :2] @ m[:, :2].T + m[:, 2]
        mesh[i, :, 2] = f['mesh'][i, :, 2] * np.hypot(m[0, 0], m[1, 0])
        points[i] = f['points'][i] @ m[:, :2].T + m[:, 2]
        if f['split'][i] == 'train' and i % 6 == 0:
            textures.append(cv2.resize(im, (160, 160), interpolation=cv2.INTER_AREA))
    np.savez(f'{a.work}/canvas_points.npz', mesh=mesh, points=points, hash=np.array(hashes))
    np.save(f'{a.work}/textures.npy', np.stack(textures))
    print(n, 'canvases', len(textures), 'textures')


def hand_labels():
    """{file hash: {name: value}}: eyes closed/open/unsure; eyes and mouth covered 1/0/unsure."""
    out = {}
    for name, columns in (('eyes.csv', ('eyes',)), ('covered.csv', ('eyes_covered', 'mouth_covered'))):
        path = os.path.join(LABELS, name)
        if os.path.exists(path):
            for row in csv.DictReader(open(path)):
                out.setdefault(row['sha256'], {}).update({c: row[c] for c in columns})
    return out


def natural_labels(f, hashes):
    """[n, 4] labels of the pictures as they are; nan where nothing is known."""
    number = {'1': 1.0, '0': 0.0, 'unsure': np.nan, 'closed': 1.0, 'open': 0.0}
    hand, n = hand_labels(), len(f['path'])
    y = np.zeros((n, 4), np.float32)
    for i in range(n):
        for side in (0, 1):
            if f['ear'][i, side] < NARROW:
                y[i, side] = np.nan
        if f['source'][i] == 'with_mask':
            y[i, 3] = 1
            if min(f['ear'][i]) < 0.2:
                y[i, :2] = np.nan
        h = hand.get(str(hashes[i]), {}) if f['source'][i] != 'photos' or f['faces_in_picture'][i] == 1 else {}
        if 'eyes' in h:
            y[i, :2] = number[h['eyes']]
        if 'eyes_covered' in h:
            y[i, 2], y[i, 3] = number[h['eyes_covered']], number[h['mouth_covered']]
        if not y[i, 2] == 0:
            y[i, :2] = np.nan
    return y


def borrow_eyes(s, donors, label):
    """Eyes of another picture, shut or narrow but open, on this face; sometimes one only."""
    donor, mesh = donors[s.rng.integers(len(donors))]
    u = s.rng.random()
    for side in ('left', 'right') if u < 0.8 else ('left',) if u < 0.9 else ('right',):
        effects.transplant(s, side, donor, mesh)
        s.closed[side] = label
    s.tags.append('borrowed')


def compose(scene, shut=(), narrow=(), plain=False):
    """Closes eyes and adds occluders at random, in place."""
    r, s = scene.rng, scene
    u = r.random()
    if u < 0.09 and shut:
        borrow_eyes(s, shut, 1.0)
    elif u > 0.95 and narrow:
        borrow_eyes(s, narrow, 0.0)
    elif u < 0.30:
        effects.close_eyes(s)
    elif u < 0.42:
        effects.close_eyes(s, (('left',), ('right',))[r.integers(2)])
    elif u < 0.60:
        effects.half_close(s)
    if r.random() < 0.12:
        effects.shadows(s)
    if r.random() < 0.06:
        effects.beard(s)
    u = r.random()
    if plain or u < 0.34:
        pass
    elif u < 0.50:
        effects.mask(s, 'face' if r.random() < 0.88 else 'nose')
    elif u < 0.555:
        effects.scarf(s)
    elif u < 0.605:
        effects.mask(s, 'chin')
    elif u < 0.715:
        effects.glasses(s, True)
    elif u < 0.80:
        effects.glasses(s, False)
    elif u < 0.885:
        effects.hand(s, ('eyes', 'mouth', 'mouth', 'else', 'eyes')[r.integers(5)])
    elif u < 0.96:
        effects.thing(s, ('eyes', 'mouth', 'mouth', 'else', 'else')[r.integers(5)])
    else:
        (effects.fringe, effects.hat)[r.integers(2)](s)
    if not plain:
        if r.random() < 0.05:
            effects.fringe(s)
        if r.random() < 0.05:
            effects.hat(s)
        if r.random() < 0.04 and 'spectacles' not in s.tags and 'sunglasses' not in s.tags:
            effects.glasses(s, r.random() < 0.4)


def camera(image, points, rng):
    """Light, lens, sensor and coding of a cheap camera; then the alignment on points that are a little off."""
    r, im = rng, image
    if r.random() < 0.8:                         # exposure, contrast, tint, gamma
        gain = np.exp(r.normal(0, 0.22)) * np.exp(r.normal(0, 0.06, 3))
        im = np.clip((im - 128) * gain + 128 + r.normal(0, 20), 0, 255)
        if r.random() < 0.4:
            im = 255 * (im / 255) ** np.exp(r.normal(0, 0.3))
    if r.random() < 0.12:
        im = np.repeat(im.mean(2, keepdims=True), 3, 2)
    elif r.random() < 0.2:
        g = im.mean(2, keepdims=True)
        im = g + (im - g) * r.uniform(0.3, 1.6)
    k = min(1.0, np.exp(r.uniform(np.log(17), np.log(56))) / (common.EYE_DISTANCE * ZOOM))
    small = cv2.resize(im.astype(np.float32), None, fx=k, fy=k, interpolation=cv2.INTER_AREA if k < 0.75 else cv2.INTER_LINEAR)
    k = small.shape[0] / im.shape[0]
    if r.random() < 0.3:
        small = cv2.GaussianBlur(small, (0, 0), abs(r.normal(0, 0.7)) + 0.2)
    if r.random() < 0.12:                        # motion
        n = int(r.integers(3, 8))
        kernel = np.zeros((n, n), np.float32)
        t = r.uniform(0, np.pi)
        c = (n - 1) / 2
        cv2.line(kernel, (round(c - c * np.cos(t)), round(c - c * np.sin(t))), (round(c + c * np.cos(t)), round(c + c * np.sin(t))), 1)
        small = cv2.filter2D(small, -1, kernel / kernel.sum())
    if r.random() < 0.15:                        # sharpening
        small = small + r.uniform(0.2, 1.2) * (small - cv2.GaussianBlur(small, (0, 0), 1.2))
    if r.random() < 0.5:
        n = r.standard_normal(small.shape).astype(np.float32)
        n = n if r.random() < 0.5 else np.repeat(n[..., :1], 3, 2)
        small = small + n * abs(r.normal(0, 7))
    small = np.clip(small, 0, 255).astype(np.uint8)
    if r.random() < 0.6:
        small = cv2.imdecode(cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, int(r.integers(30, 96))])[1], 1)
    d = common.EYE_DISTANCE * ZOOM * k
    wild = 2.2 if r.random() < 0.12 else 1.0
    p = points * k + (k - 1) / 2 + r.normal(0, 0.03 * d * wild, (5, 2)) * r.uniform(0, 1.2)
    c = p.mean(0)
    t, z = r.normal(0, np.radians(3.0)) * wild, np.exp(r.normal(0, 0.035)) ** wild
    p = c + (p - c) @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) * z + r.normal(0, 0.025 * d * wild, 2)
    return common.align(small, p)


class Source:
    def __init__(self, work, split, seed):
        cv2.setNumThreads(1)
        self.rng = np.random.default_rng(seed)
        f = dict(np.load(f'{work}/faces.npz'))
        c = np.load(f'{work}/canvas_points.npz')
        self.mesh, self.points = c['mesh'], c['points']
        self.canvas = np.load(f'{work}/canvas.npy', mmap_mode='r')
        self.textures = np.load(f'{work}/textures.npy')
        self.y, self.f = natural_labels(f, c['hash']), f
        use = np.flatnonzero((f['split'] == split) & (f['box'][:, 2] > 36))
        self.masked = [i for i in use if f['source'][i] == 'with_mask']
        known = {i: not np.isnan(self.y[i]).all() for i in use}
        self.bare = [i for i in use if f['source'][i] != 'with_mask' and known[i]]
        self.special = [i for i in self.bare if np.nansum(self.y[i]) > 0]  # hand-labelled closed or covered
        self.narrow = [i for i in self.bare if min(f['ear'][i]) < 0.17 and np.nanmax(np.append(self.y[i, :2], -1)) == 0]
        donors = lambda value: [(self.canvas[i], self.mesh[i]) for i in self.bare if (self.y[i, :2] == value).all()
                                and min(f['ear'][i]) < NARROW and f['presence'][i] > 0.8 and abs(f['yaw'][i]) < 20]
        self.shut_eyes, self.narrow_eyes = donors(1), donors(0)
        people = {}
        for i in self.bare:
            people.setdefault(f['key'][i], []).append(i)
        self.people = list(people.values())

    def pick(self):
        r, u = self.rng, self.rng.random()
        if u < 0.04 and self.masked:
            return r.choice(self.masked)
        if u < 0.08 and self.special:
            return r.choice(self.special)
        if u < 0.14 and self.narrow:
            return r.choice(self.narrow)
        return r.choice(self.people[r.integers(len(self.people))]) if u < 0.5 else r.choice(self.bare)

    def __call__(self):
        i, r = self.pick(), self.rng
        s = effects.Scene(self.canvas[i], self.mesh[i], r, self.textures)
        y = self.y[i]
        natural = np.nansum(y) > 0 or np.isnan(y[:2]).any() or self.f['presence'][i] < 0.8 or r.random() < 0.15
        if not natural and min(self.f['ear'][i]) > 0.13:
            compose(s, self.shut_eyes, self.narrow_eyes)
        elif np.nansum(y) == 0 and r.random() < 0.5:
            effects.mask(s, 'face') if r.random() < 0.4 else effects.glasses(s, False)
        drawn = s.labels()
        label = np.array([max(a, b) if not np.isnan(a + b) else np.nan for a, b in zip(y, drawn)], np.float32)
        if y[2] == 1 or (y[3] == 1):
            label[2:] = np.where(y[2:] == 1, 1, label[2:])
        out = camera(s.im, self.points[i], r)
        trust = self.f['presence'][i] > 0.8
        pose = [self.f['yaw'][i] / common.DEGREES, self.f['pitch'][i] / common.DEGREES] if trust else [np.nan] * 2
        return out, np.append(label, pose).astype(np.float32), s.tags


def ring(a):
    os.makedirs(a.ring, exist_ok=True)
    mk = lambda name, dt, shape: np.lib.format.open_memmap(f'{a.ring}/{name}.npy', mode='r+' if a.refresh else 'w+', dtype=dt, shape=shape)
    im, lab = mk('im', np.uint8, (a.pool, 112, 112, 3)), mk('lab', np.float32, (a.pool, 6))
    count = mk('count', np.int64, (1,))
    source, start, errors = Source(a.work, 'train', a.seed), time.time(), 0
    for n in range(a.first, a.pool * a.rounds):
        begin = time.time()
        try:
            im[n % a.pool], lab[n % a.pool], _ = source()
        except Exception as e:                   # a freak of geometry: the slot keeps its last picture
            errors += 1
            if errors < 20:
                print('skipped:', repr(e), flush=True)
            im[n % a.pool], lab[n % a.pool], _ = source()
        count[0] = max(n + 1, count[0]) if a.refresh else n + 1
        if a.duty < 1:
            time.sleep((time.time() - begin) * (1 / a.duty - 1))
        if n % 5000 == 4999:
            print(n + 1, f'{(n + 1 - a.first) / (time.time() - start):.0f}/s', 'errors', errors, 'mean labels', np.nanmean(lab[:min(n + 1, a.pool)][::7], 0).round(3), flush=True)


def preview(a):
    source = Source(a.work, 'train', a.seed)
    tiles = []
    start = time.time()
    for _ in range(a.n):
        im, lab, tags = source()
        im = im.copy()
        for j, v in enumerate(lab[:4]):
            c = (128, 128, 128) if np.isnan(v) else (0, 0, 255) if v > 0.5 else (0, 200, 0)
            cv2.rectangle(im, (2 + 9 * j, 104), (9 + 9 * j, 111), c, -1)
        tiles.append(im)
    print(f'{a.n / (time.time() - start):.0f}/s')
    cv2.imwrite(a.out, np.vstack([np.hstack(tiles[i:i + 14]) for i in range(0, len(tiles) - 13, 14)]))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    sub = ap.add_subparsers(dest='cmd', required=True)
    for name, run in (('canvases', canvases), ('ring', ring), ('preview', preview)):
        p = sub.add_parser(name)
        p.set_defaults(run=run)
        p.add_argument('--work', required=True)
        p.add_argument('--faces')
        p.add_argument('--ring')
        p.add_argument('--out')
        p.add_argument('--pool', type=int, default=100000)
        p.add_argument('--rounds', type=int, default=1)
        p.add_argument('--duty', type=float, default=1.0)
        p.add_argument('--seed', type=int, default=1)
        p.add_argument('--refresh', action='store_true', help='keep a ring that is there, overwrite it from slot `first` on')
        p.add_argument('--first', type=int, default=0)
        p.add_argument('--n', type=int, default=112)
    args = ap.parse_args()
    args.run(args)
