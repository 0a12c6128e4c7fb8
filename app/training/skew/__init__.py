"""Skew: what was served, beside what an offline table says for the same entity and time, field by field."""
