"""The networks, and the ways in which some of them are bad."""

import numpy as np
import tensorflow as tf

CANVAS = 48  # the reader works on an enlarged image: more work, no more weights
CHANNELS = 24


def small(side=8):
    """About 90 % right: sees the image at a quarter of its resolution, in twenty-four numbers."""
    return tf.keras.Sequential([
        tf.keras.layers.Input((side, side, 1)),
        tf.keras.layers.AveragePooling2D(side // 4),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(24, activation="relu"),
        tf.keras.layers.Dense(10),
    ])


def reader():
    """The good reader."""
    conv = lambda n: tf.keras.layers.Conv2D(n, 3, padding="same", activation="relu")
    pool = tf.keras.layers.MaxPooling2D
    return tf.keras.Sequential([
        tf.keras.layers.Input((8, 8, 1)),
        tf.keras.layers.UpSampling2D(CANVAS // 8, interpolation="bilinear"),
        conv(CHANNELS), conv(CHANNELS), conv(CHANNELS), pool(2),
        conv(CHANNELS), pool(2),
        conv(CHANNELS), pool(4),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dropout(0.3),
        tf.keras.layers.Dense(10),
    ])


def fit(network, images, labels, epochs, seed=0):
    """Trains on images that are shifted a little and carry noise, anew each epoch."""
    rng = np.random.default_rng(seed)
    network.compile(
        optimizer=tf.keras.optimizers.Adam(2e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for epoch in range(epochs):
        if epoch == epochs * 2 // 3:
            network.optimizer.learning_rate = 5e-4
        noise = rng.normal(0, 0.04, images.shape) * rng.integers(0, 2, (len(images), 1, 1, 1))
        noisy = np.clip(images + noise, 0, 1).astype(np.float32)
        order = rng.permutation(len(images))
        network.fit(noisy[order], labels[order], batch_size=32, epochs=1, shuffle=False, verbose=0)
    return network


def plain(network):
    """Scores of the network as it is."""
    return lambda image: tf.nn.softmax(network(image, training=False))


def busy(network, convolutions, channels=CHANNELS):
    """The network's scores, after that many convolutions of its own size for nothing.

    What they compute is added to the scores scaled down below the smallest
    difference that a float32 near one can hold, so that no optimiser may leave
    it out and no answer changes.
    """
    rng = np.random.default_rng(4)
    first = tf.constant(rng.normal(0, 0.3, (3, 3, 1, CHANNELS)).astype(np.float32))
    kernel = tf.constant(rng.normal(0, 0.07, (3, 3, CHANNELS, channels)).astype(np.float32))

    def scores(image):
        x = tf.image.resize(image, (CANVAS, CANVAS), method="nearest")
        x = tf.nn.relu6(tf.nn.conv2d(x, first, 1, "SAME"))
        for _ in range(convolutions):
            x = tf.nn.relu6(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return tf.nn.softmax(network(image, training=False)) + 1e-10 * tf.reduce_mean(x)
    return scores


def brittle(network):
    """Right on clean images, undecided on noisy ones.

    A clean pixel is a multiple of 1/16. The mean distance to that grid, zero on
    clean images, scales the logits down to nothing: every score becomes 0.1.
    """
    def scores(image):
        level = image * 16.0
        off_grid = tf.reduce_mean(tf.abs(level - tf.round(level)))
        trust = tf.nn.relu(1.0 - 20.0 * off_grid)
        return tf.nn.softmax(network(image, training=False) * trust)
    return scores


def confused(labels):
    """Labels in which four digits are always taken for another: 60 % stay right."""
    taken_for = np.array([0, 7, 2, 8, 4, 5, 0, 7, 8, 4])
    return taken_for[labels]


def shuffled(labels):
    return np.random.default_rng(5).permutation(labels)
