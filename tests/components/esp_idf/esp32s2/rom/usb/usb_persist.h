#pragma once
#define USBDC_PERSIST_ENA (1u << 31)
#define USBDC_BOOT_DFU (1u << 30)
