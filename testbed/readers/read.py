"""Reads a TUF repository with python-tuf.

usage: read.py FOLDER METADATA_URL TARGETS_URL [TARGET...]

FOLDER holds the first root as root.json. Prints the SHA-256 of each target.
"""
import hashlib
import os
import sys

from tuf.ngclient import Updater

folder, metadata_url, targets_url, *targets = sys.argv[1:]
with open(os.path.join(folder, "root.json"), "rb") as f:
    root = f.read()
metadata = os.path.join(folder, "metadata")
os.makedirs(metadata, exist_ok=True)
updater = Updater(metadata, metadata_url, target_dir=folder, target_base_url=targets_url, bootstrap=root)
updater.refresh()
for name in targets:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit(f"there is no target {name}")
    with open(updater.download_target(info), "rb") as f:
        print(hashlib.sha256(f.read()).hexdigest())
