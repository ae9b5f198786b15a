#pragma once
typedef struct { const char *name; } esp_efuse_desc_t;
extern const esp_efuse_desc_t *ESP_EFUSE_DIS_DOWNLOAD_MODE[];
extern const esp_efuse_desc_t *ESP_EFUSE_ENABLE_SECURITY_DOWNLOAD[];
#if CONFIG_IDF_TARGET_ESP32S2
extern const esp_efuse_desc_t *ESP_EFUSE_DIS_USB_DOWNLOAD_MODE[];
#else
extern const esp_efuse_desc_t *ESP_EFUSE_DIS_USB_OTG_DOWNLOAD_MODE[];
#endif
