"""Lists that the code of the book reads, in YAML, where a reader can check them: claims, models."""

from pathlib import Path

import yaml


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, except that a key given twice is an error and not silently the last one."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"key given twice: {', '.join(repeated)}", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def find(name):
    """Return the path of a file of the book.

    Looked for beside the running notebook, in `book/` below the working directory, and in the
    `book/` folder of the checkout that holds this package.

    Raises:
      FileNotFoundError: if none of the three exists.
    """
    here, checkout = Path.cwd(), Path(__file__).resolve().parent.parent.parent
    candidates = [here / name, here / "book" / name, checkout / "book" / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"No {name} found (looked at {', '.join(map(str, candidates))}). Run from a checkout of "
        f"the project, or pass the path of the file."
    )


def read_list(path, what):
    """Return the entries of a YAML file that holds a list.

    Args:
      path: of the file.
      what: its entries, for messages: "claims".

    Raises:
      ValueError: if it cannot be read, gives a key twice, or holds no list or an empty one.
    """
    try:
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read the {what} file {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must be a list of {what}, but holds {type(entries).__name__}.")
    return entries
