#!/usr/bin/env python3
"""Records what the unit tests of src/face compare with: opencv-python-headless, numpy, onnxruntime.

    tests/golden/record.py MODELS    # the folder that holds yunet_n_dynamic.onnx

Writes cartoon.png (a drawn face that the detector takes for one), yunet_cartoon.f32 (the
detector's answer to it: for each stride 8, 16, 32 the tensors cls, obj, bbox, kps as little-endian
floats) and prints the numbers that stand in the tests.
"""
import os
import pathlib
import sys

import cv2
import numpy as np

# Read when the library is loaded: nothing is sent to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

HERE = pathlib.Path(__file__).parent
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


def cartoon(side=96, k=4):
    c = np.full((side * k, side * k, 3), (200, 180, 160), np.uint8)
    at = lambda x, y: (int(x * k), int(y * k))
    smooth = cv2.LINE_AA
    cv2.ellipse(c, at(48, 50), at(26, 34), 0, 0, 360, (120, 160, 215), -1, smooth)
    cv2.ellipse(c, at(48, 24), at(27, 16), 0, 180, 360, (30, 40, 60), -1, smooth)
    for x in (38, 58):
        cv2.ellipse(c, at(x, 44), at(5, 2.8), 0, 0, 360, (240, 240, 240), -1, smooth)
        cv2.circle(c, at(x, 44), int(2.6 * k), (40, 50, 70), -1, smooth)
        cv2.ellipse(c, at(x, 38), at(6.5, 2), 0, 190, 350, (40, 50, 80), 6, smooth)
    cv2.ellipse(c, at(48, 55), at(3, 7), 0, 20, 160, (70, 110, 170), 6, smooth)
    cv2.ellipse(c, at(48, 68), at(9, 3.5), 0, 0, 180, (70, 70, 170), -1, smooth)
    cv2.ellipse(c, at(48, 68), at(9, 1.5), 0, 0, 360, (60, 60, 140), -1, smooth)
    return cv2.resize(cv2.GaussianBlur(c, (0, 0), 3), (side, side), interpolation=cv2.INTER_AREA)


def detector(models, picture):
    session = onnxruntime.InferenceSession(f"{models}/yunet_n_dynamic.onnx")
    tensor = picture.transpose(2, 0, 1)[None].astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": tensor})))


def best_face(outputs, side):
    found = []
    for s in (8, 16, 32):
        score = np.sqrt(np.clip(outputs[f"cls_{s}"], 0, 1) * np.clip(outputs[f"obj_{s}"], 0, 1)).ravel()
        i = int(score.argmax())
        col, row = i % (side // s), i // (side // s)
        b, k = outputs[f"bbox_{s}"][0, i], outputs[f"kps_{s}"][0, i]
        w, h = np.exp(b[2]) * s, np.exp(b[3]) * s
        box = ((col + b[0]) * s - w / 2, (row + b[1]) * s - h / 2, w, h)
        points = [((k[2 * j] + col) * s, (k[2 * j + 1] + row) * s) for j in range(5)]
        found.append((score[i], box, points))
    return max(found)


def gradient(width=160, height=120):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, 2 * y, (x * y) // 80], -1).astype(np.uint8)  # red, green, blue


def umeyama(source, target):
    m, n = source.mean(0), target.mean(0)
    s, t = source - m, target - n
    u, d, v = np.linalg.svd(t.T @ s)
    sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    r = u @ sign @ v
    c = np.trace(np.diag(d) @ sign) / (s**2).sum()
    return np.c_[c * r, n - c * r @ m]


def attack_window(width, height, box, scale):
    """generate_patches.py of Minivision's Silent-Face-Anti-Spoofing, CropImage._get_new_box."""
    x, y, w, h = box
    scale = min((height - 1) / h, min((width - 1) / w, scale))
    nw, nh, cx, cy = w * scale, h * scale, w / 2 + x, h / 2 + y
    left, top, right, bottom = cx - nw / 2, cy - nh / 2, cx + nw / 2, cy + nh / 2
    if left < 0:
        right -= left
        left = 0
    if top < 0:
        bottom -= top
        top = 0
    if right > width - 1:
        left -= right - width + 1
        right = width - 1
    if bottom > height - 1:
        top -= bottom - height + 1
        bottom = height - 1
    left, top, right, bottom = int(left), int(top), int(right), int(bottom)
    return left, top, right - left + 1, bottom - top + 1


def main():
    picture = cartoon()
    cv2.imwrite(str(HERE / "cartoon.png"), picture)
    outputs = detector(sys.argv[1], picture)
    tensors = [outputs[f"{name}_{s}"].ravel() for s in (8, 16, 32) for name in ("cls", "obj", "bbox", "kps")]
    np.concatenate(tensors).astype("<f4").tofile(HERE / "yunet_cartoon.f32")
    score, box, points = best_face(outputs, 96)
    print("face", round(float(score), 4), np.round(box, 3).tolist(), np.round(points, 3).tolist())

    source = np.array([(52.0, 40.0), (83.0, 48.5), (63.0, 63.0), (45.5, 72.0), (73.0, 80.5)])
    matrix = umeyama(source, TEMPLATE)
    print("similarity", np.round(matrix, 5).tolist())
    aligned = cv2.warpAffine(gradient().astype(np.float32), matrix, (112, 112))
    for x, y in ((56, 56), (38, 52), (100, 30), (3, 3), (0, 56), (60, 111)):
        print("aligned", (x, y), np.round(aligned[y, x], 2).tolist())

    for size, box, scale in (
        ((480, 640), (190, 111, 194, 240), 2.7),
        ((480, 640), (190, 111, 194, 240), 4.0),
        ((640, 480), (10.5, 200.25, 90.5, 120.75), 2.7),
        ((640, 480), (540, 5, 80, 100), 2.7),
        ((200, 200), (-20, -10, 60, 60), 2.7),
        ((200, 200), (180, 190, 60, 60), 2.7),
        ((100, 100), (-50, -50, 300, 300), 4.0),
    ):
        print("window", size, box, scale, attack_window(*size, box, scale))
    left, top, width, height = attack_window(160, 120, (60, 30, 30, 36), 2.7)
    patch = gradient()[top : top + height, left : left + width].astype(np.float32)
    patch = cv2.resize(patch, (80, 80))
    for x, y in ((0, 0), (40, 40), (79, 79), (13, 66)):
        print("patch", (x, y), np.round(patch[y, x], 2).tolist())


main()
