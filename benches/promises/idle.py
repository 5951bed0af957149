"""The control plane and the node, idle: what the process holds before any pod.

PSS counts a page shared with other processes once over all of them, so it can be added up. Of the peers, the API server
and its store are measured here; a whole Kubernetes node has a controller manager, a scheduler and a kubelet besides."""

import time

from support import memory
from support.peers import KubeApiserver
from support.table import mb, say, show
from support.wherry import Wherry

TITLE = "Idle memory"

# After the start's work is done and its memory is back.
SETTLE = 10


def run(bench):
    peer = KubeApiserver.find(bench)
    rows = []
    with Wherry(bench, "idle") as wherry:
        time.sleep(bench.seconds(SETTLE))
        rows.append(_row("wherry up (server, store, controllers, scheduler, node)", wherry.pid))
        places = memory.by_place(wherry.pid)
        metrics = wherry.metrics()
    if peer:
        with peer:
            time.sleep(bench.seconds(SETTLE))
            rows += [_row(name, peer.pid(name)) for name in ("apiserver", "etcd")]
    show(["process", "PSS", "RSS", "anonymous", "threads", "descriptors"], rows)
    say("Where Wherry's resident memory is:\n")
    show(["place", "RSS"], [[place, mb(size)] for place, size in sorted(places.items(), key=lambda p: -p[1])])
    stored = {name: value for name, value in metrics.items() if name.startswith("apiserver_storage_objects{") and value}
    say(f"{sum(stored.values()):.0f} objects of {len(stored)} kinds are stored.")


def _row(name, pid):
    used = memory.usage(pid)
    cells = [mb(used[field]) for field in ("Pss", "Rss", "Pss_Anon")]
    return [name, *cells, memory.threads(pid), memory.descriptors(pid)]
