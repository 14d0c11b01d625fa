"""How well cheaper estimates agree with the mesh, on what face_state_prepare.py found. Prints Markdown.

The five-point estimate is that of src/face/pose.rs, the mesh's pose that of src/face/mesh.rs; the
constants of both are read from there. Faces that the mesh has lost (presence below 0.5) are counted
and left out of everything else.

Usage: mesh_figures.py --models DIR --work DIR --faces DIR [--mirrored N]
WORK is the folder of face_state_prepare.py's faces.npz, FACES the pictures it was made of; N pictures of LFW
people are looked at again in the mirror.
"""
import argparse
import os
import pathlib
import re

import cv2
import numpy as np

import common
import reference_shape

FACE = pathlib.Path(__file__).resolve().parents[2] / 'src' / 'face'
LIMIT_DEG = 30.0
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))


def shipped_shape():
    """Indices and places of src/face/mesh/shape.rs."""
    text, number = (FACE / 'mesh' / 'shape.rs').read_text(), r'(-?\d+\.\d+)'
    shape = {int(i): (0, float(y), float(z)) for i, y, z in re.findall(rf'\((\d+), \[{number}, {number}\]\)', text)}
    for left, right, *place in re.findall(rf'\(\[(\d+), (\d+)\], \[{number}, {number}, {number}\]\)', text):
        x, y, z = map(float, place)
        shape[int(left)], shape[int(right)] = (x, y, z), (-x, y, z)
    return list(shape), np.array(list(shape.values()))


def five_points(points):
    """Yaw and pitch of src/face/pose.rs; NaN where it answers nothing."""
    text = (FACE / 'pose.rs').read_text()
    yaw, pitch, zero = (float(re.search(rf'const {n}: f32 = ([\d.]+);', text)[1])
                        for n in ('YAW_FACTOR', 'PITCH_FACTOR', 'NOSE_LEVEL'))
    left, right, nose, left_mouth, right_mouth = points.transpose(1, 0, 2)
    across = right - left + right_mouth - left_mouth
    length = np.hypot(*across.T)
    cos, sin = across.T / length
    level = lambda p: np.stack([p[:, 0] * cos + p[:, 1] * sin, p[:, 1] * cos - p[:, 0] * sin])
    eyes, mouth, nose = level((left + right) / 2), level((left_mouth + right_mouth) / 2), level(nose)
    height = mouth[1] - eyes[1]
    down = (nose[1] - eyes[1]) / height
    aside = nose[0] - (eyes[0] + (mouth[0] - eyes[0]) * down)
    found = np.degrees(np.arctan([yaw * aside / (length / 2), pitch * (down - zero)]))
    return np.where(height > 0, found, np.nan)


def interval(k, n):
    """Clopper-Pearson at 95 %, by bisection of the binomial tail."""
    if not n:
        return 0.0, 1.0

    def at_most(k, p):
        """By logarithms: the coefficients of thousands of faces are larger than any float."""
        i = np.arange(k + 1)
        return np.exp(log_factorial[n] - log_factorial[i] - log_factorial[n - i] + i * np.log(p)
                      + (n - i) * np.log1p(-p)).sum()
    log_factorial = np.r_[0.0, np.cumsum(np.log(np.arange(1, n + 1)))]

    def root(f):
        low, high = 1e-12, 1 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if f(middle) > 0 else (low, middle)
        return low
    return (0.0 if k == 0 else root(lambda p: 0.025 - (1 - at_most(k - 1, p))),
            1.0 if k == n else root(lambda p: at_most(k, p) - 0.025))


def share(k, n):
    low, high = interval(int(k), int(n))
    return f'{k} of {n} ({100 * low:.1f}–{100 * high:.1f} %)' if n else f'{k} of 0'


def agreement(name, a, b):
    d = a - b
    print(f'| {name} | {len(d)} | {np.corrcoef(a, b)[0, 1]:.3f} | {d.mean():+.2f}° | {np.abs(d).mean():.2f}° | '
          f'{np.quantile(np.abs(d), .95):.2f}° | {np.polyfit(b, a, 1)[0]:.2f} |')


def eye_ratios(meshes):
    out = []
    for eye in EYES:
        p = meshes[:, list(eye), :2]
        length = lambda i, j: np.linalg.norm(p[:, i] - p[:, j], axis=1)
        out.append((length(1, 5) + length(2, 4)) / (2 * length(0, 3)))
    return np.stack(out, 1)


