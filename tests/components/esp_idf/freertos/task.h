#pragma once
#include "freertos/FreeRTOS.h"
typedef void *TaskHandle_t;
typedef void (*TaskFunction_t)(void *);
BaseType_t xTaskCreate(TaskFunction_t function, const char *name, uint32_t stack_bytes, void *argument,
                       UBaseType_t priority, TaskHandle_t *created);
void vTaskDelay(TickType_t ticks);
