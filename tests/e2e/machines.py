"""From one machine to three with the programs as an operator runs them: `mcpnode init` and `join`, `mcpctl login` and `cluster`, over TLS.

What the guide for operators says is done in its order, and what is printed is held against what an operator would go on with. All of it
at trace level: the setup secret and the join tokens are good, are used, and are tried where they do not belong, and afterwards they
are in no log, store, snapshot, audit, metric, argument or environment. They may stand in the files that hand them over, in the answer
that mints a join token, and in what `mcpctl login` keeps (a session, 0600).
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import raw
from canary import CORE, Scanner, descendants, wait_for
from checks import same

#: It has a cluster of its own.
ALONE = True
ADMIN = "ops@example.com"
SECONDS_MAX = 90
#: Shorter: at trace level a machine writes some megabytes each second.
SHOWN_SECONDS_MAX = 30
#: So few that every machine packs a snapshot, and the ones that join are sent one.
SNAPSHOT_ENTRIES = 10
PROJECT = "machines"


async def run(at_hand):
    await raw.apart(Operator(at_hand).run)


class Machine:
    """One of them: where it is, and its process while it runs."""

    def __init__(self, root, tools, name):
        self.name, self.dir, self.log = name, root / name, root / f"{name}.log"
        self.program = f"{tools}/mcpnode"
        self.gateway, self.api, self.peers = free_ports(3)
        self.process = None

    def flags(self):
        at = {"gateway": self.gateway, "api": self.api, "peer": self.peers}
        listen = [word for what, port in at.items() for word in (f"--{what}-listen", f"127.0.0.1:{port}")]
        return ["--data-dir", str(self.dir), "--name", self.name, *listen]

    def start(self, *words):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([self.program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())

    def said(self):
        return self.log.read_text(errors="replace")

    def url(self, path="", of="api"):
        return f"https://127.0.0.1:{getattr(self, of)}{path}"

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP", "RUST_"))}
    return kept | {"RUST_LOG": "trace", "MCPNODE_LOG_SNAPSHOT_ENTRIES": str(SNAPSHOT_ENTRIES), "MCPNODE_LOG_KEPT_ENTRIES": "10"} | more


def free_ports(count):
    """Not such as the system hands out itself."""
    found = set()
    while len(found) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                found.add(port)
    return found


class Operator:
    """Somebody at a terminal, with three machines."""

    def __init__(self, at_hand):
        self.checks, self.tools = at_hand.checks, at_hand.cluster.tools
        self.root = Path(tempfile.mkdtemp(prefix="mcpnode-machines."))
        self.home = self.root / "home"
        self.home.mkdir()
        self.one, self.two, self.three = (Machine(self.root, self.tools, f"node-{number}") for number in (1, 2, 3))
        self.machines = [self.one, self.two, self.three]
        self.password = secrets.token_hex(CORE)
        self.scanner = Scanner()
        self.scanner.knows("the password", self.password)
        #: What the programs said, and the API answered, where no secret belongs.
        self.told = []

    def run(self):
        try:
            self.found()
            self.log_in()
            self.join()
            self.processes("that joined")
            self.look()
            self.change()
            self.leave()
            self.search()
        finally:
            for machine in self.machines:
                machine.stop()
            if not os.environ.get("KEEP"):
                shutil.rmtree(self.root, ignore_errors=True)

    # Running programs.

    def ctl(self, *words, code=0, given=None, mints=False):
        """`mcpctl` with its context in a home of its own. Gives what it printed on both."""
        env = environment(HOME=str(self.home), XDG_CONFIG_HOME=str(self.home / ".config"))
        done = subprocess.run([f"{self.tools}/mcpctl", *words], env=env, input=given, capture_output=True, text=True, timeout=SECONDS_MAX)
        # On standard error it says nothing of the token that it prints.
        self.told.append((f"mcpctl {' '.join(words)}", (done.stderr if mints else done.stdout + done.stderr).encode()))
        same(done.returncode, code, f"mcpctl {' '.join(words)}:\n{done.stderr}")
        return done.stdout, done.stderr

    def refused(self, *words, code, says):
        """Three lines: what failed, why, what next; and the last one can be pasted."""
        out, err = self.ctl(*words, code=code)
        lines = err.strip().splitlines()
        same((out, len(lines)), ("", 3), err)
        for word in says:
            assert word in err, f"{word!r} is not in {err}"

    def node(self, machine, *words):
        done = subprocess.run([machine.program, *words], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX)
        self.told.append((f"mcpnode {words[0]}", (done.stdout + done.stderr).encode()))
        return done

    def ask(self, url, method="GET", body=None, headers=None, own=False):
        """One request over TLS, trusting the cluster's authority alone. Its status, or 0. `own`: what is asked holds a secret, and so may
        the answer to it."""
        context = ssl.create_default_context(cafile=self.one.dir / "ca.crt")
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, sent, {"Content-Type": "application/json", **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        except OSError:
            return 0
        if not own:
            self.told.append((f"{method} {url}", text))
        return status

    def ready(self, machine):
        def holds():
            assert machine.process.poll() is None, f"{machine.name} ended:\n{machine.said()[-3000:]}"
            return self.ask(machine.url("/readyz")) == 200

        wait_for(f"{machine.name} holds a lease", holds, SECONDS_MAX)

    def knows(self, name, secret):
        self.scanner.knows(name, secret.strip()[-CORE:])
        return secret.strip()

    # The first machine.

    def found(self):
        with self.checks.check("machines: init makes a node, and says how to go on"):
            done = self.node(self.one, "init", "--admin-email", ADMIN, *self.one.flags())
            same(done.returncode, 0, done.stderr)
            said = done.stdout + done.stderr
            for line in ("mcpnode serve --config", "mcpctl login --server", "--setup-secret-file", "mcpctl cluster join-token"):
                assert line in said, said
            loose = [file.name for file in self.one.dir.iterdir() if file.stat().st_mode & 0o077 and file.name != "ca.crt"]
            same(loose, [], "files that others may read")
        self.secret_file = self.one.dir / "setup.secret"
        self.setup = self.knows("the setup secret", self.secret_file.read_text())
        self.one.start("serve", "--config", str(self.one.dir / "mcpnode.toml"))
        self.ready(self.one)
        self.misplace("the setup secret, before it was used", self.setup)

    def misplace(self, what, secret):
        """A good secret where it does not belong: everywhere it is refused, and nobody keeps it."""
        api, gateway = self.one.url("/api/v1/"), self.one.url("/mcp", of="gateway")
        bearer = {"Authorization": f"Bearer {secret}"}
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        with self.checks.check(f"machines: {what} lets nobody in where it does not belong"):
            rows = [
                (f"{api}projects", "GET", None, bearer, {401}),
                (f"{api}cluster/join-tokens", "POST", {}, bearer, {401}),
                (f"{api}auth/login", "POST", {"email": ADMIN, "password": secret}, {}, {401}),
                (f"{api}auth/setup", "POST", {"email": "else@example.com", "setupSecret": secret, "password": self.password}, {}, {401, 422}),
                (f"{api}auth/setup", "POST", {"email": ADMIN, "setupSecret": secret, "password": "x"}, {}, {422}),
                (f"{api}auth/setup", "POST", {"email": secret, "setupSecret": [secret], secret: secret}, {}, {422}),
                (f"{api}projects/{secret}?{secret}={secret}", "GET", None, bearer, {401, 422}),
                (f"{api}version", "GET", None, {"Authorization": secret, "Cookie": secret, "Idempotency-Key": secret}, {401}),
                (gateway, "POST", ping, bearer, {401}),
                (f"{gateway}?token={secret}", "POST", ping, {"Mcp-Session-Id": secret}, {401}),
            ]
            for url, method, body, headers, wanted in rows:
                found = self.ask(url, method, body, headers, own=True)
                assert found in wanted, f"{method} {url.replace(secret, 'SECRET')}: {found}"

    def log_in(self):
        at = ["login", "--server", self.one.url(), "--cacert", str(self.one.dir / "ca.crt"), "--email", ADMIN]
        with self.checks.check("machines: the setup secret sets the password and opens a session, once"):
            out, err = self.ctl(*at, "--setup-secret-file", str(self.secret_file), "--password-stdin", given=self.password)
            assert f"logged in as {ADMIN}" in err and not out, out + err
            config = self.home / ".config" / "mcpctl" / "config.yaml"
            same(stat.S_IMODE(config.stat().st_mode), 0o600, "mode of the credentials")
            self.session = self.knows("the session", re.search(r"mcpctl_ses_\w+", config.read_text())[0])
            _, err = self.ctl(*at, "--setup-secret-file", str(self.secret_file), "--password-stdin", given=self.password, code=4)
            same(len(err.strip().splitlines()), 3, err)
            out, err = self.ctl(*at, "--password-stdin", given=self.password)
            self.session = self.knows("the second session", re.search(r"mcpctl_ses_\w+", config.read_text())[0])
        self.misplace("the setup secret, after it was used", self.setup)
        out, _ = self.ctl("cluster", "status", "-o", "json")
        same([(m["name"], m["role"]) for m in json.loads(out)["members"]], [("node-1", "voter")], "members at first")

    # The others.

    def join(self):
        self.token(self.two)
        with self.checks.check("machines: the second one joins by the line that was printed, and votes once it has caught up"):
            self.two.start("join", self.door, "--token-file", str(self.token_file(self.two)), *self.two.flags())
            self.ready(self.two)
            self.stand("node-2", "voter")
        self.token(self.three, "--role", "learner", "--ttl", "10m")
        self.misplace("a join token, before it was used", self.token_file(self.three).read_text().strip())
        with self.checks.check("machines: the third one joins to follow, and is started again by serve"):
            made = self.node(self.three, "join", self.door, "--token-file", str(self.token_file(self.three)), "--no-start", *self.three.flags())
            same(made.returncode, 0, made.stderr)
            assert "mcpnode serve --config" in made.stdout + made.stderr, made
            self.three.start("serve", "--config", str(self.three.dir / "mcpnode.toml"))
            self.ready(self.three)
            self.stand("node-3", "learner")
        with self.checks.check("machines: a token that was used lets nobody in, says so, and leaves nothing"):
            late = Machine(self.root, self.tools, "late")
            done = self.node(late, "join", self.door, "--token-file", str(self.token_file(self.two)), *late.flags())
            same(done.returncode, 1, done.stderr)
            assert "used already" in done.stderr and "mcpctl cluster join-token" in done.stderr, done.stderr
            assert not late.dir.exists() or not any(late.dir.iterdir()), "something is left"
        self.misplace("a join token, after it was used", self.token_file(self.two).read_text().strip())

    def token_file(self, machine):
        return self.root / f"{machine.name}.token"

    def token(self, machine, *flags):
        """`mcpctl cluster join-token ... > FILE`: the token alone on standard output, talk on the other."""
        with self.checks.check(f"machines: a join token for {machine.name} goes into a file, and the line to run there is printed"):
            out, err = self.ctl("cluster", "join-token", *flags, mints=True)
            assert re.fullmatch(r"mcpctl_join_\w+\n", out), "standard output is the token and nothing else"
            self.token_file(machine).write_text(out)
            self.knows(f"the join token of {machine.name}", out)
            assert "copy it now" in err, err
            self.door = re.search(r"there: mcpnode join (\S+) --token-file FILE", err)[1]
            # Any node lets machines in.
            doors = [f"127.0.0.1:{other.peers}" for other in self.machines if other.process]
            assert self.door in doors, f"{self.door} is none of {doors}"

    def members(self):
        return json.loads(self.ctl("cluster", "status", "-o", "json")[0])["members"]

    def stand(self, name, role):
        def stands():
            return (name, role) in [(member.get("name"), member["role"]) for member in self.members()]

        wait_for(f"{name} is a {role}", stands, SECONDS_MAX)

    # Looking after them.

    def look(self):
        with self.checks.check("machines: status says who leads, who votes, who answers, and whether one may fail"):
            self.shows(["cluster", "status"], [r"Leader: +node-1", r"Decides: +yes, and none of them may fail \(2 of 2 voters answer, 2 are needed\)"])
            self.shows(["cluster", "status"], [r"node-1 +[0-9a-f]{16} +voter +leader", r"node-2 +\S+ +voter +follower", r"node-3 +\S+ +learner +\w+"])
        with self.checks.check("machines: nodes lists all three with their addresses"):
            self.shows(["cluster", "nodes"], [rf"{m.name} +(voter|learner) .*{re.escape(m.url())} +{re.escape(m.url(of='gateway'))}" for m in self.machines])
            names = self.ctl("cluster", "nodes", "-o", "name")[0].split()
            same(sorted(names), [f"node/node-{number}" for number in (1, 2, 3)], "names")
        with self.checks.check("machines: the list of join tokens says who came in by which, and no token"):
            ids = {member["name"]: member["id"] for member in self.members()}
            self.shows(["cluster", "join-token", "list"], [rf"voter +used +{ids['node-2']} +{re.escape(ADMIN)}", rf"learner +used +{ids['node-3']} +{re.escape(ADMIN)}"])

    def shows(self, words, lines):
        """What a command shows, as soon as it does: who answers is noticed within a second."""
        def there():
            self.shown = self.ctl(*words)[0]
            return all(re.search(line, self.shown) for line in lines)

        try:
            wait_for(f"mcpctl {' '.join(words)}", there, SHOWN_SECONDS_MAX)
        except AssertionError:
            raise AssertionError(f"wanted {lines} in\n{self.shown}") from None

    def change(self):
        with self.checks.check("machines: promote lets the third one vote, and one may fail then"):
            self.settles("promote", "node-3", "voter")
            self.shows(["cluster", "status"], [r"yes, and 1 of them may fail \(3 of 3 voters answer, 2 are needed\)"])
        with self.checks.check("machines: demote has the second one follow, and promote is the way back"):
            self.settles("demote", "node-2", "learner")
            self.settles("promote", "node-2", "voter")
        with self.checks.check("machines: what cannot be is refused in three lines, with the next step"):
            for verb in ("promote", "demote", "remove"):
                self.refused("cluster", verb, "node-9", code=3, says=["node-9", "mcpctl "])
        out, _ = self.ctl("create", "project", PROJECT)
        assert PROJECT in out, out
        minted = self.ctl("create", "mcptoken", "everywhere", "-p", PROJECT, mints=True)[0]
        self.mcp = self.knows("an MCP token", re.search(r"mcpctl_pat_\w{43}", minted)[0])
        with self.checks.check("machines: a token that was minted at one is good at all three"):
            for machine in self.machines:
                wait_for(f"{machine.name} takes it", lambda: self.listed(machine) == 200, SECONDS_MAX)

    def listed(self, machine):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        return self.ask(machine.url(f"/projects/{PROJECT}/mcp", of="gateway"), "POST", body, {"Authorization": f"Bearer {self.mcp}", "Accept": "application/json, text/event-stream"})

    def settles(self, verb, name, role):
        """The command says that it is done, or that the leader is still at it."""
        out, err = self.ctl("cluster", verb, name)
        done, later = f'node "{name}" is a {role} now\n', f'node "{name}" is to be a {role}\n'
        assert out == done and not err or out == later and "mcpctl cluster status" in err, out + err
        self.stand(name, role)

    def leave(self):
        with self.checks.check("machines: remove is effective when it says so: the node admits nobody, ends, and does not start again"):
            out, err = self.ctl("cluster", "remove", "node-2")
            assert re.match(r'node "node-2" removed: effective on \d of \d replicas', out), out + err
            assert self.listed(self.two) in (0, 503), "it admits somebody"
            wait_for("the end of node-2", lambda: self.two.process.poll() is not None, SECONDS_MAX)
            assert self.two.process.returncode != 0 and "was removed from its cluster" in self.two.said(), self.two.said()[-2000:]
            again = self.node(self.two, "serve", "--config", str(self.two.dir / "mcpnode.toml"))
            assert again.returncode == 1 and "mcpnode join" in again.stderr, again.stderr
            same(sorted(m["name"] for m in self.members()), ["node-1", "node-3"], "members that are left")
            self.refused("cluster", "remove", "node-2", code=3, says=["node-2", "mcpctl "])
        with self.checks.check("machines: the others go on"):
            for machine in (self.one, self.three):
                wait_for(f"{machine.name} serves", lambda: self.listed(machine) == 200, SECONDS_MAX)

    # What may not be anywhere.

    def search(self):
        handed = [self.secret_file, *(self.token_file(machine) for machine in (self.two, self.three))]
        with self.checks.check("machines: the secrets are where they were handed over, so that they can be found"):
            for file in handed:
                assert self.scanner.found(file.read_bytes()), file
        running = [machine for machine in self.machines if machine.process.poll() is None]
        for machine in running:
            self.ask(machine.url("/metrics"))
            self.ask(machine.url("/readyz?verbose"))
        self.clean("what was said and answered", self.told, 50)
        self.processes("that are left")
        self.clean("logs at trace level", [(machine.log.name, machine.log.read_bytes()) for machine in self.machines], 3)
        for machine in self.machines:
            assert " TRACE " in machine.said(), f"{machine.name} does not log at trace level"
            wait_for(f"a snapshot of {machine.name}", lambda: any((machine.dir / "snapshots").iterdir()), SECONDS_MAX)
        files = [file for machine in self.machines for file in machine.dir.rglob("*") if file.is_file() and file not in handed]
        self.clean("files of the data directories", [(str(file.relative_to(self.root)), file.read_bytes()) for file in files], 30)

    def processes(self, which):
        """Arguments and environment of the machines: of one that runs on as `join`, too."""
        running = [machine for machine in self.machines if machine.process.poll() is None]
        pids = [pid for machine in running for pid in descendants(machine.process.pid)]
        for what in ("cmdline", "environ"):
            self.clean(f"{what} of the processes {which}", [(str(pid), Path(f"/proc/{pid}/{what}").read_bytes()) for pid in pids], len(running))

    def clean(self, what, hays, at_least):
        size = sum(len(hay) for _, hay in hays)
        with self.checks.check(f"machines: no secret in {what} ({len(hays)}, {size >> 10} KiB)"):
            assert len(hays) >= at_least and size > 0, f"there is little to look through: {len(hays)}"
            leaks = [f"{name}: {', '.join(self.scanner.found(hay))}\n  {self.scanner.excerpt(hay)!r}" for name, hay in hays if self.scanner.found(hay)]
            assert not leaks, "\n".join(leaks)