def main():
    a = argparse.ArgumentParser()
    for x in ('models', 'work', 'faces'):
        a.add_argument(f'--{x}', required=True)
    a.add_argument('--mirrored', type=int, default=500)
    a = a.parse_args()
    f = np.load(os.path.join(a.work, 'faces.npz'), allow_pickle=False)
    meshes, source, present = f['mesh'].astype(np.float64), f['source'], f['presence'] >= 0.5
    sets = {'LFW people': source == 'people', 'photographs': source == 'photos',
            'people, test part': (source == 'people') & (f['split'] == 'test')}

    print('Faces in which the mesh sees a face:\n\n| pictures | presence at least 0.5 |\n|---|---|')
    for name in ('people', 'strangers', 'photos', 'without_mask', 'with_mask'):
        print(f'| `{name}` | {share((present & (source == name)).sum(), (source == name).sum())} |')

    indices, shape = shipped_shape()
    rotation, _, unexplained = reference_shape.fit(shape, meshes[:, indices])
    yaw, pitch = reference_shape.angles(rotation)
    model = reference_shape.canonical(a.models)
    model_yaw, model_pitch = reference_shape.angles(reference_shape.fit(model, meshes[:, :len(model)])[0])
    five_yaw, five_pitch = five_points(f['points'])
    answered = present & np.isfinite(five_yaw)
    head = '\n| pictures | n | r | mean difference | mean absolute | 95 % within | slope |\n|---|---|---|---|---|---|---|'
    print('\nOwn reference shape (first) against a fit of 468 points to the canonical model:', head)
    for name, own in sets.items():
        k = present & own
        agreement(f'{name}, yaw', yaw[k], model_yaw[k])
        agreement(f'{name}, pitch', pitch[k], model_pitch[k])
    print(f'\nUnexplained share of the spread, {present.sum()} faces: median {np.median(unexplained[present]):.4f}, '
          f'99.9 % {np.quantile(unexplained[present], .999):.4f}, greatest {unexplained[present].max():.4f}.')
    print('\nFive points (first) against the mesh:', head)
    for name, own in sets.items():
        k = answered & own
        agreement(f'{name}, yaw', five_yaw[k], yaw[k])
        agreement(f'{name}, pitch', five_pitch[k], pitch[k])
    print(f'\nThe five points answer nothing for {(present & ~np.isfinite(five_yaw)).sum()} faces that the mesh sees.')

    print(f'\nA limit of {LIMIT_DEG:.0f}° to each side, by the five points and by the mesh:\n\n'
          '| pictures | beyond by the mesh | of these, within by five points | more than 5° beyond by the mesh, yet within '
          'by five points | within by the mesh, yet beyond by five points |\n|---|---|---|---|---|')
    for name, own in sets.items():
        k = answered & own
        for what, mesh_angle, five_angle in (('yaw', yaw, five_yaw), ('pitch', pitch, five_pitch), (
                'either', np.maximum(abs(yaw), abs(pitch)), np.maximum(abs(five_yaw), abs(five_pitch)))):
            far, five_far = np.abs(mesh_angle[k]) > LIMIT_DEG, np.abs(five_angle[k]) > LIMIT_DEG
            very_far = np.abs(mesh_angle[k]) > LIMIT_DEG + 5
            print(f'| {name}, {what} | {far.sum()} of {k.sum()} | {share((far & ~five_far).sum(), far.sum())} | '
                  f'{share((very_far & ~five_far).sum(), very_far.sum())} | '
                  f'{share((~far & five_far).sum(), (~far).sum())} |')

    quantiles = (.01, .05, .25, .5, .75, .95, .99)
    ratios = eye_ratios(meshes)
    print('\nEye aspect ratio; "more open" is the greater of a face\'s two:\n\n| pictures | n | '
          + ' | '.join(f'{100 * q:.0f} %' for q in quantiles) + ' | left − right, 95 % within |\n|' + '---|' * (len(quantiles) + 3))
    for name, own in sets.items():
        k = present & own
        frontal = k & (np.abs(yaw) < 15) & (np.abs(pitch) < 15)
        for what, pick in (('each eye', k), ('more open', k), ('more open, within 15°', frontal)):
            r = ratios[pick].ravel() if what == 'each eye' else ratios[pick].max(1)
            apart = np.quantile(np.abs(ratios[pick, 0] - ratios[pick, 1]), .95)
            print(f'| {name}, {what} | {len(r)} | ' + ' | '.join(f'{q:.3f}' for q in np.quantile(r, quantiles))
                  + f' | {apart:.3f} |')

    expressions(a, meshes[np.flatnonzero(present & (source == 'people'))[::10]])
    mirror(a, f, np.flatnonzero(present & (source == 'people')), (indices, shape))


