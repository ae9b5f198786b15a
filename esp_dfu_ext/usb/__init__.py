"""USB through pyusb.

`bus` scans, opens and transfers; `libusb` loads the library and maps its errors; `descriptors` holds what pyusb read.
`trace` defines the records of a trace, `tracing` the backend that makes them, and `pcap` writes them for Wireshark.
"""
