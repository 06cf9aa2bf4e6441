"""What the API says about itself, judged by a validator that we did not write; and what `mcpctl` makes of whole files."""

import asyncio
import json
import urllib.request

from openapi_spec_validator import validate

from checks import same


async def run(at_hand):
    """Needs nothing but the cluster."""
    checks, cluster = at_hand.checks, at_hand.cluster
    with checks.check("every node gives the same valid OpenAPI 3.1 description"):
        documents = [await asyncio.to_thread(described, node.api, cluster.session) for node in cluster.nodes]
        for document in documents:
            same(document["openapi"], "3.1.0", "version")
            same(document, documents[0], "the description of another node")
            validate(document)
    with checks.check("everything that the cluster holds can be written down, and applied again without a change"):
        written = await asyncio.to_thread(cluster.mcpctl, "get", "all", "-o", "yaml")
        said = await asyncio.to_thread(cluster.mcpctl, "apply", "-f", "-", given=written)
        changed = [line for line in said.splitlines() if not line.endswith((" unchanged", " already active - skipped"))]
        same(changed, [], "objects that were not left alone")
        assert "server/everything unchanged" in said, said


def described(api, session):
    """The document, as a node gives it to a caller."""
    request = urllib.request.Request(f"{api}/api/v1/openapi.json", headers={"Authorization": f"Bearer {session}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
