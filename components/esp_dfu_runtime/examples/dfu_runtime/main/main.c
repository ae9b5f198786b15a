/*
 * SPDX-FileCopyrightText: 2026 the authors of esp-dfu-ext
 * SPDX-License-Identifier: Apache-2.0
 *
 * A serial port that echoes, with a DFU run-time interface beside it. DFU_DETACH brings the board into download mode,
 * and so does the letter `d` on the serial port.
 */
#include <stdint.h>
#include <string.h>

#include "esp_dfu_runtime.h"
#include "esp_err.h"
#include "tinyusb.h"
#include "tinyusb_cdc_acm.h"
#include "tinyusb_default_config.h"

enum { ITF_CDC, ITF_CDC_DATA, ITF_DFU_RUNTIME, ITF_COUNT };
enum { STRING_CDC = 4 }; // in esp_tinyusb's default strings
enum { CONFIG_LENGTH = TUD_CONFIG_DESC_LEN + TUD_CDC_DESC_LEN + ESP_DFU_RUNTIME_DESC_LEN };

#define CONFIGURATION(bulk_bytes)                                                                                      \
    TUD_CONFIG_DESCRIPTOR(1, ITF_COUNT, 0, CONFIG_LENGTH, 0, 100),                                                     \
        TUD_CDC_DESCRIPTOR(ITF_CDC, STRING_CDC, 0x81, 8, 0x02, 0x82, bulk_bytes),                                      \
        ESP_DFU_RUNTIME_DESCRIPTOR(ITF_DFU_RUNTIME, 0)

static const uint8_t s_full_speed[] = {CONFIGURATION(64)};
#if TUD_OPT_HIGH_SPEED
static const uint8_t s_high_speed[] = {CONFIGURATION(512)};
#endif

static void on_received(int itf, cdcacm_event_t *event)
{
    uint8_t data[64];
    size_t length = 0;
    while (tinyusb_cdcacm_read(itf, data, sizeof(data), &length) == ESP_OK && length > 0) {
        if (memchr(data, 'd', length)) {
            esp_dfu_enter_download_mode();
        }
        tinyusb_cdcacm_write_queue(itf, data, length);
    }
    tinyusb_cdcacm_write_flush(itf, 0);
}

void app_main(void)
{
    tinyusb_config_t usb = TINYUSB_DEFAULT_CONFIG();
    usb.descriptor.full_speed_config = s_full_speed;
#if TUD_OPT_HIGH_SPEED
    usb.descriptor.high_speed_config = s_high_speed;
#endif
    ESP_ERROR_CHECK(tinyusb_driver_install(&usb));

    const tinyusb_config_cdcacm_t port = {.cdc_port = TINYUSB_CDC_ACM_0, .callback_rx = on_received};
    ESP_ERROR_CHECK(tinyusb_cdcacm_init(&port));
}
