"""What every script here shares: alignment, YuNet, the face mesh, the splits, where things lie.

Coordinates are x, y in pixels; points are in the order image-left eye, image-right eye, nose,
image-left mouth corner, image-right mouth corner. "Image-left" is the side as seen in the picture.
"""
import hashlib
import os

import cv2
import numpy as np

SIZE = 112
# ArcFace's template made symmetric, scaled by 1.08 about the middle of the eyes, eye line at y = 43:
# the brow and the whole chin are inside the picture.
TEMPLATE = np.array([[36.97, 43.00], [75.03, 43.00], [56.00, 64.75], [40.24, 86.94], [71.76, 86.94]])
EYE_DISTANCE = 38.06  # pixels in the template
OUTPUTS = ('left_closed', 'right_closed', 'eyes_covered', 'mouth_covered', 'yaw', 'pitch')
DEGREES = 45.0  # yaw and pitch are trained in units of 45 degrees

# Mesh indices, p0..p5 of the eye aspect ratio (|p1-p5| + |p2-p4|) / (2 |p0-p3|). The subject's right
# eye is the image's left one.
EAR = {'left': (33, 160, 158, 133, 153, 144), 'right': (362, 385, 387, 263, 373, 380)}
# Lids from the outer to the inner corner, both corners included.
UPPER = {'left': (33, 246, 161, 160, 159, 158, 157, 173, 133), 'right': (263, 466, 388, 387, 386, 385, 384, 398, 362)}
LOWER = {'left': (33, 7, 163, 144, 145, 153, 154, 155, 133), 'right': (263, 249, 390, 373, 374, 380, 381, 382, 362)}
BROW = {'left': (70, 63, 105, 66, 107), 'right': (300, 293, 334, 296, 336)}
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
        148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)


def similarity(src, dst):
    """Least-squares similarity transform (Umeyama) from points src to dst, as a 2x3 matrix."""
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    ms, md = src.mean(0), dst.mean(0)
    u, s, vt = np.linalg.svd((dst - md).T @ (src - ms) / len(src))
    d = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rot = u @ np.diag(d) @ vt
    scale = (s * d).sum() / (src - ms).var(0).sum()
    return np.hstack([scale * rot, (md - scale * rot @ ms)[:, None]])


def align(image, points, size=SIZE, template=TEMPLATE):
    """The face brought to the template; averages n x n samples per pixel when it shrinks 1.5x or more."""
    m = similarity(points, template)
    n = min(8, max(1, int(np.floor(1 / np.hypot(m[0, 0], m[1, 0]) + 0.5))))
    if n == 1:
        return cv2.warpAffine(image, m, (size, size), flags=cv2.INTER_LINEAR)
    fine = m * n
    fine[:, 2] += (n - 1) / 2
    return cv2.resize(cv2.warpAffine(image, fine, (size * n, size * n), flags=cv2.INTER_LINEAR),
                      (size, size), interpolation=cv2.INTER_AREA)


