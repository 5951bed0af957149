"""HTTP through a Service: a NodePort of 127.0.0.1, against `wasmtime serve` of the same component on the same engine.

Runs alternate (Wherry, peer, Wherry, peer …) and both reuse instances alike, so a ratio compares neighbours in time. The
load tool has a thread of its own and shares the machine with what it measures."""

import urllib.request

from support import wrk
from support.bench import PREBUILT
from support.peers import WasmtimeServe
from support.process import wait
from support.table import ms, median, number, ratio, say, show, spread, times
from support.wherry import Wherry, deployment, node_port

TITLE = "Requests per second through a Service"

ENGINE = "48."
CONNECTIONS = 32
ROUNDS = 5
SECONDS = 8

# Component, requests per instance in its life and at once: a 0.2 component serves one; a 0.3 component many.
CASES = [
    ("hello-http", "WASI 0.2, a new instance per request", 1, 1, 30180),
    ("hello-http-p3", "WASI 0.3, 128 requests per instance, 16 at once", 128, 16, 30181),
]


def run(bench):
    if not wrk.present():
        say("not measured: wrk is missing (Debian: apt-get install wrk)")
        return
    program = WasmtimeServe.find(ENGINE)
    for replicas in (1, 3):
        say(f"{CONNECTIONS} connections, {replicas} {'copy' if replicas == 1 else 'copies'}; medians (and extremes) of {bench.rounds(ROUNDS)} runs of {bench.seconds(SECONDS):.0f} s\n")
        rows = []
        for name, what, reuse, concurrent, port in CASES:
            rows += _case(bench, program, replicas, f"{name} ({what})", PREBUILT / f"{name}.wasm", reuse, concurrent, port)
        show(["component", "server", "requests/s", "p50", "p99", "bad", "ratio of requests/s"], rows, words=2)


def _case(bench, program, replicas, title, component, reuse, concurrent, port):
    name = component.stem
    with Wherry(bench, f"service-{name}-{replicas}") as wherry:
        annotations = {"wherry.dev/instance-reuse": str(reuse)}
        wherry.apply(deployment(name, component, replicas=replicas, annotations=annotations), node_port(name, port))
        wherry.wait_ready(name)
        urls = {"wherry": f"http://127.0.0.1:{port}/"}
        if program is None:
            return _rows(title, _measure(bench, urls))
        with WasmtimeServe(bench, program, component, reuse, concurrent) as peer:
            urls["wasmtime serve"] = f"http://127.0.0.1:{peer.port}/"
            return _rows(title, _measure(bench, urls))


def _measure(bench, urls):
    for url in urls.values():
        wait(f"{url} answers", lambda url=url: _answers(url), 30)
        wrk.run(url, 2, CONNECTIONS)
    seen = {server: [] for server in urls}
    for _ in range(bench.rounds(ROUNDS)):
        for server, url in urls.items():
            seen[server].append(wrk.run(url, bench.seconds(SECONDS), CONNECTIONS))
    return seen


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.read().startswith(b"Hello from")
    except OSError:
        return False


def _rows(title, seen):
    rows = []
    of = lambda server, field: [run[field] for run in seen.get(server, [])]
    for server in seen:
        row = [title if not rows else "", server, spread(of(server, "rps")), ms(median(of(server, "p50"))), ms(median(of(server, "p99")))]
        compared = times(ratio(of(server, "rps"), of("wasmtime serve", "rps"))) if server == "wherry" else ""
        rows.append([*row, number(sum(of(server, "bad"))), compared])
    return rows
