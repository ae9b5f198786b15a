"""The host's side of DFU 1.1 (USB Device Class Specification for Device Firmware Upgrade, version 1.1).

`spec` has the specification's numbers and structures, `device` its seven requests. In the order of a flash:
`discovery` finds and chooses a board, `detach` brings it into DFU mode, `opening` waits until its user may open it,
`download` sends the image, `recovery` puts right what went wrong.
"""
