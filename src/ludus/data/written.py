"""Answers that somebody wrote, as rollouts: what supervised and preference learning take beside what was sampled."""

from __future__ import annotations

from ludus.data.render import Renderer
from ludus.types import EXTERNAL, End, Node, Rollout, Task, Turn


def written(
    renderer: Renderer, task: Task, said: str, *, reward: float = 0.0, end: End = End.FAILED
) -> Rollout:
    """One answer to the task's prompt, the end of its turn included, without log-probabilities: nobody sampled it."""
    node = Node(renderer.open(task.prompt), renderer.answer(said), trainable=True, role=EXTERNAL)
    return Rollout(
        task, (node,), (Turn(node, said),), reward, end, agent=EXTERNAL, opening=task.prompt
    )
