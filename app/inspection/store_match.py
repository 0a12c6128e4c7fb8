"""What of the feature store does not match a schema and a version's vocabulary, for one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches

from app.features.encoder import Encoder
from app.inspection.field_values import FieldValues
from app.inspection.finding import Finding
from app.inspection.store_sample import StoreSample

LEAST_GIVEN = 20
"""Values of a field below which the share of unknown ones says nothing."""
LIKENESS = 0.7
"""Names are alike from this ratio of `difflib` on: `agee` and `age` have 0.86."""


def how_to_load(where: str, impressions: str = "", option: str = "") -> str:
    """Return the command that stores users or items; not of a table of impressions, whose labels it would store too."""
    if not impressions:
        return f"`ctr load {where} FILE{option}`"
    return (
        f"`ctr load {where} FILE{option}`, with a FILE of {where} alone, which `ctr train --export DIR` writes: "
        f"{impressions} has labels and more, which would be stored with them"
    )


def match_keys(
    sample: StoreSample, where: str, setting: str, *, file: str = "", empty: int = 0, impressions: str = ""
) -> list[Finding]:
    """Say whether the key template finds hashes, and those of the file's ids.

    Args:
        where: `users` or `items`.
        setting: the name of the template's setting.
        file: the file that the ids are from.
        empty: how many users or items of the file have no value in any field, and were not looked for.
        impressions: the file, if it is a table of impressions, which is not to be loaded as it is.
    """
    findings = []
    if sample.wrong_type:
        wrong = len(sample.wrong_type)
        message = f"{wrong} of the keys hold no hash, such as {sample.wrong_type[0]}: these count as unknown"
        advice = f"`ctr load {where} FILE` writes hashes; a template of your own ({setting}) must fit no other keys"
        findings.append(Finding("keys", where, "", message, advice, wrong / (wrong + len(sample.hashes))))
    if not sample.hashes:
        there = ", ".join(f"{form} ({count})" for form, count in sample.others)
        message = f"no hash has a key like {sample.template}" + (f"; there are {there}" if there else "")
        if not sample.can_scan:
            message = "no hash was found, and keys cannot be listed (SCAN is refused)"
        elif not there and not sample.wrong_type:
            message += ": the store is empty"
        load = f"load them ({how_to_load(where, impressions)})"
        findings.append(Finding("keys", where, "", message, f"set {setting} to the form of your keys, or {load}", 1.0))
    elif sample.asked and sample.found < sample.asked:
        share = 1 - sample.found / sample.asked
        stored = ", ".join(map(repr, list(sample.hashes)[-2:]))
        message = f"{sample.asked - sample.found} of {sample.asked} {where} of {file} are not in the store"
        if not sample.found:
            message += f"; stored are ids such as {stored}"
        advice = f"write ids alike in both, or load these ({how_to_load(where, impressions)})"
        findings.append(Finding("ids", where, "", message, advice, share, is_note=share < 0.5))
    if empty:
        message = f"nothing can be stored of {empty} of the {where} of {file}: they have no value in any field"
        advice = "leave it: answers call them missing, and score them by their ids and defaults, as training did"
        findings.append(Finding("ids", where, "", message, advice, is_note=True))
    return findings


def match_hashes(
    sample: StoreSample,
    encoder: Encoder,
    values: Mapping[str, FieldValues],
    where: str,
    in_file: Mapping[str, float] | None = None,
    *,
    max_unknown: float = 0.2,
    impressions: str = "",
) -> list[Finding]:
    """Say which fields the hashes lack, which nothing reads, and which values do not fit or are not known.

    Args:
        values: what the sampled hashes hold.
        in_file: the share of a file's rows that have a raw field.
        max_unknown: the largest share of a field's values that the version may not know.
        impressions: the file, if it is a table of impressions, which is not to be loaded as it is.
    """
    stored = Counter(name for raw in sample.hashes.values() for name in raw)
    count = len(sample.hashes)
    if not count:
        return []
    reads = {one.raw_name for one in encoder.fields if one.entity == encoder.side and not one.is_id}
    unread = [name for name in stored if name not in encoder.raw_names]
    findings = []
    for name in sorted(reads):
        share = 1 - stored[name] / count
        if not stored[name]:
            like = get_close_matches(name, unread, n=1, cutoff=LIKENESS)
            hint = f"; {like[0]}, which nothing reads, is named alike" if like else ""
            advice = (
                f"load it ({how_to_load(where, impressions, ' --merge')}), or take it out of the schema and train anew"
            )
            message = f"none of {count} hashes has it: it is missing in every answer{hint}"
            findings.append(Finding("lacking", where, name, message, advice, 1.0))
        elif in_file and in_file.get(name) == 0:
            message = f"none of the file's rows has it, and {1 - share:.0%} of the hashes do: nothing is learnt of it"
            findings.append(Finding("lacking", where, name, message, "look at what writes the file", 1 - share))
        elif in_file and name in in_file and share > 1 - in_file[name] + 0.2:
            message = f"{share:.0%} of the hashes lack it, and {1 - in_file[name]:.0%} of the file's rows"
            load = how_to_load(where, impressions, " --merge")
            advice = f"training saw it more often than requests do: load the others ({load})"
            findings.append(Finding("lacking", where, name, message, advice, share))
    findings += match_values(values, where, max_unknown)
    for name in sorted(unread):
        message = f"stored in {stored[name]} of {count} hashes, and no field reads it"
        advice = "leave it, or load without it to save memory; a field reads it by its name or `source`"
        findings.append(Finding("unread", where, name, message, advice, stored[name] / count, is_note=True))
    return findings


def match_values(values: Mapping[str, FieldValues], where: str, max_unknown: float = 0.2) -> list[Finding]:
    """Say which values fit no slot, and of which fields the version knows too few values."""
    findings = []
    for name, found in values.items():
        if found.invalid:
            message = f"{len(found.invalid)} of {found.present} values fit no slot, such as {found.invalid[0]}"
            advice = (
                f"these count as missing: mend what writes {found.raw_name}, or declare another type or `missing` words"
            )
            findings.append(
                Finding("invalid", where, found.raw_name, message, advice, len(found.invalid) / found.present)
            )
        limit = 1.0 if found.is_id else max_unknown
        if found.given >= LEAST_GIVEN and found.unknown_share >= limit and found.known < found.given:
            share = found.unknown_share
            ids = "ids are written otherwise than in training, or all are new" if found.is_id else ""
            message = f"the version does not know {share:.0%} of {found.given} values, such as {found.unknown[0]}"
            advice = (
                ids or "values are written otherwise than in training, or the version is old: compare them, or retrain"
            )
            findings.append(Finding("unknown", where, name, message, advice, share))
    return findings
