"""Draws faces that nobody took: blends of two aligned faces, warps, light, lens, sensor and coding.

Whatever is drawn, the teacher sees the same picture, so every picture that can be invented is a valid sample.
"""
import cv2
import numpy as np

SIZE = 112
CANVAS, ZOOM = 176, 1.2  # a face in ArcFace's alignment, a canvas pixel is 1/ZOOM of a template pixel, centred
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
ON_CANVAS = (ARCFACE - SIZE / 2) * ZOOM + CANVAS / 2


def expose(f, r):
    """Gain, tint and offset; contrast about the middle. `f` is float, 0..255."""
    gain = np.exp(r.normal(0, 0.15)) * np.exp(r.normal(0, 0.06, 3))
    return (f - 128) * gain.astype(np.float32) + 128 + np.float32(r.normal(0, 18))


def desaturate(f, r):
    grey = f.mean(2, keepdims=True)
    return grey + (f - grey) * np.float32(r.choice([0.0, r.uniform(0.2, 1.6)]))


def side_light(f, r):
    h, w = f.shape[:2]
    y, x = np.mgrid[-1:1:h * 1j, -1:1:w * 1j].astype(np.float32)
    turn, k = r.uniform(0, 2 * np.pi), r.normal(0, 0.45)
    return f * np.exp(k * (x * np.cos(turn) + y * np.sin(turn)))[..., None].astype(np.float32)


def recode(im, r, low=20, high=90):
    return cv2.imdecode(cv2.imencode('.jpg', im, [cv2.IMWRITE_JPEG_QUALITY, int(r.integers(low, high))])[1], 1)


def photometry(im, r):
    """Light, lens, sensor and coding of a cheap camera; BGR bytes to BGR bytes."""
    h, w = im.shape[:2]
    f = im.astype(np.float32)
    if r.random() < 0.8:
        f = expose(f, r)
    if r.random() < 0.25:
        f = desaturate(f, r)
    if r.random() < 0.25:
        f = side_light(f, r)
    f = np.clip(f, 0, 255)
    if r.random() < 0.2:
        f = 255 * (f / 255) ** np.float32(np.exp(r.normal(0, 0.35)))
    if r.random() < 0.2:
        f = cv2.GaussianBlur(f, (0, 0), r.uniform(0.3, 2.0) * w / SIZE)
    if r.random() < 0.15:  # a small, far face
        n = int(r.integers(24, 90))
        f = cv2.resize(cv2.resize(f, (n, n), interpolation=cv2.INTER_AREA), (w, h), interpolation=cv2.INTER_LINEAR)
    if r.random() < 0.25:
        f = f + r.standard_normal((h, w, 3), np.float32) * np.float32(abs(r.normal(0, 7)))
    im = np.clip(f, 0, 255).astype(np.uint8)
    return recode(im, r) if r.random() < 0.25 else im


