"""Stands before PyPI's libusb-package and has no library, so that the programs under test load Debian's libusb."""

from __future__ import annotations


def get_library_path() -> None:
    """Where libusb-package has its library."""
