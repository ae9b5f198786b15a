"""The DFU image: a CPIO archive of flash files with an index, and a DFU suffix.

`image` writes and reads it (the two are inverses), `check` tells what the ROM would get wrong.
"""
