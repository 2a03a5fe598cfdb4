"""Where this checkout can be fetched by others: the address of its remote `origin`, as https.

    python tools/address.py    prints it, or says that there is none and ends with status 1

Pages take it for their buttons, so that those of a fork lead to the fork. Without a public remote
there is none: no button is better than one that leads nowhere.
"""

import pathlib
import re
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOST = "github.com"
"""The one host whose notebooks Colab opens and Binder finds by owner and name."""


def normalise(remote):
    """The https address of a remote, without user, password, port and ".git"; None if it has none.

    >>> normalise("git@github.com:owner/name.git")
    'https://github.com/owner/name'
    >>> normalise("https://user:secret@github.com/owner/name/")
    'https://github.com/owner/name'
    >>> normalise("/srv/mirrors/name.git") is None
    True
    """
    if scp := re.fullmatch(r"(?:[\w.-]+@)?([\w-]+(?:\.[\w-]+)+):(?!/)(.+)", remote):
        host, path = scp.groups()
    else:
        parts = urllib.parse.urlsplit(remote)
        if parts.scheme not in ("https", "http", "ssh", "git"):
            return None
        host, path = parts.hostname or "", parts.path
    path = path.strip("/").removesuffix(".git")
    is_public = "." in host and re.fullmatch(r"[\w.~-]+(/[\w.~-]+)+", path)
    return f"https://{host.lower()}/{path}" if is_public else None


def repository(root=ROOT):
    """The address of the checkout `root`; None without a remote `origin` that others reach."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return normalise(done.stdout.strip()) if done.returncode == 0 else None


def has_launchers(address):
    """Whether Binder and Colab open notebooks from this address."""
    return address is not None and urllib.parse.urlsplit(address).hostname == HOST


def main():
    """Print the address and return the exit status."""
    address = repository()
    if address is None:
        print(
            f"expected a public remote, but `git remote get-url origin` in {ROOT} names none. Add "
            f"it: git remote add origin https://{HOST}/OWNER/NAME",
            file=sys.stderr,
        )
        return 1
    print(address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
