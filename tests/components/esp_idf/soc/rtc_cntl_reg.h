#pragma once
#if CONFIG_IDF_TARGET_ESP32S2
#define RTC_CNTL_OPTION1_REG 0x3F408128
#elif CONFIG_IDF_TARGET_ESP32S3
#define RTC_CNTL_OPTION1_REG 0x6000812C
#else
#error "this chip has another register for it"
#endif
#define RTC_CNTL_FORCE_DOWNLOAD_BOOT BIT(0)