def tensor(crop):
    """BGR bytes [112,112,3] to the network's input."""
    return ((crop[..., ::-1].astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]


def session(path):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def halve(path):
    """Stores the weights of an ONNX file as fp16; ONNX Runtime makes them fp32 again when it loads the file, once.

    Tensors of fewer than 64 numbers stay: their Cast node would be longer. Raises ValueError where a weight is too great."""
    import onnx
    from onnx import numpy_helper
    model = onnx.load(path)
    graph, casts = model.graph, []
    for k, weight in enumerate(graph.initializer):
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) >= 64:
            name = f'{weight.name}_half'
            casts.append(onnx.helper.make_node('Cast', [name], [weight.name], to=onnx.TensorProto.FLOAT))
            half = numpy_helper.to_array(weight).astype(np.float16)
            if not np.isfinite(half).all():
                raise ValueError(f'{weight.name} does not fit into fp16')
            graph.initializer[k].CopyFrom(numpy_helper.from_array(half, name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def iou(a, b):
    """IoU of one box with many; x, y, w, h."""
    lt, rb = np.maximum(a[:2], b[:, :2]), np.minimum(a[:2] + a[2:], b[:, :2] + b[:, 2:])
    inter = np.clip(rb - lt, 0, None).prod(1)
    return inter / (a[2] * a[3] + b[:, 2] * b[:, 3] - inter)


class YuNet:
    """The standard pack's detector; boxes x, y, w, h and points in picture coordinates, best first."""

    def __init__(self, models):
        self.s = session(os.path.join(models, 'standard', 'yunet_n_dynamic.onnx'))
        self.names = [o.name for o in self.s.get_outputs()]

    def __call__(self, image, size=320, floor=0.6):
        h, w = image.shape[:2]
        scale = min(size / w, size / h)
        small = cv2.resize(image, (max(1, round(w * scale)), max(1, round(h * scale))),
                           interpolation=cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR)
        canvas = np.zeros((size, size, 3), np.uint8)
        canvas[:small.shape[0], :small.shape[1]] = small
        out = dict(zip(self.names, self.s.run(None, {'input': canvas.transpose(2, 0, 1)[None].astype(np.float32)})))
        boxes, scores, points = [], [], []
        for s in (8, 16, 32):
            score = np.sqrt(np.clip(out[f'cls_{s}'].ravel(), 0, 1) * np.clip(out[f'obj_{s}'].ravel(), 0, 1))
            i = np.flatnonzero(score >= floor)
            col, row = i % (size // s), i // (size // s)
            b, k = out[f'bbox_{s}'].reshape(-1, 4)[i], out[f'kps_{s}'].reshape(-1, 5, 2)[i]
            bw, bh = np.exp(b[:, 2]) * s, np.exp(b[:, 3]) * s
            boxes.append(np.stack([(col + b[:, 0]) * s - bw / 2, (row + b[:, 1]) * s - bh / 2, bw, bh], 1))
            points.append((k + np.stack([col, row], 1)[:, None]) * s)
            scores.append(score[i])
        boxes, scores, points = np.concatenate(boxes), np.concatenate(scores), np.concatenate(points)
        order, keep = np.argsort(-scores), []
        while len(order):
            keep.append(order[0])
            order = order[1:][iou(boxes[order[0]], boxes[order[1:]]) < 0.3]
        return boxes[keep] / scale, scores[keep], points[keep] / scale


def consensus(yunet, image, points, size=320):
    """Mean of YuNet's five points over the picture and its mirror image at five sizes, those that see this face.

    One look of YuNet differs from the next, at another size or mirrored, by 7 to 8 % of the distance between the eyes, so a
    single look is a noisy label and a noisy truth. A mirrored x is W - x: over 249 pictures of fold 5 at 320 pixels the two
    looks then differ by -0.4 pixels on average (standard error 0.2), by -1.4 with W - 1 - x.
    """
    eyes, found = np.linalg.norm(points[1] - points[0]), []
    mirrored = np.ascontiguousarray(image[:, ::-1])
    for side in (size - 64, size - 32, size, size + 32, size + 64):
        for flip in (False, True):
            _, _, all_points = yunet(mirrored if flip else image, side)
            if not len(all_points):
                continue
            if flip:
                all_points = (all_points * (-1, 1) + (image.shape[1], 0))[:, [1, 0, 2, 4, 3]]
            away = np.linalg.norm(all_points - points, axis=2).mean(1)
            if away.min() < 0.25 * eyes:
                found.append(all_points[np.argmin(away)])
    return np.mean(found, 0) if found else np.asarray(points)


class Mesh:
    """MediaPipe's face mesh: 478 points in picture coordinates, presence, yaw and pitch in degrees."""

    def __init__(self, models):
        self.s = session(os.path.join(models, 'standard', 'facemesh_v2_478.onnx'))
        self.names = [o.name for o in self.s.get_outputs()]
        obj = os.path.join(models, 'original', 'canonical_face_model.obj')
        v = np.array([l.split()[1:4] for l in open(obj) if l.startswith('v ')], np.float64)
        self.model = v * (1, -1, -1)  # to the picture's axes: x right, y down, z away from the camera

    def __call__(self, image, box, points):
        side = 1.5 * max(box[2], box[3])
        dx, dy = points[1] - points[0]
        angle = np.arctan2(dy, dx)
        c, s = np.cos(angle) * side / 256, np.sin(angle) * side / 256
        cx, cy = box[0] + box[2] / 2, box[1] + box[3] / 2
        m = np.array([[c, -s, cx - (c - s) * 128], [s, c, cy - (s + c) * 128]])  # crop to picture
        n = min(8, max(1, int(np.floor(side / 256 + 0.5))))
        fine = m.copy()
        fine[:, :2] /= n
        crop = cv2.warpAffine(image, fine, (256 * n, 256 * n), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        crop = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_AREA) if n > 1 else crop
        out = dict(zip(self.names, self.s.run(None, {'input_12': crop[..., ::-1][None].astype(np.float32) / 255})))
        p = out['Identity'].reshape(478, 3).astype(np.float64)
        presence = 1 / (1 + np.exp(-float(out['Identity_1'].ravel()[0])))
        src, dst = self.model - self.model.mean(0), p[:468] - p[:468].mean(0)
        u, _, vt = np.linalg.svd(dst.T @ src)
        rot = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        forward = rot @ (0, 0, -1)
        yaw, pitch = np.degrees(np.arctan2(forward[0], -forward[2])), np.degrees(np.arcsin(np.clip(forward[1], -1, 1)))
        p[:, :2] = p[:, :2] @ m[:, :2].T + m[:, 2]
        p[:, 2] *= side / 256
        return p, presence, yaw, pitch


def ear(p, side):
    """Eye aspect ratio of one eye of a mesh."""
    a = [p[i, :2] for i in EAR[side]]
    d = lambda i, j: np.linalg.norm(a[i] - a[j])
    return (d(1, 5) + d(2, 4)) / max(2 * d(0, 3), 1e-6)


def file_hash(path):
    return hashlib.sha256(open(path, 'rb').read()).hexdigest()


def fold5(faces):
    """People of fold 5 of LFW's pairs."""
    lines = [l.split() for l in open(os.path.join(faces, 'lfw', 'pairs.txt')).read().splitlines()[1:]][2400:]
    assert len(lines) == 600
    return {n for l in lines for n in ([l[0]] if len(l) == 3 else [l[0], l[2]])}


def split_of(key, held):
    """'test', 'val' (thresholds) or 'train' of a person or a group of pictures."""
    if key in held:
        return 'test'
    h = hashlib.sha256(key.encode()).digest()[0]
    return 'test' if h < 51 else 'val' if h < 77 else 'train'
