"""Conversations of a harness that sends its whole message list with every call, kept token-exact.

An agent program that was written for a chat endpoint knows messages, not nodes. It may hold several conversations at
once, rewrite its history, start sub-agents. Each call is therefore attached to the open branch that agrees with it
longest: the recorded messages, what the policy said included, are a prefix of the messages sent. Then only the rest
is rendered. Where no branch agrees (a first call, an edited or summarised history), a new context opens.

With one branch kept open, the turns of two interleaved conversations A1 B1 A2 B2 would give four contexts instead of
two, and every prompt would be learnt from twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ludus.data.render import Renderer, Tool, schemas_of
from ludus.types import Completion, Message, Node


class Branch(NamedTuple):
    """The end of an open conversation: the node sampled last, and why it stopped."""

    node: Node
    completion: Completion


class Trace:
    """All contexts of one rollout driven from outside; `most` branches are kept open, the oldest closes first.

    trace = Trace(renderer)
    context = trace.context(messages)                          # what to sample from
    node, said = trace.answer(context, messages, completion)   # what was sampled; said goes back to the harness

    contexts  the leaf of every context, in the order in which they began
    opened    how often no branch agreed and a context was rendered from the start
    """

    def __init__(self, renderer: Renderer, most: int = 64) -> None:
        self.renderer = renderer
        self.most = most
        self.opened = 0
        self._open: dict[tuple[str, tuple[Message, ...]], Branch] = {}  # by tools and messages
        self._leaves: dict[Node, None] = {}  # ordered

    @property
    def contexts(self) -> tuple[Node, ...]:
        return tuple(self._leaves)

    def context(self, messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> Node:
        """The context for an answer to these messages: an open branch continued, or a new root."""
        sent, schemas = tuple(messages), schemas_of(tools)
        for length in range(len(sent), 0, -1):
            branch = self._open.get((schemas, sent[:length]))
            if branch is not None:
                node, completion = branch
                return self.renderer.extend(
                    node, completion.finish, sent[:length], sent[length:], tools
                )
        self.opened += 1
        return self.renderer.open(sent, tools)

    def answer(
        self,
        context: Node,
        messages: Sequence[Message],
        completion: Completion,
        tools: Sequence[Tool] | None = None,
    ) -> tuple[Node, str]:
        """Records what was sampled from `context(messages, tools)`; returns the node and what it says."""
        node = completion.node(context)
        said = self.renderer.text(completion.said)
        history = (*messages, Message("assistant", said))
        self._open[schemas_of(tools), history] = Branch(node, completion)
        while len(self._open) > self.most:
            del self._open[next(iter(self._open))]
        # The leaf that this node continues, if it was one, is a leaf no more; its place goes to the longer one.
        previous = context.parent
        self._leaves = {node if leaf is previous else leaf: None for leaf in self._leaves} | {
            node: None
        }
        return node, said
