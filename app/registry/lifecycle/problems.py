"""The problems that stand in a process, by label, the latest last."""

from __future__ import annotations

from app.registry.lifecycle.snapshot import Problem


class StandingProblems:
    """At most one problem a label, and the withdrawal of a canary, which stands until something else goes live."""

    def __init__(self) -> None:
        self._by_label: dict[str, Problem] = {}
        self.withdrawal: Problem | None = None

    def record(self, problem: Problem) -> bool:
        """Put a problem last; return False if it stood already."""
        is_new = self._by_label.pop(problem.label, None) != problem
        self._by_label[problem.label] = problem
        return is_new

    def resolve(self, label: str) -> None:
        """Drop the label's problem."""
        self._by_label.pop(label, None)

    def standing(self) -> tuple[Problem, ...]:
        """Return the problems, the latest last; a canary's own problem hides its withdrawal."""
        withdrawal = {"canary": self.withdrawal} if self.withdrawal else {}
        return tuple((withdrawal | self._by_label).values())
