"""The stored numbers of a case: what `comparison` makes of its result, and where it comes from."""

import json
from pathlib import Path

from tfp_gaps import storage
from tfp_gaps.book import results

FOLDER = Path(__file__).resolve().parent / "stored"


def read(name):
    """The stored content of a case: {"provenance", "numbers"}."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"expected the stored numbers of {name} in {path}, but there are none. Write them: "
            f"python -m tests.golden write {name}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def write(name, numbers, seed):
    """Store the numbers of a case and where they come from."""
    whole = results.provenance(
        command=f"python -m tests.golden write {name}", data="", seeds=[], seconds=0
    )
    origin = {key: whole[key] for key in ("command", "commit", "machine")} | {"seed": seed}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(numbers[key])}" for key in sorted(numbers))
    text = f'{{"provenance": {json.dumps(origin, indent=1)},\n"numbers": {{\n{lines}\n}}}}\n'
    storage.write_atomically(FOLDER / f"{name}.json", text.encode())
