"""What the numbers were measured on and with."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from .bench import ROOT
from .table import say


def version(*command):
    """The first line of what a program says about itself; `None` without the program."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else None


def _field(path, key):
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def describe(bench):
    """Prints the machine and the versions."""
    commit = version("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or "unknown"
    size = bench.wherry.stat().st_size / 1e6
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9
    say(f"date      {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}")
    say(f"machine   {os.cpu_count()} cores ({_field('/proc/cpuinfo', 'model name')}), {memory:.0f} GB, Linux {platform.release()}")
    say(f"wherry    {version(str(bench.wherry), 'version')}, commit {commit}, {size:.0f} MB")
    say(f"rustc     {version('rustc', '--version')}")
    say(f"load1     {os.getloadavg()[0]:.2f} before the first measurement")
