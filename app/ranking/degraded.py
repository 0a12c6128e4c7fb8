"""The words of `degraded`, which name what an answer had to do without."""

from __future__ import annotations

USER_UNAVAILABLE = "user_features_unavailable"
"""The store did not answer; the user counts as unknown."""
ITEMS_UNAVAILABLE = "item_features_unavailable"
"""Items could be neither read nor found in the cache; they count as unknown."""
STALE_ITEMS = "stale_item_features"
"""Cached items may have been written since they were read, and could not be read again."""
INVALID_FEATURES = "invalid_stored_features"
"""Stored values of the user or of a candidate fit no slot or are too large; their fields count as missing."""
NOT_FINITE = "non_finite_scores"
"""The model gave scores that are not finite; these items come last, with score 0."""
MODEL_FALLBACK = "model_fallback"
"""Another version answers than the one that should have."""

DEGRADED = (USER_UNAVAILABLE, ITEMS_UNAVAILABLE, STALE_ITEMS, INVALID_FEATURES, NOT_FINITE, MODEL_FALLBACK)
