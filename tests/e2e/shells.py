"""Completion in the shells themselves: bash, zsh and fish complete commands, flags and the names that live in the cluster."""

import asyncio
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time

# One answer of the shell; `mcpctl` gives a cluster that is slow a moment and then completes nothing, so a line is tried again.
STEP_SECONDS = 8
TRIES = 8
PROJECT = "shells-only-project"

# What is typed, and what the shell must make of it.
LINES = [
    ("mcpctl api-re", "mcpctl api-resources"),
    (f"mcpctl get project {PROJECT[:9]}", f"mcpctl get project {PROJECT}"),
    (f"mcpctl describe project {PROJECT[:9]}", f"mcpctl describe project {PROJECT}"),
    (f"mcpctl get mcptokens -p {PROJECT[:9]}", f"mcpctl get mcptokens -p {PROJECT}"),
]

# How each is started without anybody's configuration, and told of mcpctl.
INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(mcpctl completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "bindkey -e; autoload -Uz compinit; compinit -u -D; source <(mcpctl completion zsh)"),
}


async def run(at_hand):
    """Needs nothing but the cluster."""
    checks, cluster = at_hand.checks, at_hand.cluster
    await asyncio.to_thread(cluster.mcpctl, "create", "project", PROJECT)
    servers = ",".join(node.api for node in cluster.nodes)
    path = f"{cluster.tools}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MCPCTL_SERVER": servers, "MCPCTL_SESSION": cluster.session, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    for shell in INTERACTIVE:
        with checks.check(f"{shell} completes commands and live names"):
            await asyncio.to_thread(completes, shell, env)
    with checks.check("fish completes commands and live names"):
        await asyncio.to_thread(fish_completes, env)
    await asyncio.to_thread(cluster.mcpctl, "delete", "project", PROJECT)


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command, env, home):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(command[0], command, {**env, "HOME": home, "ZDOTDIR": home, "PS1": "ready> "})

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def read_until(self, pattern, seconds):
        """What was said up to the pattern; none if it did not come."""
        said, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    said += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    return None
            found = re.search(pattern, said)
            if found:
                return found
        return None

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def completes(shell, env):
    command, prepare = INTERACTIVE[shell]
    with tempfile.TemporaryDirectory() as home:
        terminal = Terminal(command, env, home)
        try:
            terminal.type(f"{prepare}; echo pre''pared\n")
            assert terminal.read_until("prepared", 30), f"{shell} was not prepared"
            for typed, made in LINES:
                got = None
                for _ in range(TRIES):
                    # Completed, then turned into an `echo` of the line from its beginning, so that the shell itself says what it holds.
                    terminal.type(f"{typed}\t")
                    time_for_names(terminal)
                    terminal.type("\x01echo 'GO''T:' \n")
                    got = terminal.read_until(r"GOT: ([^\r\n]*)", STEP_SECONDS)
                    got = got and got[1].strip()
                    if got == made:
                        break
                assert got == made, f"{shell} makes {got!r} of {typed!r}, wanted {made!r}"
        finally:
            terminal.end()


def time_for_names(terminal):
    """Until the shell has written what it completed, or as long as names may take."""
    terminal.read_until(r"(?!)", 2)


def fish_completes(env):
    """fish says itself what it would offer."""
    with tempfile.TemporaryDirectory() as home:
        for typed, made in LINES:
            script = f"mcpctl completion fish | source; complete -C {shlex.quote(typed)}"
            offered = []
            for _ in range(TRIES):
                done = subprocess.run(
                    ["fish", "--no-config", "-c", script], env={**env, "HOME": home}, capture_output=True, text=True, timeout=60
                )
                assert done.returncode == 0, done.stderr
                offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
                if made.split()[-1] in offered:
                    break
            assert offered == [made.split()[-1]], f"fish offers {offered} for {typed!r}, wanted {made!r}"
