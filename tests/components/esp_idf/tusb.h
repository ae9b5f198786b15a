#pragma once
#include <stdbool.h>
#define CFG_TUD_DFU_RUNTIME 1
#define DFU_ATTR_CAN_DOWNLOAD 1u
#define DFU_ATTR_CAN_UPLOAD 2u
#define DFU_ATTR_MANIFESTATION_TOLERANT 4u
#define DFU_ATTR_WILL_DETACH 8u
#define TUD_DFU_RT_DESC_LEN 18
#define TUD_DFU_RT_DESCRIPTOR(interface, string, attributes, timeout, size)                                            \
    9, 0x04, interface, 0, 0, 0xFE, 0x01, 0x01, string,                                                                \
    9, 0x21, attributes, (timeout) & 0xFF, (timeout) >> 8, (size) & 0xFF, (size) >> 8, 0x10, 0x01
#if CONFIG_IDF_TARGET_ESP32P4 || CONFIG_IDF_TARGET_ESP32S31
#define TUD_OPT_HIGH_SPEED 1
#else
#define TUD_OPT_HIGH_SPEED 0
#endif
#define TUD_CONFIG_DESC_LEN 9
#define TUD_CONFIG_DESCRIPTOR(value, interfaces, string, length, attributes, milliampere)                              \
    9, 0x02, (length) & 0xFF, (length) >> 8, interfaces, value, string, 0x80 | (attributes), (milliampere) / 2
#define TUD_CDC_DESC_LEN 66
#define TUD_CDC_DESCRIPTOR(interface, string, notification, notification_size, out, in, size)                          \
    8, 0x0B, interface, 2, 0x02, 0x02, 0, 0,                                                                           \
    9, 0x04, interface, 0, 1, 0x02, 0x02, 0, string,                                                                   \
    5, 0x24, 0x00, 0x20, 0x01, 5, 0x24, 0x01, 0, (interface) + 1, 4, 0x24, 0x02, 6, 5, 0x24, 0x06, interface, (interface) + 1, \
    7, 0x05, notification, 3, notification_size, 0, 16,                                                                \
    9, 0x04, (interface) + 1, 0, 2, 0x0A, 0, 0, 0,                                                                     \
    7, 0x05, out, 2, (size) & 0xFF, (size) >> 8, 0, 7, 0x05, in, 2, (size) & 0xFF, (size) >> 8, 0
bool tud_inited(void);
bool tud_disconnect(void);
void tud_dfu_runtime_reboot_to_dfu_cb(void);
