/* scenarios SCENARIO [EFUSE] */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "esp_dfu_runtime.h"
#include "esp_idf.h"

int main(int argc, char **argv)
{
    const char *scenario = argv[1];
    burned_efuse = argc > 2 ? argv[2] : "";
    usb_started = strcmp(scenario, "without-usb") != 0;
    task_memory = strcmp(scenario, "without-memory") != 0;

    if (strcmp(scenario, "descriptor") == 0) {
        const uint8_t descriptor[] = {ESP_DFU_RUNTIME_DESCRIPTOR(2, 4)};
        _Static_assert(sizeof(descriptor) == ESP_DFU_RUNTIME_DESC_LEN, "length");
        fwrite(descriptor, 1, sizeof(descriptor), stdout);
        return 0;
    }
    if (strcmp(scenario, "detach") == 0) {
        tud_dfu_runtime_reboot_to_dfu_cb();
        puts("callback returned");
        tud_dfu_runtime_reboot_to_dfu_cb(); // the host may ask twice
    } else {
        printf("returned 0x%X\n", esp_dfu_enter_download_mode());
    }
    run_tasks();
    return 0;
}
