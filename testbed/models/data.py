"""The digits: scikit-learn's bundled handwritten ones, split once and for all."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

# Mild live noise: what a camera adds to every pixel of a live input, as the
# standard deviation of a normal distribution; the result is clipped to 0..1.
LIVE_NOISE = 0.03

HELD_OUT = 300  # images for the clients of tests and demo
VALIDATION = 300  # images for golden cases and reference distributions


class Digits:
    """Images [n, 8, 8, 1] float32 in 0..1 (steps of 1/16) with labels [n]."""

    def __init__(self):
        bunch = load_digits()
        images = (bunch.images / 16.0).astype(np.float32)[..., np.newaxis]
        labels = bunch.target.astype(np.int64)
        rest, self.test_images, rest_labels, self.test_labels = train_test_split(
            images, labels, test_size=HELD_OUT, stratify=labels, random_state=1)
        self.images, self.val_images, self.labels, self.val_labels = train_test_split(
            rest, rest_labels, test_size=VALIDATION, stratify=rest_labels, random_state=2)


def live(images, seed=3):
    """The images with mild live noise."""
    noise = np.random.default_rng(seed).normal(0, LIVE_NOISE, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


def enlarge(images):
    """The images at 16x16, every pixel four times."""
    return images.repeat(2, axis=1).repeat(2, axis=2)
