"""`ExplorationSettings` says which answers have an order that is drawn from the scores."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.setting_types import LabelPolicies


class ExplorationSettings(BaseModel):
    """Says which answers have an order that is drawn from the scores."""

    explore: LabelPolicies = Field(
        (), description="Draws the order, say softmax:0.05 or canary=epsilon:0.02; empty ranks by descending scores."
    )
    explore_share: float = Field(
        1.0, ge=0, le=1, description="Share of the users, and of guests' requests, whose order is drawn."
    )
