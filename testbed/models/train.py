#!/usr/bin/env python3
"""Trains the digit reader of the tests and writes every release of it, good and bad.

Reproducible on one machine: seeds are fixed, one thread computes. Other
processors round differently; what ACCURACY.md claims is checked at the end, so
a run either makes usable releases or fails.
"""

import os

os.environ.update(CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

import crash
import export
import networks
from data import LIVE_NOISE, Digits, enlarge, live

GOLDEN_PER_DIGIT = 3
MARGIN = 0.2  # between best and second score of a golden case, so that rounding changes no class

SPEC = """\
# {why}
model: meter-digits
version: {version}
file: model.tflite
labels: labels.txt
golden: golden.npz
input: image gray 8x8 0..1
output: classes softmax
watch: scores
reference: reference.npz
tolerance: {{scores: {{relative: 0.05, top: 1}}}}
budgets: {{any: {{latency_p95_us: 6000, peak_memory_kb: 65536, start_ms: 5000}}}}
# Short, so that tests need not wait. A model on real devices says hours.
probation: {{requests: {requests}, minutes: {minutes}}}
about: {{licence: Apache-2.0, data_set: scikit-learn digits}}
"""


@dataclass
class Release:
    folder: str
    version: str
    why: str
    model: bytes
    truth: "Release | None" = None  # whose scores are the golden ones; None: its own
    side: int = 8  # of the input
    requests: int = 100
    minutes: float = 0.05
    row: dict = field(default_factory=dict)

    def runner(self):
        return export.Runner(self.model)

    def see(self, images):
        return images if self.side == 8 else enlarge(images)


def make_releases(digits):
    """Trains four networks and makes ten releases of them."""
    def trained(network, labels, epochs):
        return networks.fit(network, digits.images, labels, epochs)

    tf.keras.utils.set_random_seed(1)
    first = networks.plain(trained(networks.small(), digits.labels, 60))
    tf.keras.utils.set_random_seed(1)
    network = trained(networks.reader(), digits.labels, 15)
    good = networks.plain(network)
    tf.keras.utils.set_random_seed(1)
    mixed_up = networks.plain(trained(networks.small(), networks.shuffled(digits.labels), 60))
    tf.keras.utils.set_random_seed(1)
    wide = networks.small(side=16)
    networks.fit(wide, enlarge(digits.images), digits.labels, 60)
    tf.keras.utils.set_random_seed(1)
    shifted = networks.plain(trained(networks.reader(), networks.confused(digits.labels), 15))

    small = Release("1.0.0", "1.0.0", "The first release: small, right about nine times in ten. Nobody asks before it is there.",
                    export.export(first), requests=0, minutes=0.02)
    better = Release("1.1.0", "1.1.0", "The better reader.", export.export(good))
    int8 = export.export_int8(good, digits.images[:200])
    return [
        small, better,
        Release("1.1.1", "1.1.1", "1.1.0 in whole numbers, int8 at both ends.", int8),
        Release("wrong", "1.2.0-wrong", "Bad: trained on shuffled labels.", export.export(mixed_up), truth=better),
        Release("crash", "1.2.1-crash", "Bad: well-formed, and takes the runtime down.",
                crash.without_shape(small.model), truth=small),
        Release("shape", "1.2.2-shape", "Bad: the file takes 16x16, all else here says 8x8.",
                export.export(networks.plain(wide), side=16), truth=better, side=16),
        Release("slow", "1.2.3-slow", "Bad: the answers of 1.1.0 for twenty times the work.",
                export.export(networks.busy(network, 49))),
        Release("late", "1.2.4-late", "Bad: right on clean images, undecided on noisy ones.",
                export.export(networks.brittle(network))),
        Release("shifted", "1.2.5-shifted", "Bad: takes four digits for others, with confidence. Its golden cases come from the same mistake.",
                export.export(shifted)),
        Release("creep", "1.2.6-creep", "Bad: 1.3 times the latency of 1.1.0, inside its budget.",
                export.export(networks.busy(network, 1, channels=12))),
    ]


def golden_cases(scores, labels):
    """Indexes of images that are read right with a clear margin, the same number of each digit there is."""
    top = np.sort(scores, axis=1)
    clear = (scores.argmax(axis=1) == labels) & (top[:, -1] - top[:, -2] >= MARGIN)
    return np.concatenate([np.flatnonzero(clear & (labels == d))[:GOLDEN_PER_DIGIT] for d in range(10)])


def write(release, digits, out):
    """Writes the folder of a release."""
    folder = out / release.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(release.model)
    (folder / "labels.txt").write_text("".join(f"{d}\n" for d in range(10)))
    (folder / "model.yaml").write_text(SPEC.format(**vars(release)))
    source = release.truth or release
    runner = source.runner()
    real = runner.scores(source.see(digits.val_images))
    cases = golden_cases(real, digits.val_labels)
    rest = np.setdiff1d(np.arange(len(real)), cases)
    images = digits.val_images[cases]
    np.savez_compressed(folder / "golden.npz", image=runner.stored(images), scores=runner.run(source.see(images)))
    np.savez_compressed(folder / "reference.npz", scores=runner.run(source.see(digits.val_images[rest])))


def measure(releases, digits):
    """Fills in what each release does on held-out images."""
    runners = {}
    for r in releases:
        if r.folder == "crash":
            continue
        runners[r.folder] = runner = r.runner()
        for kind, images in (("clean", digits.test_images), ("live", live(digits.test_images))):
            scores = runner.scores(r.see(images))
            r.row[kind] = float((scores.argmax(axis=1) == digits.test_labels).mean())
            r.row[kind + "_top"] = float(scores.max(axis=1).mean())
    times = {name: [] for name in runners}
    for _ in range(100):  # interleaved, so that a busy moment meets all of them
        for r in releases:
            if r.folder in runners:
                image = r.see(digits.test_images[:1])
                began = time.perf_counter()
                runners[r.folder].run(image)
                times[r.folder].append(time.perf_counter() - began)
    base = np.median(times["1.1.0"])
    for r in releases:
        if r.folder in runners:
            r.row["latency"] = float(np.median(times[r.folder]) / base)


def table(releases, died):
    lines = [
        "# What the releases do", "",
        f"Written by train.py from {len(Digits().test_labels)} held-out images. Live means with mild live noise: to every",
        f"pixel a number from N(0, {LIVE_NOISE}) is added, then it is clipped to 0..1. Score is the mean of the highest score.",
        "Latency is the median of LiteRT on one thread over that of 1.1.0 on the machine that trained.", "",
        "| folder | version | bytes | right, clean | right, live | score, clean | score, live | latency |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in releases:
        if r.row:
            lines.append("| {} | {} | {} | {:.1%} | {:.1%} | {:.2f} | {:.2f} | {:.1f} |".format(
                r.folder, r.version, len(r.model), r.row["clean"], r.row["live"],
                r.row["clean_top"], r.row["live_top"], r.row["latency"]))
        else:
            lines.append(f"| {r.folder} | {r.version} | {len(r.model)} | – | – | – | – | – |")
    lines += ["", f"`crash` took the process that ran it down {died} times of {crash.ATTEMPTS}.", ""]
    lines += [f"- `{r.folder}`: {r.why}" for r in releases]
    return "\n".join(lines) + "\n"


def check(releases, died):
    """What the tests rely on."""
    row = {r.folder: r.row for r in releases}
    claims = {
        "1.0.0 is about 90 % right": 0.86 <= row["1.0.0"]["clean"] <= 0.94 and row["1.0.0"]["live"] >= 0.86,
        "1.1.0 is 97 % right": row["1.1.0"]["clean"] >= 0.97 and row["1.1.0"]["live"] >= 0.96,
        "1.1.1 is 97 % right": row["1.1.1"]["clean"] >= 0.97 and row["1.1.1"]["live"] >= 0.96,
        "wrong is wrong": row["wrong"]["clean"] <= 0.25,
        "crash always crashes": died == crash.ATTEMPTS,
        "slow answers like 1.1.0": row["slow"]["clean"] == row["1.1.0"]["clean"],
        "slow is slow": row["slow"]["latency"] >= 15,
        "late is right on clean images": row["late"]["clean"] == row["1.1.0"]["clean"],
        "late collapses on live ones": row["late"]["live"] <= 0.2,
        "shifted is 60 % right": 0.5 <= row["shifted"]["live"] <= 0.7 and row["shifted"]["live_top"] >= 0.9,
        "creep creeps": 1.15 <= row["creep"]["latency"] <= 1.5,
    }
    broken = [claim for claim, holds in claims.items() if not holds]
    if broken:
        raise SystemExit("train: not true: " + "; ".join(broken))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits", help="where the releases go")
    out = parser.parse_args().out
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    digits = Digits()
    releases = make_releases(digits)
    for r in releases:
        write(r, digits, out)
    np.savez_compressed(out / "test.npz", images=digits.test_images, labels=digits.test_labels)
    measure(releases, digits)
    died = crash.deaths(out / "crash" / "model.tflite")
    (out.parent / "ACCURACY.md").write_text(table(releases, died))
    check(releases, died)


if __name__ == "__main__":
    main()
