"""`schema_differences` says in a line which fields of a schema are not as those of another one."""

from __future__ import annotations

from app.features.schema import FeatureSchema


def schema_differences(schema: FeatureSchema, other: FeatureSchema) -> str:
    """Return which fields are new in a schema beside another one, gone or changed: `new: age; changed: hour`."""
    fields, others = ({field.name: field for field in one.fields} for one in (schema, other))
    changes = {
        "new": fields.keys() - others.keys(),
        "gone": others.keys() - fields.keys(),
        "changed": {name for name in fields.keys() & others.keys() if fields[name] != others[name]},
    }
    named = (f"{change}: {', '.join(sorted(names))}" for change, names in changes.items() if names)
    return "; ".join(named) or "their order or crosses differ"
