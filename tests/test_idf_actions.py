"""How idf.py loads our actions: every route and every kind of version."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import esp_dfu_ext
from esp_dfu_ext import idf_actions, load_target
from esp_dfu_ext.idf_actions import _call
from esp_dfu_ext.simulator.sample import write_sample_project

from .kit.commands import CHECKOUT, IDF_PY, PACKAGE, idf_py

VERSIONS = ("5.5", "6.0", "6.2")
FOUND = 'Found Runtime: [303a:0009] ver=0728, devnum=2, cfg=1, intf=2, path="1-1", alt=0, name="UNKNOWN", '


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project [x]"
    write_sample_project(folder, load_target("esp32s3"))
    return folder


def site_packages(folder: Path, *, entry_point: bool) -> Path:
    """A folder for PYTHONPATH that looks as if the distribution were installed there, and nothing else."""
    folder.mkdir()
    (folder / "esp_dfu_ext").symlink_to(PACKAGE)
    (folder / "targets").symlink_to(CHECKOUT / "targets")
    if entry_point:
        info = folder / "esp_dfu_ext-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: esp-dfu-ext\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[idf_extension]\nesp_dfu_ext = esp_dfu_ext:action_extensions\n")
    return folder


def use_extra_checkout(project: Path, env: dict[str, str]) -> None:
    env["IDF_EXTRA_ACTIONS_PATH"] = str(CHECKOUT)


def use_extra_folder(project: Path, env: dict[str, str]) -> None:
    env["IDF_EXTRA_ACTIONS_PATH"] = str(PACKAGE / "extra_actions")


def use_project_in_place(project: Path, env: dict[str, str]) -> None:
    shutil.copy(CHECKOUT / "idf_ext.py", project)
    (project / "esp_dfu_ext").symlink_to(PACKAGE)
    (project / "targets").symlink_to(CHECKOUT / "targets")


def use_project_line(project: Path, env: dict[str, str]) -> None:
    (project / "idf_ext.py").write_text("from esp_dfu_ext import action_extensions\n")
    env["PYTHONPATH"] = str(site_packages(project.parent / "site-line", entry_point=False))


def use_entry_point(project: Path, env: dict[str, str]) -> None:
    env["PYTHONPATH"] = str(site_packages(project.parent / "site-entry", entry_point=True))


def use_component(project: Path, env: dict[str, str]) -> None:
    description = project / "build" / "project_description.json"
    text = description.read_text(encoding="utf-8")
    components = f'"build_component_info": {{"esp_dfu_ext": {{"dir": "{CHECKOUT}"}}}},'
    description.write_text(text.replace("{", "{" + components, 1), encoding="utf-8")


EVERYWHERE = (use_extra_checkout, use_extra_folder, use_project_in_place, use_project_line)
FROM_6_0 = (use_entry_point, use_component)


def idf_py_lists(project: Path, env: dict[str, str], version: str) -> None:
    done = idf_py(project, {**env, "ESP_DFU_SIMULATE": "esp32s3"}, version, "dfu-list")
    assert FOUND in done.stdout
    assert "built-in" not in done.stdout
    assert "arning" not in done.stdout + done.stderr.replace("warnings", "")
    assert (done.stderr, done.returncode) == ("", 0)


WAYS = [(version, way) for version in VERSIONS for way in EVERYWHERE + (FROM_6_0 if version >= "6" else ())]


@pytest.mark.parametrize(("version", "way"), WAYS, ids=lambda value: getattr(value, "__name__", value))
def test_every_route_loads_our_actions_silently(version: str, way: object, project: Path) -> None:
    env: dict[str, str] = {}
    assert callable(way)
    way(project, env)
    idf_py_lists(project, env, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_several_routes_at_once_are_silent(version: str, project: Path) -> None:
    env: dict[str, str] = {}
    use_component(project, env)
    use_entry_point(project, env)
    use_project_in_place(project, env)
    env["IDF_EXTRA_ACTIONS_PATH"] = f"{CHECKOUT};{PACKAGE / 'extra_actions'}"
    idf_py_lists(project, env, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_help_and_completion_work(version: str, project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    done = idf_py(project, env, version, "dfu-flash", "--help")
    assert done.returncode == 0
    assert "--wait" in done.stdout
    done = idf_py(
        project, {**env, "_IDF.PY_COMPLETE": "bash_complete", "COMP_WORDS": "idf.py dfu", "COMP_CWORD": "1"}, version
    )
    names = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert {"dfu", "dfu-list", "dfu-flash", "dfu-doctor"} <= names
    assert done.stderr == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_actions_are_added_without_built_in_ones(version: str, project: Path) -> None:
    env = {"FAKE_IDF_TARGETLESS": "1"}
    use_project_in_place(project, env)
    idf_py_lists(project, env, version)


def test_refused_actions_are_reported_once(project: Path) -> None:
    env = {"FAKE_IDF_COPY": "1"}
    use_entry_point(project, env)
    done = idf_py(project, env, "6.2", "dfu-list")
    assert "built-in dfu-list" in done.stdout
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert "IDF_EXTRA_ACTIONS_PATH" in lines[0]
    # What the line says works there.
    folder = lines[0].rpartition(" ")[2]
    idf_py_lists(project, {**env, "IDF_EXTRA_ACTIONS_PATH": folder}, "6.2")
    # And nothing is said where no action of ours is asked for.
    assert idf_py(project, env, "6.2", "flash").stderr == ""


def test_own_idf_ext_of_project_is_loaded_too(project: Path) -> None:
    (project / "idf_ext.py").write_text(
        "def action_extensions(base, path):\n"
        "    return {'version': '1', 'actions': {'mine': {'callback': lambda *a: print('mine!')}}}\n"
    )
    for version in VERSIONS:
        done = idf_py(project, {"IDF_EXTRA_ACTIONS_PATH": str(CHECKOUT)}, version, "mine")
        assert "mine!" in done.stdout
        assert done.stderr == ""


# --- loading never breaks idf.py --------------------------------------------------------------------------

BREAKERS = {
    "no-pyusb": "import sys; sys.modules['usb'] = None",
    "no-dependency-at-all": "import sys\nfor name in ('usb', 'yaml', 'msgspec', 'rich'): sys.modules[name] = None",
    "our-module-is-broken": "import sys; sys.modules['esp_dfu_ext.idf_actions'] = None",
}


@pytest.mark.parametrize("breaker", BREAKERS, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", [use_extra_folder, use_project_in_place], ids=lambda way: way.__name__)
def test_loading_never_breaks_idf_py(breaker: str, version: str, way: object, project: Path) -> None:
    env: dict[str, str] = {}
    assert callable(way)
    way(project, env)
    hook = project.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(BREAKERS[breaker])
    env["PYTHONPATH"] = str(hook)
    done = idf_py(project, env, version, "flash")
    assert "built-in flash" in done.stdout
    assert done.returncode == 0


def test_build_works_without_pyusb(project: Path) -> None:
    hook = project.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(BREAKERS["no-pyusb"])
    env = {"PYTHONPATH": str(hook)}
    use_extra_folder(project, env)
    done = idf_py(project, env, "6.0", "dfu")
    assert done.returncode == 0, done.stderr
    assert (project / "build" / "dfu.bin").is_file()
    done = idf_py(project, env, "6.0", "dfu-flash")
    assert done.returncode == 72
    assert "-m pip install pyusb libusb-package" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_yaml_fails_only_our_action(project: Path) -> None:
    (project / "dfu_targets").mkdir()
    (project / "dfu_targets" / "esp32s3.yaml").write_text("schema: [")
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    assert idf_py(project, env, "6.0", "flash").returncode == 0
    done = idf_py(project, env, "6.0", "dfu")
    assert done.returncode == 65
    assert "esp32s3.yaml" in done.stderr
    assert "Traceback" not in done.stderr


FORBIDDEN = """
import pathlib
iterdir = pathlib.Path.iterdir
def refuse(path):
    if path.name == "dfu_targets":
        raise PermissionError(13, "Permission denied", str(path))
    return iterdir(path)
