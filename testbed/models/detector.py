"""A detector that nobody needs to train: `make models` does not make it again, this file does.

It finds plain spots of red, green or blue on black: the image's sixteen cells are its boxes, and a cell's score for a
colour is the mean of that channel less the means of the others. Its boxes are known exactly, so tests can say where they lie.

    build/train/bin/python testbed/models/detector.py
"""

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.compiled_model import CompiledModel

SIDE, CELLS = 32, 4
CELL = SIDE // CELLS
HERE = Path(__file__).parent / "spots"


def detect(image):
    """Boxes [1, 16, 4 + 3]: left, top, right, bottom in 0..1 and the scores of red, green, blue."""
    mean = tf.reshape(tf.nn.avg_pool2d(image, CELL, CELL, "VALID"), (1, CELLS * CELLS, 3))
    others = tf.reduce_sum(mean, axis=2, keepdims=True) - mean
    scores = tf.nn.relu(mean - others)
    edges = [[x, y, x + 1, y + 1] for y in range(CELLS) for x in range(CELLS)]
    boxes = tf.constant([edges], tf.float32) / CELLS
    return {"boxes": tf.concat([boxes, scores], axis=2)}


def export():
    module = tf.Module()
    module.serve = tf.function(detect, input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="image")])
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        return converter.convert()


def run(model, images):
    compiled = CompiledModel.from_buffer(model)
    key = next(iter(compiled.get_signature_list()))
    inputs = {"image": compiled.create_input_buffer_by_name(key, "image")}
    outputs = {"boxes": compiled.create_output_buffer_by_name(key, "boxes")}
    rows = []
    for image in images:
        inputs["image"].write(np.ascontiguousarray(image[np.newaxis]))
        compiled.run_by_name(key, inputs, outputs)
        rows.append(np.array(outputs["boxes"].read(CELLS * CELLS * 7, np.float32)).reshape(CELLS * CELLS, 7))
    return np.array(rows)


def scenes():
    """Black images with one to three spots, each a cell of one colour."""
    rng = np.random.default_rng(7)
    images = np.zeros((8, SIDE, SIDE, 3), np.float32)
    for image in images:
        for _ in range(rng.integers(1, 4)):
            y, x, c = rng.integers(CELLS), rng.integers(CELLS), rng.integers(3)
            image[y * CELL:(y + 1) * CELL, x * CELL:(x + 1) * CELL] = np.eye(3)[c] * rng.uniform(0.5, 1)
    return images


def png(path, pixels):
    """A PNG without anything but its pixels."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def main():
    HERE.mkdir(exist_ok=True)
    model = export()
    (HERE / "model.tflite").write_bytes(model)
    images = scenes()
    np.savez_compressed(HERE / "golden.npz", image=images, boxes=run(model, images))
    # 128 by 64: letterboxed it fills the middle half of the model's image, a cell is 32 by 32 pixels.
    scene = np.zeros((64, 128, 3), np.uint8)
    scene[0:32, 32:64] = (255, 0, 0)
    scene[32:64, 96:128] = (0, 0, 204)
    png(HERE / "scene.png", scene)
    held_out = np.load(HERE.parent / "digits" / "test.npz")
    seven = held_out["images"][np.flatnonzero(held_out["labels"] == 7)[0], :, :, :1]
    png(HERE.parent / "digits" / "seven.png", np.repeat(np.round(seven * 255), 3, axis=2).astype(np.uint8))


main()
