"""The load generator of benches/load: the same client for every server."""

import json
import subprocess


def _run(bench, *arguments):
    command = [str(argument) for argument in (bench.load, *arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"load {arguments[0]}: {done.stderr}")
    return json.loads(done.stdout)


def _at(api, namespace, clients):
    return [*api.arguments(), "--namespace", namespace, "--clients", clients]


def create(bench, api, namespace, clients, count, size):
    return _run(bench, "create", *_at(api, namespace, clients), "--count", count, "--size", size)


def get(bench, api, namespace, clients, count, seconds):
    return _run(bench, "get", *_at(api, namespace, clients), "--count", count, "--seconds", seconds)


def patch(bench, api, namespace, clients, count, seconds):
    return _run(bench, "patch", *_at(api, namespace, clients), "--count", count, "--seconds", seconds)


def watch(bench, api, namespace, watchers, rounds):
    """A "request" is a write until all watchers were told of it."""
    return _run(bench, "watch", *_at(api, namespace, watchers), "--rounds", rounds)


def list_all(bench, api, namespace, clients, query, seconds):
    return _run(bench, "list", *_at(api, namespace, clients), f"--query={query}", "--seconds", seconds)


def paced(bench, urls, rate, seconds):
    """What was seen of each URL."""
    return [one["seen"] for one in _run(bench, "paced", "--rate", rate, "--seconds", seconds, *urls)]
