"""Find every face once: YuNet's points, the mesh, yaw and pitch, the split. Result: faces.npz.

Usage: face_state_prepare.py --faces DIR --models DIR --work DIR
"""
import argparse
import glob
import os
import re

import cv2
import numpy as np

import common


def perceptual_hash(image):
    """64 bits of the low frequencies of the picture's cosine transform, median-split."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
    return low > np.median(low[1:])


def groups(hashes, limit=14):
    """Join pictures whose hashes differ in at most `limit` of 64 bits (single linkage)."""
    parent = list(range(len(hashes)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i
    for i in range(len(hashes)):
        for j in np.flatnonzero((hashes[i + 1:] != hashes[i]).sum(1) <= limit) + i + 1:
            parent[root(j)] = root(i)
    return [root(i) for i in range(len(hashes))]


def pictures(faces):
    """(path, source, key): the key is what must stay on one side of the split."""
    for source in ('people', 'strangers'):
        for p in sorted(glob.glob(f'{faces}/lfw/{source}/*/*.jpg')):
            yield p, source, os.path.basename(os.path.dirname(p))
    loose = [(p, 'photos') for p in sorted(glob.glob(f'{faces}/photos/**/*.*', recursive=True))]
    for kind in ('with_mask', 'without_mask'):
        loose += [(p, kind) for p in sorted(glob.glob(f'{faces}/occlusion/{kind}/*.*'))]
    loose = [(p, s, im) for p, s in loose if (im := cv2.imread(p)) is not None]
    for g, (p, s, _) in zip(groups(np.array([perceptual_hash(im) for _, _, im in loose])), loose):
        # Series of one person share a name but for the number.
        stem = re.sub(r'[-_]?\d+$', '', os.path.splitext(os.path.basename(p))[0])
        series = s == 'photos' and ('face_recognition_examples' in p or re.match('person|stock-teen|stock-emo|cgi-multi', stem))
        yield p, s, f'group {common.file_hash(loose[g][0]) if not series else stem}'


def main():
    a = argparse.ArgumentParser()
    for x in ('faces', 'models', 'work'):
        a.add_argument(f'--{x}', required=True)
    a = a.parse_args()
    cv2.setNumThreads(1)
    yunet, mesh, held = common.YuNet(a.models), common.Mesh(a.models), common.fold5(a.faces)
    rows = {k: [] for k in ('path', 'source', 'key', 'split', 'box', 'score', 'points', 'mesh', 'presence', 'yaw',
                            'pitch', 'ear', 'faces_in_picture')}
    for path, source, key in pictures(a.faces):
        image = cv2.imread(path)
        boxes, scores, points = yunet(image)
        if source == 'photos' and max(image.shape) > 500:
            big = yunet(image, 640)
            boxes, scores, points = big if len(big[0]) > len(boxes) else (boxes, scores, points)
        if not len(boxes):
            continue
        count = len(boxes)
        if source in ('people', 'strangers'):
            offset = boxes[:, :2] + boxes[:, 2:] / 2 - np.array([image.shape[1], image.shape[0]]) / 2
            use = [int(np.argmin((offset ** 2).sum(1)))]
        else:
            use = [i for i in range(count) if boxes[i, 2] >= 40]
            use = use if source == 'photos' else use[:1] if not use else [max(use, key=lambda i: boxes[i, 2])]
        split = common.split_of(key, held)
        if 'face_recognition_examples' in path:  # several pictures of the same few people
            split = 'train'
        if source in ('with_mask', 'without_mask'):  # halves: test and the rest
            first = int(key.split()[1][:2], 16)
            split = 'test' if first < 128 else 'val' if first < 145 else 'train'
        for i in use:
            p, presence, yaw, pitch = mesh(image, boxes[i], points[i])
            for k, v in dict(path=os.path.relpath(path, a.faces), source=source, key=key, split=split, box=boxes[i],
                             score=scores[i], points=points[i], mesh=p.astype(np.float32), presence=presence, yaw=yaw,
                             pitch=pitch, ear=(common.ear(p, 'left'), common.ear(p, 'right')),
                             faces_in_picture=count).items():
                rows[k].append(v)
    np.savez(f'{a.work}/faces.npz', **{k: np.array(v) for k, v in rows.items()})
    n = len(rows['path'])
    for s in sorted(set(rows['source'])):
        print(s, {t: sum(1 for i in range(n) if rows['source'][i] == s and rows['split'][i] == t)
                  for t in ('train', 'val', 'test')}, flush=True)


if __name__ == '__main__':
    main()