pathlib.Path.iterdir = refuse
"""


def test_unreadable_chip_folder_has_no_traceback(project: Path) -> None:
    (project / "dfu_targets").mkdir()
    hook = project.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(FORBIDDEN)
    env = {"PYTHONPATH": str(hook)}
    use_extra_folder(project, env)
    done = idf_py(project, env, "6.0", "dfu")
    assert done.returncode == 65
    assert "dfu_targets cannot be read: Permission denied. [target-file]" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "built-in all" not in done.stdout


@pytest.mark.parametrize(
    ("action", "option", "code"),
    [("dfu-list", "--json", 141), ("dfu-doctor", "--json", 141), ("dfu-flash", "--simulate", 0)],
)
def test_closed_pipe_has_no_traceback(action: str, option: str, code: int, project: Path) -> None:
    esp_dfu_ext.build(project / "build")
    env = {"ESP_DFU_SIMULATE": "esp32s3", "FAKE_IDF_VERSION": "6.0", "PYTHONPATH": "", "PYTHONUNBUFFERED": ""}
    use_extra_folder(project, env)
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, str(IDF_PY), action, option],
        cwd=project, env={**os.environ, **env}, stdout=write_end, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(write_end)
        # The reader takes what idf.py says before the action, and leaves.
        with os.fdopen(read_end, "rb", buffering=0) as reader:
            assert reader.readline() == f"Executing action: {action}\n".encode()
        _, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (code, "")


def test_loading_imports_few_modules() -> None:
    code = (
        "import sys; before = set(sys.modules); import esp_dfu_ext; "
        "from esp_dfu_ext.idf_actions import action_extensions; action_extensions({'actions': {}}, '.'); "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=60
    )
    assert done.stdout.split() == [
        "__future__",
        "esp_dfu_ext",
        "esp_dfu_ext.commands",
        "esp_dfu_ext.commands.options",
        "esp_dfu_ext.idf_actions",
        "esp_dfu_ext.versions",
    ]


def built_in() -> dict[str, Any]:
    return {"actions": {"dfu": {"callback": print, "dependencies": ["all"]}, "flash": {}}}


def test_all_actions_are_put_in_place_and_no_others_returned() -> None:
    """What is returned would be in another panel of --help than what is in place."""
    base = built_in()
    returned = idf_actions.action_extensions(base, ".")
    assert sorted(base["actions"]) == ["dfu", "dfu-doctor", "dfu-flash", "dfu-list", "flash"]
    assert all(idf_actions._is_ours(base["actions"][name]) for name in idf_actions._NAMES)
    assert "actions" not in returned
    again = idf_actions.action_extensions(base, ".")
    assert again == {"version": "1"}


@pytest.mark.parametrize("version", [(3, 7, 16), (3, 8, 18)])
def test_old_python_keeps_built_in_actions(version: tuple[int, ...], project: Path) -> None:
    hook = project.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(f"import sys\nif 'idf_py.py' in sys.argv[0]: sys.version_info = {version}\n")
    env = {"IDF_EXTRA_ACTIONS_PATH": f"{CHECKOUT};{PACKAGE / 'extra_actions'}", "PYTHONPATH": str(hook)}
    done = idf_py(project, env, "5.5", "dfu-list")
    assert "built-in dfu-list" in done.stdout
    assert re.fullmatch(
        r"esp-dfu-ext needs Python 3\.9 or newer, and ESP-IDF uses \S+: idf\.py runs its own dfu actions\.\n",
        done.stderr,
    )
    assert idf_py(project, env, "5.5", "flash").stderr == ""


# --- before the build -------------------------------------------------------------------------------------


@pytest.fixture
def unconfigured(project: Path) -> Path:
    shutil.rmtree(project / "build")
    (project / "sdkconfig").unlink()
    (project / "CMakeLists.txt").write_text("include($ENV{IDF_PATH}/tools/cmake/project.cmake)\nproject(x)\n")
    return project


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("words", [["dfu"], ["dfu", "dfu-flash"], ["dfu-flash"]])
def test_unconfigured_project_is_refused_before_build(version: str, words: list[str], unconfigured: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(unconfigured, env)
    done = idf_py(unconfigured, env, version, *words)
    assert ("built-in all" in done.stdout, done.returncode) == (False, 65)
    assert "has no target chip yet; idf.py would build it for ESP-IDF's default. [no-target]" in done.stderr
    assert "Chips with USB DFU: esp32p4, esp32s2, esp32s3" in done.stderr
    assert re.search("> Choose the chip .*: idf.py set-target CHIP\n", done.stderr)


def test_damaged_build_folder_is_left_to_the_build(project: Path) -> None:
    (project / "CMakeLists.txt").write_text("project(x)\n")
    (project / "build" / "project_description.json").write_text("{")
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    assert "built-in all" in idf_py(project, env, "5.5", "dfu").stdout


CHOSEN: dict[str, Callable[[Path, dict[str, str], str], list[str]]] = {
    "set-target": lambda folder, env, chip: ["set-target", chip],
    "-D": lambda folder, env, chip: [f"-DIDF_TARGET={chip}"],
    "-D with type": lambda folder, env, chip: [f"-DIDF_TARGET:STRING={chip}"],
    "environment": lambda folder, env, chip: env.update(IDF_TARGET=chip) or [],
    "sdkconfig": lambda folder, env, chip: write(folder, "sdkconfig", chip),
    "sdkconfig.defaults": lambda folder, env, chip: write(folder, "sdkconfig.defaults", chip),
    "-D SDKCONFIG": lambda folder, env, chip: [f"-DSDKCONFIG={folder}/own", *write(folder, "own", chip)],
    "-D SDKCONFIG_DEFAULTS": lambda folder, env, chip: [
        "-DSDKCONFIG_DEFAULTS=a;b", *write(folder, "a", ""), *write(folder, "b", chip)
    ],
    "SDKCONFIG_DEFAULTS": lambda folder, env, chip: env.update(SDKCONFIG_DEFAULTS="b") or write(folder, "b", chip),
}  # fmt: skip


def write(folder: Path, name: str, chip: str) -> list[str]:
    (folder / name).write_text(f'CONFIG_A=y\nCONFIG_IDF_TARGET="{chip}"\n' if chip else "")
    return []


@pytest.mark.parametrize("how", CHOSEN)
def test_project_with_chosen_chip_is_configured(how: str, unconfigured: Path) -> None:
    for chip, code in (("esp32s2", None), ("esp32c3", 65)):
        env: dict[str, str] = {}
        words = CHOSEN[how](unconfigured, env, chip)
        use_extra_folder(unconfigured, env)
        done = idf_py(unconfigured, env, "6.0", *words, "dfu")
        refused = code is not None and how != "set-target"  # which checks the chip by itself
        assert ("built-in all" in done.stdout) != refused, done.stderr
        assert ("esp32c3 is not supported" in done.stderr) == refused
        assert "no-target" not in done.stderr


@pytest.mark.parametrize("name", ["CMakeLists.txt", "CMakePresets.json"])
def test_project_that_may_choose_by_itself_is_configured(name: str, unconfigured: Path) -> None:
    (unconfigured / name).write_text('set(IDF_TARGET "esp32s3")\n')
    env: dict[str, str] = {}
    use_extra_folder(unconfigured, env)
    assert "built-in all" in idf_py(unconfigured, env, "6.0", "dfu").stdout


NO_EFFECT = "warning: -p /dev/ttyX has no effect on a dfu-flash of several boards or a simulated one"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (["-p", "/dev/ttyX", "dfu-flash", "--simulate"], {}, True),
        (["-p", "/dev/ttyX", "dfu", "dfu-flash", "--simulate"], {}, True),
        (["-p", "/dev/ttyX", "set-target", "esp32s3", "dfu-flash", "--simulate"], {}, True),
        (["-p", "/dev/ttyX", "dfu-flash", "--all"], {}, True),
        (["dfu-flash", "--simulate"], {"ESPPORT": "/dev/ttyX"}, False),
        (["dfu-flash"], {"ESPPORT": "/dev/null"}, False),
        (["dfu-flash", "--all"], {"ESPPORT": "/dev/ttyX"}, False),
        (["-p", "/dev/ttyX", "dfu-flash", "--simulate", "monitor"], {}, False),
        (["-p", "/dev/ttyX", "dfu-list"], {}, False),
    ],
)
def test_serial_port_without_effect_is_named(
    version: str, words: list[str], env: dict[str, str], said: bool, project: Path
) -> None:
    esp_dfu_ext.build(project / "build")
    env = {**env, "ESP_DFU_SIMULATE": "esp32s3"}
    use_extra_folder(project, env)
    done = idf_py(project, env, version, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(NO_EFFECT) == said
    assert len(done.stderr.splitlines()) == said


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["-p", "/dev/ttyX", "dfu-flash", "--over", "serial"], {}),
        (["dfu-flash", "--over", "serial", "--port", "/dev/ttyX"], {}),
        (["dfu-flash", "--over", "serial"], {"ESPPORT": "/dev/ttyX"}),
        (["-p", "/dev/ttyX", "dfu-flash"], {}),
        (["dfu-flash", "--port", "/dev/ttyX"], {}),
        (["-p", "/dev/ttyX", "dfu-flash"], {"ESPPORT": "/dev/ttyY"}),
    ],
)
def test_port_of_idf_py_is_that_of_the_board(
    version: str, words: list[str], env: dict[str, str], project: Path
) -> None:
    esp_dfu_ext.build(project / "build")
    env = dict(env)
    use_extra_folder(project, env)
    done = idf_py(project, env, version, *words)
    assert (done.returncode, "no effect" in done.stderr) == (69, False)
    assert "No serial port /dev/ttyX found." in done.stderr


# --- the actions in a project -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_dfu_and_dfu_flash_run_in_one_call(version: str, project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    done = idf_py(project, env, version, "dfu-flash", "--simulate", "dfu", "--part-size", "64K")
    assert (done.returncode, done.stderr) == (0, "")
    order = [line for line in done.stdout.splitlines() if line.startswith("Executing")]
    assert order == ["Executing action: all", "Executing action: dfu", "Executing action: dfu-flash"]
    assert "Wrote" in done.stdout
    assert "The simulated flash memory (218.2 KiB) matches the image" in done.stdout


def test_chip_without_dfu_is_refused_before_build(project: Path) -> None:
    sdkconfig = project / "build" / "project_description.json"
    sdkconfig.write_text(sdkconfig.read_text().replace('"esp32s3"', '"esp32c3"'))
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    for action in ("dfu", "dfu-flash"):
        done = idf_py(project, env, "6.0", action)
        assert done.returncode == 65
        assert "built-in all" not in done.stdout
        assert "esp32c3 is not supported" in done.stderr
        assert "idf.py flash" in done.stderr


def test_dfu_list_works_outside_project(tmp_path: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3,esp32s2"}
    use_extra_folder(tmp_path, env)
    done = idf_py(tmp_path, env, "6.0", "dfu-list")
    assert done.stdout.count("Found Runtime:") == 2
    assert done.returncode == 0


DOORS = {
    use_extra_checkout: f"loaded by IDF_EXTRA_ACTIONS_PATH, {CHECKOUT}",
    use_extra_folder: f"loaded by IDF_EXTRA_ACTIONS_PATH, {PACKAGE / 'extra_actions'}",
    use_project_in_place: "loaded by idf_ext.py of the project, ",
    use_project_line: "/idf_ext.py, which imports the installed package",
    use_entry_point: "loaded by the entry point of esp-dfu-ext ",
    use_component: f"loaded by a component of the project, {CHECKOUT}",
}


def doctor(project: Path, env: dict[str, str], version: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = idf_py(project, env, version, "dfu-doctor", "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout.partition("Executing action: dfu-doctor\n")[2].rpartition("}")[0] + "}")
    return done.returncode, {fact["topic"]: fact for fact in document["facts"]}


@pytest.mark.parametrize(("version", "way"), WAYS, ids=lambda value: getattr(value, "__name__", value))
def test_doctor_names_route(version: str, way: Callable[..., None], project: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3"}
    way(project, env)
    _, facts = doctor(project, env, version)
    assert DOORS[way] in facts["plugin"]["text"]
    assert facts["actions"]["text"] == "idf.py runs dfu, dfu-list, dfu-flash, dfu-doctor of esp-dfu-ext"
    assert facts["dfu.bin"]["code"] == "input-missing"


def test_doctor_names_every_route(project: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3"}
    use_component(project, env)
    use_extra_folder(project, env)
    _, facts = doctor(project, env, "6.0")
    assert facts["plugin"]["text"].endswith(
        f"{PACKAGE / 'extra_actions'}, and by a component of the project, {CHECKOUT}"
    )


TAKES_BACK = """
def action_extensions(base, path):
    for name in ("dfu", "dfu-list", "dfu-flash"):
        base["actions"][name]["callback"] = print
    return {"version": "1"}
