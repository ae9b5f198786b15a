"""dfu.bin: a CPIO archive of flash files with an index, followed by a DFU suffix.

`plan` reads the files of a build, `layout` decides which bytes go where, `esp_image` has esptool check them, and
`writer` writes dfu.bin. `format` reads a dfu.bin back, and `check` lists what the ROM would get wrong. `cpio` and
`suffix` are the two file formats.
"""
