#pragma once
#include <stdint.h>
#define BIT(n) (1UL << (n))
uint32_t register_read(uint32_t address);
void register_write(uint32_t address, uint32_t value);
#define REG_READ(address) register_read(address)
#define REG_WRITE(address, value) register_write((address), (value))
#define REG_SET_BIT(address, bits) register_write((address), register_read(address) | (bits))
#define REG_CLR_BIT(address, bits) register_write((address), register_read(address) & ~(uint32_t)(bits))