class Faces:
    """Draws one aligned picture, 112x112 BGR, from the canvases of `embedding.py prepare`."""

    def __init__(self, work, seed):
        cv2.setNumThreads(1)
        self.rng = np.random.default_rng(seed)
        self.crops = np.load(f'{work}/crops.npy', mmap_mode='r')
        self.scenes = np.load(f'{work}/scenes.npy', mmap_mode='r')
        ids = np.load(f'{work}/ids.npy')
        self.by_id = np.split(np.argsort(ids, kind='stable'), np.cumsum(np.bincount(ids))[:-1])
        # Blending masks are smooth, so 44x44 is enough; coordinates -1..1.
        self.yn, self.xn = np.mgrid[-1:1:44j, -1:1:44j].astype(np.float32)
        self.gy, self.gx = np.mgrid[:SIZE, :SIZE].astype(np.float32)

    def face(self):
        """Half the time uniform over pictures, half the time uniform over people."""
        r = self.rng
        if r.random() < 0.5:
            return np.array(self.crops[r.integers(len(self.crops))])
        return np.array(self.crops[r.choice(self.by_id[r.integers(len(self.by_id))])])

    def scene(self):
        r = self.rng
        s = self.scenes[r.integers(len(self.scenes))]
        n = int(r.integers(40, 257))
        y, x = r.integers(0, 257 - n, 2)
        return cv2.resize(np.ascontiguousarray(s[y:y + n, x:x + n]), (CANVAS, CANVAS))

    def mix(self, a, b, mask):
        """a where the coarse mask is 1, b where it is 0."""
        mask = cv2.resize(mask.astype(np.float32), (CANVAS, CANVAS))
        return cv2.blendLinear(a, b, mask, 1 - mask)

    def blend(self, a, b):
        """Two aligned faces become one that does not exist: a morph, two halves, or some features."""
        r, kind = self.rng, self.rng.random()
        if kind < 0.35:
            w = float(r.uniform(0.2, 0.8))
            return cv2.addWeighted(a, w, b, 1 - w, 0)
        if kind < 0.7:
            turn, offset, soft = r.uniform(0, 2 * np.pi), r.uniform(-0.25, 0.25), r.uniform(0.04, 0.3)
            return self.mix(a, b, 1 / (1 + np.exp(-(self.xn * np.cos(turn) + self.yn * np.sin(turn) - offset) / soft)))
        mask = 0
        for _ in range(int(r.integers(1, 4))):
            cx, cy = r.uniform(-0.35, 0.35), r.uniform(-0.35, 0.4)
            sx, sy = r.uniform(0.1, 0.35, 2)
            mask = mask + np.exp(-((self.xn - cx) / sx) ** 2 - ((self.yn - cy) / sy) ** 2)
        return self.mix(a, b, np.minimum(mask, 1))

    def geometry(self, im, strong):
        """Flip, similarity, mild shear and a smooth elastic warp, in one resampling."""
        r = self.rng
        big = strong and r.random() < 0.12
        turn, scale = np.deg2rad(r.normal(0, 14 if big else 4)), np.exp(r.normal(0, 0.15 if big else 0.05))
        wide = np.exp(r.normal(0, 0.06)) if strong else 1.0
        c, s = np.cos(turn), np.sin(turn)
        a = np.array([[c * wide, -s], [s * wide, c]]) * scale * ZOOM
        if strong and r.random() < 0.3:
            a = a @ np.array([[1, r.normal(0, 0.08)], [r.normal(0, 0.05), 1]])
        if r.random() < 0.5:
            a[:, 0] *= -1
        shift = r.normal(0, 5 if big else 1.8, 2) * ZOOM + (CANVAS - 1) / 2
        x, y = self.gx - (SIZE - 1) / 2, self.gy - (SIZE - 1) / 2
        mx = (a[0, 0] * x + a[0, 1] * y + shift[0]).astype(np.float32)
        my = (a[1, 0] * x + a[1, 1] * y + shift[1]).astype(np.float32)
        if strong and r.random() < 0.5:
            g = int(r.integers(3, 7))
            d = cv2.resize(r.normal(0, abs(r.normal(0, 2.2)), (g, g, 2)).astype(np.float32), (SIZE, SIZE),
                           interpolation=cv2.INTER_CUBIC)
            mx += d[..., 0]
            my += d[..., 1]
        border = cv2.BORDER_CONSTANT if r.random() < 0.3 else cv2.BORDER_REFLECT_101
        return cv2.remap(im, mx, my, cv2.INTER_LINEAR, borderMode=border)

    def __call__(self):
        r = self.rng
        u = r.random()
        if u < 0.04:  # no face at all
            return photometry(self.geometry(self.scene(), True), r)
        im = self.face()
        if u < 0.25:  # nearly as it is
            return self.geometry(im, False)
        if r.random() < 0.7:
            im = self.blend(im, self.face())
        if r.random() < 0.08:  # another background
            d = (self.xn / r.uniform(0.5, 0.75)) ** 2 + ((self.yn - 0.05) / r.uniform(0.65, 0.95)) ** 2
            im = self.mix(im, self.scene(), 1 / (1 + np.exp((d - 1) * 6)))
        im = self.geometry(im, True)
        if r.random() < 0.08:  # something in front
            h, w = r.integers(12, 60, 2)
            y, x = r.integers(0, SIZE - h), r.integers(0, SIZE - w)
            im[y:y + h, x:x + w] = self.scene()[:h, :w] if r.random() < 0.6 else r.integers(0, 256, 3)
        return photometry(im, r) if r.random() < 0.75 else im
