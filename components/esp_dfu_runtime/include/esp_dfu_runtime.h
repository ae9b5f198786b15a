/*
 * SPDX-FileCopyrightText: 2026 the authors of esp-dfu-ext
 * SPDX-License-Identifier: Apache-2.0
 *
 * From a running app into the DFU of the chip's ROM, without buttons.
 */
#pragma once

#include "esp_err.h"
#include "tusb.h"

#ifdef __cplusplus
extern "C" {
#endif

#if CFG_TUD_DFU_RUNTIME // CONFIG_TINYUSB_DFU_MODE_DFU_RUNTIME=y

/** Bytes that ESP_DFU_RUNTIME_DESCRIPTOR adds to a configuration descriptor. */
#define ESP_DFU_RUNTIME_DESC_LEN TUD_DFU_RT_DESC_LEN

/**
 * @brief DFU run-time interface for a configuration descriptor: one interface, no endpoint.
 *
 * Attributes, detach time-out (ms) and wTransferSize (bytes) are those of the ROM's own functional descriptor.
 *
 * @param interface  Number of the interface in the configuration.
 * @param string     Index of its string descriptor, or 0.
 */
#define ESP_DFU_RUNTIME_DESCRIPTOR(interface, string)                                                                  \
    TUD_DFU_RT_DESCRIPTOR(interface, string,                                                                           \
                          (DFU_ATTR_CAN_DOWNLOAD | DFU_ATTR_CAN_UPLOAD | DFU_ATTR_MANIFESTATION_TOLERANT |             \
                           DFU_ATTR_WILL_DETACH),                                                                      \
                          700, 64)

#endif

/**
 * @brief Leave the USB bus and restart the chip in download mode, with its DFU interface on USB.
 *
 * DFU_DETACH from a host calls this. An app may call it too, upon a command or a button of its own. It returns at once;
 * the restart follows after 150 ms, so that a USB request that is under way can end. Call it from a task, not from an
 * interrupt. Later calls change nothing.
 *
 * The chip stays in download mode over each reset but those that clear its always-on registers: power-on, the EN pin,
 * the RTC watchdog with the action "reset RTC".
 *
 * @return
 *     - ESP_OK: the chip is going to restart.
 *     - ESP_ERR_NOT_SUPPORTED: an eFuse has closed the ROM's download mode or its USB; the app goes on.
 */
esp_err_t esp_dfu_enter_download_mode(void);

#ifdef __cplusplus
}
#endif
