"""Many copies of hello-http on one node: how long until all are Ready, and what each one costs in memory.

The first time includes packaging, pushing, pulling and compiling the component; the second, after all were deleted, has
it cached. Every pod is then asked once over its own address. Memory per pod is what the process grew by, divided by the
number of pods: all copies of a pod's objects in store, caches, controllers and node are in it."""

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor

from support import memory
from support.bench import PREBUILT
from support.process import wait
from support.table import kb, mb, number, say, show
from support.wherry import Wherry, deployment

TITLE = "Pods: applied to all Ready"

SETTLE = 10


def run(bench):
    count = bench.replicas
    with Wherry(bench, "pods") as wherry:
        time.sleep(bench.seconds(SETTLE))
        before, places, numbers = memory.usage(wherry.pid), memory.by_place(wherry.pid), wherry.metrics()

        first = _timed(lambda: _start(wherry, count), wherry)
        at_once = memory.usage(wherry.pid)
        time.sleep(bench.seconds(SETTLE))
        settled, grown, counted = memory.usage(wherry.pid), memory.by_place(wherry.pid), wherry.metrics()
        stored = _stored(wherry)

        answered = _ask_each(wherry)
        served = memory.usage(wherry.pid)
        gone = _timed(lambda: _stop(wherry), wherry)
        again = _timed(lambda: _restart(wherry, count), wherry)
        time.sleep(bench.seconds(SETTLE))
        end = memory.usage(wherry.pid)
    say("peer: none that starts pods here; a kubelet with containerd and its Wasm shim would be one\n")
    _show_times(count, {"applied: packaged, pushed, compiled, started": first, "scaled to none": gone, "scaled up again, image cached": again})
    say(f"{answered} of {count} pods answered a request at their own address.\n")
    _show_memory(count, before, {"all just Ready": at_once, f"{bench.seconds(SETTLE):.0f} s later": settled, "each answered once": served, "after the second time": end})
    _show_places(count, places, grown)
    _show_numbers(count, numbers, counted, stored)


def _timed(action, wherry):
    """Seconds of the clock, and of this process's CPU."""
    began, cpu = time.monotonic(), _cpu(wherry.pid)
    action()
    return time.monotonic() - began, _cpu(wherry.pid) - cpu


def _cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _start(wherry, count):
    wherry.apply(deployment("hello", PREBUILT / "hello-http.wasm", replicas=count))
    wherry.wait_ready("hello", 600)


def _stop(wherry):
    wherry.scale("hello", 0)
    wait("all pods are gone", lambda: not wherry.pods("app=hello"), 600)


def _restart(wherry, count):
    wherry.scale("hello", count)
    wherry.wait_ready("hello", 600)


def _ask_each(wherry):
    """How many pods answer with their own name."""
    pods = wherry.pods("app=hello")

    def asks(pod):
        try:
            connection = http.client.HTTPConnection(pod["status"]["podIP"], 8080, timeout=10)
            connection.request("GET", "/")
            return pod["metadata"]["name"] in connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return False

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(asks, pods))


def _stored(wherry):
    """Bytes of the pods' objects as the API sends them, and of everything else that is per pod."""
    kinds = {"pods": "/api/v1/pods", "events": "/api/v1/events", "endpoints": "/api/v1/endpoints"}
    kinds["endpointslices"] = "/apis/discovery.k8s.io/v1/endpointslices"
    found = {}
    for kind, path in kinds.items():
        text = wherry.api.raw("GET", path)
        found[kind] = (len(json.loads(text)["items"]), len(text))
    return found


def _show_times(count, steps):
    rows = [[what, f"{took:.2f} s", number(count / took, 0), f"{1000 * cpu / count:.2f} ms"] for what, (took, cpu) in steps.items()]
    show([f"{count:,} pods", "time", "pods/s", "CPU per pod"], rows)


def _show_memory(count, before, moments):
    rows = [["before", mb(before["Rss"]), mb(before["Pss_Anon"]), "", ""]]
    for moment, used in moments.items():
        grown = [kb((used[field] - before[field]) / count) for field in ("Rss", "Pss_Anon")]
        rows.append([moment, mb(used["Rss"]), mb(used["Pss_Anon"]), *grown])
    show(["the process", "RSS", "anonymous", "RSS per pod", "anonymous per pod"], rows)


def _show_places(count, before, after):
    say("Where the memory went:\n")
    grown = {place: after.get(place, 0) - before.get(place, 0) for place in {*before, *after}}
    rows = [[place, mb(before.get(place, 0)), mb(after.get(place, 0)), kb(size / count)] for place, size in sorted(grown.items(), key=lambda p: -p[1])]
    show(["place", "before", "after", "per pod"], rows)


def _show_numbers(count, before, after, stored):
    say("Objects, as the API sends them:\n")
    rows = [[kind, f"{objects:,}", f"{size:,}", kb(size / 1024 / count)] for kind, (objects, size) in stored.items()]
    show(["kind", "objects", "bytes", "per pod"], rows)
    grown = {name: value - before.get(name, 0) for name, value in after.items() if name.startswith(("wherry_store", "wherry_cache", "process_"))}
    rows = [[name, f"{before.get(name, 0):,.0f}", f"{after[name]:,.0f}", f"{size / count:,.2f}"] for name, size in sorted(grown.items()) if size]
    if rows:
        say("What the process says of itself:\n")
        show(["/metrics", "before", "after", "per pod"], rows)
