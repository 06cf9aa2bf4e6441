"""What bad input gets, row by row, and what checks each row on a live node.

The rows are those of the design, in its words. `Kept` is how a run knows that nothing of it was left out: each function named here has
to have been called, and each test of Rust that is named has to be there.
"""

import re
from pathlib import Path

import aged_sessions
import bad_api
import bad_headers
import bad_http2
import bad_input
import bad_lease
import bad_quota
import hostile_clients
import refusals
import revocation

ROOT = Path(__file__).resolve().parents[2]

#: The input, its answer, and the functions that check it. A text is a test of Rust, on real processes or over real sockets.
TABLE = [
    (
        "no or malformed `Authorization`, two of them, a token in the query, a session bearer, a foreign scheme",
        "401, no upstream contact, no lookup for a wrong shape",
        [(bad_input, "bearers"), (bad_headers, "authorizations"), (bad_input, "no_look_up"), (refusals, "bearers")],
    ),
    (
        "invalid UTF-8, invalid JSON, batch array, duplicate `id`/`method`/`params`/`name`/`uri`",
        "400, JSON-RPC -32700 or -32600",
        [(bad_input, "bodies")],
    ),
    (
        "body over the limit (4 MiB), depth over 128, header block over 32 KiB",
        "413 / 400 / 431",
        [(bad_input, "sizes"), (bad_http2, "sizes"), (bad_quota, "Quotas.body")],
    ),
    (
        "header disagrees with body, bad base64 sentinel, missing required modern header or `_meta` key",
        "400, -32020 / -32602",
        [(bad_input, "metadata")],
    ),
    (
        "unknown protocol version",
        "legacy: answered with the newest we share; modern: 400 -32022 with `supported`",
        [(bad_input, "versions")],
    ),
    (
        "CL with TE, two lengths, bare LF, obs-fold, bad h2 pseudo headers",
        "400 and the connection is closed; over HTTP/2 the stream is reset (decision 19)",
        [(bad_input, "framing"), (bad_http2, "malformed")],
    ),
    ("path traversal, double encoding, NUL, wrong name shape", "404", [(bad_input, "paths")]),
    (
        "`Host` not in `allowed_hosts`, `Origin` not allowed",
        "403 (421 for Host over HTTP/2)",
        [(bad_input, "origins"), (bad_headers, "hosts_and_origins"), (bad_http2, "hosts_and_origins"), (bad_api, "headers")],
    ),
    (
        "another token's session id, a tampered one, an expired one",
        "404, -32001",
        [(bad_input, "sessions"), (bad_input, "foreign_session"), (aged_sessions, "judge")],
    ),
    (
        "tool that does not exist, or that the principal may not see",
        "the same -32602 for both",
        [(bad_input, "alike"), (bad_input, "rights"), (refusals, "without_bindings")],
    ),
    (
        "tool that may be seen and not run",
        "JSON-RPC error -32003 that names the missing right",
        [(bad_input, "rights"), (refusals, "view_only")],
    ),
    (
        "upstream down, too slow, answers rubbish, too much",
        "JSON-RPC error -32010 with server, cause, and whether the call may have had an effect; never a hang",
        [(bad_input, "upstreams")],
    ),
    ("no lease, no leader needed but missing", "503 with `Retry-After`", [(bad_lease, "alone")]),
    (
        "over quota",
        "429 with `Retry-After`",
        [(bad_quota, f"Quotas.{name}") for name in ("rate_of_a_token", "rate_of_a_project", "nothing_at_all", "at_once", "held")],
    ),
    # Beside the table.
    ("another project than the token's own, whether it exists or not", "403", [(refusals, "projects")]),
    ("a token that was revoked, in every way that clients have", "401, and what is open is cut", [(revocation, "run")]),
    (
        "the API: unknown fields, wrong types, wrong sizes, unknown parameters",
        "a problem with a code, and every fault with its field",
        [(bad_api, "fields"), (bad_api, "bodies"), (bad_api, "queries"), (bad_api, "paths")],
    ),
    (
        "a join with a wrong CA hash, a used, expired, revoked or unknown token",
        "says why and what to do, and leaves nothing",
        ["node/tests/it/cluster.rs a_join_that_cannot_be_says_why_and_leaves_nothing"],
    ),
    (
        "a peer with a certificate of another cluster, an expired one, none",
        "is turned away",
        [
            "raft/tests/it/peers.rs a_peer_is_who_its_certificate_says_and_means_this_cluster_and_this_node",
            "raft/tests/it/peers.rs an_expired_certificate_is_turned_away_and_a_renewed_one_is_not",
            "raft/tests/it/peers.rs who_has_no_certificate_gets_as_far_as_the_door",
        ],
    ),
    ("64 hostile clients", "the node stays under 256 MiB, and honest clients are served", [(hostile_clients, "besieged")]),
]


class Kept:
    """Notes which of the functions were called. They are replaced where their modules find them."""

    def __init__(self):
        self.called = set()
        for place in {place for _, _, places in TABLE for place in places if not isinstance(place, str)}:
            self.watch(*place)

    def watch(self, module, path):
        *owners, name = path.split(".")
        owner = module
        for one in owners:
            owner = getattr(owner, one)
        function = getattr(owner, name)

        def noted(*args, **more):
            self.called.add((module, path))
            return function(*args, **more)

        noted.__doc__ = function.__doc__
        setattr(owner, name, noted)

    def judge(self, checks):
        """For a whole run: every row was checked by everything that is to check it."""
        with checks.check(f"every row of the table of bad input was checked ({len(TABLE)} rows)"):
            missing = [f"{row}: {self.name(place)}" for row, _, places in TABLE for place in places if not self.is_kept(place)]
            assert all(places for _, _, places in TABLE) and not missing, "\n".join(missing)

    def name(self, place):
        return place if isinstance(place, str) else f"{place[0].__name__}.{place[1]}"

    def is_kept(self, place):
        if not isinstance(place, str):
            return place in self.called
        file, test = place.split(" ")
        return re.search(rf"#\[(tokio::)?test[^\n]*\]\n(async )?fn {test}\(", (ROOT / file).read_text()) is not None
