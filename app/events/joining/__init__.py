"""From the event log to rows to train on: every answer with what became of its items, after the same wait."""
