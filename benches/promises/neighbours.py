"""Ten components at once: one loops, one allocates without end, one floods its log; the other seven should not notice.

The seven are asked at a fixed rate, each by a client of its own, before the three start and while they run. Time counts
from when a request was due. The load generator shares the machine with the loop, so what it waits for a core is in the
numbers too.

Beside them stands what the kernel alone makes of busy cores: the same seven while a process of its idle class, which is
none of Wherry's, keeps each core busy. Better than that no server can be on this machine."""

import contextlib
import os
import subprocess
import time

from support import load, memory
from support.bench import PREBUILT
from support.process import wait
from support.table import mb, median, ms, number, say, show, times
from support.wherry import Wherry, deployment, node_port

TITLE = "Ten components at once"

GOOD = 7
RATE = 50
SECONDS = 20
PORT = 30200
BAD = ["loop", "allocate", "flood"]
FIELDS = ("p50_ms", "p99_ms")


def run(bench):
    seconds = bench.seconds(SECONDS)
    with Wherry(bench, "neighbours") as wherry:
        names = [f"good-{n}" for n in range(1, GOOD + 1)]
        for n, name in enumerate(names):
            wherry.apply(deployment(name, PREBUILT / "hello-http.wasm"), node_port(name, PORT + n))
        for name in names:
            wherry.wait_ready(name)
        urls = [f"http://127.0.0.1:{PORT + n}/" for n in range(GOOD)]
        load.paced(bench, urls, RATE, 2)
        before = load.paced(bench, urls, RATE, seconds)
        with _busy_cores():
            beside = load.paced(bench, urls, RATE, seconds)
        for what in BAD:
            wherry.apply(deployment(what, PREBUILT / "misbehave.wasm", args=[what]))
        wait("the three misbehave", lambda: _misbehave(wherry), 60)
        during = load.paced(bench, urls, RATE, seconds)
        three = [_story(wherry, what) for what in BAD]
        resident = memory.usage(wherry.pid)["Rss"]
        for what in BAD:
            wherry.scale(what, 0)
        wait("the three are gone", lambda: not any(wherry.pods(f"app={what}") for what in BAD), 60)
        time.sleep(2)
        after = load.paced(bench, urls, RATE, seconds)
    say(f"{RATE} requests/s to each of {GOOD}, for {seconds:.0f} s\n")
    phases = (before, beside, during, after)
    rows = [_row(name, runs) for name, *runs in zip(names, *phases)]
    rows.append(_medians(phases))
    columns = ["before", "busy cores", "during", "after"]
    heads = [*(f"p50 {column}" for column in columns), *(f"p99 {column}" for column in columns)]
    show(["component", *heads, "p99 during/before", "during/busy cores", "failed"], rows)
    show(["the others", "what became of it"], three, words=2)
    say(f"The process had {mb(resident)} resident while they ran.")


def _misbehave(wherry):
    """All three have run."""
    states = [_status(wherry, what) for what in BAD]
    return all(state.get("restartCount", 0) > 0 or "running" in state.get("state", {}) for state in states)


def _status(wherry, name):
    statuses = [pod.get("status", {}).get("containerStatuses") for pod in wherry.pods(f"app={name}")]
    return statuses[0][0] if statuses and statuses[0] else {}


def _story(wherry, name):
    status = _status(wherry, name)
    now = next(iter(status.get("state", {})), "unknown")
    reason = status.get("state", {}).get(now, {}).get("reason", "")
    last = status.get("lastState", {}).get("terminated", {})
    ended = f"; last ended {last.get('reason')} with code {last.get('exitCode')}" if last else ""
    return [name, f"{now}{reason and ' '}{reason}, restarted {status.get('restartCount', 0)} times{ended}"]


@contextlib.contextmanager
def _busy_cores():
    """A process per core that computes without rest, in the kernel's idle class."""
    give_way = lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=give_way) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _row(name, runs):
    _, beside, during, _ = runs
    ratios = [times(during["p99_ms"] / other["p99_ms"]) for other in (runs[0], beside)]
    failed = sum(sum(run["failed"].values()) for run in runs)
    return [name, *(ms(run[field]) for field in FIELDS for run in runs), *ratios, number(failed)]


def _medians(phases):
    """Of the seven components."""
    cells = [ms(median([run[field] for run in runs])) for field in FIELDS for runs in phases]
    before, beside, during, _ = ([run["p99_ms"] for run in runs] for runs in phases)
    ratios = [times(median([d / o for d, o in zip(during, other)])) for other in (before, beside)]
    return ["median", *cells, *ratios, ""]
