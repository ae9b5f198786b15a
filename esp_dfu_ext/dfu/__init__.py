"""The host's side of DFU 1.1 (USB Device Class Specification for Device Firmware Upgrade, version 1.1).

`spec` has the specification's numbers and structures, `device` its seven requests. In the order of a flash:
`discovery` finds and chooses a board, `access` opens it once its user may, `detach` brings it into DFU mode, `download`
sends the image, `recovery` brings it back to dfuIDLE after a failure. `trace_file` writes down what went over USB.
"""
