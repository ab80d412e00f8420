"""Writes vectors.json: pictures, frames and files with what they become by the
formulas of docs/pictures.md, computed here from the formulas alone.

    python vectors.py        # needs numpy only
"""
import base64
import json
import struct
import zlib
from fractions import Fraction
from math import floor

import numpy as np

rng = np.random.default_rng(5)
text = lambda a: base64.b64encode(a if isinstance(a, bytes) else a.tobytes()).decode()
byte = lambda a: np.clip(a, 0, 255).astype(np.uint8)
half = lambda q: floor(q + Fraction(1, 2))


def colours(y, cb, cr, full):
    y, u, v = y.astype(np.int64), cb.astype(np.int64) - 128, cr.astype(np.int64) - 128
    if full:
        return byte(np.stack([(65793 * y + 91881 * v) >> 16, (65793 * y - 22554 * u - 46802 * v) >> 16, (65793 * y + 116130 * u) >> 16], -1))
    y = 298 * (y - 16) + 128
    return byte(np.stack([(y + 409 * v) >> 8, (y - 100 * u - 208 * v) >> 8, (y + 516 * u) >> 8], -1))


def weights(method, n, length):
    """Parts, in 1/2n, of every source pixel in every target pixel."""
    m = np.zeros((n, length), np.int64)
    for i in range(n):
        centre = Fraction(2 * i + 1, 2 * n) * length
        if method == "nearest":
            m[i, floor(centre)] = 2 * n
            continue
        at = min(max(centre - Fraction(1, 2), Fraction(0)), Fraction(length - 1))
        part = int((at - floor(at)) * 2 * n)
        m[i, floor(at)] += 2 * n - part
        if part:
            m[i, floor(at) + 1] += part
    return m


