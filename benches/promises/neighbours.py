"""Ten components at once: one loops, one allocates without end, one floods its log; the other seven should not notice.

The seven are asked at a fixed rate, each by a client of its own, before the three start and while they run. Time counts
from when a request was due. The load generator shares the machine with the loop, so what it waits for a core is in the
numbers too."""

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
    rows = [_row(name, b, d, a) for name, b, d, a in zip(names, before, during, after)]
    rows.append(["median", *[ms(median([run[f] for run in runs])) for f in ("p50_ms", "p99_ms") for runs in (before, during, after)], times(median([d["p99_ms"] / b["p99_ms"] for b, d in zip(before, during)])), ""])
    show(["component", "p50 before", "during", "after", "p99 before", "during", "after", "p99 during/before", "failed"], rows)
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


def _row(name, before, during, after):
    cells = [ms(run[field]) for field in ("p50_ms", "p99_ms") for run in (before, during, after)]
    failed = sum(sum(run["failed"].values()) for run in (before, during, after))
    return [name, *cells, times(during["p99_ms"] / before["p99_ms"]), number(failed)]