"""


def test_doctor_reports_refused_actions(project: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3"}
    use_extra_folder(project, env)
    (project / "idf_ext.py").write_text(TAKES_BACK)
    code, facts = doctor(project, env, "6.2")
    assert code == 1
    assert (facts["actions"]["code"], facts["actions"]["text"]) == (
        "actions-refused",
        "idf.py runs its own dfu, dfu-list, dfu-flash",
    )
    advice = idf_py(project, env, "6.2", "dfu-doctor").stderr
    folder = shlex.quote(str(PACKAGE / "extra_actions"))
    assert f"  > export IDF_EXTRA_ACTIONS_PATH={folder}\n" in advice


def test_doctor_names_mistyped_build_folder(project: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3"}
    use_extra_folder(project, env)
    shutil.rmtree(project / "build")
    assert "[input-missing]" not in idf_py(project, env, "6.0", "dfu-doctor").stdout  # not built yet
    done = idf_py(project, env, "6.0", "-B", "biuld", "dfu-doctor")
    assert done.returncode == 1
    assert f"The build folder {project / 'biuld'} does not exist. [input-missing]" in done.stdout
    assert "  > Check its name.\n" in done.stderr


@pytest.mark.parametrize("breaker", ["no-pyusb", "no-dependency-at-all"])
def test_doctor_works_outside_project_without_packages(breaker: str, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(BREAKERS[breaker])
    env = {"PYTHONPATH": str(hook)}
    use_extra_folder(tmp_path, env)
    done = idf_py(tmp_path, env, "6.0", "dfu-doctor")
    assert "Traceback" not in done.stderr
    assert "-m pip install " in done.stderr
    assert done.returncode == (72 if breaker == "no-dependency-at-all" else 1)


def test_dfu_flash_refuses_image_for_other_chip(project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    other = write_sample_project(project.parent / "other", load_target("esp32s2"))
    assert idf_py(other.parent, env, "6.0", "dfu").returncode == 0
    shutil.copy(other / "dfu.bin", project / "build")
    done = idf_py(project, {**env, "ESP_DFU_SIMULATE": "esp32s2"}, "6.0", "dfu-flash")
    assert done.returncode == 65
    assert "is for esp32s2, but the target is esp32s3" in done.stderr


def test_dfu_flash_without_image_names_build_action(project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    done = idf_py(project, env, "6.0", "dfu-flash")
    assert done.returncode == 66
    assert "Create it: idf.py dfu" in done.stderr


def test_dfu_flash_watches_and_reports(project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    idf_py(project, env, "6.0", "dfu")
    done = idf_py(project, env, "6.0", "dfu-flash", "--simulate", "--watch", "--count", "1", "--report", "r.jsonl")
    assert done.returncode == 0, done.stderr
    assert "\nPASS  1-1  " in done.stdout
    (report,) = Path(project, "r.jsonl").read_text(encoding="ascii").splitlines()
    assert '"result":"pass"' in report


def test_dfu_flash_warns_of_old_image(project: Path) -> None:
    env: dict[str, str] = {}
    use_extra_folder(project, env)
    idf_py(project, env, "6.0", "dfu")
    with (project / "build" / "hello_world.bin").open("ab") as app:
        app.write(b"changed")
    done = idf_py(project, env, "6.0", "dfu-flash", "--simulate")
    assert done.returncode == 0
    assert "dfu.bin is outdated: it holds another version of hello_world.bin." in done.stderr
    assert "idf.py dfu" in done.stderr


@pytest.mark.parametrize("action", ["dfu-list", "dfu-flash", "dfu-doctor"])
def test_actions_write_trace(action: str, project: Path) -> None:
    env = {"ESP_DFU_SIMULATE": "esp32s3"}
    use_extra_folder(project, env)
    if action == "dfu-flash":
        idf_py(project, env, "6.0", "dfu")
    idf_py(project, env, "6.0", action, "--trace", "option.txt")
    idf_py(project, {**env, "ESP_DFU_TRACE": "variable.txt"}, "6.0", action)
    for name in ("option.txt", "variable.txt"):
        trace = (project / name).read_text(encoding="utf-8")
        assert "  scan  " in trace
        assert ("DFU_DNLOAD" in trace) == (action == "dfu-flash")


@pytest.mark.parametrize("ends", [0, 3, KeyboardInterrupt(), BrokenPipeError(), ImportError("x")], ids=repr)
def test_ctrl_c_reaches_action_and_idf_py_has_its_handler_back(ends: int | BaseException) -> None:
    """ESP-IDF up to 5.0 ignores SIGINT."""
    during = []

    def action() -> int:
        during.append(signal.getsignal(signal.SIGINT))
        if isinstance(ends, BaseException):
            raise ends
        return ends

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.nullcontext() if ends == 0 else pytest.raises(SystemExit):
            _call(action)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert during == [signal.default_int_handler]
