"""Messages to tokens, for any chat template that transformers can render, without touching what was sampled.

Text is a lossy record of tokens: several token paths spell the same text, and templates strip, reorder and drop. So a
conversation is kept as ids. The messages that open it are rendered once; what the policy sampled is appended as it
was sampled; of what comes after, only the new part is rendered (the *bridge*: end of turn, new messages, header of the
next answer). The next prompt therefore begins with the ids that the engine saw, always.

    renderer = Renderer(tokenizer)
    context = renderer.open(messages)
    completion = await sampler.generate(context, sampling, key)
    node = Node(context, completion.tokens, trainable=True, logprobs=completion.logprobs, role="assistant", ...)
    said = Message("assistant", renderer.text(node.tokens))
    context = renderer.extend(node, completion.finish, [*messages, said], [Message("user", observation)])

How. The template never sees what an environment or a person wrote. It gets a *skeleton*: each run of text replaced by
a sentinel, whitespace around it kept, and, in an assistant's message, the strings that the template looks for
(`</think>`) kept too. The text that comes back is cut at the sentinels, and the runs are put in. Hence

- a text that comes back missing or changed is noticed, not guessed;
- a control token spelled inside a run is encoded as the characters it is made of;
- the pieces depend on the skeleton alone, so they are cached, and a turn costs one encoding of its new text;
- whether the template rewrites its past is seen by comparing what it says before and after, and such a step opens a
  new context with the rewritten history (Qwen3, which drops earlier reasoning when the user speaks).

A picture is what the template writes for one, its placeholder, repeated as often as the model makes vectors of a
picture. In the ids a number beyond the vocabulary stands for each of them (`Node.inputs`), different for different
pictures, so that contexts are still compared by their numbers.

What is not covered: a template that decides by the length or a single character of a text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np
from jinja2 import nodes
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import get_json_schema

from ludus.types import Image, Inputs, Message, Node, Patch

RUN = "\ue000"  # in a skeleton: a run of text
IMAGE = "\ue001"  # in a skeleton: an image
# What a sentinel holds, so that any filter which changes characters, and any split at whitespace, breaks it.
INSIDE = "\"\\\n\t <b>&'Zz"
SENTINEL = re.compile(
    f"{RUN}(\\d+)(?:{re.escape(INSIDE)}|({re.escape(json.dumps(INSIDE)[1:-1])})){IMAGE}"
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tekken.json"),
)

Kind = tuple[
    str, tuple[str, ...]
]  # a message without its text: role, and the skeleton of each part
Tool = (
    Mapping[str, Any] | Callable[..., Any]
)  # a JSON schema, or a function whose docstring gives it


@dataclass(frozen=True)
class Pictures:
    """What a renderer has to know of a model that reads pictures.

    vocabulary   of its embeddings: numbers from here on stand for no token
    vectors      how many it makes of a picture
    placeholder  the id of the token that its template writes for a picture
    """

    vocabulary: int
    vectors: int
    placeholder: int

    def numbers(self, image: Image) -> np.ndarray:
        """[vectors] int64: what stands for each part of a picture, the same wherever the same picture is shown."""
        whole = hashlib.blake2b(image.data, digest_size=16).digest()
        each = [
            hashlib.blake2b(whole + index.to_bytes(4, "little"), digest_size=8).digest()
            for index in range(self.vectors)
        ]
        return np.array([int.from_bytes(d, "little") >> 3 for d in each]) + self.vocabulary


class Shape(NamedTuple):
    """A message taken apart: `exact` keeps the whitespace around each run, `bare` has none."""

    exact: Kind
    bare: Kind
    runs: tuple[str, ...]
    images: tuple[Image, ...]


class Slot(NamedTuple):
    """A place in a rendered text for run number `run`; `quoted` where the template writes it as JSON."""

    run: int
    quoted: bool


Piece = str | Slot


class Bridge(NamedTuple):
    """What follows an answer: the template's pieces (None: it moves older text there) up to the next header.

    end       the control token that comes first, and
    closing   how many ids there are up to it, itself included: where the policy sampled it, they are not repeated
    rewrites  the template, given the new messages, says something else about the past than it did before
    """

    pieces: tuple[Piece, ...] | None
    end: int | None
    closing: int
    rewrites: bool


class Renderer:
    """Renders conversations for one tokenizer; its template is probed once, here.

    template  instead of the tokenizer's own (a Jinja text)
    options   passed to the template, such as {"enable_thinking": False}
    stops     further ids that end a turn, such as `model.generation_config.eos_token_id`
    now       the date that a template is told: fixed, so that no run changes at midnight or when resumed
    rewrites  what to do where the template rewrites its past: "open" a new context with the history as the template
              has it now, or "append" all the same, so that the policy keeps seeing all that it said
    pictures  of the model, where it reads them (CausalModel.pictures)

    stop_ids  the ids that end a turn: the template's end of turn, the tokenizer's end of sequence, and `stops`

    Whitespace around what the policy said is no rewriting: the sampled ids stay as they are. A completion that ends
    without the end of turn (it was cut, or ended otherwise) gets it appended, untrainable.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str | None = None,
        options: Mapping[str, Any] | None = None,
        stops: Sequence[int] = (),
        now: datetime = datetime(2025, 1, 1),
        rewrites: Literal["open", "append"] = "open",
        pictures: Pictures | None = None,
    ) -> None:
        if template is None and not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r} has no chat template, so "
                "messages cannot become tokens; use the tokenizer of an instruction-tuned model, or give one: "
                "Renderer(tokenizer, template=Path('chat_template.jinja').read_text())"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.options = dict(options or {})
        self.stops = tuple(stops)
        self.now = now
        self.rewrites = rewrites
        self.pictures = pictures
        added = tokenizer.added_tokens_decoder
        self._added = {entry.content: token for token, entry in added.items()}
        controls = {entry.content for entry in added.values() if entry.special}
        controls |= set(tokenizer.all_special_tokens)
        if pictures is not None:  # a text that spells a picture shows none
            controls.add(added[pictures.placeholder].content)
        self._literals = _looked_for(
            {
                tokenizer.get_chat_template(template),
                tokenizer.get_chat_template(template, tools=[{}]),
            },
            controls,
        )
        self._shape = lru_cache(8192)(self._take_apart)
        self._whole = lru_cache(1024)(self._make_whole)
        self._bridge = lru_cache(4096)(self._make_bridge)
        self._as_parts = False  # some templates of vision models want every content as a list
        self._controls: list[str] = []  # the probe has no tools
        ends, end = self._probe()
        eos: Any = tokenizer.eos_token_id
        self._end: int | None = eos if end is None else end
        self.stop_ids = frozenset({*ends, *stops} | ({eos} if eos is not None else set()))
        controls |= {content for content, token in self._added.items() if token in ends}
        # A control of one character cannot be told from that character, and is left alone.
        self._controls = sorted((c for c in controls if len(c) > 1), key=len, reverse=True)
        self._hints = sorted({control[:2] for control in self._controls})
        self._control = re.compile(f"(?={'|'.join(map(re.escape, self._controls)) or '$.'})")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process probes the template anew; caches do not travel."""
        names = ("template", "options", "stops", "now", "rewrites", "pictures")
        again = partial(Renderer, **{name: getattr(self, name) for name in names})
        return again, (self.tokenizer,)

    @classmethod
    def load(cls, where: str | Path, **settings: Any) -> Renderer:
        """The renderer of a model: a folder, or a name that transformers resolves. `settings` as for Renderer."""
        folder = Path(where)
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise FileNotFoundError(
                f"the model folder {folder} holds no tokenizer (found: {found}; wanted: tokenizer.json and "
                f"tokenizer_config.json); put one there with tokenizer.save_pretrained({str(folder)!r})"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(where))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no tokenizer could be loaded from {str(where)!r}: {error}. Give a folder written by "
                "tokenizer.save_pretrained(...), or the name of a model"
            ) from error
        if "stops" not in settings:
            try:
                ends = GenerationConfig.from_pretrained(str(where)).eos_token_id
            except OSError:  # a tokenizer alone, without a model
                ends = None
            settings["stops"] = [ends] if isinstance(ends, int) else ends or []
        return cls(tokenizer, **settings)

    # ------------------------------------------------------------------------------------- for rollouts

    def open(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        origin: Node | None = None,
    ) -> Node:
        """A new context: these messages and the header of an answer. `origin`: the context that it replaces."""
        if not messages:
            raise ValueError(
                "open got no messages; a conversation starts with one, for example a user's"
            )
        shapes = self._shapes(messages)
        pieces = self._whole(tuple(shape.exact for shape in shapes), schemas_of(tools))
        runs = [run for shape in shapes for run in shape.runs]
        tokens, inputs = self._shown(self._encode(_fill(pieces, runs)), shapes)
        return Node(None, tokens, role="prompt", origin=origin, inputs=inputs)

    def extend(
        self,
        node: Node,
        finish: Literal["stop", "length", "cancelled"],
        history: Sequence[Message],
        new: Sequence[Message],
        tools: Sequence[Tool] | None = None,
    ) -> Node:
        """The context for the next answer, after the sampled `node` and the `new` messages.

        `history` is all that was said so far, what `node` says included; `tools` as given to `open`. The result's
        parent is `node`; or, where the template rewrites its past, it is a new root whose origin is `node`: then the
        old context is complete, and the caller keeps it as a context of its own.
        """
        if len(history) < 2 or history[-1].role != "assistant":
            roles = ", ".join(message.role for message in history) or "nothing"
            raise ValueError(
                f"extend got a history of {roles}; give every message so far, from the first one to "
                'Message("assistant", renderer.text(node.tokens))'
            )
        if finish == "cancelled":
            raise ValueError(
                "a cancelled completion is not an answer yet; sample on from it, or drop its rollout"
            )
        past = tuple(self._shape(message).bare for message in history)
        shapes = self._shapes(new)
        bridge = self._bridge(past, tuple(s.exact for s in shapes), schemas_of(tools))
        if bridge.pieces is None or (bridge.rewrites and self.rewrites == "open"):
            return self.open([*history, *new], tools, origin=node)
        tokens = self._encode(_fill(bridge.pieces, [run for s in shapes for run in s.runs]))
        if len(node.tokens) and node.tokens[-1] == bridge.end:
            tokens = tokens[bridge.closing :]
        tokens, inputs = self._shown(tokens, shapes)
        return Node(node, tokens, role="environment", inputs=inputs)

    def text(self, tokens: np.ndarray) -> str:
        """What was said: the tokens as text, without control tokens and the end of turn."""
        ids = [int(token) for token in tokens]
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def answer(self, text: str) -> np.ndarray:
        """Ids of an answer that somebody wrote, as the policy would have to say it: the end of turn included.

        The end is the template's; where that writes none after an answer, the tokenizer's end of sequence.
        """
        if self._end is None:
            raise ValueError(
                "nothing ends an answer: the chat template writes no control token after one, and the tokenizer has "
                "no end of sequence; set tokenizer.eos_token, or give another template: Renderer(tokenizer, "
                "template=...)"
            )
        return np.append(self._encode([(text, True)]), self._end)

    # ------------------------------------------------------------------------------------- text to ids

    def _encode(self, filled: Sequence[tuple[str, bool]]) -> np.ndarray:
        """Ids of pieces (text, is it content?), merged across pieces as the tokenizer would merge them.

        The text is encoded as one. Where a content spells a control token, it is cut inside that spelling, and the
        sides are encoded apart, so that no side contains it. (A tokenizer that begins every text with a space puts
        one at the cut.)
        """
        cuts, text = [0], ""
        for piece, content in filled:
            # Half a surrogate pair, as a service may send, has no UTF-8: it becomes a question mark.
            piece = piece.encode("utf-8", "replace").decode()
            if content and any(hint in piece for hint in self._hints):
                cuts += [len(text) + match.start() + 1 for match in self._control.finditer(piece)]
            text += piece
        ids: list[int] = []
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            ids += self.tokenizer(text[start:end], add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
        return np.array(ids, dtype=np.int64)

    def _shown(self, tokens: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, Inputs]:
        """The ids with each placeholder replaced by the numbers of its picture, and what these stand for."""
        images = [image for shape in shapes for image in shape.images]
        if self.pictures is None or not images:
            return tokens, {}
        places = np.flatnonzero(tokens == self.pictures.placeholder)
        if len(places) != len(images):
            token = self.tokenizer.convert_ids_to_tokens(self.pictures.placeholder)
            raise ValueError(
                f"the chat template writes {token!r} {len(places)} times for {len(images)} pictures; give one that "
                "writes it once for each: Renderer(tokenizer, template=...)"
            )
        inputs: dict[int, Patch] = {}
        parts, start = [], 0
        for place, image in zip(places, images, strict=True):
            numbers = self.pictures.numbers(image)
            inputs |= {int(n): Patch(image, index) for index, n in enumerate(numbers)}
            parts += [tokens[start:place], numbers]
            start = place + 1
        return np.concatenate([*parts, tokens[start:]]), inputs

    # ------------------------------------------------------------------------------------- the template

    def _shapes(self, messages: Sequence[Message]) -> list[Shape]:
        """Of messages that the model will read, pictures too where it can."""
        shapes = [self._shape(message) for message in messages]
        if self.pictures is None and (shown := sum(len(shape.images) for shape in shapes)):
            raise ValueError(
                f"the messages show {shown} pictures, and the model reads text alone: it has no vision tower (or the "
                "renderer was not told of it: Renderer(tokenizer, pictures=model.pictures)); take a model that reads "
                "pictures, or an environment without them"
            )
        return shapes

    def _take_apart(self, message: Message) -> Shape:
        parts: list[str] = []
        runs: list[str] = []
        joined: list[str | Image] = []
        for part in message.content:  # neighbouring texts are one text
            if isinstance(part, str) and joined and isinstance(joined[-1], str):
                joined[-1] += part
            else:
                joined.append(part)
        for part in joined or [""]:
            if isinstance(part, Image):
                parts.append(IMAGE)
                continue
            # Only what the policy said may steer the template; what it read is data.
            looks = self._literals if message.role == "assistant" else None
            pieces = looks.split(part) if looks else [part]
            skeleton = ""
            for index, piece in enumerate(pieces):
                core = piece.strip()
                if index % 2 or not core:  # a string that the template looks for, or whitespace
                    skeleton += piece
                    continue
                left = len(piece) - len(piece.lstrip())
                skeleton += piece[:left] + RUN + piece[left + len(core) :]
                runs.append(core)
            parts.append(skeleton)
        bare = tuple("".join(part.split()) for part in parts)
        images = tuple(part for part in message.content if isinstance(part, Image))
        return Shape((message.role, tuple(parts)), (message.role, bare), tuple(runs), images)

    def _render(self, kinds: Sequence[Kind], schemas: str, *, header: bool) -> str:
        """The template's text for these skeletons, runs numbered from 0 over the conversation."""
        for control in self._controls if schemas else ():
            if control in schemas:
                raise ValueError(
                    f"a tool's description spells the control token {control!r}, which the template would pass on; "
                    "take it out of the description"
                )
        numbers = count()
        conversation: list[dict[str, Any]] = []
        for role, parts in kinds:
            if len(parts) == 1 and parts[0] != IMAGE and not self._as_parts:
                conversation.append({"role": role, "content": _numbered(parts[0], numbers)})
                continue
            content = [
                {"type": "image"}
                if part == IMAGE
                else {"type": "text", "text": _numbered(part, numbers)}
                for part in parts
            ]
            conversation.append({"role": role, "content": content})
        try:
            text = self.tokenizer.apply_chat_template(
                conversation,
                tools=json.loads(schemas) if schemas else None,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=header,
                strftime_now=self.now.strftime,
                **self.options,
            )
        except (jinja2.TemplateError, TypeError) as error:
            roles = ", ".join(role for role, _ in kinds)
            raise ValueError(
                f"the chat template refuses a conversation of {roles}: {error}. Say it in roles that it knows (a "
                "system's or a tool's text can go into a user message), or give another: "
                "Renderer(tokenizer, template=...)"
            ) from error
        return str(text)

    def _make_whole(self, kinds: tuple[Kind, ...], schemas: str) -> tuple[Piece, ...]:
        """The pieces of a conversation, up to the header of the next answer."""
        pieces = _pieces(self._render(kinds, schemas, header=True))
        _check(pieces, kinds, 0)
        return pieces

    def _make_bridge(self, past: tuple[Kind, ...], new: tuple[Kind, ...], schemas: str) -> Bridge:
        *before, answer = past
        plain: Kind = ("assistant", (RUN,))
        # What follows an answer, whatever it said.
        after = self._render([*before, plain, *new], schemas, header=True)
        first = _runs(before)  # the answer's own run
        found = after.rfind(sentinel(first))
        if found < 0:
            raise ValueError(_lost(len(before), "assistant"))
        text = after[found + len(sentinel(first)) :]
        pieces = _pieces(text)
        _check(pieces, new, first + 1, offset=len(past))
        # What the template said until now, and whether it still says so. Whitespace does not count, and an empty
        # answer, which some templates refuse, is taken as any other.
        said = answer if any(answer[1]) else plain
        prompt = self._render(before, schemas, header=True)
        spoken = _numbered("".join(said[1]), count(first))
        now = after if said == plain else self._render([*before, said, *new], schemas, header=True)
        rewrites = not _squeeze(now).startswith(_squeeze(prompt + spoken))
        end, margin = self._first(text), text[: len(text) - len(text.lstrip())]
        closing = len(self._encode([(margin + end, False)])) if end else 0
        moved = [p if isinstance(p, str) else p._replace(run=p.run - first - 1) for p in pieces]
        older = any(isinstance(piece, Slot) and piece.run < 0 for piece in moved)
        return Bridge(
            None if older else tuple(moved), self._added[end] if end else None, closing, rewrites
        )

    def _first(self, text: str) -> str | None:
        """The added token that a rendered text begins with, whitespace aside."""
        found = [content for content in self._added if text.lstrip().startswith(content)]
        return max(found, key=len) if found else None

    def _probe(self) -> tuple[set[int], int | None]:
        """Renders a question and an answer, to learn which tokens end a turn, and which the template writes there.

        Where it writes none after an answer (GLM), the tokens that begin what comes next do.
        """
        question: Kind = ("user", (RUN,))
        answer: Kind = ("assistant", (RUN,))
        try:
            self._make_whole((question,), "")
        except ValueError as error:
            self._as_parts = True
            try:
                self._make_whole((question,), "")
            except ValueError:
                raise error from None
        both = self._render([question, answer], "", header=False)
        if sentinel(1) not in both:
            raise ValueError(_lost(1, "assistant"))
        between, after = both.split(sentinel(0))[-1].split(sentinel(1), 1)
        silent = self._render([question], "", header=False)
        header = self._render([question], "", header=True)
        if silent == header and header.rstrip() != both.split(sentinel(1))[0].rstrip():
            raise ValueError(
                f"the chat template ignores add_generation_prompt: it puts {between!r} before an answer, but a prompt "
                "would end without it; add `{% if add_generation_prompt %}...{% endif %}` to the template"
            )
        ends = [self._first(after)]
        if ends == [None]:
            for role in ("user", "tool"):
                with suppress(ValueError):  # a role that the template does not know
                    text = self._render([question, answer, (role, (RUN,))], "", header=False)
                    ends.append(self._first(text.split(sentinel(1))[-1]))
        written = ends[0]
        return {self._added[end] for end in ends if end}, self._added[written] if written else None


