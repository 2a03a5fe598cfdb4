"""Where raw files lie, and whether they are what they should be."""

import os
from pathlib import Path

import pooch

from tfp_gaps import storage

FOLDER_VARIABLE = "TFP_GAPS_DATA"


class DataError(RuntimeError):
    """Data are missing, unreachable, or do not match their checksum."""


def cache_folder():
    """The user's cache folder for fetched files."""
    return Path(pooch.os_cache("tfp_gaps"))


def given_folder():
    """The folder named by TFP_GAPS_DATA, or None.

    Raises:
      DataError: if the variable names something that is not a folder.
    """
    value = os.environ.get(FOLDER_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{FOLDER_VARIABLE} should name a folder with data files, but {folder} is not one. "
            f"Correct the variable, or unset it to have the files fetched."
        )
    return folder


def read_verified(path, digest):
    """Return the bytes of a file after comparing them with their SHA-256.

    Raises:
      DataError: if they differ.
    """
    content = Path(path).read_bytes()
    found = storage.sha256(content)
    if found != digest:
        raise DataError(
            f"{path} should have SHA-256 {digest[:16]}…, but has {found[:16]}… "
            f"({len(content)} bytes): it is truncated, altered, or another file. Delete it and "
            f"run `tfp-gaps data fetch digits`, or put the right file in its place."
        )
    return content
