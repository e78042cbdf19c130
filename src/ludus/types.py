"""The nouns and the protocols of Ludus. This file imports nothing of ours, and everything else imports it.

Legend of shapes, shared by all files: P prompts, G answers per prompt, R rollouts, B contexts (rows), T tokens,
K turns, V vocabulary. A name such as `reward_R` ends with its shape where that helps.

One record travels from sampling to learning and to disk:

    Task -> Request -> Rollout (turns, and the Nodes that were really sampled) -> Group -> Batch

Four rules hold everywhere. (1) A sampled token id is never derived again from text. (2) A setting that the chosen
engine cannot honour is an error at the start. (3) Every reduction names its level, and its denominator is counted
once over the global batch. (4) Whatever can be stale carries a version.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch


# ---------------------------------------------------------------------------------------------- what is said


@dataclass(frozen=True)
class Image:
    """A picture inside a message: encoded bytes (PNG or JPEG), so that it is hashable and writes to disk as it is."""

    data: bytes


Part = str | Image
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation; `content` is a tuple of parts (a plain string is taken as one text part)."""

    role: Role
    content: tuple[Part, ...]

    def __init__(self, role: Role, content: str | Image | Sequence[Part]) -> None:
        parts = (content,) if isinstance(content, str | Image) else tuple(content)
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "content", parts)

    @property
    def text(self) -> str:
        """The text parts joined; images are left out."""
        return "".join(part for part in self.content if isinstance(part, str))


@dataclass(frozen=True)
class Task:
    """One thing to attempt. `prompt` opens every conversation about it; what an environment adds comes after.

    answer      what a verifier compares with (never shown to the policy)
    env         the name of the environment it belongs to, where a recipe mixes several
    difficulty  in the environment's own unit (depth, digits ...), for curricula and per-level reports
    """

    id: str
    prompt: tuple[Message, ...] = ()
    answer: Any = None
    env: str = ""
    difficulty: float = 0.0
    domain: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


class End(enum.StrEnum):
    """Why an attempt ended. Only an end that is the policy's own doing may be scored (`scorable`)."""

    SOLVED = "solved"
    FAILED = "failed"
    GAVE_UP = "gave up"
    OUT_OF_TURNS = "out of turns"
    OUT_OF_TOKENS = "out of tokens"
    ENV_CRASHED = "environment crashed"
    ENV_TIMED_OUT = "environment timed out"
    ENGINE_LOST = "engine lost"
    JUDGE_ERROR = "judge error"
    CANCELLED = "cancelled"

    @property
    def scorable(self) -> bool:
        return self in {End.SOLVED, End.FAILED, End.GAVE_UP, End.OUT_OF_TURNS, End.OUT_OF_TOKENS}


@dataclass(frozen=True)
class Step:
    """What an environment answers.

    state        explicit: a plain value where the world is pure Python; a handle with the history where it is not
    observation  what the policy sees next: text, or parts of text and images
    reward       of this step alone
    end          None while the episode goes on
    """

    state: Any
    observation: str | tuple[Part, ...]
    reward: float = 0.0
    end: End | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- randomness


@dataclass(frozen=True)
class Key:
    """A name for a stream of random numbers: the run's seed and a path such as ("step", 3, "task", "t17", "turn", 2).

    The numbers depend on the name alone, never on arrival order, so scheduling cannot change what is sampled.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def __truediv__(self, part: str | int) -> Key:
        return Key(self.seed, (*self.path, part))

    def integer(self) -> int:
        """A 63-bit integer, uniform over names (blake2b; stable over processes, machines and Python versions)."""
        digest = hashlib.blake2b(repr((self.seed, self.path)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def generator(self) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(self.integer()))


# ---------------------------------------------------------------------------------------------- what is sampled


@dataclass(frozen=True)
class Soft:
    """What the model writes is read back as a noisy mixture of embeddings, and no token is chosen (ludus.models.soft).

    temperature  of the mixture: 0.5 mixes; 1e-4 leaves the likeliest token's embedding ("fuzzy")
    noise        sigma in units of the root mean square of the embedding table's numbers
    sigma        itself, in the units of the table; None: from `noise` and the table of the time. What was sampled
                 names the one that it was sampled with. At 0 there is no density, and nothing to learn from
    """

    temperature: float = 0.5
    noise: float = 0.33
    sigma: float | None = None

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.noise >= 0 and (self.sigma or 0.0) >= 0):
            raise ValueError(
                f"{self}; give a temperature above 0 (1e-4 is fuzzy), and noise from 0"
            )


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature 0 is greedy. `stop` strings end a turn after the token that completes one.

    soft  instead of tokens, mixtures of embeddings: `temperature` then says only whether there is noise (0: none),
          and what is watched for `stop` is the likeliest token of each position
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    soft: Soft | None = None

    def __post_init__(self) -> None:
        narrow = 0 < self.top_p <= 1 and self.top_k >= 0
        if not (self.temperature >= 0 and narrow and self.max_tokens >= 1):
            raise ValueError(
                f"{self}; give a temperature from 0 (greedy), top_p above 0 and up to 1 (all), top_k from 0 (all), "
                "and max_tokens from 1"
            )
        if isinstance(self.stop, str) or "" in self.stop:
            raise ValueError(
                f"stop={self.stop!r} would end a turn at any character; give a tuple of texts, such as "
                "stop=('</answer>',)"
            )
        if self.soft is not None and (self.top_k or self.top_p < 1):
            raise ValueError(
                f"soft mixes all tokens, and top_k={self.top_k}, top_p={self.top_p} choose some; leave them out"
            )


@dataclass(frozen=True)
class Patch:
    """One position of a picture in a context: the `index`-th of the vectors that the model makes of it."""

    image: Image
    index: int


Inputs = Mapping[int, "np.ndarray | Patch"]
"""Number beyond the vocabulary -> what the model reads there: a vector [H] as it is, or a patch of a picture.

