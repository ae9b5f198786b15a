"""`python -m esp_dfu_ext` is `esp-dfu`."""

from .cli import main

main()
