"""What a project's security features mean for USB DFU."""

from __future__ import annotations

import pytest

from esp_dfu_ext.image.security import Security

BOOT, ENCRYPTION = "CONFIG_SECURE_BOOT", "CONFIG_SECURE_FLASH_ENC_ENABLED"
SECURE_MODE = "CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE"
NO_DOWNLOAD_MODE = "CONFIG_SECURE_DISABLE_ROM_DL_MODE"
OPEN = "CONFIG_SECURE_INSECURE_ALLOW_DL_MODE"


def of(*options: str) -> Security:
    return Security.of({"CONFIG_IDF_TARGET": "esp32s3", **dict.fromkeys(options, "y")})


def test_without_options_everything_is_unknown() -> None:
    assert Security.of({}) == Security(None, None, None)
    assert (Security.of({}).features, Security.of({}).consequence) == ((), "")
    assert of() == Security(secure_boot=False, flash_encryption=False, closes_dfu=None)
    assert of().consequence == ""


@pytest.mark.parametrize("option", [SECURE_MODE, NO_DOWNLOAD_MODE])
@pytest.mark.parametrize("feature", [BOOT, ENCRYPTION])
def test_closed_download_mode_closes_dfu(option: str, feature: str) -> None:
    assert of(feature, option).closes_dfu is True
    assert of(feature, option).consequence.endswith("its first boot closes USB DFU permanently.")


@pytest.mark.parametrize(("feature", "image"), [(BOOT, "unsigned"), (ENCRYPTION, "unencrypted")])
def test_open_download_mode_takes_image_that_does_not_boot(feature: str, image: str) -> None:
    security = of(feature, OPEN)
    assert security.closes_dfu is False
    assert f"still accepts an {image} image and reports OK, but does not boot it" in security.consequence
    assert "permanently" not in security.consequence
    unknown = of(feature).consequence
    assert "usually, its first boot closes USB DFU permanently" in unknown and f"an {image} image" in unknown


def test_encrypted_files_show_encryption_alone() -> None:
    assert of(BOOT).encrypted().features == ("Secure Boot", "flash encryption")
    assert Security().encrypted() == Security(None, flash_encryption=True)