Two inputs share a number only if they are the same, so contexts are compared, cached and packed by their numbers alone.
"""

EXTERNAL = "external"  # the role of tokens that are trained on and that the policy did not write


@dataclass(frozen=True, eq=False)
class Node:
    """Tokens appended to a context by one author. Nodes form a trace: a chain, or a forest where rollouts branch.

    parent     the context that these tokens continue; None for a root
    tokens     [T] int64, as sampled or as rendered once; never derived again from text
    trainable  True where these tokens are trained on: the policy in training chose every one of them, or somebody
               else wrote them as an example (`role` "external", without log-probabilities)
    logprobs   [T] float32, of the distribution sampled from (after temperature); None if nobody sampled them
    version    of the weights that sampled them; -1 if nobody did
    role       who wrote: prompt, assistant, environment, template, or a role's own name
    origin     for a new root (a summary, a rewritten history): the context it came from
    inputs     what the model reads that is no token (a patch of a picture, a continuous thought): a number beyond the
               vocabulary stands in `tokens`, one for each different input, and this names what it stands for

    Identity is equality: a shared node is one object, sampled once, stored once and trained once.
    """

    parent: Node | None
    tokens: np.ndarray
    trainable: bool = False
    logprobs: np.ndarray | None = None
    version: int = -1
    sampling: Sampling | None = None
    role: str = "environment"
    origin: Node | None = None
    inputs: Inputs = field(default_factory=dict)
    length: int = field(init=False)  # of the whole context, this node included

    def __post_init__(self) -> None:
        sampled = self.trainable and self.role != EXTERNAL
        if sampled and (self.logprobs is None or len(self.logprobs) != len(self.tokens)):
            got = None if self.logprobs is None else len(self.logprobs)
            raise ValueError(
                f"a trainable node of {len(self.tokens)} tokens came with {got} log-probabilities; "
                "give one for each token, as sampled"
            )
        object.__setattr__(
            self, "length", len(self.tokens) + (self.parent.length if self.parent else 0)
        )

    def chain(self) -> list[Node]:
        """The nodes of this context, root first."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def context(self) -> np.ndarray:
        """The token ids of the whole context, [length]."""
        return np.concatenate([node.tokens for node in self.chain()])

    def all_inputs(self) -> Inputs:
        """What the numbers beyond the vocabulary stand for, in the whole context."""
        return {number: each for node in self.chain() for number, each in node.inputs.items()}


