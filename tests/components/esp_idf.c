/* ESP-IDF and TinyUSB as far as components/ calls them: each call and each changed register is a line on stdout. */
#include "esp_idf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "esp_efuse.h"
#include "esp_system.h"
#include "freertos/task.h"
#include "soc/soc.h"
#include "tusb.h"
#if CONFIG_IDF_TARGET_ESP32S2 || CONFIG_IDF_TARGET_ESP32S3
#include "soc/usb_wrap_reg.h"
#endif

const char *burned_efuse = "";
bool usb_started = true, task_memory = true;

static struct { uint32_t address, value; } registers[8];
static TaskFunction_t task;
static int locked;

static unsigned register_at(uint32_t address)
{
    unsigned i = 0;
    while (registers[i].address && registers[i].address != address) {
        i++;
    }
    if (!registers[i].address) {
        registers[i].address = address;
        registers[i].value = 0xA0A0A7F8; // bits that are in use, and not ours
    }
    return i;
}

uint32_t register_read(uint32_t address) { return registers[register_at(address)].value; }

void register_write(uint32_t address, uint32_t value)
{
    const uint32_t before = register_read(address);
    registers[register_at(address)].value = value;
    printf("register 0x%08" PRIX32 " set 0x%" PRIX32, address, value & ~before);
    printf(" cleared 0x%" PRIX32 "\n", before & ~value);
}

#define FIELD(name) const esp_efuse_desc_t *ESP_EFUSE_##name[] = {&(const esp_efuse_desc_t){#name}, NULL}
FIELD(DIS_DOWNLOAD_MODE);
FIELD(ENABLE_SECURITY_DOWNLOAD);
#if CONFIG_IDF_TARGET_ESP32S2
FIELD(DIS_USB_DOWNLOAD_MODE);
#else
FIELD(DIS_USB_OTG_DOWNLOAD_MODE);
#endif

bool esp_efuse_read_field_bit(const esp_efuse_desc_t *field[]) { return strcmp(field[0]->name, burned_efuse) == 0; }

void portENTER_CRITICAL(portMUX_TYPE *lock)
{
    (void)lock;
    locked++;
}

void portEXIT_CRITICAL(portMUX_TYPE *lock)
{
    (void)lock;
    locked--;
}

static void check_unlocked(void)
{
    if (locked) {
        puts("called with interrupts off");
    }
}

BaseType_t xTaskCreate(TaskFunction_t function, const char *name, uint32_t stack_bytes, void *argument,
                       UBaseType_t priority, TaskHandle_t *created)
{
    (void)name, (void)argument, (void)priority, (void)created;
    check_unlocked();
    if (!task_memory || stack_bytes < 4096) {
        return 0;
    }
    if (task) {
        puts("a second task");
    }
    task = function;
    return pdPASS;
}

void run_tasks(void)
{
    if (task) {
        puts("task");
        task(NULL);
        puts("the task returned");
    }
}

void vTaskDelay(TickType_t ticks)
{
    check_unlocked();
    printf("delay %" PRIu32 " ms\n", ticks * 1000 / configTICK_RATE_HZ);
}

bool tud_inited(void) { return usb_started; }

bool tud_disconnect(void)
{
    puts(usb_started ? "tud_disconnect" : "tud_disconnect without TinyUSB");
#if CONFIG_IDF_TARGET_ESP32S2 || CONFIG_IDF_TARGET_ESP32S3
    REG_SET_BIT(USB_WRAP_OTG_CONF_REG, USB_WRAP_PAD_PULL_OVERRIDE); // as TinyUSB's driver does on these chips
#endif
    return true;
}

void chip_usb_dw_prepare_persist(void) { puts("chip_usb_dw_prepare_persist"); }
void chip_usb_set_persist_flags(uint32_t flags) { printf("chip_usb_set_persist_flags 0x%" PRIX32 "\n", flags); }

void esp_restart(void)
{
    check_unlocked();
    puts("esp_restart");
    exit(0);
}
