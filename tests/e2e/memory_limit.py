"""A limit on the memory of one process, by a control group of its own: of version 2 or 1, whichever this machine has."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class MemoryLimit:
    """A group with a limit. Whoever is started through `join` begins in it, so that every page counts."""

    def __init__(self, folder, limits, peak, events):
        self.folder, self.peak_file, self.events_file = folder, folder / peak, folder / events
        self.byte_count = limits[0][1]
        folder.mkdir()
        try:
            for number, (name, value) in enumerate(limits):
                # What is swapped out is held all the same. Where there is no swap, there is no such file.
                if number == 0 or (folder / name).exists():
                    (folder / name).write_text(str(value))
        except OSError:
            folder.rmdir()
            raise

    def join(self):
        """For `preexec_fn`: from here on what this process is and becomes is limited."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def bites(self):
        """Whether a process that takes more than it may is killed. Without this, a limit that is none would look kept."""
        greedy = [sys.executable, "-c", f"print(len(b'x' * {2 * self.byte_count}))"]
        done = subprocess.run(greedy, preexec_fn=self.join, stdout=subprocess.DEVNULL)
        return done.returncode == -signal.SIGKILL and self.kills() == 1

    def holds(self, pid):
        """Whether a process is in the group."""
        return str(pid) in (self.folder / "cgroup.procs").read_text().split()

    def peak(self):
        return int(self.peak_file.read_text()) if self.peak_file.exists() else None

    def kills(self):
        """How many processes the kernel has killed for want of memory."""
        lines = dict(line.split() for line in self.events_file.read_text().splitlines())
        return int(lines["oom_kill"])

    def remove(self):
        """Lets everybody in it go back to where we are."""
        with contextlib.suppress(OSError):
            for pid in (self.folder / "cgroup.procs").read_text().split():
                (self.folder.parent / "cgroup.procs").write_text(pid)
            self.folder.rmdir()


def made(byte_count, name="mcpnode-e2e"):
    """A limit, or why there can be none."""
    why = []
    swap2, swap1 = ("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", byte_count)
    for parents, limits, peak, events in [
        (version2(), [("memory.max", byte_count), swap2], "memory.peak", "memory.events"),
        (version1(), [("memory.limit_in_bytes", byte_count), swap1], "memory.max_usage_in_bytes", "memory.oom_control"),
    ]:
        for parent in parents:
            try:
                return MemoryLimit(parent / f"{name}-{os.getpid()}", limits, peak, events), None
            except OSError as error:
                why.append(str(error))
    return None, "; ".join(why) or "no control groups are mounted"


def version2():
    """Groups whose children can have a limit."""
    able = [own("0", ""), MOUNT]
    return [group for group in able if group and "memory" in read(group / "cgroup.subtree_control").split()]


def version1():
    groups = [own(None, "memory"), MOUNT / "memory"]
    return [group for group in groups if group and (group / "memory.limit_in_bytes").exists()]


def own(number, controller):
    """The group that we are in."""
    for line in read(Path("/proc/self/cgroup")).splitlines():
        its_number, controllers, path = line.split(":", 2)
        if number == its_number or (controller and controller in controllers.split(",")):
            return (MOUNT / controller if controller else MOUNT) / path.lstrip("/")
    return None


def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""
