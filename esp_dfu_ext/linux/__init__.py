"""Linux only: `machine` reads sysfs, device nodes, groups and processes; `udev` reads rules; `install` adds ours."""
