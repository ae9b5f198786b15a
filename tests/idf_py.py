"""A stand-in for idf.py that loads, rejects and calls extensions as ESP-IDF 5.x, 6.0 and master do.

Run as a script, it is `idf.py`. Environment variables choose the variant:

    FAKE_IDF_VERSION   5.5, 6.0 or 6.2
    FAKE_IDF_COPY      1: pass a copy of the actions to extensions, as a later version might
    FAKE_IDF_TARGETLESS  1: without built-in dfu actions, as up to 5.5 for targets without DFU

The actions are real click commands made from idf.py's own keys; an unknown key raises TypeError.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Callable

import click

VERSION = tuple(int(part) for part in os.environ.get("FAKE_IDF_VERSION", "6.0").split("."))


class FatalError(RuntimeError):
    pass


def warning(text: str) -> None:
    print(text, file=sys.stderr)


def built_in(base_actions: dict[str, Any], project_path: str) -> dict[str, Any]:
    def callback(target_name: str, ctx: Any, args: Any, **options: Any) -> None:
        print(f"built-in {target_name}")

    path = {"names": ["--path"], "default": "", "help": "Path of the device"}
    part_size = {"names": ["--part-size"], "help": "Size of parts"}
    actions: dict[str, Any] = {
        "all": {"callback": callback, "aliases": ["build"], "short_help": "Build the project."},
        "menuconfig": {"callback": callback, "short_help": "Run the configuration tool."},
        "reconfigure": {"callback": callback, "short_help": "Run CMake again."},
        "flash": {"callback": callback, "short_help": "Flash the project."},
        "monitor": {
            "callback": lambda target_name, ctx, args, **options: None,
            "short_help": "Display serial output.",
            "options": [{"names": ["-p", "--port"]}],
        },
        "set-target": {
            "callback": callback,
            "short_help": "Set the target.",
            "arguments": [{"names": ["idf-target"]}],
        },
    }
    if not os.environ.get("FAKE_IDF_TARGETLESS"):
        actions |= {
            "dfu": {
                "callback": callback,
                "short_help": "Build the DFU binary",
                "dependencies": ["all"],
                "options": [part_size],
            },
            "dfu-list": {"callback": callback, "short_help": "List DFU capable devices", "dependencies": []},
            "dfu-flash": {
                "callback": callback,
                "short_help": "Flash the DFU binary",
                "order_dependencies": ["dfu"],
                "options": [path],
            },
        }
    if VERSION >= (6, 2):
        for action in actions.values():
            action["check"] = lambda *args: True
    return {
        "global_options": [
            {"names": ["-C", "--project-dir"], "default": os.getcwd()},
            {"names": ["-B", "--build-dir"], "default": None},
            {"names": ["-p", "--port"], "envvar": "ESPPORT", "default": None},
            {"names": ["-D", "--define-cache-entry"], "multiple": True},
            {"names": ["-v", "--verbose"], "is_flag": True},
        ],
        "actions": actions,
    }


def merge(*lists: dict[str, Any], custom: dict[str, Any] | None = None) -> dict[str, Any]:
    merged: dict[str, Any] = {"global_options": [], "actions": {}, "global_action_callbacks": []}
    for one in lists:
        merged["global_options"].extend(one.get("global_options", []))
        merged["actions"].update(one.get("actions", {}))
        merged["global_action_callbacks"].extend(one.get("global_action_callbacks", []))
    if custom is not None:
        if "version" not in custom:
            raise AttributeError("the extension has no version")
        for name, action in custom.get("actions", {}).items():
            if name in merged["actions"]:
                warning(f"WARNING: Action '{name}' already defined. External action will not be added.")
            else:
                merged["actions"][name] = action
        merged["global_action_callbacks"].extend(custom.get("global_action_callbacks", []))
    return merged


def handed_over(actions: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(actions) if os.environ.get("FAKE_IDF_COPY") else actions


def load(project_dir: str, build_dir: str) -> dict[str, Any]:
    actions = merge(built_in({}, project_dir))
    extra = os.environ.get("IDF_EXTRA_ACTIONS_PATH")
    modules = []
    for folder in extra.split(";") if extra else []:
        folder = os.path.realpath(folder)
        sys.path.append(folder)
        for _finder, name, _is_package in sorted(iter_modules([folder]), key=lambda item: item[1]):
            if name.endswith("_ext"):
                modules.append((name, import_module(name)))
    for name, module in modules:
        try:
            actions = merge(actions, module.action_extensions(handed_over(actions), project_dir))
        except AttributeError:
            warning(f'WARNING: Cannot load idf.py extension "{name}"')
    return (load_5 if VERSION < (6, 0) else load_6)(actions, project_dir, build_dir)


def load_5(actions: dict[str, Any], project_dir: str, build_dir: str) -> dict[str, Any]:
    if os.path.exists(os.path.join(project_dir, "idf_ext.py")):
        sys.path.append(project_dir)
        try:
            from idf_ext import action_extensions
        except ImportError:
            warning("Error importing extension file idf_ext.py. Skipping.")
        else:
            actions = merge(actions, action_extensions(handed_over(actions), project_dir))
    return actions


def load_6(actions: dict[str, Any], project_dir: str, build_dir: str) -> dict[str, Any]:
    folders = []
    description = Path(build_dir, "project_description.json")
    if description.exists():
        components = json.loads(description.read_text(encoding="utf-8")).get("build_component_info", {})
        folders = [component["dir"] for component in components.values()]
    for folder in [*folders, project_dir]:
        file = os.path.join(folder, "idf_ext.py")
        if not os.path.exists(file):
            continue
        name = f"idf_ext_{os.path.basename(folder)}"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            actions = merge(actions, custom=module.action_extensions(handed_over(actions), project_dir))
        except Exception as error:
            warning(f'WARNING: Cannot load directory extension from "{folder}": {error}')
    # Only those of PYTHONPATH: what else is installed in the tests' environment must not help.
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    found = (
        entry_point for dist in importlib.metadata.distributions(path=folders) for entry_point in dist.entry_points
    )
    for entry_point in (entry_point for entry_point in found if entry_point.group == "idf_extension"):
        if entry_point.value == "idf_ext:action_extensions":
            warning(f'Entry point "{entry_point.name}" has the value "{entry_point.value}"')
        try:
            actions = merge(actions, custom=entry_point.load()(handed_over(actions), project_dir))
        except Exception as error:
            warning(f'WARNING: Cannot load entry point extension "{entry_point.name}": {error}')
    return actions


class Arguments(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class Task:
    def __init__(self, callback: Callable[..., Any], name: str, action: Action, options: dict[str, Any]) -> None:
        self.callback = callback
        self.name = name
        self.dependencies = action.dependencies
        self.order_dependencies = action.order_dependencies
        self.action_args = options


class Action(click.Command):
    def __init__(
        self,
        name: str,
        callback: Callable[..., Any],
        aliases: list[str] | None = None,
        dependencies: list[str] | None = None,
        order_dependencies: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if VERSION >= (6, 2):
            kwargs.pop("check", None)

        self.unwrapped_callback = callback

        def make_task(**options: Any) -> Task:
            return Task(callback, name, self, options)

        super().__init__(name, callback=make_task, **kwargs)
        self.dependencies = dependencies or []
        self.order_dependencies = order_dependencies or []


def option(names: list[str], **kwargs: Any) -> click.Option:
    return click.Option(names, **kwargs)


class Cli(click.Group):
    def __init__(self, actions: dict[str, Any]) -> None:
        super().__init__("idf.py", chain=True, invoke_without_command=True, result_callback=self.execute)
        self.callbacks = actions["global_action_callbacks"]
        for settings in actions["global_options"]:
            self.params.append(option(**settings))
        for name, settings in actions["actions"].items():
            arguments, options = settings.pop("arguments", []), settings.pop("options", [])
            command = Action(name, **settings)
            command.params += [click.Argument(argument["names"]) for argument in arguments]
            command.params += [option(**settings) for settings in options]
            self.add_command(command)
            for alias in settings.get("aliases", []):
                self.add_command(command, alias)

    def execute(self, tasks: list[Task], **options: Any) -> None:
        context = click.get_current_context()
        arguments = Arguments(options)
        arguments["project_dir"] = os.path.realpath(arguments["project_dir"])
        arguments["build_dir"] = os.path.realpath(
            arguments["build_dir"] or os.path.join(arguments["project_dir"], "build")
        )
        for callback in self.callbacks:
            callback(context, arguments, tasks)
        order: dict[str, Task] = {}
        for task in tasks:
            for name in task.dependencies:
                if name not in order and name not in [t.name for t in tasks]:
                    command = self.get_command(context, name)
                    assert command is not None
                    order[name] = context.invoke(command)
            order[task.name] = task
        for name in sorted(
            order, key=lambda name: any(name in t.order_dependencies for t in order.values()), reverse=True
        ):
            print(f"Executing action: {name}", flush=True)
            order[name].callback(name, context, arguments, **order[name].action_args)
        print("Done")


def main() -> None:
    # Must not find the checkout that the tests' environment has installed in place.
    sys.path[:] = [folder for folder in sys.path if not os.path.exists(os.path.join(folder, "idf_ext.py"))]
    project_dir = sys.argv[sys.argv.index("-C") + 1] if "-C" in sys.argv else os.getcwd()
    build_dir = sys.argv[sys.argv.index("-B") + 1] if "-B" in sys.argv else os.path.join(project_dir, "build")
    cli = Cli(load(os.path.realpath(project_dir), os.path.realpath(build_dir)))
    try:
        cli(prog_name="idf.py", complete_var="_IDF.PY_COMPLETE")
    except FatalError as error:
        print(error)
        sys.exit(2)


if __name__ == "__main__":
    main()