def apply(p, r):
    h, w = p.shape[:2]
    p = p.astype(np.int64)
    if r["Colour"] == "gray" and p.shape[2] == 3:
        p = (p @ np.array([19595, 38470, 7471]) + 32768)[..., None] >> 16
    if r["Colour"] != "gray" and p.shape[2] == 1:
        p = np.repeat(p, 3, 2)
    W, H, x, y = r["Width"], r["Height"], 0, 0
    if r["Fit"] == "letterbox":
        s = min(Fraction(W, w), Fraction(H, h))
        W, H = max(half(w * s), 1), max(half(h * s), 1)
        x, y = (r["Width"] - W) // 2, (r["Height"] - H) // 2
    if r["Fit"] == "crop":
        s = min(Fraction(w, W), Fraction(h, H))
        cw, ch = max(half(W * s), 1), max(half(H * s), 1)
        p = p[(h - ch) // 2:][:ch, (w - cw) // 2:][:, :cw]
    a, b = weights(r["Resize"], H, p.shape[0]), weights(r["Resize"], W, p.shape[1])
    pix = (np.einsum("ij,jkc,lk->ilc", a, p, b) + 2 * W * H) // (4 * W * H)
    out = np.full((r["Height"], r["Width"], p.shape[2]), r["Fill"], np.int64)
    out[y:y + H, x:x + W] = pix
    if r["Colour"] == "bgr":
        out = out[..., ::-1]
    if r["Planar"]:
        out = out.transpose(2, 0, 1)
    black, white = np.array(r["Range"], np.float64).T  # in the order of the channels as they stand in out
    if r["Colour"] == "bgr":
        black, white = black[::-1], white[::-1]
    shape = (-1, 1, 1) if r["Planar"] else (1, 1, -1)
    black, white = black.reshape(shape), white.reshape(shape)
    real = black + out.astype(np.float64) * (white - black) / 255
    if r["DType"] == "FP32":
        return real.astype("<f4")
    kind = np.dtype({"UINT8": "u1", "INT8": "i1", "INT16": "<i2", "INT32": "<i4"}[r["DType"]])
    stored = real / r["Scale"] if r["Scale"] else real
    stored = np.sign(stored) * np.floor(np.abs(stored) + 0.5) + r["Zero"]
    return np.clip(stored, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def tensors():
    ranges = [("FP32", 0, 1, 0, 0), ("FP32", -1, 1, 0, 0), ("FP32", -2.1179, 2.64, 0, 0), ("UINT8", 0, 255, 0, 0), ("UINT8", 0, 1, 1 / 255, 0),
              ("INT8", 0, 1, 0.003921568859368563, -128), ("INT8", -1, 1, 0.0078125, 0), ("INT16", -1, 1, 1 / 32768, 0), ("INT32", 0, 255, 0.5, 7), ("UINT8", 1, 0, 1 / 255, 3)]
    shapes = [((7, 13), (8, 8)), ((8, 8), (8, 8)), ((1, 1), (3, 2)), ((30, 40), (12, 9)), ((50, 5), (6, 11)), ((2, 3), (9, 7)), ((3, 64), (10, 10)), ((64, 3), (5, 4)), ((9, 9), (1, 1))]
    n = 0
    for (h, w), (W, H) in shapes:
        for resize in ("nearest", "bilinear"):
            for fit in ("stretch", "letterbox", "crop"):
                dtype, black, white, scale, zero = ranges[n % len(ranges)]
                between = [[black, white]]
                if n % 5 == 2 and n % 3:  # one range a channel
                    between = [[black, white], [black - 1, white + 0.5], [white, black]]
                rule = {"Width": W, "Height": H, "Colour": ("gray", "rgb", "bgr")[n % 3], "Planar": n % 4 == 3, "Resize": resize, "Fit": fit,
                        "Fill": (0, 114)[n % 2], "Range": between, "DType": dtype, "Scale": scale, "Zero": zero}
                p = rng.integers(0, 256, (h, w, (3, 1)[n // 2 % 2]), np.uint8)
                yield {"width": w, "height": h, "channels": p.shape[2], "pix": text(p), "rule": rule, "want": text(apply(p, rule))}
                n += 1


def frames():
    for w, h, gap in ((5, 3, 0), (4, 4, 3), (1, 1, 0), (7, 6, 5)):
        row = {"rgb": 3 * w, "bgr": 3 * w, "gray": w, "nv12": (w + 1) // 2 * 2, "nv12-full": (w + 1) // 2 * 2}
        for format, size in row.items():
            stride = size + gap
            rows = h + (h + 1) // 2 if format.startswith("nv12") else h
            a = rng.integers(0, 256, (rows, stride), np.uint8)
            if format.startswith("nv12"):
                at = lambda k: a[h:, k::2].repeat(2, 0).repeat(2, 1)[:h, :w]
                want = colours(a[:h, :w], at(0), at(1), format == "nv12-full")
            else:
                want = a[:, :size].reshape(h, w, -1)
                want = want[..., ::-1] if format == "bgr" else want
            data = a.tobytes()[:stride * (rows - 1) + size]  # the last row may be short
            yield {"format": format, "width": w, "height": h, "stride": stride if gap else 0, "data": text(data), "want": text(np.ascontiguousarray(want))}


def png(w, h, depth, kind, rows, extra=b""):
    chunk = lambda name, b: struct.pack(">I", len(b)) + name + b + struct.pack(">I", zlib.crc32(name + b))
    raw = b"".join(b"\0" + r for r in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, 0)) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pngs():
    w, h = 5, 4
    for name, kind, depth, channels, keep in (("gray", 0, 8, 1, 1), ("gray 16", 0, 16, 1, 1), ("rgb", 2, 8, 3, 3), ("rgb 16", 2, 16, 3, 3),
                                              ("gray alpha", 4, 8, 2, 1), ("rgb alpha", 6, 8, 4, 3), ("rgb alpha 16", 6, 16, 4, 3)):
        a = rng.integers(0, 1 << depth, (h, w, channels)).astype(f">u{depth // 8}")
        want = (a[..., :keep] >> (depth - 8)).astype(np.uint8)
        if name == "gray alpha":  # with transparency it is three channels
            want = want.repeat(3, 2)
        yield {"name": name, "file": text(png(w, h, depth, kind, [r.tobytes() for r in a])), "width": w, "height": h, "want": text(want)}
    for depth in (1, 2, 4):
        a = rng.integers(0, 1 << depth, (h, w), np.uint8)
        bits = np.unpackbits(a[..., None], axis=2)[..., 8 - depth:].reshape(h, -1)
        yield {"name": f"gray {depth}", "file": text(png(w, h, depth, 0, [r.tobytes() for r in np.packbits(bits, axis=1)])),
               "width": w, "height": h, "want": text(a * np.uint8(255 // ((1 << depth) - 1)))}
    palette, a = rng.integers(0, 256, (9, 3), np.uint8), rng.integers(0, 9, (h, w), np.uint8)
    extra = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in ((b"PLTE", palette.tobytes()), (b"tRNS", b"\x80\x00\xff")))
    yield {"name": "palette", "file": text(png(w, h, 8, 3, [r.tobytes() for r in a], extra)), "width": w, "height": h, "want": text(palette[a])}


def planes():
    """Planes of flat 8 by 8 blocks, which a JPEG of quality 100 carries unchanged."""
    flat = lambda h, w: rng.integers(0, 256, (h // 8, w // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    y, cb, cr = flat(32, 48), flat(16, 24), flat(16, 24)
    wide = lambda a: a.repeat(2, 0).repeat(2, 1)
    return {"width": 48, "height": 32, "y": text(y), "cb": text(cb), "cr": text(cr), "want": text(colours(y, wide(cb), wide(cr), True)), "gray": text(y)}


json.dump({"tensors": list(tensors()), "frames": list(frames()), "pngs": list(pngs()), "jpeg": planes()}, open("vectors.json", "w"), indent=0)
