#pragma once
#include "tinyusb.h"
#define TINYUSB_DEFAULT_CONFIG() ((tinyusb_config_t){.descriptor = {0, 0}})
