#pragma once
#include <stdbool.h>
#include "esp_efuse_table.h"
bool esp_efuse_read_field_bit(const esp_efuse_desc_t *field[]);
