/*
 * SPDX-FileCopyrightText: 2026 the authors of esp-dfu-ext
 * SPDX-License-Identifier: Apache-2.0
 */
#include "esp_dfu_runtime.h"

#include <stdbool.h>

#include "esp_efuse.h"
#include "esp_efuse_table.h"
#include "esp_log.h"
#include "esp_system.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"
#include "soc/soc.h"

#if CONFIG_IDF_TARGET_ESP32S2
#include "esp32s2/rom/usb/chip_usb_dw_wrapper.h"
#include "esp32s2/rom/usb/usb_persist.h"
#define EFUSE_CLOSES_USB ESP_EFUSE_DIS_USB_DOWNLOAD_MODE
#elif CONFIG_IDF_TARGET_ESP32S3
#include "esp32s3/rom/usb/chip_usb_dw_wrapper.h"
#include "esp32s3/rom/usb/usb_persist.h"
#define EFUSE_CLOSES_USB ESP_EFUSE_DIS_USB_OTG_DOWNLOAD_MODE
#elif CONFIG_IDF_TARGET_ESP32P4 || CONFIG_IDF_TARGET_ESP32S31
#include "soc/lp_system_reg.h"
#define EFUSE_CLOSES_USB ESP_EFUSE_DIS_USB_OTG_DOWNLOAD_MODE
#else
#error "esp_dfu_runtime: the ROM of this chip has no USB DFU"
#endif

#if CONFIG_IDF_TARGET_ESP32S2 || CONFIG_IDF_TARGET_ESP32S3
#include "soc/rtc_cntl_reg.h"
#include "soc/usb_wrap_reg.h"
#endif

#define FINISH_REQUEST_MS 50 // the host still has to fetch the status stage of DFU_DETACH
#define OFF_THE_BUS_MS 100   // long enough for any hub to report that the device is gone
#define STACK_BYTES 4096     // shutdown handlers of the app run on it

static const char *TAG = "esp_dfu_runtime";
static portMUX_TYPE s_lock = portMUX_INITIALIZER_UNLOCKED;
static bool s_restarting;

static bool closed_by_efuse(void)
{
    return esp_efuse_read_field_bit(ESP_EFUSE_DIS_DOWNLOAD_MODE)
           || esp_efuse_read_field_bit(ESP_EFUSE_ENABLE_SECURITY_DOWNLOAD)
           || esp_efuse_read_field_bit(EFUSE_CLOSES_USB);
}

/*
 * Write what the ROM reads after the reset. esp_restart() ends with a CPU reset, which keeps it; ESP-IDF's own USB
 * console relies on that.
 */
static void request_download_mode(void)
{
#if CONFIG_IDF_TARGET_ESP32S2 || CONFIG_IDF_TARGET_ESP32S3
    // tud_disconnect() holds D+ down by an override that the ROM does not take back: no host would see its DFU.
    REG_CLR_BIT(USB_WRAP_OTG_CONF_REG, USB_WRAP_PAD_PULL_OVERRIDE);
    // DFU mode at once, without a second DFU_DETACH. The ROM of ESP32-P4 and -S31 ignores these flags.
    chip_usb_dw_prepare_persist();
    chip_usb_set_persist_flags(USBDC_BOOT_DFU);
    REG_SET_BIT(RTC_CNTL_OPTION1_REG, RTC_CNTL_FORCE_DOWNLOAD_BOOT);
#else
    REG_SET_BIT(LP_SYSTEM_REG_SYS_CTRL_REG, LP_SYSTEM_REG_FORCE_DOWNLOAD_BOOT); // other bits are in use
#endif
}

static void restart_in_download_mode(void *unused)
{
    vTaskDelay(pdMS_TO_TICKS(FINISH_REQUEST_MS));
    if (tud_inited()) {
        tud_disconnect(); // the ROM of ESP32-S2 and -S3 does not do it
        vTaskDelay(pdMS_TO_TICKS(OFF_THE_BUS_MS));
    }
    request_download_mode();
    esp_restart();
}

esp_err_t esp_dfu_enter_download_mode(void)
{
    if (closed_by_efuse()) {
        // With the request set, the ROM would reset again and again, or wait on UART, until somebody cuts the power.
        ESP_LOGE(TAG, "an eFuse has closed download mode or its USB");
        return ESP_ERR_NOT_SUPPORTED;
    }
    portENTER_CRITICAL(&s_lock);
    const bool restarting = s_restarting;
    s_restarting = true;
    portEXIT_CRITICAL(&s_lock);
    if (restarting) {
        return ESP_OK;
    }
    ESP_LOGI(TAG, "restarting in download mode");
    const UBaseType_t priority = configMAX_PRIORITIES - 1; // a busy app cannot hold it up
    if (xTaskCreate(restart_in_download_mode, "dfu_restart", STACK_BYTES, NULL, priority, NULL) != pdPASS) {
        restart_in_download_mode(NULL); // no memory for a task: here, then
    }
    return ESP_OK;
}

#if CFG_TUD_DFU_RUNTIME
/* TinyUSB calls this from its own task, with the status stage of DFU_DETACH queued. */
void tud_dfu_runtime_reboot_to_dfu_cb(void)
{
    esp_dfu_enter_download_mode();
}
#endif
