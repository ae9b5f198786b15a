"""The host's side of DFU 1.1 (USB Device Class Specification for Device Firmware Upgrade, version 1.1).

`spec` has the specification's numbers and structures, `device` its seven requests, `discovery` finds
devices and waits for their return, `download` is the loop that sends an image.
"""
