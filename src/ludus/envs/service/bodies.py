"""The bodies that a service of environments accepts: calls of its own protocol, and those of AgentGym."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from ludus.envs.service.sessions import Refused
from ludus.envs.world import Split

BATCH = 4096  # calls in one request


def _is_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} came, wanted a string")
    return value


Text = Annotated[Any, AfterValidator(_is_text), WithJsonSchema({"type": "string"})]
"""Any string that JSON can say: a model may write lone surrogates, and `str` here would refuse them."""
Number = Annotated[int, Field(ge=0, lt=1 << 63, strict=True)]
Id = Annotated[str, Field(max_length=100)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ResetCall(Strict):
    """Open a session on a task. Repeated with the same `key`, the same one; `task`, if given, must be its id."""

    call: Literal["reset"]
    split: Split = "train"
    index: Number
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63, strict=True)] = 0
    key: Id = ""
    task: Text = ""


class StepCall(Strict):
    """Act. `turn` is the number of steps made so far; a repetition with the same action is answered, not done again."""

    call: Literal["step"]
    session: Id
    turn: Number | None = None
    action: Text


class ForkCall(Strict):
    """A second session from where this one is; with `turn`, only if that is where it is."""

    call: Literal["fork"]
    session: Id
    turn: Number | None = None


class CloseCall(Strict):
    call: Literal["close"]
    session: Id


Call = Annotated[ResetCall | StepCall | ForkCall | CloseCall, Field(discriminator="call")]


class Batch(Strict):
    calls: Annotated[list[Call], Field(min_length=1, max_length=BATCH)]


class Gym(BaseModel):
    """A body of AgentGym: most servers say `id`, WebArena and SearchQA say `env_idx`; other fields are let pass."""

    id: Number | None = None
    env_idx: Number | None = None

    def session(self) -> str:
        number = self.id if self.env_idx is None else self.env_idx
        if number is None:
            raise Refused(
                422, "which session? give `id` (or `env_idx`), the number that /create answered"
            )
        return str(number)


class GymReset(Gym):
    """`data_idx`, `idx`, `game` (maze), or beside `env_idx` also `id`: a task's place in train, then test.

    Where none of them is given, `seed` is the task's place, as in Wordle.
    """

    data_idx: Number | None = None
    idx: Number | None = None
    game: Number | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63, strict=True)] = 0

    def item(self) -> int:
        other = self.id if self.env_idx is not None else None
        for found in (self.data_idx, self.idx, self.game, other):
            if found is not None:
                return found
        if "seed" in self.model_fields_set and self.seed >= 0:
            return self.seed
        raise Refused(422, "which task? give `data_idx`, counted from 0 over train and then test")


class GymStep(Gym):
    action: Text