def expressions(a, meshes):
    """What moves the network of expressions, and which of its two blinks is which eye's."""
    network = common.session(os.path.join(a.models, 'standard', 'face_blendshapes.onnx'))
    text = (FACE / 'mesh.rs').read_text()
    points = [int(i) for i in re.findall(r'\d+', re.search(r'146\] = \[(.*?)\]', text, re.S)[1])]

    def blink(scale=1.0, shift=0.0, turn_deg=0.0):
        c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
        moved = meshes[:, points, :2] @ np.array([[c, s], [-s, c]]) * scale + shift
        run = lambda p: network.run(None, {network.get_inputs()[0].name: p[None].astype(np.float32)})[0]
        return np.array([run(p) for p in moved])[:, [10, 9]]  # image-left, image-right
    own = blink()
    print(f'\nBlinking by the network of expressions, {len(meshes)} faces of LFW people, when the points change:\n\n'
          '| change | mean | greatest |\n|---|---|---|')
    for name, change in (('three times as large', dict(scale=3.0)), ('moved by 500 px', dict(shift=500.0)),
                         ('leaning by 10°', dict(turn_deg=10.0)), ('leaning by 20°', dict(turn_deg=20.0)),
                         ('leaning by 45°', dict(turn_deg=45.0))):
        d = np.abs(blink(**change) - own)
        print(f'| {name} | {d.mean():.4f} | {d.max():.4f} |')
    ratios = eye_ratios(meshes)
    for i, side in enumerate(('left', 'right')):
        r = [np.corrcoef(own[:, i], ratios[:, j])[0, 1] for j in (0, 1)]
        print(f'\nImage-{side} blink: r = {r[i]:.2f} with the eye aspect ratio of its own eye, {r[1 - i]:.2f} with the other.')


def mirror(a, f, candidates, shape):
    """A picture and its mirror image: yaw must change its sign, the eyes their places."""
    cv2.setNumThreads(1)
    yunet, mesh = common.YuNet(a.models), common.Mesh(a.models)
    indices, places = shape
    pairs = []
    for i in candidates[::max(1, len(candidates) // a.mirrored)]:
        picture = cv2.imread(os.path.join(a.faces, f['path'][i]))
        sides = []
        for image in (picture, picture[:, ::-1].copy()):
            boxes, _, points = yunet(image)
            if not len(boxes):
                break
            middle = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - np.array(image.shape[1::-1]) / 2).sum(1)
            box, five = boxes[middle.argmin()], points[middle.argmin()]
            found, presence, _, _ = mesh(image, box, five)
            if presence < 0.5:
                break
            own = np.array(reference_shape.angles(reference_shape.fit(places, found[None, indices])[0]))[:, 0]
            sides.append(np.r_[own, five_points(five[None])[:, 0], eye_ratios(found[None])[0]])
        if len(sides) == 2:
            pairs.append(sides)
    one, other = np.array(pairs).transpose(1, 0, 2)
    print(f'\n{len(one)} pictures of LFW people and their mirror images, detector included; the constant part is half the '
          'mean of what should be 0:\n\n| | mean absolute | 95 % within | constant part |\n|---|---|---|---|')
    for name, d in (('mesh, yaw', one[:, 0] + other[:, 0]), ('mesh, pitch', one[:, 1] - other[:, 1]),
                    ('five points, yaw', one[:, 2] + other[:, 2]), ('five points, pitch', one[:, 3] - other[:, 3]),
                    ('eye aspect ratio', (one[:, 4:] - other[:, :3:-1]).ravel())):
        unit, constant = ('', '') if 'ratio' in name else ('°', f'{d.mean() / 2:+.2f}°' if 'yaw' in name else '')
        print(f'| {name} | {np.abs(d).mean():.3f}{unit} | {np.quantile(np.abs(d), .95):.3f}{unit} | {constant} |')


if __name__ == '__main__':
    main()
