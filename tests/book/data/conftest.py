"""Small stand-ins for the files of images."""

import dataclasses

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book.data import images


@pytest.fixture
def stand_in(monkeypatch):
    """Function that registers random images, with checksums of their own, in place of a set.

    It returns {name of the raw file: grey values} and {name: content}.
    """

    def register(name, seed, **changes):
        kind, rng = images.SETS[name], np.random.default_rng(seed)
        counts = dict(zip(kind.raw_files, (100, 20), strict=True))
        grey = {raw: rng.integers(0, 256, [n, 28, 28], np.uint8) for raw, n in counts.items()}
        contents = {raw: bytes(16) + array.tobytes() for raw, array in grey.items()}
        pixel = dict(zip(("train", "test"), grey.values(), strict=True))
        small = dataclasses.replace(
            kind,
            raw_files={raw: storage.sha256(content) for raw, content in contents.items()},
            pixel_digests={part: storage.sha256(array.tobytes()) for part, array in pixel.items()},
            num_train=100,
            num_test=20,
            **changes,
        )
        monkeypatch.setitem(images.SETS, name, small)
        return grey, contents

    return register
