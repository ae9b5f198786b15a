#pragma once
#if CONFIG_IDF_TARGET_ESP32P4
#define LP_SYSTEM_REG_SYS_CTRL_REG 0x50110008
#elif CONFIG_IDF_TARGET_ESP32S31
#define LP_SYSTEM_REG_SYS_CTRL_REG 0x20700008
#else
#error "this chip has another register for it"
#endif
#define LP_SYSTEM_REG_FORCE_DOWNLOAD_BOOT BIT(2)
