"""Figures of face_state.onnx on the sets of face_state_test_sets.py, beside AIZOO's mask network.

Usage: face_state_evaluate.py thresholds MODEL --models DIR --sets VAL_SETS
       face_state_evaluate.py figures MODEL --models DIR --sets TEST_SETS --faces DIR --work DIR --eyes E --covered C
       face_state_evaluate.py time MODEL

Rates come with n and the 95 % interval of Clopper and Pearson.
"""
import argparse
import glob
import json
import os
import time

import cv2
import numpy as np

import common


def beta_quantile(q, a, b):
    """Quantile of the beta distribution by bisection on its regularised incomplete integral."""
    from math import exp, lgamma, log

    def fraction(x, a, b):                       # Lentz's continued fraction
        tiny = 1e-300
        c, d = 1.0, 1 - (a + b) * x / (a + 1)
        d = 1 / (d if abs(d) > tiny else tiny)
        h = d
        for m in range(1, 400):
            for num in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
                d, c = 1 + num * d, 1 + num / c
                d, c = 1 / (d if abs(d) > tiny else tiny), c if abs(c) > tiny else tiny
                h *= d * c
            if abs(d * c - 1) < 1e-12:
                break
        return h

    def integral(x):
        if x <= 0 or x >= 1:
            return float(x >= 1)
        front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x))
        return front * fraction(x, a, b) / a if x < (a + 1) / (a + b + 2) else 1 - front * fraction(1 - x, b, a) / b
    lo, hi = 0.0, 1.0
    for _ in range(60):
        mid = (lo + hi) / 2
        lo, hi = (mid, hi) if integral(mid) < q else (lo, mid)
    return lo


def rate(hits):
    """'12.3 % (k/n; 10.0-15.0)' of an array of booleans."""
    k, n = int(np.sum(hits)), len(hits)
    if n == 0:
        return 'n = 0'
    lo = 0.0 if k == 0 else beta_quantile(0.025, k, n - k + 1)
    hi = 1.0 if k == n else beta_quantile(0.975, k + 1, n - k)
    return f'{100 * k / n:.1f} % ({k}/{n}; {100 * lo:.1f}-{100 * hi:.1f})'


