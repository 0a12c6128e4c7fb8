"""Client of ctr-serving: `CtrClient` for threads, `AsyncCtrClient` for asyncio."""

from ctr_client.answers import (
    Feedback,
    FeedbackResult,
    Health,
    RankedItem,
    Ranking,
    Version,
)
from ctr_client.async_client import AsyncCtrClient
from ctr_client.client import CtrClient
from ctr_client.errors import CtrClientError, Refused, TimedOut, Unavailable, Unreachable
from ctr_client.retries import RetryBudget

__all__ = [
    "AsyncCtrClient",
    "CtrClient",
    "CtrClientError",
    "Feedback",
    "FeedbackResult",
    "Health",
    "RankedItem",
    "Ranking",
    "Refused",
    "RetryBudget",
    "TimedOut",
    "Unavailable",
    "Unreachable",
    "Version",
]
