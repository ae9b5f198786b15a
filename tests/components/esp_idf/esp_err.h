#pragma once
typedef int esp_err_t;
#define ESP_OK 0
#define ESP_ERR_NOT_SUPPORTED 0x106
#define ESP_ERROR_CHECK(call)                                                                                          \
    do {                                                                                                               \
        if ((call) != ESP_OK) {                                                                                        \
            __builtin_trap();                                                                                          \
        }                                                                                                              \
    } while (0)