class Aizoo:
    """AIZOO's mask network as models.md decodes it: True where the face wears a mask."""

    def __init__(self, models):
        self.s = common.session(os.path.join(models, 'standard', 'aizoo_face_mask_260.onnx'))
        anchors = []
        for n, sizes in ((33, (.04, .056)), (17, (.08, .11)), (9, (.16, .22)), (5, (.32, .45)), (3, (.64, .72))):
            shapes = [(x, x) for x in sizes] + [(sizes[0] * r ** 0.5, sizes[0] / r ** 0.5) for r in (0.62, 0.42)]
            at = (np.arange(n) + 0.5) / n
            anchors += [(x, y, w, h) for y in at for x in at for w, h in shapes]
        self.anchors = np.array(anchors)

    def __call__(self, image, box):
        side = 2.0 * max(box[2], box[3])
        k = 260 / side
        m = np.float64([[k, 0, 130 - k * (box[0] + box[2] / 2)], [0, k, 130 - k * (box[1] + box[3] / 2)]])
        n = min(8, max(1, round(1 / k)))
        crop = cv2.warpAffine(image, m * n, (260 * n, 260 * n))
        crop = cv2.resize(crop, (260, 260), interpolation=cv2.INTER_AREA) if n > 1 else crop
        out = dict(zip([o.name for o in self.s.get_outputs()],
                       self.s.run(None, {'input': crop[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255})))
        loc, conf = out['loc'][0], out['conf'][0]
        centre = loc[:, :2] * 0.1 * self.anchors[:, 2:] + self.anchors[:, :2]
        near = (np.abs(centre - 0.5) <= 0.2).all(1)
        i = np.argmax(np.where(near, conf.max(1), -1))
        return bool(conf[i, 0] > conf[i, 1])


class Chain:
    def __init__(self, model, models):
        self.s, self.yunet = common.session(model), common.YuNet(models)

    def detect(self, image):
        for size in (320, 640):
            boxes, scores, points = self.yunet(image, size)
            if len(boxes):
                best = np.argmax(boxes[:, 2] * boxes[:, 3])
                return boxes[best], points[best]
        return None

    def __call__(self, image, points):
        return self.s.run(None, {'input': common.tensor(common.align(image, points))})[0][0]


def measure(chain, folder, extra=None):
    """Outputs of every picture that has a face; probabilities for the four states, degrees for the pose."""
    rows, lost, more = [], 0, []
    for p in sorted(glob.glob(f'{folder}/*')):
        image = cv2.imread(p)
        found = chain.detect(image)
        if found is None:
            lost += 1
            continue
        o = chain(image, found[1]).astype(np.float64)
        rows.append(np.append(1 / (1 + np.exp(-o[:4])), o[4:] * common.DEGREES))
        if extra:
            more.append(extra(image, *found))
    return np.array(rows).reshape(-1, 6), lost, more


def eyes(rows):
    """The score of `both eyes closed`: the smaller of the two."""
    return rows[:, :2].min(1)


def covered(rows):
    return rows[:, 2:4].max(1)


def folders(sets):
    return {os.path.relpath(d, sets): d for d in sorted(glob.glob(f'{sets}/*') + glob.glob(f'{sets}/*/*') + glob.glob(f'{sets}/*/*/*'))
            if os.path.isdir(d) and any(os.path.isfile(p) for p in glob.glob(f'{d}/*'))}


def thresholds(a):
    """Shares that each threshold flags, in steps of .05.

    The rule for covers: the smallest that flags at most 0.5 % of the bona fide, and one step more, since a
    false alarm keeps a person outside. For eyes: the smallest that flags none of them, because the alarms
    fall on people with narrow eyes.
    """
    chain = Chain(a.model, a.models)
    scores = {k: measure(chain, d)[0] for k, d in folders(a.sets).items()}
    for name, score in (('eyes_closed_min', eyes), ('covered_min', covered)):
        fair = score(scores['bona-fide'])
        print(name, 'bona fide: n', len(fair), 'quantiles .99 .995 .998 1:', np.quantile(fair, (.99, .995, .998, 1)).round(3))
        for t in np.arange(0.5, 0.96, 0.05).round(2):
            print(f'  {t}', {k.split('/')[-1]: round(float((score(v) >= t).mean()), 4) for k, v in scores.items() if len(v)})


def figures(a):
    chain, aizoo = Chain(a.model, a.models), Aizoo(a.models)
    found = folders(a.sets)
    cache = f'{a.work}/aizoo_{os.path.basename(os.path.normpath(a.sets))}.json'
    old = json.load(open(cache)) if os.path.exists(cache) else {}
    print('| set | eyes closed | covered: eyes | covered: nose, mouth | covered: either | AIZOO mask |\n|---|---|---|---|---|---|')
    aizoo_of = lambda image, box, points: aizoo(image, box)
    for name, folder in found.items():
        rows, lost, more = measure(chain, folder, aizoo_of if name not in old else None)
        if name not in old:
            old[name] = more
        print(f'| {name} | {rate(eyes(rows) >= a.eyes)} | {rate(rows[:, 2] >= a.covered)} | {rate(rows[:, 3] >= a.covered)} | '
              f'{rate(covered(rows) >= a.covered)} | {rate(old[name])} |' + (f' {lost} without a face' if lost else ''), flush=True)
    # The held-out half of occlusion/, and the other held-out faces, with the boxes of face_state_prepare.py.
    f = dict(np.load(f'{a.work}/faces.npz'))
    import face_state_generate as generate
    hand = generate.hand_labels()
    for name, sources in (('occlusion/with_mask', ('with_mask',)), ('occlusion/without_mask', ('without_mask',)),
                          ('LFW and photographs', ('people', 'strangers', 'photos'))):
        mine, theirs = [], []
        key = f'held-out {name}'
        for i in np.flatnonzero((f['split'] == 'test') & np.isin(f['source'], sources)):
            path = f'{a.faces}/{f["path"][i]}'
            h = hand.get(common.file_hash(path), {})
            if sources != ('with_mask',) and h.get('mouth_covered', '0') != '0':
                continue
            image = cv2.imread(path)
            mine.append(1 / (1 + np.exp(-float(chain(image, f['points'][i])[3]))))
            if key not in old:
                theirs.append(aizoo(image, f['box'][i]))
        if key not in old:
            old[key] = theirs
        print(f'| {key}, nose and mouth | {rate(np.array(mine) >= a.covered)} | AIZOO {rate(old[key])} |', flush=True)
    json.dump(old, open(cache, 'w'))
    # Eye aspect ratio and pose against the mesh, on every held-out face that is labelled open or not at all.
    score, ratio, pose, shut = [], [], [], []
    for i in np.flatnonzero((f['split'] == 'test') & np.isin(f['source'], ('people', 'strangers', 'photos'))):
        path = f'{a.faces}/{f["path"][i]}'
        image = cv2.imread(path)
        o = chain(image, f['points'][i])
        pose.append((*o[4:] * common.DEGREES, f['yaw'][i], f['pitch'][i]))
        h = hand.get(common.file_hash(path), {})
        if h.get('eyes') == 'closed':
            shut.append(1 / (1 + np.exp(-float(o[:2].min()))))
        if h.get('eyes') in ('closed', 'unsure') or h.get('eyes_covered', '0') != '0':
            continue
        score.append(1 / (1 + np.exp(-o[:2].astype(np.float64).min())))
        ratio.append(f['ear'][i].mean())
    score, ratio, pose = np.array(score), np.array(ratio), np.array(pose)
    edges = np.quantile(ratio, (0, .05, .2, .4, .6, .8, 1))
    print('\nreal closed eyes, pictures of several faces too:', rate(np.array(shut) >= a.eyes))
    print('\nopen eyes called closed, by quantile of the eye aspect ratio')
    for label, lo, hi in (('lowest 5 %', 0, 1), ('Q1', 0, 2), ('Q2', 2, 3), ('Q3', 3, 4), ('Q4', 4, 5), ('Q5', 5, 6)):
        use = (ratio >= edges[lo]) & (ratio <= edges[hi])
        print(f'| {label} | {edges[lo]:.3f}-{edges[hi]:.3f} | {rate(score[use] >= a.eyes)} |')
    for j, name in ((0, 'yaw'), (1, 'pitch')):
        d = np.abs(pose[:, j] - pose[:, j + 2])
        print(f'{name}: n {len(d)}, r {np.corrcoef(pose[:, j], pose[:, j + 2])[0, 1]:.3f}, mean abs {d.mean():.2f}, 95 % {np.quantile(d, .95):.1f} degrees, '
              f'range {pose[:, j + 2].min():.0f}..{pose[:, j + 2].max():.0f}')


def clock(a):
    s = common.session(a.model)
    x, t = np.random.default_rng(0).normal(0, 0.5, (1, 3, 112, 112)).astype(np.float32), []
    for _ in range(300):
        b = time.perf_counter()
        s.run(None, {'input': x})
        t.append(1000 * (time.perf_counter() - b))
    print(f'{np.median(t):.2f} ms median, {np.quantile(t, .1):.2f} 10 %, {os.path.getsize(a.model)} bytes, sha256 {common.file_hash(a.model)}')


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    sub = ap.add_subparsers(dest='cmd', required=True)
    for name, run in (('thresholds', thresholds), ('figures', figures), ('time', clock)):
        p = sub.add_parser(name)
        p.set_defaults(run=run)
        p.add_argument('model')
        p.add_argument('--models')
        p.add_argument('--sets')
        p.add_argument('--faces')
        p.add_argument('--work')
        p.add_argument('--eyes', type=float, default=0.5)
        p.add_argument('--covered', type=float, default=0.5)
    args = ap.parse_args()
    args.run(args)
