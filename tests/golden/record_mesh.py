#!/usr/bin/env python3
"""Records what tests/mesh_pose.rs compares with: opencv-python-headless, numpy, onnxruntime.

    tests/golden/record_mesh.py MODELS PHOTOS   # the folders of the ONNX files and of the photographs

Prints, for each picture, the detector's box and eyes (rounded, and used as printed) and what they
give: yaw and pitch by a singular value decomposition on the reference shape of src/face/mesh/shape.rs,
the eye aspect ratios and the blinking, image-left eye first.
"""
import os
import pathlib
import re
import sys

import cv2
import numpy as np

# Read when the library is loaded: nothing is sent to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

PICTURES = (
    "cgi-model-8", "cgi-model-33", "stock-emotions-a-2", "stock-emotions-b-1", "stock-emotions-b-4",
    "stock-models-3", "stock-teen-3", "stock-teen-6",
)
SOURCE = pathlib.Path(__file__).parents[2] / "src/face"
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(network, tensor):
    answers = network.run(None, {network.get_inputs()[0].name: tensor.astype(np.float32)})
    return dict(zip((output.name for output in network.get_outputs()), answers))


def best_face(detector, picture, side=320):
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    canvas = np.zeros((side, side, 3), np.float32)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)))
    canvas[: small.shape[0], : small.shape[1]] = small
    outputs = run(detector, canvas.transpose(2, 0, 1)[None])
    found = []
    for s in (8, 16, 32):
        score = np.sqrt(np.clip(outputs[f"cls_{s}"], 0, 1) * np.clip(outputs[f"obj_{s}"], 0, 1)).ravel()
        i = int(score.argmax())
        col, row = i % (side // s), i // (side // s)
        b, k = outputs[f"bbox_{s}"][0, i], outputs[f"kps_{s}"][0, i]
        w, h = np.exp(b[2]) * s, np.exp(b[3]) * s
        box = np.array(((col + b[0]) * s - w / 2, (row + b[1]) * s - h / 2, w, h)) / scale
        eyes = np.array([((k[2 * j] + col) * s, (k[2 * j + 1] + row) * s) for j in range(2)]) / scale
        found.append((float(score[i]), box.round(), eyes.round()))
    return max(found, key=lambda face: face[0])[1:]


def crop(picture, box, eyes):
    side = 1.5 * max(box[2], box[3])
    angle = np.arctan2(*(eyes[1] - eyes[0])[::-1])
    c, s = np.cos(angle) * side / 256, np.sin(angle) * side / 256
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    back = np.array([[c, -s, x - 128 * (c - s)], [s, c, y - 128 * (s + c)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture.astype(np.float32), back, (256, 256), flags=flags)[..., ::-1] / 255


def reference():
    text, number = (SOURCE / "mesh/shape.rs").read_text(), r"(-?\d+\.\d+)"
    shape = {int(i): (0, float(y), float(z)) for i, y, z in re.findall(rf"\((\d+), \[{number}, {number}\]\)", text)}
    for left, right, *place in re.findall(rf"\(\[(\d+), (\d+)\], \[{number}, {number}, {number}\]\)", text):
        x, y, z = map(float, place)
        shape[int(left)], shape[int(right)] = (x, y, z), (-x, y, z)
    return shape


def pose(mesh):
    shape = reference()
    source, target = np.array(list(shape.values())), mesh[list(shape)]
    u, _, vt = np.linalg.svd((target - target.mean(0)).T @ (source - source.mean(0)))
    rotation = u @ np.diag((1, 1, np.linalg.det(u @ vt))) @ vt
    roll = np.arctan2(rotation[1, 0], rotation[0, 0])
    c, s = np.cos(roll), np.sin(roll)
    forward = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ rotation @ (0, 0, -1)
    return np.degrees((np.arctan2(forward[0], -forward[2]), np.arcsin(forward[1])))


def eye_ratio(mesh, eye):
    p = mesh[list(eye), :2]
    length = lambda i, j: np.linalg.norm(p[i] - p[j])
    return (length(1, 5) + length(2, 4)) / (2 * length(0, 3))


def blendshape_points():
    text = (SOURCE / "mesh.rs").read_text()
    return [int(i) for i in re.findall(r"\d+", re.search(r"146\] = \[(.*?)\]", text, re.S)[1])]


def main():
    models, photos = map(pathlib.Path, sys.argv[1:])
    names = ("yunet_n_dynamic", "facemesh_v2_478", "face_blendshapes")
    detector, network, blendshapes = (session(models / f"{name}.onnx") for name in names)
    for name in PICTURES:
        picture = cv2.imread(str(photos / f"{name}.jpg"))
        box, eyes = best_face(detector, picture)
        outputs = run(network, crop(picture, box, eyes)[None])
        mesh = outputs["Identity"].reshape(478, 3).astype(np.float64)
        expressions = run(blendshapes, mesh[blendshape_points(), :2][None])["StatefulPartitionedCall:0"]
        numbers = (pose(mesh).round(2), [eye_ratio(mesh, eye) for eye in EYES], (expressions[10], expressions[9]))
        form = lambda values, digits=3: "[" + ", ".join(f"{float(v):.{digits}f}" for v in values) + "]"
        print(
            f'    Golden {{ name: "{name}", bounds: {form(box, 1)}, eyes: {form(eyes.ravel(), 1)}, '
            f"yaw_pitch_deg: {form(numbers[0], 2)}, eye_ratios: {form(numbers[1])}, blink: {form(numbers[2])} }},"
        )


main()
