"""The ROM's serial loader, spoken on the CDC interfaces of the device that DFU flashes.

In download mode the chip is a composite device: interfaces 0 and 1 are a serial port on which the ROM answers
esptool's protocol, before, during and after a download. Two things come from it: the ROM's fast loop (`sync`), and who
the board is (`rom_loader`).
"""
