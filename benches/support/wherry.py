"""`wherry up` in a folder of its own."""

import base64
import json
import os
import re
import subprocess

from .api import Api
from .process import Started, free_port, wait


class Wherry:
    """A running Wherry. Use as a context manager."""

    def __init__(self, bench, name):
        self.bench = bench
        self.folder = bench.dir(name)
        self.data = self.folder / "data"
        self.api = None
        self._started = None

    def __enter__(self):
        port = free_port()
        command = [self.bench.wherry, "up", "--data-dir", self.data, "--listen", f"127.0.0.1:{port}", "--quiet"]
        environment = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "WHERRY_DATA_DIR", "WHERRY_LOG")}
        self._started = Started(command, self.folder / "log", env=environment)
        try:
            wait("Wherry is ready", lambda: self._look(port))
        except BaseException:
            print(self._started.tail())
            self._started.stop()
            raise
        return self

    def __exit__(self, *_):
        self._started.stop()

    @property
    def pid(self):
        return self._started.pid

    @property
    def kubeconfig(self):
        return self.data / "admin.kubeconfig"

    def _look(self, port):
        if not self._started.alive():
            raise RuntimeError(f"`wherry up` ended:\n{self._started.tail()}")
        if not self.kubeconfig.exists():
            return False
        if self.api is None:
            text = self.kubeconfig.read_text(encoding="utf-8")
            field = lambda name: base64.b64decode(re.search(rf'{name}-data"?: *"?([A-Za-z0-9+/=]+)', text).group(1))
            ca, identity = self.folder / "ca.pem", self.folder / "admin.pem"
            ca.write_bytes(field("certificate-authority"))
            identity.write_bytes(field("client-certificate") + b"\n" + field("client-key"))
            self.api = Api("127.0.0.1", port, ca, identity=identity)
        return self.api.ready()

    def apply(self, *documents):
        """`wherry apply` of these objects: images that are paths are packaged and pushed."""
        path = self.folder / "manifest.yaml"
        # JSON is YAML.
        path.write_text("\n---\n".join(json.dumps(document) for document in documents), encoding="utf-8")
        command = [str(self.bench.wherry), "apply", "--kubeconfig", str(self.kubeconfig), "-f", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"wherry apply: {done.stdout}\n{self._started.tail()}")

    def deployment(self, name):
        return self.api.get(f"/apis/apps/v1/namespaces/default/deployments/{name}")

    def scale(self, name, replicas):
        self.api.merge(f"/apis/apps/v1/namespaces/default/deployments/{name}", {"spec": {"replicas": replicas}})

    def wait_ready(self, name, seconds=120):
        """Until all copies are ready and counted."""

        def ready():
            deployment = self.deployment(name)
            status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
            seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
            return seen and status.get("readyReplicas", 0) == wanted == status.get("replicas", 0)

        wait(f"deployment {name} is ready", ready, seconds)

    def pods(self, selector=""):
        return self.api.get(f"/api/v1/namespaces/default/pods?labelSelector={selector}")["items"]

    def metrics(self):
        """The numbers of /metrics: name with labels to value."""
        found = {}
        for line in self.api.raw("GET", "/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                found[name] = float(value)
        return found


def deployment(name, component, replicas=1, args=None, memory="64Mi", port=8080, annotations=None):
    """A Deployment of one of the example components."""
    container = {
        "name": "main",
        "image": str(component),
        # A request of its own: it would be the limit otherwise, and the node full of promises.
        "resources": {"requests": {"memory": "1Mi"}, "limits": {"memory": memory}},
        "ports": [{"name": "http", "containerPort": port}],
    }
    if args:
        container["args"] = args
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations or {}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
            },
        },
    }


def node_port(name, port):
    """A Service for it, reachable at 127.0.0.1:`port`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": port}],
        },
    }