# ------------------------------------------------------------------------------------------- sentinels


def sentinel(number: int) -> str:
    """What the template gets in place of run `number`."""
    return f"{RUN}{number}{INSIDE}{IMAGE}"


def _numbered(skeleton: str, numbers: Iterator[int]) -> str:
    return re.sub(RUN, lambda _: sentinel(next(numbers)), skeleton)


def schemas_of(tools: Sequence[Tool] | None) -> str:
    """Tools as one JSON text, which can be a key."""
    if tools is None:
        return ""
    return json.dumps([_schema(tool) if callable(tool) else tool for tool in tools])


_schema = lru_cache(get_json_schema)


def _pieces(text: str) -> tuple[Piece, ...]:
    """A rendered text, cut at its sentinels."""
    fields = SENTINEL.split(text)
    pieces: list[Piece] = [fields[0]]
    for run, quoted, after in zip(fields[1::3], fields[2::3], fields[3::3], strict=True):
        pieces += [Slot(int(run), quoted is not None), after]
    return tuple(piece for piece in pieces if piece != "")


def _fill(pieces: Sequence[Piece], runs: Sequence[str]) -> list[tuple[str, bool]]:
    """(text, is it content?) with the runs in their places."""
    return [
        (piece, False)
        if isinstance(piece, str)
        else (json.dumps(runs[piece.run], ensure_ascii=False)[1:-1], True)
        if piece.quoted
        else (runs[piece.run], True)
        for piece in pieces
    ]


