"""Writes test sets of whole pictures, of people (and groups of pictures) that were never trained on.

Usage: face_state_test_sets.py --faces DIR --models DIR --out DIR [--split test|val] [--each N]

  OUT/bona-fide                                    as they are, one face, eyes open, nothing covered
  OUT/bona-fide-hard/{spectacles,chin-mask,half-closed,narrow-eyes}  drawn, drawn, drawn, real
  OUT/refused/EYES_CLOSED/{warped,real}
  OUT/refused/FACE_IS_OCCLUDED/{mask-real,mask-drawn,scarf,sunglasses-drawn,sunglasses-real,hand,object,other-real}

`drawn` and `warped` are made by face_state_effects.py, `real` are pictures labelled by hand (face_state_labels/*.csv). No
picture is made larger. File names are hashes, never people. The result depends on nothing but the
pictures, the labels and this code. `val` are the people that thresholds are chosen on.
"""
import argparse
import os
import zlib

import cv2
import numpy as np

import common
import face_state_effects as effects
import face_state_generate as generate


def draw(image, mesh, seed, textures, effect, wanted):
    """Applies an effect to a whole picture; tries again until the labels are the wanted ones."""
    eye = np.linalg.norm((mesh[33] + mesh[133] - mesh[263] - mesh[362])[:2]) / 2
    k = 2 if eye < 60 else 1                     # drawn finer than small pictures, then averaged back
    lo = np.maximum(0, np.floor(mesh[:, :2].min(0) - 2.2 * eye)).astype(int)
    hi = np.minimum((image.shape[1], image.shape[0]), np.ceil(mesh[:, :2].max(0) + 2.2 * eye)).astype(int)
    crop = image[lo[1]:hi[1], lo[0]:hi[0]]
    fine = cv2.resize(crop, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC) if k > 1 else crop
    m = mesh.astype(np.float64).copy()
    m[:, :2] = (m[:, :2] - lo) * k + (k - 1) / 2
    for attempt in range(20):
        s = effects.Scene(fine, m, np.random.default_rng([seed, attempt]), textures)
        before = s.im.copy()
        effect(s)
        if wanted(s.labels()):
            break
    else:
        return None
    changed = cv2.dilate((np.abs(s.im - before).max(2) > 2).astype(np.float32), np.ones((3, 3)))
    new = np.clip(s.im, 0, 255)
    if k > 1:
        size = (crop.shape[1], crop.shape[0])
        new, changed = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (new, changed))
    out = image.copy()
    a = changed[..., None]
    out[lo[1]:hi[1], lo[0]:hi[0]] = np.clip(crop * (1 - a) + new * a + 0.5, 0, 255).astype(np.uint8)
    return out


COVERED = 'refused/FACE_IS_OCCLUDED'
DRAWN = {
    'refused/EYES_CLOSED/warped': (effects.close_eyes, lambda y: y[0] == y[1] == 1),
    f'{COVERED}/mask-drawn': (effects.mask, lambda y: y[3] == 1),
    f'{COVERED}/scarf': (lambda s: effects.scarf(s, s.rng.uniform(0.3, 1.7)), lambda y: y[3] == 1),
    f'{COVERED}/sunglasses-drawn': (lambda s: effects.glasses(s, True), lambda y: y[2] == 1),
    f'{COVERED}/hand': (lambda s: effects.hand(s, ('eyes', 'mouth')[s.rng.integers(2)]), lambda y: 1 in y[2:]),
    f'{COVERED}/object': (lambda s: effects.thing(s, ('eyes', 'mouth')[s.rng.integers(2)]), lambda y: 1 in y[2:]),
    'bona-fide-hard/spectacles': (lambda s: effects.glasses(s, False), lambda y: y[2] == 0),
    'bona-fide-hard/chin-mask': (lambda s: effects.mask(s, 'chin'), lambda y: y[3] == 0),
    'bona-fide-hard/half-closed': (effects.half_close, lambda y: True),
}


def main():
    a = argparse.ArgumentParser()
    for x in ('faces', 'models', 'out'):
        a.add_argument(f'--{x}', required=True)
    a.add_argument('--work', help='holds faces.npz of face_state_prepare.py; made there if absent')
    a.add_argument('--split', default='test')
    a.add_argument('--each', type=int, default=200)
    a = a.parse_args()
    cv2.setNumThreads(1)
    a.work = a.work or a.out
    if not os.path.exists(f'{a.work}/faces.npz'):
        import subprocess
        import sys
        here = os.path.dirname(os.path.abspath(__file__))
        os.makedirs(a.work, exist_ok=True)
        subprocess.run([sys.executable, f'{here}/face_state_prepare.py', '--faces', a.faces, '--models', a.models, '--work', a.work], check=True)
    f = dict(np.load(f'{a.work}/faces.npz'))
    use = [i for i in np.flatnonzero(f['split'] == a.split) if f['faces_in_picture'][i] == 1]
    path = lambda i: f'{a.faces}/{f["path"][i]}'
    hashes = {i: common.file_hash(path(i)) for i in use}
    y = generate.natural_labels(f, [hashes.get(i, '') for i in range(len(f['path']))])
    hand = generate.hand_labels()
    eyes = {i: hand.get(hashes[i], {}).get('eyes') for i in use}
    textures = np.stack([cv2.resize(cv2.imread(path(i)), (160, 160), interpolation=cv2.INTER_AREA) for i in use[::max(1, len(use) // 80)]])
    counts = {}

    def save(where, i, image=None):
        os.makedirs(f'{a.out}/{where}', exist_ok=True)
        name = f'{a.out}/{where}/{hashes[i][:16]}'
        if image is None:
            open(name + os.path.splitext(path(i))[1].lower(), 'wb').write(open(path(i), 'rb').read())
        else:
            cv2.imwrite(name + '.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 94])
        counts[where] = counts.get(where, 0) + 1

    for i in use:
        masked = f['source'][i] == 'with_mask'
        if y[i, 2] == 1 and not masked:
            save(f'{COVERED}/sunglasses-real', i)
        elif y[i, 3] == 1:
            save(f'{COVERED}/mask-real' if masked else f'{COVERED}/other-real', i)
        elif eyes[i] == 'closed' and not masked:
            save('refused/EYES_CLOSED/real', i)
        elif not np.isnan(y[i]).any() and y[i].sum() == 0:
            save('bona-fide', i)
            if max(f['ear'][i].mean(), 0) < generate.NARROW:
                save('bona-fide-hard/narrow-eyes', i)
    good = [i for i in use if f['presence'][i] > 0.9 and not np.isnan(y[i]).any() and y[i].sum() == 0
            and min(f['ear'][i]) > 0.15 and f['box'][i, 2] >= 40]
    for where, (effect, wanted) in DRAWN.items():
        rank = sorted(good, key=lambda i: zlib.crc32((hashes[i] + where).encode()))
        people, chosen = set(), []
        for i in rank:                           # one picture of each person first
            if f['key'][i] not in people:
                people.add(f['key'][i])
                chosen.append(i)
        for i in chosen[:a.each]:
            out = draw(cv2.imread(path(i)), f['mesh'][i], zlib.crc32((where + hashes[i]).encode()), textures, effect, wanted)
            if out is not None:
                save(where, i, out)
    for k in sorted(counts):
        print(f'{k}: {counts[k]}')


if __name__ == '__main__':
    main()
