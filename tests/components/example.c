/* example TEXT: the example app starts, TEXT comes in on its serial port; its descriptors go to the file `descriptors`. */
#include <stdio.h>
#include <string.h>

#include "esp_idf.h"
#include "esp_dfu_runtime.h"
#include "tinyusb.h"
#include "tinyusb_cdc_acm.h"

void app_main(void);

static const char *received;
static void (*on_received)(int itf, cdcacm_event_t *event);

static void save(FILE *file, const unsigned char *configuration)
{
    if (configuration) {
        fwrite(configuration, 1, configuration[2] | configuration[3] << 8, file);
    }
}

esp_err_t tinyusb_driver_install(const tinyusb_config_t *config)
{
    FILE *file = fopen("descriptors", "wb");
    save(file, config->descriptor.full_speed_config);
    save(file, config->descriptor.high_speed_config);
    fclose(file);
    return ESP_OK;
}

esp_err_t tinyusb_cdcacm_init(const tinyusb_config_cdcacm_t *config)
{
    on_received = config->callback_rx;
    return ESP_OK;
}

esp_err_t tinyusb_cdcacm_read(tinyusb_cdcacm_itf_t itf, uint8_t *data, size_t size, size_t *length)
{
    (void)itf;
    *length = strlen(received) < size ? strlen(received) : size;
    memcpy(data, received, *length);
    received += *length;
    return ESP_OK;
}

size_t tinyusb_cdcacm_write_queue(tinyusb_cdcacm_itf_t itf, const uint8_t *data, size_t length)
{
    printf("echo %d %.*s\n", itf, (int)length, (const char *)data);
    return length;
}

esp_err_t tinyusb_cdcacm_write_flush(tinyusb_cdcacm_itf_t itf, uint32_t ticks)
{
    (void)itf, (void)ticks;
    return ESP_OK;
}

int main(int argc, char **argv)
{
    received = argc > 1 ? argv[1] : "";
    app_main();
    on_received(TINYUSB_CDC_ACM_0, NULL);
    run_tasks();
    return 0;
}
