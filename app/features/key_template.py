"""`KeyTemplate`: the names under which a store keeps entities."""

from __future__ import annotations

GLOB_CHARACTERS = "*?[]\\"


class KeyTemplate:
    """A template such as `ctr:v1:item:{id}`, which turns ids into keys and keys into ids."""

    def __init__(self, template: str) -> None:
        """Split the template at `{id}`, which it must hold exactly once."""
        self.prefix, self.suffix = template.split("{id}")

    def key(self, entity_id: str) -> str:
        """Return the key of an entity."""
        return f"{self.prefix}{entity_id}{self.suffix}"

    def id(self, key: str) -> str | None:
        """Return the id of the entity that has this key, None if no entity can have it."""
        if not key.startswith(self.prefix) or not key.endswith(self.suffix):
            return None
        return key[len(self.prefix) : len(key) - len(self.suffix)]

    @property
    def pattern(self) -> str:
        """A glob pattern for SCAN MATCH that all keys match."""
        return "".join(f"\\{c}" if c in GLOB_CHARACTERS else c for c in self.prefix) + "*" + self.suffix