def _check(pieces: Sequence[Piece], kinds: Sequence[Kind], first: int, offset: int = 0) -> None:
    """Raises where a text of `kinds` did not come back whole. Runs count from `first`, messages from `offset`.

    An answer in which the template found what it looks for may lose runs: that is how earlier reasoning is dropped.
    """
    back = {piece.run for piece in pieces if isinstance(piece, Slot)}
    broken = {int(n) for p in pieces if isinstance(p, str) for n in re.findall(f"{RUN}(\\d+)", p)}
    for index, (role, parts) in enumerate(kinds, offset):
        runs = set(range(first, first + _runs([(role, parts)])))
        first += len(runs)
        cut = role == "assistant" and any(part.strip() not in {RUN, IMAGE, ""} for part in parts)
        if runs & broken or (runs - back and not cut):
            raise ValueError(_lost(index, role))


def _lost(index: int, role: str) -> str:
    return (
        f"the chat template loses or changes the text of message {index} (counted from 0; role {role}), so the model "
        "would not see what was said; put that text into a message of a role that the template renders, or give "
        "another template: Renderer(tokenizer, template=...)"
    )


def _runs(kinds: Sequence[Kind]) -> int:
    return sum(part.count(RUN) for _, parts in kinds for part in parts)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _looked_for(templates: set[str], controls: set[str]) -> re.Pattern[str] | None:
    """Matches the strings that the templates look for inside a text, such as `</think>`; None if there are none.

    They stand left of `in`, are arguments of methods (`split`, `startswith`) and of `replace`, or were given a name.
    Plain words are names of roles and fields; one or two characters are escaped, which `INSIDE` notices; whitespace is
    kept by every skeleton; a control token never occurs in what was said.
    """
    found: set[Any] = set()
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    for template in templates:
        # `{% generation %}` is transformers' own tag; it encloses, and looks for nothing.
        tree = environment.parse(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template))
        asked: list[nodes.Node] = []
        for compare in tree.find_all(nodes.Compare):
            if any(operand.op in {"in", "notin"} for operand in compare.ops):
                asked.append(compare.expr)
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Getattr):
                asked += call.args
        for use in tree.find_all(nodes.Filter):
            if use.name == "replace":
                asked += use.args
        for assignment in tree.find_all(nodes.Assign):
            asked.append(assignment.node)
        found |= {node.value for node in asked if isinstance(node, nodes.Const)}
    kept = {
        text
        for text in found
        if isinstance(text, str)
        and len(text.strip()) > 2
        and not text.isidentifier()
        and not any(control in text for control in controls)
    }
    longest_first = sorted(kept, key=lambda text: (-len(text), text))
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if kept else None
