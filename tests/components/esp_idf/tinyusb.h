#pragma once
#include "esp_err.h"
#include "tusb.h"
typedef struct {
    struct {
        const unsigned char *full_speed_config, *high_speed_config;
    } descriptor;
} tinyusb_config_t;
esp_err_t tinyusb_driver_install(const tinyusb_config_t *config);
