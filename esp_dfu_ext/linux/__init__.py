"""Linux only: `machine` reads sysfs, device nodes, groups, processes; `udev` knows rules; `install` adds ours."""
