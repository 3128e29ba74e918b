"""Writes one small parameter tree in every form that this Python, NumPy and dill can pickle it in.

Run it under each of the environments in provenance.json, in an empty folder. It works from Python 3.7 on.
"""

import pickle
import platform
import sys

import numpy as np


def tree():
    """Arrays of the kinds that checkpoints hold, and a few that they might: Fortran order, big-endian, half, double."""
    random = np.random.RandomState(0)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    return {
        "NFNet/~/stem_conv0": {"w": normal(3, 3, 3, 16), "bias": normal(16), "gain": normal(16)},
        "NFNet/~/nf_block": {"skip_gain": np.array(0.5, np.float32)},
        "NFNet/~/nf_block_1": {"skip_gain": np.float32(0.25)},
        "NFNet/~/linear": {"w": np.asfortranarray(normal(12, 10)), "b": normal(10).astype(">f4")},
        "other": {
            "half": normal(2, 5).astype(np.float16),
            "double": normal(2, 5).astype(np.float64),
            "permuted": normal(4, 5, 6).transpose(2, 0, 1),
        },
    }


def main():
    """Writes the files."""
    writers = {"pickle": pickle}
    versions = "python{}.{}_numpy{}".format(*sys.version_info[:2], np.__version__)
    try:
        import dill

        writers["dill" + dill.__version__] = dill
    except ImportError:
        pass
    for name, writer in writers.items():
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            with open(f"{versions}_{name}_p{protocol}.npz", "wb") as file:
                writer.dump(tree(), file, protocol=protocol)
    try:
        import haiku
        from haiku._src import data_structures
    except ImportError:
        return
    # The mapping that networks of 2021 returned; newer releases of Haiku still pickle it under its old name.
    flat = getattr(data_structures, "FlatMap", getattr(data_structures, "FlatMapping", None))
    with open(f"{versions}_haiku{haiku.__version__}.npz", "wb") as file:
        pickle.dump(flat(tree()), file)
    print(platform.python_version(), "with Haiku", haiku.__version__)


if __name__ == "__main__":
    main()
