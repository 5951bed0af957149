"""The peers: started like Wherry, in the same run, or absent with a word on how to get them."""

import os
import shutil
import subprocess
from pathlib import Path

from .api import Api
from .machine import version
from .process import Started, free_port, wait
from .table import say

API_PEER = "KUBE_APISERVER_PEER"


class KubeApiserver:
    """A real kube-apiserver on etcd, run by the script that $KUBE_APISERVER_PEER names: `up DIR` starts both, listening on
    https://127.0.0.1:16443 with the administrator's token tok-admin; `down DIR` ends both."""

    def __init__(self, bench):
        self.script = os.environ[API_PEER]
        self.folder = bench.dir("kube-apiserver")
        self.api = None

    @staticmethod
    def find(bench):
        if os.environ.get(API_PEER):
            return KubeApiserver(bench)
        say(f"peer: none; ${API_PEER} names no script that starts a kube-apiserver\n")
        return None

    def __enter__(self):
        subprocess.run([self.script, "up", str(self.folder)], check=True)
        certificate = self.folder / "certs" / "apiserver.crt"
        self.api = Api("127.0.0.1", 16443, certificate, token="tok-admin")
        wait("kube-apiserver is ready", self.api.ready)
        say(f"peer: kube-apiserver {self.api.get('/version')['gitVersion']} on {version('etcd', '--version')}\n")
        return self

    def __exit__(self, *_):
        subprocess.run([self.script, "down", str(self.folder)], check=False)

    def pid(self, name):
        return int((self.folder / f"{name}.pid").read_text(encoding="ascii"))


class WasmtimeServe:
    """`wasmtime serve` of one component."""

    HOW = "cargo install wasmtime-cli --version 48.0.8 --locked"

    def __init__(self, bench, program, component, reuse, concurrent):
        self.port = free_port()
        command = [program, "serve", "-Scli", "--addr", f"127.0.0.1:{self.port}", "--env", "HOSTNAME=a-pod-of-wasmtime-serve"]
        command += [f"--max-instance-reuse-count={reuse}", f"--max-instance-concurrent-reuse-count={concurrent}"]
        self._started = Started([*command, component], bench.dir("wasmtime") / "log")

    @staticmethod
    def find(wanted):
        """The program, and its version if it is the wanted engine's."""
        for program in (os.environ.get("WASMTIME"), shutil.which("wasmtime"), str(Path.home() / ".cargo/bin/wasmtime")):
            if program and Path(program).exists():
                found = version(program, "--version")
                note = "" if wanted in found else f" (Wherry's engine is {wanted}: not the same)"
                say(f"peer: {found}{note}\n")
                return program
        say(f"peer: none; {WasmtimeServe.HOW}, or $WASMTIME\n")
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._started.stop()
