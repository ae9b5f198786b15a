"""USB through pyusb: `bus` scans, opens and transfers; `libusb` loads the library and maps its errors."""
