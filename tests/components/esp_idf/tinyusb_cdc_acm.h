#pragma once
#include <stddef.h>
#include <stdint.h>
#include "esp_err.h"
typedef enum { TINYUSB_CDC_ACM_0 } tinyusb_cdcacm_itf_t;
typedef struct { int type; } cdcacm_event_t;
typedef struct {
    tinyusb_cdcacm_itf_t cdc_port;
    void (*callback_rx)(int itf, cdcacm_event_t *event);
} tinyusb_config_cdcacm_t;
esp_err_t tinyusb_cdcacm_init(const tinyusb_config_cdcacm_t *config);
esp_err_t tinyusb_cdcacm_read(tinyusb_cdcacm_itf_t itf, uint8_t *data, size_t size, size_t *length);
size_t tinyusb_cdcacm_write_queue(tinyusb_cdcacm_itf_t itf, const uint8_t *data, size_t length);
esp_err_t tinyusb_cdcacm_write_flush(tinyusb_cdcacm_itf_t itf, uint32_t ticks);
