"""The API server and its store: durable creates and patches, gets, LISTs of 10,000 objects of 1 KB, and one write told to
1,000 watchers, each with a connection of its own, until the last one has it.

Both servers run at the same time and are asked in turn by the same client; only one is asked at a time. A create is
acknowledged after it is on disk. A plain LIST is as current as the store; with resourceVersion=0 a server may answer from
its cache, which is how controllers start."""

from support import load, memory
from support.peers import KubeApiserver
from support.table import mb, median, ms, number, ratio, say, show, spread, times
from support.wherry import Wherry

TITLE = "The API"

CLIENTS = 32
LISTERS = 4
OBJECTS = 10_000
WATCHERS = 1000
WRITES = 50
SIZE = 1024
ROUNDS = 3
SECONDS = 8
WATCHED = f"a write told to {WATCHERS:,} watchers"
QUERIES = {"LISTs/s": "", "LISTs/s, resourceVersion=0": "?resourceVersion=0"}


def run(bench):
    peer = KubeApiserver.find(bench)
    with Wherry(bench, "api") as wherry:
        if peer is None:
            _show({"wherry": _Server(bench, wherry.api, [wherry.pid])}, bench)
            return
        with peer:
            servers = {"wherry": _Server(bench, wherry.api, [wherry.pid])}
            servers["kube-apiserver"] = _Server(bench, peer.api, [peer.pid("apiserver"), peer.pid("etcd")])
            _show(servers, bench)


class _Server:
    """One server, the processes that it is, and what was seen of it."""

    def __init__(self, bench, api, pids):
        self.bench, self.api, self.pids = bench, api, pids
        self.seen, self.peaks, self.before = {}, {}, {}

    def measure(self, what, action):
        for pid in self.pids:
            memory.forget_peak(pid)
        self.before.setdefault(what, memory.total(self.pids, "Rss"))
        self.seen.setdefault(what, []).append(action())
        self.peaks.setdefault(what, []).append(sum(memory.peak(pid) for pid in self.pids))

    def rates(self, what):
        return [run["per_second"] for run in self.seen[what]]

    def create(self, turn):
        namespace = f"creates-{turn}"
        self.api.ensure_namespace(namespace)
        count = self.bench.rounds(5) * 2000
        self.measure("creates/s", lambda: load.create(self.bench, self.api, namespace, CLIENTS, count, SIZE))

    def fill(self):
        self.api.ensure_namespace("many")
        load.create(self.bench, self.api, "many", CLIENTS, OBJECTS, SIZE)

    def get(self):
        seconds = self.bench.seconds(SECONDS)
        self.measure("gets/s", lambda: load.get(self.bench, self.api, "many", CLIENTS, OBJECTS, seconds))

    def patch(self):
        seconds = self.bench.seconds(SECONDS)
        self.measure("patches/s", lambda: load.patch(self.bench, self.api, "many", CLIENTS, OBJECTS, seconds))

    def watch(self, turn):
        namespace = f"watched-{turn}"
        self.api.ensure_namespace(namespace)
        self.measure(WATCHED, lambda: load.watch(self.bench, self.api, namespace, WATCHERS, WRITES))

    def list(self, what):
        seconds = self.bench.seconds(SECONDS)
        self.measure(what, lambda: load.list_all(self.bench, self.api, "many", LISTERS, QUERIES[what], seconds))


def _show(servers, bench):
    for turn in range(bench.rounds(ROUNDS)):
        for server in servers.values():
            server.create(turn)
    for server in servers.values():
        server.fill()
    for _ in range(bench.rounds(ROUNDS)):
        for server in servers.values():
            server.get()
        for what in QUERIES:
            for server in servers.values():
                server.list(what)
    for turn in range(bench.rounds(ROUNDS)):
        for server in servers.values():
            server.patch()
        for server in servers.values():
            server.watch(turn)
    say(f"{CLIENTS} clients ({LISTERS} for LISTs), HTTP/1.1 over TLS, {bench.rounds(ROUNDS)} runs each: medians (and extremes)\n")
    rows = [row for what in servers["wherry"].seen for row in _rows(servers, what)]
    show(["what", "server", "per second", "p50", "p99", "failed", "ratio", "RSS before", "peak RSS"], rows, words=2)
    size = servers["wherry"].seen["LISTs/s"][0]["bytes_per_answer"]
    say(f"A LIST is {size / 1e6:.1f} MB of Wherry's. The kube-apiserver's memory is its own and etcd's.")


def _rows(servers, what):
    rows = []
    for name, server in servers.items():
        runs = server.seen[what]
        digits = 1 if what.startswith("LIST") else 0
        quantiles = [ms(median([run[q] for run in runs])) for q in ("p50_ms", "p99_ms")]
        failed = number(sum(sum(run["failed"].values()) for run in runs))
        compared = times(ratio(server.rates(what), servers["kube-apiserver"].rates(what))) if name == "wherry" and len(servers) > 1 else ""
        rows.append([what if not rows else "", name, spread(server.rates(what), digits), *quantiles, failed, compared, mb(server.before[what]), mb(max(server.peaks[what]))])
    return rows
