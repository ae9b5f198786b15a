"""dfu.bin: a CPIO archive of flash files with an index, and a DFU suffix.

`layout` decides what goes where, `firmware` asks esptool what an ESP image is, `writer` writes the file from that;
`image` reads it back, and `check` tells what the ROM would get wrong. `cpio` and `suffix` are the two formats.
"""
