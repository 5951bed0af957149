"""What one run measures with: the binaries, the folder for everything that is written, how long to measure."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREBUILT = ROOT / "examples-wasm" / "prebuilt"


class Bench:
    """One run."""

    def __init__(self, options, folder):
        self.folder = folder
        self.short = options.short
        self.replicas = options.replicas
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.wherry = options.binary or target / "release" / "wherry"
        if not self.wherry.exists():
            raise SystemExit(f"{self.wherry} does not exist: cargo build --release --locked, or --binary")
        self.wherry = self.wherry.resolve()
        self._target = target
        self._load = None

    @property
    def load(self):
        """The load generator; built on first use."""
        if self._load is None:
            build = ["cargo", "build", "--quiet", "--release", "--locked", "--example", "load"]
            subprocess.run(build, cwd=ROOT, check=True)
            self._load = self._target.resolve() / "release" / "examples" / "load"
        return self._load

    def rounds(self, usual):
        """How often a pair is measured."""
        return 1 if self.short else usual

    def seconds(self, usual):
        """How long one measurement lasts."""
        return max(1, usual / 4) if self.short else usual

    def dir(self, name):
        """A folder of its own, removed at the end."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path
