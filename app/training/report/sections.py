"""The sections of the page that have a drawing, each with its numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app.training.report import figures
from app.training.report.tables import folded, number, percent, table

STRONGEST, MAX_DRAWN = 20, 28
Found = Mapping[str, Any]


def training(found: Found) -> str:
    training = found["training"]
    epochs, best = training["epochs"], training["best_epoch"]
    drawn = figures.learning_curves(
        [epoch["train_loss"] for epoch in epochs], [epoch["validation_loss"] for epoch in epochs], best
    )
    rows = [
        [n, number(e["train_loss"], 5), number(e["validation_loss"], 5), number(e["seconds"], 2)]
        for n, e in enumerate(epochs, 1)
    ]
    shown = folded("As a table", table("", ["epoch", "training", "validation", "seconds"], rows))
    return _figure(
        drawn,
        f"Epoch {best} of {len(epochs)} was kept; {training['samples_per_second']:,.0f} rows/s in training steps. The "
        "training loss is measured with dropout and while the weights move, so it starts above the other.",
        shown,
    )


def ranking(found: Found) -> str:
    roc, pr = found["curves"]["roc"], found["curves"]["pr"]
    if not roc:
        return "<p>All labels of the test part are equal: there is no order to judge.</p>"
    share = found["data"].get("test", {}).get("ctr")
    drawn = [
        (figures.curve("roc", "ROC curve", roc, "false positive rate", "true positive rate", None), "ROC", roc),
        (figures.curve("pr", "PR curve", pr, "recall", "precision", share or 0.0), "Precision-recall", pr),
    ]
    metric = {"ROC": "auc", "Precision-recall": "pr_auc"}
    parts = []
    for svg, name, points in drawn:
        some = points[:: max(1, len(points) // 20)]
        rows = [[number(x, 3), number(y, 3)] for x, y in some]
        shown = folded("As a table", table("", ["x", "y"], rows))
        caption = f"{name}, area {number(found['metrics']['test'][metric[name]])}; dotted: random order."
        parts.append(_figure(svg, caption, shown))
    return f"<div class='pair'>{''.join(parts)}</div>"


def calibration(found: Found) -> str:
    fitted, own, plain = found["calibration"], found["metrics"], found["uncalibrated"]
    scaled = fitted["method"] != "none"
    if scaled:
        formula = f"p = sigmoid({fitted['slope']:.4f} logit {fitted['offset']:+.4f})"
        said = f"Platt scaling, {formula}, is part of the artifact."
    else:
        said = "Nothing was scaled: the logits go into the sigmoid as they were trained."
    said += (
        f" Cross-fitted on the validation part, scaling changes the log loss by {fitted['gain']:.1f} standard errors "
        "(above 0: for the better; --calibration auto asks for more than 1). That part also chose the best epoch, so "
        "what calibration is worth is to be read from the test part, which chose nothing."
    )
    test = fitted["test"]
    drawn = figures.reliability(test["before"], test["after"] if scaled else None)
    rows = []
    for part in ("validation", "test"):
        both = {"before": plain[part], "after": own[part]} if scaled else {"as trained": own[part]}
        for when, metrics in both.items():
            rows.append([f"{part}, {when}", *(number(metrics[m]) for m in ("log_loss", "ece", "calibration"))])
    summary = table("", ["", "log loss", "ECE", "predicted / observed"], rows)
    bins = [[number(b["predicted"]), number(b["observed"]), f"{b['rows']:,}"] for b in test["after"]]
    shown = folded("The bins as a table", table("Test part, as served", ["predicted", "observed", "rows"], bins))
    figure = _figure(drawn, "Test part, bins of about equal size. On the dotted line predictions add up.", shown)
    return f"<p>{escape(said)}</p><div class='pair'>{figure}<div>{summary}</div></div>"


def scores(found: Found) -> str:
    scores = found["scores"]
    totals = {name: sum(scores[name]) or 1 for name in ("click", "none")}
    series = {
        "rows with a click": [count / totals["click"] for count in scores["click"]],
        "rows without": [count / totals["none"] for count in scores["none"]],
    }
    drawn = figures.histogram("scores", "Scores by label", scores["edges"], series, "predicted probability")
    rows = [
        [f"{low:.3f} to {high:.3f}", f"{click:,}", f"{none:,}"]
        for low, high, click, none in zip(
            scores["edges"], scores["edges"][1:], scores["click"], scores["none"], strict=False
        )
    ]
    shown = folded("As a table", table("", ["score", "with a click", "without"], rows))
    return _figure(drawn, "Test part. The further apart, the better the two are told apart.", shown)


def users(users: Found) -> str:
    if "omitted" in users:
        return f"<p>Not shown: {escape(users['omitted'])}.</p>"
    drawn = figures.histogram(
        "users", "AUC per user", users["edges"], {"users": users["weights"]}, "AUC of one user's rows"
    )
    quartiles = ", ".join(number(q, 3) for q in users["quartiles"])
    rows = [
        [f"{low:.2f} to {high:.2f}", percent(weight)]
        for low, high, weight in zip(users["edges"], users["edges"][1:], users["weights"], strict=False)
    ]
    return _figure(
        drawn,
        f"GAUC {number(users['gauc'])}: the mean AUC of the {users['with_both']:,} users of {users['users']:,} who "
        f"have rows with and without a click, weighted by their {users['rows']:,} rows. "
        f"Quartiles of users: {quartiles}.",
        folded("As a table", table("Share of rows", ["AUC", "rows"], rows)),
    )


def importance(importance: Found) -> str:
    fields = importance["fields"]
    drawn = figures.bars(
        "importance",
        "Rise of the log loss when a field is permuted",
        {field["field"]: field["log_loss"] for field in fields},
        [tuple(field["log_loss_range"]) for field in fields],
        "rise of the log loss",
    )
    rows = [[f["field"], f["entity"], number(f["log_loss"], 5), number(f["auc"], 5)] for f in fields]
    return _figure(
        drawn,
        f"How much worse the model gets when a field's values are dealt to other rows: {importance['rows']:,} rows of "
        f"the {importance['part']} part, mean and range of {importance['repeats']}. Fields that say the same share it.",
        folded("As a table", table("", ["field", "of the", "log loss", "AUC"], rows, words=True)),
    )


def crosses(crosses: Found) -> str:
    if "omitted" in crosses:
        return f"<p>Not shown. {escape(crosses['omitted'])}.</p>"
    names, strength = crosses["fields"], crosses["strength"]
    pairs = [
        (strength[left][right], names[left], names[right])
        for left in range(len(names))
        for right in range(left + 1, len(names))
        if strength[left][right] > 0
    ]
    rows = [[f"{left} x {right}", number(value, 5)] for value, left, right in sorted(pairs, reverse=True)[:STRONGEST]]
    listed = table(f"The {len(rows)} strongest", ["pair", "mean"], rows)
    drawn_names, drawn = _strongest_fields(names, strength)
    left_out = len(names) - len(drawn_names)
    note = f" {left_out} weaker fields are not drawn." if left_out else ""
    caption = (
        "Mean absolute size of ⟨v_i x_i, v_j x_j⟩ in the logit, by pair of fields; the stronger the colour, the larger."
        + note
    )
    figure = _figure(figures.heat_map(drawn_names, drawn), caption, "")
    return f"<div class='pair'>{figure}<div>{listed}</div></div>"


def _strongest_fields(names: Sequence[str], strength: Sequence[Sequence[float]]) -> tuple[list[str], list[list[float]]]:
    ranked = sorted(range(len(names)), key=lambda place: -sum(strength[place]))[:MAX_DRAWN]
    chosen = sorted(ranked)
    return [names[place] for place in chosen], [[strength[row][column] for column in chosen] for row in chosen]


def _figure(svg: str, caption: str, below: str) -> str:
    return f"<div><figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>{below}</div>"
