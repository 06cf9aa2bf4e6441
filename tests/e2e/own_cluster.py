"""A cluster of a phase's own, with settings of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import Cluster

READY_SECONDS_MAX = 90
STOP_SECONDS_MAX = 15


class OwnCluster:
    """`mcpnode dev --processes` in a directory of its own, until it is stopped. `settings` are environment variables."""

    def __init__(self, tools, replicas, settings):
        self.dir = Path(tempfile.mkdtemp(prefix="mcpnode-e2e-own."))
        env = {name: value for name, value in os.environ.items() if not name.startswith("MCP")} | settings
        written, ready, log = self.dir / "env", self.dir / "ready", self.dir / "dev.log"
        flags = ["--replicas", str(replicas), "--processes", "--data-dir", self.dir / "data", "--env-file", written, "--ready-file", ready]
        talk = log.open("wb")
        self.dev = subprocess.Popen([f"{tools}/mcpnode", "dev", *flags], env=env, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk)
        end = time.monotonic() + READY_SECONDS_MAX
        while not ready.exists() and self.dev.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        if not ready.exists():
            self.stop()
            raise AssertionError(f"no cluster within {READY_SECONDS_MAX} s")
        lines = [line.removeprefix("export ") for line in written.read_text().splitlines() if line.startswith("export ")]
        told = {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}
        self.cluster = Cluster(told, tools, log, self.dir / "pids")

    def stop(self):
        if self.dev.poll() is None:
            self.dev.send_signal(signal.SIGTERM)
            try:
                self.dev.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.dev.kill()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
