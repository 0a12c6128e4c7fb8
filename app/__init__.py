"""ctr-serving: train CTR models, publish them, and rank candidates by click probability within milliseconds."""

__version__ = "0.1.0"
