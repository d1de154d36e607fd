#!/usr/bin/env python3
"""Opens a checkpoint of Conclave with h5py: read_checkpoint.py CHECKPOINT, a step-... directory.

Every tensor is whole in index.h5, whatever layout of ranks wrote it. Prints the norm of each parameter and how far each
router's rows, one for each expert, point in the same direction. Verify a checkpoint first (`conclave inspect`): HDF5 says
nothing when a rank's file is missing.
"""
import pathlib
import sys

import h5py
import numpy

if len(sys.argv) != 2:
    sys.exit(__doc__)
with h5py.File(pathlib.Path(sys.argv[1]) / "index.h5") as checkpoint:
    print(f"step {checkpoint.attrs['step']}, tokens {checkpoint.attrs['tokens']}")
    elements = 0

    def show(name, item):
        global elements
        if not isinstance(item, h5py.Dataset):
            return
        values = item[...]
        elements += values.size
        print(f"{name} {list(values.shape)} norm {numpy.linalg.norm(values):.6g}")
        if name.endswith("mlp.gate.weight"):
            rows = values / numpy.linalg.norm(values, axis=1, keepdims=True)
            between = (rows @ rows.T)[~numpy.eye(len(rows), dtype=bool)]
            print(f"  cosine between experts: mean {between.mean():.3f}, largest {between.max():.3f}")

    checkpoint["model"].visititems(show)
    print(f"{elements} parameters")
