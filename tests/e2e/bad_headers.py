"""Headers that decide who is let in, malformed: forty of Authorization, thirty of Host and Origin. Each row is what is wrong, the
request, and the status that it gets."""

import base64

PREFIX = "mcpctl_pat_"


def authorizations(maker):
    """Values of one Authorization header. The token in them is good, so that it is the form that is refused."""
    token = maker.token
    secret = token.removeprefix(PREFIX)
    encoded = base64.b64encode(f"user:{token}".encode()).decode()
    values = [
        "", "Bearer", "Bearer ", f"Bearer\t{token}", f"Bearer{token}", f"Bearer: {token}", f"Bearer={token}", f"Bearer token={token}",
        f'Bearer "{token}"', f"Bearer '{token}'", f"Bearer <{token}>", f"Bearer {{{token}}}", f"Bearer Bearer {token}", f"Bearer {token},",
        f"Bearer ,{token}", f"Bearer {token};", f"Bearer {token}=", f"Bearer {token}==", f"Bearer {token}%20", f"Bearer %6d{token[1:]}",
        f"Bearer {base64.b64encode(token.encode()).decode()}", f"Basic {encoded}", f'Digest username="{token}"', f"Negotiate {token}",
        f"Token {token}", f"ApiKey {token}", f"DPoP {token}", f"Bearer-Token {token}", "Bearer undefined", "Bearer null",
        f"Bearer ${{{token}}}", f"Bearer {token[::-1]}", f"Bearer {PREFIX}", f"Bearer {token}A", f"Bearer MCPCTL_PAT_{secret}",
        f"Bearer mcpctl_ses_{secret}", f"Bearer {token[:-1]}-", f"Bearer\u00a0{token}", f"Bearer {secret}", f"Bearer {token * 100}",
    ]  # fmt: skip
    assert len(values) == 40
    for number, value in enumerate(values, 1):
        sent = maker.post(token="", headers=[("Authorization", value)])
        # The token must not be said in the name of a check.
        yield f"malformed Authorization {number}: {value.replace(token, 'TOKEN').replace(secret, 'SECRET')[:40]!r}", sent, 401


def hosts_and_origins(maker):
    """Hosts that are not ours, and origins of pages that are not trusted, though they resemble."""
    port = maker.host.rsplit(":", 1)[1]
    hosts = [
        "localhost.", "localhost.evil.example", f"localhost.evil.example:{port}", f"evil.example:{port}@127.0.0.1", f"127.0.0.1@evil.example:{port}",
        "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.nip.io", "[::]", "[::ffff:127.0.0.1]", "::1", "*",
        "localhost,evil.example",
    ]  # fmt: skip
    origins = [
        "http://localhost.evil.example", "http://evil.example:80", f"http://127.0.0.1.nip.io:{port}", f"http://user@{maker.host}",
        f"http://{maker.host}@evil.example", f"http://evil.example/{maker.host}", f"http://evil.example?{maker.host}", "http://", "*", "",
        f"http://{maker.host} http://evil.example", f"http://{maker.host}, http://evil.example", f"data:text/html,{maker.host}", "chrome-extension://x",
    ]  # fmt: skip
    assert len(hosts) + len(origins) == 30
    for host in hosts:
        yield f"the host {host}", maker.post(host=host), 403
    for origin in origins:
        yield f"the origin {origin!r}", maker.post(headers=[("Origin", origin)]), 403
