"""Run `esp-dfu` as `python -m esp_dfu_ext`."""

from .cli import main

main()
