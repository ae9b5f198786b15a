/* What a scenario sets before it calls a component. */
#pragma once
#include <stdbool.h>

extern const char *burned_efuse;       // name of the eFuse field that reads 1
extern bool usb_started, task_memory;  // is TinyUSB installed; is there memory for a task

void run_tasks(void);                  // run the task that xTaskCreate() was given
