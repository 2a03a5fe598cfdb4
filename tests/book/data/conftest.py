"""Small stand-ins for the files of images, and a server of this machine to fetch pieces from."""

import dataclasses
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book.data import images, store


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


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and no given folder."""
    folder = tmp_path / "cache"
    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    monkeypatch.setattr(store, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def server():
    """A server on this machine.

    url: its address. files: {path: content} that it answers with; a callable is called for it.
    asked: the paths that were asked for, in order.
    """
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.removeprefix("/")
            asked.append(path)
            content = files.get(path)
            content = content() if callable(content) else content
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{http.server_port}", files=files, asked=asked)
    http.shutdown()
    http.server_close()
    thread.join()
