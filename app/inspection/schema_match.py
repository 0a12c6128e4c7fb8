"""What of a schema is not as the version's: fields that are new, gone or declared otherwise."""

from __future__ import annotations

from app.features.schema import FeatureSchema
from app.inspection.finding import Finding

ADVICE = (
    "the version reads what its own schema says: train one of this schema (`ctr train --features ... --publish`), or "
    "leave the file out to look by the version's"
)


def match_schemas(schema: FeatureSchema, version: FeatureSchema, name: str) -> list[Finding]:
    """Compare a schema with that of a version called `name`, such as `version 3`."""
    if schema.hash == version.hash:
        return []
    ours, theirs = ({field.name: field for field in one.fields} for one in (schema, version))
    findings = []
    for field in [*ours, *(one for one in theirs if one not in ours)]:
        if field not in theirs:
            message = f"{name} has no such field"
        elif field not in ours:
            message = f"{name} has this field, and the schema has not"
        elif ours[field] != theirs[field]:
            before, now = theirs[field].model_dump(mode="json"), ours[field].model_dump(mode="json")
            changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            what = "; ".join(f"{key} is {now.get(key)!r}, was {before.get(key)!r}" for key in changed)
            message = f"declared otherwise than in {name}: {what}"
        else:
            continue
        findings.append(Finding("schema", "schema", field, message, ADVICE))
    if not findings:
        findings.append(
            Finding(
                "schema", "schema", "", f"the order of fields, crosses, words or reading differ from {name}", ADVICE
            )
        )
    return findings