@dataclass(frozen=True)
class Completion:
    """What a sampler returned: ids and log-probabilities as sampled, and why it stopped.

    sampling  as asked for, with what the sampler filled in (Soft.sigma)
    inputs    where it was soft: what the model read, for Node.inputs; `logprobs` are log-densities, 0 without noise
    shadow    where it was soft: [T] the likeliest token of each position
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    finish: Literal["stop", "length", "cancelled"]
    version: int
    sampling: Sampling
    inputs: Inputs = field(default_factory=dict)
    shadow: np.ndarray | None = None

    @property
    def said(self) -> np.ndarray:
        """[T]: the tokens that can be read as text."""
        return self.tokens if self.shadow is None else self.shadow

    def node(self, context: Node) -> Node:
        """What was sampled, behind its context. Vectors without noise were not chosen, so they are not trained on."""
        soft = self.sampling.soft
        return Node(
            context,
            self.tokens,
            trainable=soft is None or bool(soft.sigma),
            logprobs=self.logprobs,
            version=self.version,
            sampling=self.sampling,
            role="assistant",
            inputs=self.inputs,
        )


@dataclass(frozen=True)
class Turn:
    """One exchange: the sampled node, what it said, and what the environment answered.

    observation  its text; `pictures` are the images in it, in order
    anchor       a hashable name of the state acted in, for same-state comparisons (GiGPO); None if not known
    """

    node: Node
    action: str
    observation: str = ""
    reward: float = 0.0
    anchor: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[Image, ...] = ()

    @classmethod
    def of(cls, node: Node, action: str, step: Step) -> Turn:
        """With what the environment answered."""
        told, anchor = Message("user", step.observation), step.info.get("anchor")
        pictures = tuple(part for part in told.content if isinstance(part, Image))
        return cls(node, action, told.text, float(step.reward), anchor, step.info, pictures)


@dataclass(frozen=True)
class Rollout:
    """One attempt at a task.

    contexts  the leaf of every context that it wrote: one for most systems, several with summaries or sub-agents
    reward    what credit is assigned for; `terms` are the named channels it was made from, kept apart
    agent     the role that produced it, where a conversation has several
    cohort    where the attempts of one role at a task differ in what they were given (a solution to judge, say): those
              of one cohort are compared with each other
    signals   what a recipe asked to be measured on the way (entropy, hidden states ...)
    error     the message of what went wrong outside the policy, where `end` is not scorable
    """

    task: Task
    contexts: tuple[Node, ...]
    turns: tuple[Turn, ...]
    reward: float
    end: End
    terms: Mapping[str, float] = field(default_factory=dict)
    agent: str = "policy"
    cohort: str = ""
    signals: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    opening: tuple[Message, ...] = ()  # the messages before the first turn, for the reader

    @property
    def solved(self) -> bool:
        return self.end is End.SOLVED


@dataclass(frozen=True)
class Group:
    """What is compared with what: by default, the answers to one task."""

    key: str
    rollouts: tuple[Rollout, ...]
    baseline: float | None = None  # reward of the greedy twin, where a credit needs it (ReMax)


@dataclass(frozen=True)
class Request:
    """What a curriculum asks for: some attempts at a task under stated conditions.

    `seed` makes the world; the answers of one request share it, so that they are compared on the same world.
    """

    task: Task
    answers: int
    max_turns: int
    seed: int = 0
    guidance: tuple[
        Message, ...
    ] = ()  # hints injected before the first turn; recorded as part of the prompt


# ---------------------------------------------------------------------------------------------- what is learnt


@dataclass(frozen=True)
class Batch:
    """One training step as padded tensors: rows [B] are contexts, statistics [R] are of rollouts.

    tokens   [B,T] int64                     mask     [B,T] bool: chosen by the policy in training
    logp     [B,T] float32, as sampled       turn     [B,T] int64: index of the turn, -1 outside
    rollout  [B] int64: row -> rollout       group    [R] int64: rollout -> group
    reward   [R] float32                     scored   [R] bool: False where the end was not the policy's doing
    turn_reward [R,K] float32                baseline [R] float32 or None: what the group is compared with
    solved   [R] bool                        anchor [R,K] int64: equal where turns of a group acted in one state, -1
    external [B,T] bool: trained on, but written by somebody else (their log-probabilities are not known)
    inputs   what numbers beyond the vocabulary in `tokens` stand for (Node.inputs)
    terms    name -> [R] float32, of Rollout.terms; NaN where a rollout has none of that name
    soft     how those of them that the policy chose were sampled; at their places `logp` is a log-density

    Filled on demand by the learner, each [B,T] float32: old_logp (the learner's own at the start of the update),
    ref_logp (the anchor's), value (the critic's), and in `probes` what a recipe's probes measured. Position t holds
    what belongs to token t itself.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    logp: torch.Tensor
    turn: torch.Tensor
    rollout: torch.Tensor
    group: torch.Tensor
    reward: torch.Tensor
    scored: torch.Tensor
    turn_reward: torch.Tensor
    baseline: torch.Tensor | None = None
    old_logp: torch.Tensor | None = None
    ref_logp: torch.Tensor | None = None
    value: torch.Tensor | None = None
    advantage: torch.Tensor | None = None
    returns: torch.Tensor | None = None
    solved: torch.Tensor | None = None
    anchor: torch.Tensor | None = None
    external: torch.Tensor | None = None
    probes: Mapping[str, torch.Tensor] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=dict)
    terms: Mapping[str, torch.Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    soft: Soft | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def spread(self, per_rollout: torch.Tensor) -> torch.Tensor:
        """[R] -> [B,T]: the rollout's number on each of its trainable tokens, 0 elsewhere."""
        if per_rollout.shape != self.reward.shape:
            raise ValueError(
                f"spread wants one number per rollout, shape {tuple(self.reward.shape)}; "
                f"got shape {tuple(per_rollout.shape)}"
            )
        return per_rollout[self.rollout][:, None] * self.mask

    def rows(self, index: torch.Tensor) -> Batch:
        """The rows `index`, cut to their longest; rollout-level tensors stay whole, so `rollout` stays valid."""
        width = int(self.lengths()[index].max()) if len(index) else 0
        changes: dict[str, Any] = {}
        for name in _OF_ROWS:
            tensor = getattr(self, name)
            if tensor is not None:
                changes[name] = tensor[index] if tensor.dim() == 1 else tensor[index][:, :width]
        probes = {name: tensor[index][:, :width] for name, tensor in self.probes.items()}
        return replace(self, probes=probes, **changes)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`."""
        plain = ("temperature", "soft", "probes", "inputs", "terms")
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in plain}
        probes = {name: tensor.to(device) for name, tensor in self.probes.items()}
        moved = {n: t.to(device) for n, t in tensors.items() if t is not None}
        terms = {name: tensor.to(device) for name, tensor in self.terms.items()}
        return replace(self, probes=probes, terms=terms, **moved)

    def lengths_mask(self) -> torch.Tensor:
        """[B,T] bool: True on real tokens; padding is token -1."""
        return self.tokens >= 0

    def lengths(self) -> torch.Tensor:
        return self.lengths_mask().sum(1)


_OF_ROWS = (
    *("tokens", "mask", "logp", "turn", "rollout"),
    *("old_logp", "ref_logp", "value", "advantage", "returns", "external"),
)


# ---------------------------------------------------------------------------------------------- the protocols


@runtime_checkable
class Env(Protocol):
    """A world that holds no episode itself: the state travels in the Step, so that branching needs nothing special.

    `tasks` lists what can be attempted. Two more methods are optional: `async fork(state)` returns an independent copy
    of a state (a pure value returns itself) or raises `CannotFork`; `async close(state)` frees what a state holds
    outside Python.
    """

    @property
    def name(self) -> str: ...
    def tasks(self, split: Literal["train", "test"] = "train") -> Sequence[Task]: ...
    async def reset(self, task: Task, seed: int) -> Step: ...
    async def step(self, state: Any, action: str) -> Step: ...


class Explained(Exception):
    """An error that says what came, what was wanted and what to type. The command line shows it without a trace."""


class CannotFork(RuntimeError):
    """Raised by an environment whose states cannot be copied."""


class Sampler(Protocol):
    """Token ids in, token ids out; the only way to a policy while rollouts are made.

    `renderer` (ludus.data.render) turns messages into nodes for this policy's template. `score` gives the
    log-probabilities of `tokens` as a continuation of `context`, at temperature 1, without appending them. One that
    honours `Sampling.soft` has an attribute `soft`, True.
    """

    renderer: Any

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion: ...
    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray: ...


class ContextTooLong(ValueError):
    """A context that leaves the model no room for one more token."""


Strategy = Callable[["Request", Any, Any, Key], Awaitable["Rollout | Sequence[Rollout]"]]
"""async (request, sampler, env, key) -> rollout(s): how one attempt (or tree, or conversation) is produced.

Where a recipe casts several policies, `sampler` is a mapping from role to the Sampler of the policy that plays it.
What it gives and whose roles it plays it may say in `gives` and `roles`, so that a recipe can be checked before it
runs: ludus.train.needs has the words, for strategies, credits, curricula and rewards.
"""

Reward = Callable[[Sequence[Group]], Awaitable[Sequence[Group]]]
"""Fills `reward` and `terms`; it sees whole groups, so that group-aware and history-aware rewards fit."""


class Credited(NamedTuple):
    """What credit gives: advantage [B,T], and returns [B,T], the critic's targets, where there is a critic."""

    advantage: torch.Tensor
    returns: torch.Tensor | None = None
    metrics: Mapping[str, float] = {}


class Credit(Protocol):
    """Rewards (and values) to one number per token. A plain function `(batch) -> [B,T]` serves as one, without state.

    needs  what must be there: "group" (two or more answers), "value", "ref_logp", "baseline" (the greedy twin)
    """

    @property
    def needs(self) -> Sequence[str]: ...
    def init(self) -> Any: ...
    def assign(self, state: Any, batch: Batch) -> tuple[Any, Credited]: ...


Loss = Callable[..., "torch.Tensor"]
"""(logp, old_logp, advantage, mask) -> [B,T], one value per token, to be minimised; never averaged inside.

What else it needs it names as further parameters without a default: fields of Batch ("external", "ref_logp"), probes
("old_mean_logp"), and what the weights in training give ("entropy", "mean_logp"); see ludus.losses.objective.
"""

Probe = Callable[[Any, "Batch"], "torch.Tensor"]
"""(model, batch) -> [B,T] float: a measure of each token, taken before the first update (ludus.models.probes)."""


class Curriculum(Protocol):
    """What to draw next. State is a plain JSON value, so that it is saved, resumed and nested for free.

    A drawn task is attempted `recipe.answers` times. A drawn Request says for itself how often and with what guidance;
    the loop fills in its seed, and the turns of the horizon where `max_turns` is 0.

    Two more methods are optional. `more(state, groups) -> (state, requests)` is called with all groups of the step so
    far, until it asks for nothing: adaptive sampling, hints after failure, refills. `select(state, groups) -> groups`
    then says what is learnt from.
    """

    def init(self, tasks: Sequence[Task]) -> Any: ...
    def draw(
        self, state: Any, tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[Any, Sequence[Task | Request]]: ...
    def update(self, state: Any, groups: Sequence[Group]) -> Any: ...


Horizon = Callable[[int], int]
"""Training step, counted from 1, to the number of turns allowed. Derived from the step alone, so resuming keeps it."""


class Cast(Protocol):
    """Who plays which role, who learns, and who begins its optimiser afresh, in each training step, counted from 1.

    Functions of the step alone, so a run that is stopped and resumed keeps its phase. A recipe's own policy is called
    "policy"; the others have their names in `Recipe.others`.
    """

    def plays(self, step: int) -> Mapping[str, str]: ...
    def learns(self, step: int) -> Sequence[str]: ...
    def restarts(self, step: int) -> bool: ...


@dataclass(frozen=True)
class Report:
    """One training step, as it is shown and written: `metrics` never depends on the clock, `timings` does."""

    step: int
    metrics: Mapping[str, float]
    timings: Mapping[str, float]
    groups: Sequence[Group] = ()

    def with_metrics(self, more: Mapping[str, float]) -> Report:
        return replace(self, metrics={**self.metrics, **more})


@dataclass(frozen=True)
class Optim:
    """How the weights move: AdamW with a clipped norm. The defaults suit a tiny model; papers' stand in their recipes.

    warmup       steps over which the rate rises linearly from 0
    updates      optimiser steps per batch; groups are dealt out to them by a permutation keyed by seed and step
    pass_tokens  tokens in one forward and backward; memory follows it, the gradient does not change
    epochs       times the whole batch is gone through
    critic_alone first steps in which the critic learns and the policy does not
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 0
    max_norm: float = 1.0
    updates: int = 1
    epochs: int = 1
    pass_tokens: int = 8192
    checkpointing: bool = False
    critic_lr: float = 1e-3
    critic_clip: float | None = 0.5
    critic_alone: int = 0


class Learner(Protocol):
    """Owns the trained weights. One program for one device or many. `restart` forgets what the optimiser remembers."""

    def annotate(self, batch: Batch, needs: Sequence[str] = ()) -> Batch: ...
    def update(self, batch: Batch) -> Mapping[str, float]: ...
    def gradients(self, batch: Batch) -> Mapping[str, float]: ...
    def restart(self) -> None: ...
    def state(self) -> Mapping[str, Any]: ...
    def load(self, state: Mapping[str, Any]) -> None: ...


class Engine(Protocol):
    """Turns requests into groups on some machines; `publish` gives it new weights under a new version.

    `close` ends it in order: what environments still hold open is closed.

    cast  role -> name of the policy that plays it, where there are several
    """

    def collect(
        self,
        strategy: Strategy,
        requests: Sequence[Request],
        env: Env | None,
        key: Key,
        *,
        cast: Mapping[str, str] | None = None,
        done: Callable[[Rollout], None] = ...,
    ) -> list[Group]: ...
    def publish(self, version: int) -> None: ...
    def close(self) -> None: ...
