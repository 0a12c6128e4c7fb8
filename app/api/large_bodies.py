"""`parse_rank_in_slices` parses a large body of POST /rank and lets other requests have their turn meanwhile.

Nearly all of a large body is features of items. They are left as they are when the body is decoded, and then read some
items at a time; the whole takes a fifth more work than at once, and holds others up for a tenth as long.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from app.api.schemas import Features, Id, PlainBody, parse_rank, to_request
from app.features.request_ids import RequestIds
from app.features.store import RawFeatures
from app.ranking.request import RankRequest
from app.runtime.loop_pacer import SliceTurns

SLICE = 256
"""Items whose features are read at a time: a tenth of a millisecond with four values each."""


class UnreadRankBody(PlainBody, forbid_unknown_fields=True):
    """A plain body whose features of items are not read yet."""

    item_features: msgspec.Raw = msgspec.Raw(b"{}")


_decoder = msgspec.json.Decoder(UnreadRankBody)
_items_decoder = msgspec.json.Decoder(dict[Id, msgspec.Raw])
_features_decoder = msgspec.json.Decoder(Features)


async def parse_rank_in_slices(raw: bytes, max_candidates: int, turns: SliceTurns) -> RankRequest:
    """Parse a body as `app.api.schemas.parse_rank` does, with a turn before each slice but the first.

    A body that is not plain (`PlainBody`) is parsed at once all the same. Raises what `parse_rank` raises.
    """
    try:
        body = _decoder.decode(raw)
        item_ids = RequestIds.from_json(bytes(body.item_ids), max_candidates)
        if item_ids is None:
            return parse_rank(raw, max_candidates)
        await turns.next()
        unread = iter(_items_decoder.decode(body.item_features).items())
        read: dict[str, RawFeatures] = {}
        while some := list(islice(unread, SLICE)):
            await turns.next()
            read.update((item_id, _features_decoder.decode(text)) for item_id, text in some)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse_rank(raw, max_candidates)  # which says what is wrong with it, or takes it with its second pass
    return to_request(body, item_ids, read)
