"""HTTP load with wrk."""

import re
import shutil
import subprocess

SCALE = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


def present():
    return shutil.which("wrk") is not None


def run(url, seconds, connections=32):
    """Requests per second, latencies in milliseconds, and how many answers were bad."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", url]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    lost = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "p50": _quantile(text, 50),
        "p99": _quantile(text, 99),
        "bad": (int(bad.group(1)) if bad else 0) + (sum(map(int, lost.groups())) if lost else 0),
    }


def _quantile(text, percent):
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found.group(1)) * SCALE[found.group(2)] if found else None
