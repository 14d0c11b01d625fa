"""The reference shape of src/face/mesh/shape.rs: what a mesh is turned to when its pose is read.

The mean of the meshes that face_state_prepare.py found on near-frontal pictures of LFW people (without fold 5
and the other people kept for tests), made symmetric, at points that hardly move with the expression:
bridge and sides of the nose, inner and outer corners of the eyes, cheekbones, forehead. Its zero of
pitch is moved once so that poses agree in the mean with a fit of all points to MediaPipe's
canonical face model, which is read for that and for the mirrored pairs; none of its numbers is
printed. Lengths are in units of the distance between the outer corners of the eyes; x to the
picture's right, y down, z away from the camera.

Usage: reference_shape.py --models DIR --work DIR    # the folder of face_state_prepare.py's faces.npz
Prints the two tables of shape.rs.
"""
import argparse
import os

import numpy as np

# Points on the middle line, from the bridge to the tip of the nose and up the forehead.
MIDLINE = (168, 6, 197, 195, 5, 4, 10, 151, 9, 8)
# Points of the image-left half; each has a mirrored one.
LEFT = (122, 196, 188, 174, 236, 198, 126,  # sides of the nose
        193, 245, 244, 133, 33,             # corners of the eye and what is beside them
        119, 118, 101, 100, 47, 114, 117, 116, 111,  # cheekbone
        67, 109, 103)                       # forehead
OUTER_CORNERS = (33, 263)
NEAR_FRONTAL_DEG = 15.0
POINTS = 468  # without the irises, which the canonical model lacks


def canonical(models):
    """The canonical model's points, in the picture's axes."""
    path = os.path.join(models, 'original', 'canonical_face_model.obj')
    points = np.array([l.split()[1:4] for l in open(path) if l.startswith('v ')], np.float64)
    return points * (1, -1, -1)


def mirrored(points):
    """For each point the index of its mirror image."""
    pairs = np.array([np.argmin(((points - p * (-1, 1, 1)) ** 2).sum(1)) for p in points])
    assert (pairs[pairs] == np.arange(len(points))).all()
    return pairs


def fit(reference, meshes):
    """Rotations, scales and shares of the spread left unexplained of `reference` brought to each mesh."""
    source = reference - reference.mean(0)
    target = meshes - meshes.mean(1, keepdims=True)
    u, d, vt = np.linalg.svd(np.einsum('nki,kj->nij', target, source))
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation, trace = np.einsum('nij,nj,njk->nik', u, sign, vt), (d * sign).sum(1)
    spread = (source ** 2).sum()
    return rotation, trace / spread, 1 - trace ** 2 / (spread * (target ** 2).sum((1, 2)))


def angles(rotation):
    """Yaw and pitch in degrees without the roll; positive to the image's right and down."""
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    x, y, z = -rotation[:, :, 2].T
    aside, down = np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x
    return np.degrees(np.arctan2(aside, -z)), np.degrees(np.arcsin(np.clip(down, -1, 1)))


def main():
    a = argparse.ArgumentParser()
    for x in ('models', 'work'):
        a.add_argument(f'--{x}', required=True)
    a = a.parse_args()
    faces = np.load(os.path.join(a.work, 'faces.npz'), allow_pickle=False)
    meshes = faces['mesh'][:, :POINTS].astype(np.float64)
    model = canonical(a.models)
    yaw, pitch = angles(fit(model, meshes)[0])
    used = (faces['source'] == 'people') & (faces['split'] != 'test') & (faces['presence'] > 0.5)
    used &= (np.abs(yaw) < NEAR_FRONTAL_DEG) & (np.abs(pitch) < NEAR_FRONTAL_DEG)
    meshes, yaw, pitch = meshes[used], yaw[used], pitch[used]

    pairs = mirrored(model)
    shape = model - model.mean(0)
    for _ in range(3):  # the second changes the shape by less than 1e-6
        rotation, scale, _ = fit(shape, meshes)
        upright = np.einsum('nji,nkj->nki', rotation, meshes - meshes.mean(1, keepdims=True)) / scale[:, None, None]
        mean = upright.mean(0)
        shape = (mean + mean[pairs] * (-1, 1, 1)) / 2

    left, right = np.array(LEFT), pairs[list(LEFT)]
    order = [*MIDLINE, *left, *right]
    shape = shape / np.linalg.norm(shape[OUTER_CORNERS[0]] - shape[OUTER_CORNERS[1]])
    shape = shape - shape[order].mean(0)
    for _ in range(3):  # a rotation about the level axis moves the zero of pitch and nothing else
        own = angles(fit(shape[order], meshes[:, order])[0])
        turn = np.radians(np.mean(own[1] - pitch))
        # The further down the shape itself looks, the less far down a face is found to look.
        shape = shape @ np.array([[1, 0, 0], [0, np.cos(turn), np.sin(turn)], [0, -np.sin(turn), np.cos(turn)]])
    own = angles(fit(shape[order], meshes[:, order])[0])
    print(f'// {len(meshes)} faces; mean difference to the canonical model: '
          f'yaw {np.mean(own[0] - yaw):.3f}, pitch {np.mean(own[1] - pitch):.3f} degrees')
    print('pub const MIDLINE: [(usize, [f64; 2]); %d] = [' % len(MIDLINE))
    for i in MIDLINE:
        print('    (%d, [%.4f, %.4f]),' % (i, *(shape[i, 1:] + 0.0)))
    print('];\npub const PAIRS: [([usize; 2], [f64; 3]); %d] = [' % len(LEFT))
    for i, j in zip(left, right):
        print('    ([%d, %d], [%.4f, %.4f, %.4f]),' % (i, j, *(shape[i] + 0.0)))
    print('];')


if __name__ == '__main__':
    main()
