"""`scan_keys`: the ids of the items that one server has."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.errors import StoreError
from app.features.key_template import KeyTemplate
from app.features.redis_link import RedisLink
from app.features.resp_commands import pack_command
from app.features.store_errors import explain_reply

SCAN_COUNT, SCAN_TIMEOUT_S = 1000, 5.0


async def scan_keys(link: RedisLink, template: KeyTemplate) -> AsyncIterator[list[str]]:
    """Iterate over the ids of all keys that fit a template, in batches, some perhaps twice. Raises StoreError."""
    cursor = "0"
    while True:
        command = pack_command("SCAN", cursor, "MATCH", template.pattern, "COUNT", str(SCAN_COUNT))
        reply = (await link.send(command, 1, SCAN_TIMEOUT_S))[0]
        if not isinstance(reply, list):
            reason = explain_reply(reply)
            link.problem.log_once("SCAN refused", reason, "items are read when they are first asked for")
            raise StoreError(f"the feature store refused SCAN: {reason}")
        cursor = str(reply[0])
        ids = [template.id(key) for key in reply[1]]
        yield [item_id for item_id in ids if item_id is not None]
        if cursor == "0":
            return
