#pragma once
#if CONFIG_IDF_TARGET_ESP32S2
#define USB_WRAP_OTG_CONF_REG 0x3F439000
#elif CONFIG_IDF_TARGET_ESP32S3
#define USB_WRAP_OTG_CONF_REG 0x60039000
#else
#error "the ROM of this chip uses another port"
#endif
#define USB_WRAP_PAD_PULL_OVERRIDE BIT(12)
