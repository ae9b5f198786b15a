#pragma once
#include <stdint.h>
void chip_usb_dw_prepare_persist(void);
void chip_usb_set_persist_flags(uint32_t flags);
