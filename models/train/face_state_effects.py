"""Draws what the network must tell apart: closed lids, masks, glasses, hands, things, hats, beards.

Every effect works on a `Scene`: one picture with one face's mesh. All lengths are in units of the
distance between the eyes, so a picture of any size will do. Occluders are painted through one
function, which adds up how much of each eye, of the nose and of the mouth is hidden; the labels
follow from those shares, whatever the occluder was meant to do.
"""
import cv2
import numpy as np

from common import BROW, LOWER, OVAL, UPPER

LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
NOSE = (195, 131, 64, 98, 2, 327, 294, 360)
# Shares of a part that is hidden: from COVERED on it counts as covered, up to BARE as bare; between
# them neither answer is taught.
COVERED, BARE = 0.55, 0.12


class Scene:
    """A picture (float BGR), the mesh in it, and what has been done to it."""

    def __init__(self, image, mesh, rng, textures):
        self.im = np.ascontiguousarray(image, np.float32)
        self.p = np.asarray(mesh, np.float64)[:, :2]
        self.z = np.asarray(mesh, np.float64)[:, 2]
        self.rng, self.textures = rng, textures
        self.h, self.w = self.im.shape[:2]
        l, r = (self.p[list(UPPER[s])].mean(0) for s in ('left', 'right'))
        self.eye = {'left': l, 'right': r}
        self.d = max(8.0, float(np.linalg.norm(self.mid(33, 133) - self.mid(263, 362))))
        x = self.mid(263, 362) - self.mid(33, 133)
        self.ex = x / np.linalg.norm(x)          # towards the image's right along the eyes
        self.ey = np.array([-self.ex[1], self.ex[0]])  # down the face
        self.hidden = dict(left=0.0, right=0.0, nose=0.0, mouth=0.0)
        self.closed = dict(left=0.0, right=0.0)  # 1 closed, 0 open, nan: not to be taught
        self.tags = []
        self.parts = None
        cheek = [self.patch_mean(i) for i in (50, 280, 151)]
        self.skin = np.median(cheek, 0)
        self.grey = None

    def mid(self, a, b):
        return (self.p[a] + self.p[b]) / 2

    def patch_mean(self, i):
        x, y = np.clip(self.p[i], 2, (self.w - 3, self.h - 3)).astype(int)
        r = max(1, int(0.06 * self.d))
        return self.im[max(0, y - r):y + r + 1, max(0, x - r):x + r + 1].reshape(-1, 3).mean(0)

    def at(self, x, y, origin=None):
        """A point x to the right and y down the face from the middle of the eyes, in eye distances."""
        o = (self.eye['left'] + self.eye['right']) / 2 if origin is None else origin
        return o + self.d * (x * self.ex + y * self.ey)

    def fill(self, points, soft=0.0):
        """Alpha 0..1 of a polygon, its edge blurred by `soft` pixels."""
        a = np.zeros((self.h, self.w), np.uint8)
        cv2.fillPoly(a, [np.round(np.asarray(points) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        a = a.astype(np.float32) / 255
        return cv2.GaussianBlur(a, (0, 0), soft) if soft > 0.25 else a

    def stroke(self, points, width, soft=0.0, closed=False):
        a = np.zeros((self.h, self.w), np.uint8)
        cv2.polylines(a, [np.round(np.asarray(points) * 16).astype(np.int32)], closed, 255,
                      max(1, int(round(width))), cv2.LINE_AA, 4)
        a = a.astype(np.float32) / 255 * min(1.0, max(0.3, width))
        return cv2.GaussianBlur(a, (0, 0), soft) if soft > 0.25 else a

    def field(self, scale):
        """Smooth noise of about unit deviation, features of `scale` pixels."""
        n = (max(2, int(self.h / scale) + 2), max(2, int(self.w / scale) + 2))
        f = self.rng.standard_normal(n).astype(np.float32)
        return cv2.resize(f, (self.w, self.h), interpolation=cv2.INTER_CUBIC)

    def light(self):
        """The face's own light and shade, blurred, about 1 on average: occluders take it over."""
        if self.grey is None:
            small = cv2.resize(self.im, (32, 32), interpolation=cv2.INTER_AREA).mean(2)
            small = cv2.GaussianBlur(small, (0, 0), 4)
            self.grey = cv2.resize(np.clip(small / max(12.0, float(small.mean())), 0.45, 1.7), (self.w, self.h))
        return self.grey

    def texture(self):
        """A patch of some other picture, stretched over this one."""
        t = self.textures[self.rng.integers(len(self.textures))]
        n = int(self.rng.integers(24, t.shape[0] + 1))
        y, x = self.rng.integers(0, t.shape[0] - n + 1, 2)
        return cv2.resize(t[y:y + n, x:x + n], (self.w, self.h), interpolation=cv2.INTER_LINEAR).astype(np.float32)

    def paint(self, alpha, colour, light=0.7, shadow=True, counts=True):
        """Lays `colour` (one colour or a picture) over the scene where alpha says; keeps the account."""
        r = self.rng
        alpha, colour = np.asarray(alpha, np.float32), np.asarray(colour, np.float32)
        if colour.ndim == 1:
            colour = np.broadcast_to(colour, self.im.shape)
        if light:
            colour = colour * (1 + light * (self.light() - 1))[..., None]
        if shadow and r.random() < 0.8:
            s = 0.03 * self.d * r.uniform(0.5, 2.5)
            off = np.float32([[1, 0, r.normal(0, s)], [0, 1, abs(r.normal(0, s))]])
            cast = cv2.warpAffine(cv2.GaussianBlur(alpha, (0, 0), max(0.4, s)), off, (self.w, self.h))
            self.im = self.im * (1 - r.uniform(0.1, 0.5) * cast * (1 - alpha))[..., None]
        a = alpha[..., None]
        self.im = np.asarray(self.im * (1 - a) + np.clip(colour, 0, 255) * a, np.float32)
        if counts:
            for k, v in self.shares(alpha).items():
                self.hidden[k] = max(self.hidden[k], v)

    def shares(self, alpha):
        if self.parts is None:
            self.parts = {}
            for side in ('left', 'right'):
                pts = self.p[list(UPPER[side]) + list(LOWER[side])]
                c = pts.mean(0)
                width = np.linalg.norm(self.p[UPPER[side][0]] - self.p[UPPER[side][-1]])
                t = np.linspace(0, 2 * np.pi, 16, endpoint=False)[:, None]
                self.parts[side] = self.fill(c + width * (0.5 * np.cos(t) * self.ex + 0.24 * np.sin(t) * self.ey))
            self.parts['nose'] = self.fill(self.p[list(NOSE)])
            self.parts['mouth'] = self.fill(self.p[list(LIPS)])
        return {k: float((alpha * m).sum() / max(1.0, m.sum())) for k, m in self.parts.items()}

    def labels(self):
        """left_closed, right_closed, eyes_covered, mouth_covered; nan where nothing is to be taught."""
        def covered(*names):
            worst = max(self.hidden[n] for n in names)
            return 1.0 if worst >= COVERED else 0.0 if worst <= BARE else np.nan
        eyes = [np.nan if self.hidden[s] > 0.3 else self.closed[s] for s in ('left', 'right')]
        return [*eyes, covered('left', 'right'), covered('nose', 'mouth')]


def smooth(points, rounds=2, closed=True):
    """Chaikin's corner cutting."""
    p = np.asarray(points, np.float64)
    for _ in range(rounds):
        q = np.roll(p, -1, 0) if closed else p[1:]
        a = p if closed else p[:-1]
        p2 = np.empty((2 * len(a), 2))
        p2[0::2], p2[1::2] = 0.75 * a + 0.25 * q, 0.25 * a + 0.75 * q
        p = p2 if closed else np.vstack([p[:1], p2, p[-1:]])
    return p


def any_colour(r):
    """A random colour, greys and muted ones more often than loud ones."""
    u = r.random()
    if u < 0.35:
        return np.full(3, r.uniform(8, 245)) + r.normal(0, 8, 3)
    c = r.uniform(0, 255, 3)
    return c if u < 0.6 else c.mean() + (c - c.mean()) * r.uniform(0.2, 0.8)


# ------------------------------------------------------------------------------------------------
# Lids
# ------------------------------------------------------------------------------------------------
def move_lids(s, side, amount):
    """Brings the lids of one eye together: 0 leaves them, 1 shuts them; negative opens wider.

    The skin between brow and lid is stretched downwards over the eye, as a lid unfolds; what is left
    of the opening is compressed. Then come a lash line, a lid shade and noise like the picture's own.
    """
    r = s.rng
    up, low, brow = s.p[list(UPPER[side])], s.p[list(LOWER[side])], s.p[list(BROW[side])]
    o, e = up[0], up[-1]                         # outer and inner corner
    ax = (e - o)
    width = max(np.linalg.norm(ax), 3.0)
    ax = ax / width
    ay = np.array([-ax[1], ax[0]])
    if ay @ s.ey < 0:
        ay = -ay
    local = lambda q: ((q - o) @ ax / width, (q - o) @ ay)
    x0, y0 = np.floor(np.minimum(np.minimum(up, low).min(0), brow.min(0)) - 0.12 * s.d).astype(int)
    x1, y1 = np.ceil(np.maximum(up, low).max(0) + 0.3 * s.d).astype(int)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(s.w, x1), min(s.h, y1)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return
    gx, gy = np.meshgrid(np.arange(x0, x1, dtype=np.float64), np.arange(y0, y1, dtype=np.float64))
    u = ((gx - o[0]) * ax[0] + (gy - o[1]) * ax[1]) / width
    v = (gx - o[0]) * ay[0] + (gy - o[1]) * ay[1]
    knots = np.linspace(-0.15, 1.15, 40)

    def curve(points):
        a, b = local(points)
        k = np.argsort(a)
        c = np.interp(knots, a[k], b[k])
        c = np.convolve(np.pad(c, 2, mode='edge'), [.1, .25, .3, .25, .1], 'valid')
        return c
    cu, cl = curve(up), curve(low)
    gap = np.maximum(cl - cu, 0)
    inside = np.clip(np.minimum(knots + 0.06, 1.06 - knots) / 0.1, 0, 1)
    pad = max(0.8, 0.035 * s.d) * inside if amount > 0.6 else 0 * inside  # the mesh's lids lie within the real ones
    cu, cl = cu - 0.6 * pad, cl + pad * 0.8
    gap = np.maximum(cl - cu, 0)
    meet = r.uniform(0.7, 1.0)
    m = cu + meet * gap
    tu, tl = cu + amount * (m - cu), cl + amount * (m - cl)
    cb = np.minimum(curve(brow) + 0.06 * s.d, cu - 0.14 * s.d)
    cc = cl + 0.26 * s.d
    f = lambda c: np.interp(u, knots, c)
    fu, fl, fb, fc, gu, gl = f(cu), f(cl), f(cb), f(cc), f(tu), f(tl)
    src = v.copy()
    skip = max(0.5, r.uniform(0.015, 0.06) * s.d) * f(inside) * (amount > 0.6)  # leave the old lash line out
    a = (v >= fb) & (v < gu)
    t = np.clip((v - fb) / np.maximum(gu - fb, 1e-3), 0, 1)
    k = np.maximum((gu - fb) / np.maximum(fu - skip - fb, 1e-3), 1e-3)
    bend = r.uniform(0.0, 1.0)
    shape = (1 - bend) * t + bend * (1 - (1 - t) ** k)
    src[a] = (fb + (fu - skip - fb) * shape)[a]
    a = (v >= gu) & (v <= gl)
    src[a] = (fu + (v - gu) / np.maximum(gl - gu, 1e-3) * (fl - fu))[a]
    a = (v > gl) & (v < fc)
    src[a] = (fl + (v - gl) / np.maximum(fc - gl, 1e-3) * (fc - fl))[a]
    outside = (u < -0.15) | (u > 1.15)
    src[outside] = v[outside]
    dv = src - v
    mx, my = (gx + dv * ay[0]).astype(np.float32), (gy + dv * ay[1]).astype(np.float32)
    new = cv2.remap(s.im, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    old = s.im[y0:y1, x0:x1]
    if amount > 0.6:
        w = f(inside)
        lid = ((v >= fu - 0.02 * s.d) & (v < gu)).astype(np.float32)
        lid = cv2.GaussianBlur(lid * w.astype(np.float32), (0, 0), max(0.6, r.uniform(0.015, 0.035) * s.d))
        if r.random() < 0.65:                    # a smooth lid, between the skin above it and the skin below the eye
            row = lambda at: cv2.GaussianBlur(cv2.remap(s.im, (gx + (at - v) * ay[0]).astype(np.float32),
                                                        (gy + (at - v) * ay[1]).astype(np.float32), cv2.INTER_LINEAR,
                                                        borderMode=cv2.BORDER_REPLICATE), (0, 0), max(0.5, 0.04 * s.d))
            above, below = row(fu - skip - r.uniform(0.02, 0.08) * s.d), row(fl + r.uniform(0.06, 0.12) * s.d)
            t = (np.clip((v - fu) / np.maximum(gu - fu, 1), 0, 1) * r.uniform(0.2, 1.0) + r.uniform(0, 0.5))[..., None].clip(0, 1)
            share = r.uniform(0.4, 1.0) * lid[..., None]
            new = new * (1 - share) + (above * (1 - t) + below * t) * share
        ball = np.sqrt(np.clip(1 - ((u - 0.5) / 0.6) ** 2, 0, 1))
        rise = np.clip((v - fu) / np.maximum(gu - fu, 1), 0, 1)
        shade = 1 + r.normal(0.0, 0.10) * (ball - 0.5) + r.normal(-0.03, 0.12) * (rise - 0.5) + r.normal(-0.02, 0.08)
        new = new * (1 + (shade - 1) * lid)[..., None]
        if r.random() < 0.1:                     # make-up
            share = r.uniform(0.1, 0.4) * lid[..., None]
            new = new * (1 - share) + any_colour(r) * 0.6 * share
        noise = r.standard_normal(new.shape[:2]).astype(np.float32)
        new = new + (cv2.GaussianBlur(noise, (0, 0), 0.7) * r.uniform(0, 7) * lid)[..., None]
        if r.random() < 0.5:                     # crease above the lid
            depth = np.exp(-((v - (fu - r.uniform(0.0, 0.06) * s.d)) / max(0.7, r.uniform(0.015, 0.035) * s.d)) ** 2) * w
            new = new * (1 - r.uniform(0.02, 0.2) * depth)[..., None]
    if amount > 0.6 or r.random() < 0.4:         # lash line, curved as the lid; also on half-closed eyes
        thick = max(0.5, r.uniform(0.008, 0.035) * s.d)
        w = np.clip(np.minimum(u + 0.08, 1.08 - u) / 0.12, 0, 1) * np.clip(r.uniform(0.5, 1.3) - 0.3 * u, 0, 1)
        line = np.exp(-((v - gu - r.uniform(-0.3, 0.8) * thick) / thick) ** 2) * w
        dark = s.skin * r.uniform(0.08, 0.6)
        strength = r.uniform(0.35, 0.95)
        new = new * (1 - strength * line[..., None]) + dark * strength * line[..., None]
    near = np.clip(np.minimum(np.minimum(gx - x0, x1 - 1 - gx), np.minimum(gy - y0, y1 - 1 - gy)) / 3, 0, 1)[..., None]
    s.im[y0:y1, x0:x1] = (old * (1 - near) + new * near).astype(np.float32)


def close_eyes(s, sides=('left', 'right')):
    shut = s.rng.uniform(0.94, 1.0)
    for side in sides:
        move_lids(s, side, min(1.0, shut + s.rng.normal(0, 0.02)))
        s.closed[side] = 1.0
    s.tags.append('closed')


def transplant(s, side, donor, mesh):
    """Lays the eye of another picture over this one, fitted by its corners, its colours matched at the rim."""
    r = s.rng
    a, b = (np.asarray(p, np.float64)[[UPPER[side][0], UPPER[side][-1]], :2] for p in (mesh, s.p))
    va, vb = a[1] - a[0], b[1] - b[0]
    width = np.linalg.norm(vb)
    turn = complex(*vb) / complex(*va)
    rot = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    m = np.hstack([rot, (b.mean(0) - rot @ a.mean(0))[:, None]])
    other = cv2.warpAffine(np.asarray(donor, np.float32), m, (s.w, s.h), borderMode=cv2.BORDER_REPLICATE)
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, None]
    centre = b.mean(0) - s.ey * width * r.uniform(0, 0.08)
    oval = lambda k: centre + width * k * (r.uniform(0.58, 0.68) * np.cos(t) * s.ex + r.uniform(0.32, 0.4) * np.sin(t) * s.ey)
    alpha = s.fill(oval(1.0), max(0.8, 0.07 * width))
    rim = np.clip(s.fill(oval(1.2), 1.0) - s.fill(oval(0.85), 1.0), 0, 1)[..., None]
    gain = ((s.im * rim).sum((0, 1)) + 50) / ((other * rim).sum((0, 1)) + 50)
    other = np.clip(other * np.clip(gain, 0.35, 3), 0, 255)
    s.im = np.asarray(s.im * (1 - alpha[..., None]) + other * alpha[..., None], np.float32)


def half_close(s):
    for side in ('left', 'right'):
        move_lids(s, side, s.rng.uniform(-0.25, 0.5))
    s.tags.append('half')


# ------------------------------------------------------------------------------------------------
# Over nose and mouth
# ------------------------------------------------------------------------------------------------
def cloth(s, base=None):
    """A surface: one colour, a pattern or a patch of some picture, with folds and fibres."""
    r = s.rng
    base = any_colour(r) if base is None else base
    c = np.broadcast_to(np.asarray(base, np.float32), s.im.shape).copy()
    u = r.random()
    yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
    if u < 0.25:
        t = r.uniform(0, np.pi)
        period = s.d * r.uniform(0.06, 0.5)
        wave = np.sin(2 * np.pi * (xx * np.cos(t) + yy * np.sin(t)) / period)
        if r.random() < 0.4:
            wave = wave * np.sin(2 * np.pi * (xx * np.sin(t) - yy * np.cos(t)) / period)
        m = (wave > r.uniform(-0.6, 0.6)).astype(np.float32)[..., None] * r.uniform(0.2, 1)
        c = c * (1 - m) + any_colour(r) * m
    elif u < 0.4:
        m = np.clip(s.field(s.d * r.uniform(0.08, 0.4)) * 2, 0, 1)[..., None]
        c = c * (1 - m) + any_colour(r) * m
    elif u < 0.58:
        share = r.uniform(0.4, 1)
        c = c * (1 - share) + s.texture() * share
    c = c * (1 + r.uniform(0, 0.12) * s.field(s.d * r.uniform(0.15, 0.5)))[..., None]
    return c + (s.field(max(1.0, 0.03 * s.d)) * r.uniform(0, 6))[..., None]


MEDICAL = [(215, 190, 140), (235, 215, 180), (240, 240, 240), (225, 235, 235), (200, 205, 130), (190, 215, 170),
           (40, 38, 38), (25, 25, 25), (70, 66, 64), (120, 118, 116), (205, 190, 235), (200, 160, 110)]


def mask(s, worn='face'):
    """A medical, cloth or filtering mask; worn on the face, below the nose, or under the chin."""
    r, p = s.rng, s.p
    lo, hi = dict(face=(0.05, 0.75), nose=(1.15, 1.35), chin=(2.25, 2.9))[worn]
    # The top edge runs through levels of the face: 0 the bridge of the nose, 1 its tip, 2 the lower lip, 3 the chin.
    stops = np.array([p[6], p[4], p[17], p[152]])
    level = lambda k: stops[int(k)] + (k - int(k)) * (stops[min(3, int(k) + 1)] - stops[int(k)])
    top = level(r.uniform(lo, hi))
    drop = r.uniform(0.0, 0.35) * s.d
    jaw = list(OVAL)
    right, left = jaw[jaw.index(454):jaw.index(152) + 1], jaw[jaw.index(152):jaw.index(234) + 1]
    low = max(0.0, ((top - p[4]) @ s.ey) / s.d)
    start = min(len(right) - 5, int(r.integers(0, 3) + (2 * low + 0.5 if worn == 'chin' else low)))
    outline = right[start:] + left[1:len(left) - start]
    ring = p[outline].copy()
    centre = p[2]
    grow = r.uniform(0.97, 1.1)
    ring = centre + (ring - centre) * grow
    below = np.clip((ring - centre) @ s.ey / s.d, 0, None)[:, None]
    ring = ring + s.ey * s.d * np.clip(below - 0.2, 0, 1) * r.uniform(0.0, 0.22)
    a, b = ring[0], ring[-1]                     # right and left upper corners
    arch = 0.5 * s.d * r.uniform(0.25, 0.6)
    mean_side = (a + b) / 2
    top = top - s.ey * max(0.0, (top - mean_side) @ s.ey) * (0.6 if worn != 'chin' else 0.9)
    across = [b * (1 - t) + top * t + s.ey * drop * t * (1 - t) for t in (0.25, 0.5, 0.78)]
    back = [a * (1 - t) + top * t + s.ey * drop * t * (1 - t) for t in (0.78, 0.5, 0.25)]
    contour = smooth(np.vstack([ring, across, [top - s.ex * 0.05 * s.d, top + s.ex * 0.05 * s.d], back]), 2)
    contour = contour + r.normal(0, 0.004 * s.d, contour.shape)
    soft = r.uniform(0.3, 0.03 * s.d + 0.3)
    alpha = s.fill(contour, soft)
    base = np.array(MEDICAL[r.integers(len(MEDICAL))], np.float32) + r.normal(0, 10, 3) if r.random() < 0.65 else None
    plain = base is not None and r.random() < 0.8
    colour = np.broadcast_to(base, s.im.shape) * (1 + 0.05 * s.field(s.d * 0.3))[..., None] if plain else cloth(s, base)
    colour = np.array(colour, np.float32)
    yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
    across_face = ((xx - p[4, 0]) * s.ex[0] + (yy - p[4, 1]) * s.ex[1]) / s.d
    down_face = ((xx - p[4, 0]) * s.ey[0] + (yy - p[4, 1]) * s.ey[1]) / s.d
    bulge = 1 - r.uniform(0.05, 0.5) * (across_face / 0.9) ** 2 - r.uniform(0, 0.25) * np.clip(down_face, 0, 1)
    bulge += r.normal(0, 0.12) * across_face
    kind = r.random()
    if kind < 0.45:                              # pleats
        n = r.uniform(3, 6)
        wave = np.sin(2 * np.pi * n * (down_face + r.uniform(0, 0.25) * across_face ** 2 * r.choice((-1, 1))) + r.uniform(0, 6))
        bulge += r.uniform(0.02, 0.12) * wave ** 3
    elif kind < 0.75:                            # seam down the middle, the halves lit differently
        bulge += r.uniform(0, 0.12) * np.tanh(across_face * 12) * r.choice((-1, 1))
        bulge -= r.uniform(0.05, 0.3) * np.exp(-(across_face / 0.02) ** 2)
    folds = s.field(s.d * r.uniform(0.12, 0.4))
    bulge += r.uniform(0, 0.07) * folds
    colour *= np.clip(bulge, 0.25, 1.4)[..., None]
    if r.random() < 0.25:                        # valve or print
        at = s.at(r.normal(0, 0.25), r.normal(0.35, 0.1), p[4])
        t = np.linspace(0, 2 * np.pi, 24)[:, None]
        blob = s.fill(at + s.d * r.uniform(0.08, 0.22) * (np.cos(t) * s.ex + r.uniform(0.6, 1) * np.sin(t) * s.ey), 0.5)
        colour = colour * (1 - blob[..., None]) + any_colour(r) * blob[..., None]
    if r.random() < 0.85:                        # straps to the ears
        strap = any_colour(r) if r.random() < 0.4 else colour[min(s.h - 1, max(0, int(a[1]))), min(s.w - 1, max(0, int(a[0])))]
        for corner, ear, sign in ((a, p[454], 1), (b, p[234], -1)):
            end = ear + s.ex * sign * s.d * r.uniform(0.02, 0.2) - s.ey * s.d * r.uniform(-0.05, 0.35)
            mid = (corner + end) / 2 + s.ey * s.d * r.normal(0, 0.03)
            s.paint(s.stroke(smooth([corner, mid, end], 2, False), s.d * r.uniform(0.015, 0.05), 0.4), strap, 0.4)
    if r.random() < 0.6:                         # hem
        hem = s.stroke(contour, max(1, s.d * r.uniform(0.01, 0.05)), 0.5, True)
        colour = colour * (1 + r.normal(0, 0.15) * hem)[..., None]
    s.paint(alpha, colour, r.uniform(0.4, 1.0))
    if r.random() < 0.4:
        s.im += (s.field(1.5) * r.uniform(0, 5) * alpha)[..., None]
    s.tags.append({'face': 'mask', 'nose': 'mask-low', 'chin': 'chin-mask'}[worn])


def scarf(s, up=None):
    """Cloth from the neck up to some level of the face; `up` 0 the eyes' lower edge .. 3 the chin."""
    r, p = s.rng, s.p
    up = r.uniform(0.3, 2.9) if up is None else up
    stops = np.array([s.at(0, 0.28), p[4], p[17], p[152]])
    at = stops[int(up)] + (up - int(up)) * (stops[min(3, int(up) + 1)] - stops[int(up)])
    xs = np.linspace(-2.2, 2.2, 9)
    sag = r.uniform(-0.35, 0.2)
    tilt = r.normal(0, 0.08)
    edge = [s.at(x, sag * min(1, abs(x)) ** 1.5 + tilt * x + r.normal(0, 0.03), at) for x in xs]
    contour = smooth(np.vstack([edge, [s.at(2.4, 3, at), s.at(-2.4, 3, at)]]), 2)
    colour = cloth(s)
    yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
    t = r.normal(0, 0.35)
    down = ((xx - at[0]) * -np.sin(t) + (yy - at[1]) * np.cos(t)) / s.d + 0.08 * s.field(s.d * 0.5)
    folds = np.sin(2 * np.pi * down * r.uniform(1.5, 5) + r.uniform(0, 6)) + 0.6 * s.field(s.d * r.uniform(0.15, 0.5))
    colour = colour * (1 + r.uniform(0.05, 0.22) * folds)[..., None]
    if r.random() < 0.3:                         # knitted
        stitch = np.sin(xx * 2 * np.pi / (0.06 * s.d)) * np.sin(yy * 2 * np.pi / (0.08 * s.d))
        colour = colour * (1 + r.uniform(0.03, 0.15) * stitch)[..., None]
    s.paint(s.fill(contour, r.uniform(0.3, 0.04 * s.d + 0.3)), colour, r.uniform(0.3, 1))
    s.tags.append('scarf')


def beard(s):
    """Darkens lip, cheeks and chin as hair does; nothing is covered by it."""
    r, p = s.rng, s.p
    jaw = list(OVAL)
    low = jaw[jaw.index(361):jaw.index(132) + 1]
    upper = p[2] + (p[0] - p[2]) * r.uniform(0.1, 0.5)
    contour = np.vstack([p[low] + s.ey * 0.04 * s.d, [p[205] * 0.5 + p[61] * 0.5], [upper - s.ex * 0.3 * s.d], [upper],
                         [upper + s.ex * 0.3 * s.d], [p[425] * 0.5 + p[291] * 0.5]])
    a = s.fill(smooth(contour, 2), s.d * r.uniform(0.03, 0.1))
    if r.random() < 0.4:                         # round the mouth only
        a = a * s.fill(s.at(0, 0, (p[17] + p[0]) / 2) + (smooth(p[list(LIPS)]) - (p[17] + p[0]) / 2) * r.uniform(1.6, 2.4), 0.05 * s.d)
    lips = s.fill((p[list(LIPS)] - p[list(LIPS)].mean(0)) * 0.9 + p[list(LIPS)].mean(0), 0.02 * s.d)
    hair = np.clip(r.uniform(0.3, 1.0) + 0.35 * s.field(max(1.0, 0.025 * s.d)) + 0.2 * s.field(0.1 * s.d), 0, 1)
    colour = np.array([25, 30, 38]) * r.uniform(0.4, 2.2) if r.random() < 0.75 else np.array([150, 155, 160]) * r.uniform(0.7, 1.3)
    s.paint(a * (1 - 0.9 * lips) * hair * r.uniform(0.4, 0.95), colour, 0.6, shadow=False, counts=False)
    s.tags.append('beard')


# ------------------------------------------------------------------------------------------------
# Over the eyes
# ------------------------------------------------------------------------------------------------
def glasses(s, dark):
    """Spectacles: dark, tinted, gradient or mirrored lenses if `dark`, else clear ones with glare."""
    r = s.rng
    w, h = r.uniform(0.36, 0.52), r.uniform(0.24, 0.42) if dark else r.uniform(0.18, 0.36)
    power, drop = r.uniform(2.0, 5.0), r.uniform(-0.02, 0.1)
    sag = r.uniform(-0.15, 0.3)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    lenses = []
    # The mesh's depth is not needed: a turned head narrows the distance of eye to nose, and so the lens.
    nose = s.mid(6, 197)
    for side, sign in (('left', -1), ('right', 1)):
        c = s.p[list(UPPER[side]) + list(LOWER[side])].mean(0)
        inner = abs((c - nose) @ s.ex) / s.d
        ww = min(w, max(0.12, inner * r.uniform(0.85, 0.95))) if inner < 0.55 else w
        shape = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power), np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power)
        out = sign * np.where(sign * shape[0] > 0, w * 1.02, ww) * shape[0]
        y = h * shape[1] * (1 + sag * 0.5 * sign * shape[0] * (shape[1] > 0)) + drop
        lenses.append(c + s.d * (out[:, None] * s.ex + y[:, None] * s.ey))
    frame = any_colour(r) * r.uniform(0.1, 1) if r.random() < 0.7 else np.array([60, 140, 180]) * r.uniform(0.5, 1.3)
    thick = s.d * (r.uniform(0.02, 0.09) if r.random() < 0.6 else r.uniform(0.008, 0.025))
    rimless = r.random() < 0.12
    style = r.random()
    if dark:
        tint = np.array([18, 16, 16]) * r.uniform(0, 2.5) if r.random() < 0.6 else any_colour(r) * 0.45
        top = r.uniform(0.8, 1.0)
        bottom = top if style < 0.55 else r.uniform(0.45, 0.95)
        mirror = s.texture() * r.uniform(0.5, 1.1) if style > 0.75 else None
        glow = s.field(s.d * r.uniform(0.3, 0.8)) * r.uniform(0, 18)
    sheen = r.uniform(-0.4, 0.4)
    shine = r.random() < (0.6 if dark else 0.5)
    for lens in lenses:
        a = s.fill(lens, 0.5)
        y0, y1 = lens[:, 1].min(), lens[:, 1].max()
        down = np.clip((np.arange(s.h) - y0) / max(1, y1 - y0), 0, 1).astype(np.float32)[:, None]
        if dark:
            colour = np.broadcast_to(tint, s.im.shape).astype(np.float32)
            if mirror is not None:
                colour = mirror * r.uniform(0.6, 1) * (0.5 + 0.5 * np.clip(any_colour(r) / 128, 0.4, 2))
            colour = colour + (glow + down * r.uniform(-10, 30))[..., None]
            s.paint(a * (top + (bottom - top) * down), colour, r.uniform(0, 0.7), shadow=r.random() < 0.4)
        else:
            if r.random() < 0.3:
                s.paint(a * r.uniform(0, 0.18), any_colour(r), 0.5, shadow=False, counts=False)
            if r.random() < 0.5:                 # refraction: the picture behind is a little larger or smaller
                c, k = lens.mean(0), 1 + r.normal(0, 0.06)
                m = np.float64([[k, 0, c[0] * (1 - k)], [0, k, c[1] * (1 - k)]])
                moved = cv2.warpAffine(s.im, m, (s.w, s.h), borderMode=cv2.BORDER_REPLICATE)
                s.im = s.im * (1 - a[..., None]) + moved * a[..., None]
        if shine:                                # a streak or a spot of light
            c = lens.mean(0) + s.d * np.array([r.normal(0, 0.12), r.normal(-0.05, 0.08)])
            e1, e2 = s.d * r.uniform(0.02, 0.14), s.d * r.uniform(0.05, 0.3)
            e = np.array([np.sin(sheen), np.cos(sheen)])
            f = np.array([e[1], -e[0]])
            spot = s.fill(smooth([c + e * e2 + f * e1, c + e * e2 - f * e1, c - e * e2 - f * e1, c - e * e2 + f * e1], 2),
                          s.d * r.uniform(0.01, 0.05)) * a
            s.paint(spot * r.uniform(0.2, 0.95), np.array([255, 255, 255]) * r.uniform(0.7, 1), 0, shadow=False)
    rims = np.maximum(s.stroke(lenses[0], thick, 0.4, True), s.stroke(lenses[1], thick, 0.4, True))
    bridge = s.stroke([lenses[0][np.argmax(lenses[0] @ s.ex)], nose - s.ey * s.d * r.uniform(0, 0.1),
                       lenses[1][np.argmin(lenses[1] @ s.ex)]], max(thick, 1), 0.4)
    arms = [s.stroke([lens[np.argmin(lens @ s.ex * sign)] - s.ey * 0.1 * s.d, s.p[i] - s.ey * s.d * r.uniform(0, 0.12) - s.ex * sign * 0.1 * s.d],
                     max(thick * r.uniform(0.7, 1.5), 1), 0.4) for lens, i, sign in ((lenses[0], 127, 1), (lenses[1], 356, -1))]
    a = np.maximum.reduce([bridge, *arms] + ([] if rimless else [rims])) * r.uniform(0.75, 1)
    s.paint(a, frame, 0.5, counts=False)
    s.tags.append('sunglasses' if dark else 'spectacles')


def fringe(s):
    """Strands of hair from the forehead, ending above the eyes or thinning out over them."""
    r = s.rng
    n, reach = int(r.integers(12, 60)), r.uniform(-0.45, -0.12)
    hair = np.array([20, 25, 32]) * r.uniform(0.3, 3) if r.random() < 0.7 else np.array([90, 140, 170]) * r.uniform(0.6, 1.3)
    lean = r.normal(0, 0.4)
    a = np.zeros((s.h, s.w), np.float32)
    for _ in range(n):
        x = r.uniform(-1.0, 1.0)
        end = reach + r.normal(0, 0.12) if r.random() < 0.9 else r.uniform(0, 0.5)
        pts = smooth([s.at(x - lean, -1.5), s.at(x + r.normal(0, 0.1), -0.8), s.at(x + lean * 0.3 + r.normal(0, 0.05), end)], 2, False)
        a = np.maximum(a, s.stroke(pts, s.d * (r.uniform(0.02, 0.12) if end < -0.1 else r.uniform(0.008, 0.02)), 0.4) * r.uniform(0.5, 1))
    s.paint(a, hair * (1 + 0.3 * s.field(0.04 * s.d))[..., None], 0.5)
    s.tags.append('fringe')


def hat(s):
    r = s.rng
    brim, wide = r.uniform(-0.95, -0.3), r.uniform(1.0, 1.5)
    contour = smooth([s.at(-wide, brim + r.normal(0, .1)), s.at(0, brim - r.uniform(-0.1, 0.15)), s.at(wide, brim + r.normal(0, .1)),
                      s.at(wide, -2.6), s.at(-wide, -2.6)], 2)
    s.paint(s.fill(contour, r.uniform(0.3, 1.2)), cloth(s), 0.6)
    if r.random() < 0.5:                         # the shade of the brim
        shade = s.fill([s.at(-1.3, -1), s.at(1.3, -1), s.at(1.3, brim + 0.5), s.at(-1.3, brim + 0.5)], 0.15 * s.d)
        s.im *= (1 - r.uniform(0.1, 0.6) * shade)[..., None]
    s.tags.append('hat')


# ------------------------------------------------------------------------------------------------
# Over anything
# ------------------------------------------------------------------------------------------------
def target(s, where):
    """A point of the face to cover."""
    r = s.rng
    if where == 'eyes':
        return s.at(r.choice((-0.5, 0.0, 0.5)) + r.normal(0, 0.08), r.normal(0, 0.07))
    if where == 'mouth':
        return s.mid(2, 17) + s.d * r.normal(0, 0.1, 2)
    return [s.at(r.normal(0, 0.6), -0.95), s.at(r.choice((-1, 1)) * r.uniform(0.9, 1.2), r.uniform(-0.3, 1.2)),
            s.p[152] + s.ey * s.d * r.uniform(0.15, 0.5)][r.integers(3)]


def hand(s, where):
    """Fingers and part of a palm: rounded bars with the shading of a cylinder, coloured as the face."""
    r = s.rng
    at = target(s, where)
    turn = r.uniform(-np.pi, np.pi) if where != 'eyes' or r.random() < 0.5 else r.choice((0, np.pi)) + r.normal(0, 0.4)
    along = np.cos(turn) * s.ex + np.sin(turn) * s.ey
    side = np.array([-along[1], along[0]])
    n, width = int(r.integers(1, 6) if where == 'else' else r.integers(2, 6)), s.d * r.uniform(0.15, 0.3)
    skin = s.skin * r.uniform(0.7, 1.25) * np.clip(1 + r.normal(0, 0.06, 3), 0.8, 1.2)
    if r.random() < 0.12:
        skin = any_colour(r)                     # a glove
    alpha, shade = np.zeros((s.h, s.w), np.float32), np.zeros((s.h, s.w), np.float32)
    yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
    spread = r.uniform(0.88, 1.15)
    light = r.normal(0, 0.35)
    for k in range(n):
        off = (k - (n - 1) / 2) * width * spread
        tip = at + side * off + along * s.d * (0.35 - 0.12 * abs(k - n / 2) + r.normal(0, 0.05))
        fan = side * off * r.uniform(-0.1, 0.35)
        root = at + side * off - along * s.d * r.uniform(0.5, 0.9) - fan
        v = tip - root
        length = np.linalg.norm(v)
        e = v / length
        t = np.clip((xx - root[0]) * e[0] + (yy - root[1]) * e[1], 0, length)
        across = (xx - root[0]) * -e[1] + (yy - root[1]) * e[0]
        dist = np.hypot(xx - root[0] - t * e[0], yy - root[1] - t * e[1])
        radius = width / 2 * (1 - 0.2 * t / length) * (1 + 0.06 * np.cos(t / length * 9))
        a = np.clip((radius - dist) / max(0.7, 0.01 * s.d) + 0.5, 0, 1)
        q = np.clip(dist / radius, 0, 1)
        f = 0.68 + 0.4 * np.sqrt(1 - q ** 2 * 0.95) + light * 0.35 * across / radius
        shade = shade * (1 - a) + f * a
        alpha = np.maximum(alpha, a)
        nail = r.random() < 0.35
        if nail:
            c = tip - e * width * 0.15
            m = np.exp(-((((xx - c[0]) * e[0] + (yy - c[1]) * e[1]) / (0.3 * width)) ** 4 + (((xx - c[0]) * -e[1] + (yy - c[1]) * e[0]) / (0.28 * width)) ** 4))
            shade = shade + 0.12 * m * a
    if r.random() < 0.75:                        # the back of the hand
        c = at - along * s.d * r.uniform(0.7, 1.0)
        q = np.hypot(((xx - c[0]) * along[0] + (yy - c[1]) * along[1]) / (0.55 * s.d), ((xx - c[0]) * side[0] + (yy - c[1]) * side[1]) / (width * n * 0.56 + 1))
        a = np.clip((1 - q) * 0.4 * s.d / 1.5 + 0.5, 0, 1)
        f = 0.85 + 0.2 * np.sqrt(np.clip(1 - q ** 2, 0, 1)) + 0.05 * s.field(0.3 * s.d)
        keep = a * (1 - alpha)
        shade, alpha = shade * (1 - keep) + f * keep, np.maximum(alpha, a)
    grain = 1 + 0.03 * s.field(max(1.0, 0.03 * s.d)) + 0.05 * s.field(0.25 * s.d)
    colour = skin * np.clip(shade, 0.3, 1.4)[..., None] * grain[..., None]
    warm = np.clip(1 - shade, 0, 0.5)[..., None] * np.array([-0.2, -0.1, 0.25])
    s.paint(cv2.GaussianBlur(alpha, (0, 0), r.uniform(0.3, 1)), colour * (1 + warm), r.uniform(0.4, 1))
    s.tags.append('hand')


def thing(s, where):
    """A phone, a cup, a sheet of paper, a microphone, or some patch of another picture."""
    r = s.rng
    at = target(s, where)
    turn = r.normal(0, 0.4)
    ex, ey = np.cos(turn) * s.ex + np.sin(turn) * s.ey, -np.sin(turn) * s.ex + np.cos(turn) * s.ey
    kind = r.choice(('phone', 'cup', 'paper', 'microphone', 'patch'))
    box = lambda w, h, t=1.0: np.array([at + s.d * (x * w * (t if y > 0 else 1) * ex + y * h * ey) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    if kind == 'phone':
        w, h = r.uniform(0.32, 0.5), r.uniform(0.6, 0.95)
        shape = smooth(box(*((w, h) if r.random() < 0.6 else (h, w))), 1)
        colour = np.full(3, r.uniform(5, 60)) if r.random() < 0.7 else any_colour(r)
        colour = colour + (s.field(s.d * 0.6) * r.uniform(0, 25))[..., None]
        if r.random() < 0.4:
            screen = s.fill((shape - shape.mean(0)) * 0.88 + shape.mean(0), 0.4)[..., None]
            colour = colour * (1 - screen) + s.texture() * screen
    elif kind == 'cup':
        shape = smooth(np.repeat(box(r.uniform(0.3, 0.5), r.uniform(0.35, 0.7), r.uniform(0.6, 1.0)), 2, 0), 1)
        yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
        across = ((xx - at[0]) * ex[0] + (yy - at[1]) * ex[1]) / (0.45 * s.d)
        colour = cloth(s) * np.clip(1.05 - 0.4 * (across - r.normal(0, 0.3)) ** 2, 0.2, 1.2)[..., None]
    elif kind == 'paper':
        shape = box(r.uniform(0.4, 1.1), r.uniform(0.35, 0.8)) + r.normal(0, 0.03 * s.d, (4, 2))
        colour = np.full(3, r.uniform(190, 250)) + r.normal(0, 6, 3)
        colour = colour * (1 + 0.05 * s.field(0.6 * s.d))[..., None]
        if r.random() < 0.5:
            yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
            lines = (np.sin(((xx - at[0]) * ey[0] + (yy - at[1]) * ey[1]) * 2 * np.pi / (r.uniform(0.07, 0.15) * s.d)) > 0.3) & (s.field(0.08 * s.d) > -0.3)
            colour = colour * (1 - r.uniform(0.3, 0.8) * lines)[..., None]
    elif kind == 'microphone':
        rad = r.uniform(0.15, 0.3)
        t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        s.paint(s.stroke([at, at + s.d * (r.normal(0, 0.6) * ex + 2.5 * ey)], s.d * rad * r.uniform(0.6, 1.2), 0.6), any_colour(r) * 0.4, 0.4)
        shape = at + s.d * rad * (np.cos(t)[:, None] * ex + r.uniform(1, 1.5) * np.sin(t)[:, None] * ey)
        colour = (np.full(3, r.uniform(10, 120)) if r.random() < 0.7 else any_colour(r)) * (1 + 0.25 * s.field(max(1.0, 0.03 * s.d)))[..., None]
    else:
        k = int(r.integers(3, 9))
        t = np.sort(r.uniform(0, 2 * np.pi, k))
        rad = s.d * r.uniform(0.3, 0.8, k)
        shape = at + rad[:, None] * (np.cos(t)[:, None] * ex + np.sin(t)[:, None] * ey)
        shape = smooth(shape, int(r.integers(0, 3)))
        colour = s.texture() if r.random() < 0.5 else cloth(s)
    s.paint(s.fill(shape, r.uniform(0.2, 1.0)), colour, r.uniform(0.1, 0.9))
    s.tags.append(str(kind))


def shadows(s):
    """Hollow or shaded eyes, light from one side: nothing is covered."""
    r = s.rng
    if r.random() < 0.6:
        for side in ('left', 'right'):
            c = s.eye[side] + s.d * r.normal(0, 0.03, 2)
            yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
            a = np.exp(-(((xx - c[0]) / (0.38 * s.d)) ** 2 + ((yy - c[1]) / (0.24 * s.d)) ** 2))
            s.im *= (1 - r.uniform(0.1, 0.6) * a)[..., None]
    else:
        yy, xx = np.mgrid[:s.h, :s.w].astype(np.float32)
        t = r.uniform(0, 2 * np.pi)
        q = ((xx - s.p[4, 0]) * np.cos(t) + (yy - s.p[4, 1]) * np.sin(t)) / s.d
        s.im *= (1 - r.uniform(0.2, 0.75) / (1 + np.exp(-(q - r.normal(0, 0.3)) / r.uniform(0.02, 0.5))))[..., None]
    s.tags.append('shadow')
