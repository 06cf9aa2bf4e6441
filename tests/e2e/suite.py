"""The end-to-end suite. `run` beside it builds, starts the cluster and the upstreams, and calls this.

Usage: suite.py CACHE TOOLS TALK PIDS HTTP_URL: where packages are installed, where the programs lie, what `dev` said, where
to note processes that are started, and the URL of the upstream over HTTP. MCPCTL_SERVER and the rest come from the env file.
"""

import asyncio
import os
import subprocess
import sys
import traceback

import aged_sessions
import bad_input
import bad_table
import canary
import described
import failover
import fixture
import hostile_clients
import hostile_upstreams
import inside_urls
import machines
import real_clients
import refusals
import revocation
import shells
import slow_clients
import through
from checks import Checks
from cluster import Cluster
from peers import HERE, all_peers

PHASES = [
    described,
    shells,
    through,
    real_clients,
    refusals,
    revocation,
    bad_input,
    inside_urls,
    hostile_upstreams,
    hostile_clients,
    slow_clients,
    canary,
    machines,
    aged_sessions,
]


def chosen(only):
    """The phases that ONLY names, or all of them, and failover last: it ends nodes."""
    phases = {phase.__name__: phase for phase in [*PHASES, failover]}
    unknown = [name for name in only if name not in phases]
    assert not unknown, f"ONLY names {unknown}; the phases are {', '.join(phases)}"
    return [phase for name, phase in phases.items() if not only or name in only]


async def main(cache, tools, talk, pids, http_url):
    checks = Checks()
    kept = bad_table.Kept()
    cluster = Cluster(os.environ, tools, talk, pids)
    peers = all_peers(cache)
    at_hand = fixture.Fixture(cluster, fixture.upstreams(cache, http_url), peers, checks, cache)
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    try:
        phases = chosen(only)
        if not all(getattr(phase, "ALONE", False) for phase in phases):
            await at_hand.set_up()
        for phase in phases:
            if phase is failover:
                with checks.check("three rounds of revoke-loop: a paused replica refuses when it resumes"):
                    await asyncio.to_thread(revoke_loop, tools, cluster)
            await phase.run(at_hand)
        if not only:
            kept.judge(checks)
    except BaseException as error:
        checks.failed += 1
        print(f"not ok - the suite itself: {error!r}\n{traceback.format_exc()}")
    finally:
        cluster.stop_what_was_started()
    print(checks.closing_line(), flush=True)
    return 1 if checks.failed else 0


def revoke_loop(tools, cluster):
    # A phase may have started a node again.
    pids = ",".join(str(node.pid) for node in cluster.nodes)
    env = {**os.environ, "MCPNODE_PIDS": pids, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run([HERE / "revoke-loop", "--rounds", "3"], env=env, capture_output=True, text=True, timeout=180)
    print("\n".join(f"# {line}" for line in done.stdout.splitlines()))
    assert done.returncode == 0, done.stderr[-2000:]


sys.exit(asyncio.run(main(*sys.argv[1:])))
