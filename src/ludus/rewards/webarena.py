"""How WebArena (arXiv:2307.13854) judges: by the answer, by the address, and by what is on pages.

    string_match   all of `reference_answers`: exact_match, every part of must_include, and for fuzzy_match a judge
    url_match      one of the addresses `a |OR| b` is in the last one, and of its query fields one value each
    program_html   what a locator finds on a page equals, or includes, what is required

Each gives 0 or 1, and a task's score is the product of those that it names in `eval_types`. Case and the quotes around
an answer do not count. These are the rules of the benchmark's own evaluator, its habits included: `3` is looked for
as a word, but a longer reference anywhere in the text.

What differs: a single character is looked for among the words that an expression cuts, where the original uses NLTK's
tokenizer; helper functions in a task (`func:`) are looked up in a table and called with the plain values that are
written there, where the original evaluates the text as Python.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from ludus.types import Explained

Judge = Callable[[Literal["same", "unachievable"], str, str, str], Awaitable[bool]]
"""async (what to judge, question, reference, answer) -> verdict.

same          does the answer say what the reference says?
unachievable  does the answer give the reason in the reference for why the question cannot be done?
"""

OR = " |OR| "


def cleaned(answer: str) -> str:
    """Lower case, without space around it and one pair of quotes."""
    answer = answer.strip()
    for quote in "'\"":
        if answer.startswith(quote) and answer.endswith(quote):
            answer = answer[1:-1]
            break
    return answer.lower()


def exact_match(reference: str, answer: str) -> bool:
    return cleaned(answer) == cleaned(reference)


def must_include(reference: str, answer: str, *, words: bool = False) -> bool:
    """Whether the reference is in the answer; with `words`, a single character has to be a word of it.

    must_include("3", "13 of 20") is True, and with words=True False.
    """
    wanted, text = cleaned(reference), cleaned(answer)
    if words and len(wanted) == 1:
        # 3.5, 10:30 and 1,000 are words; the signs around words are words of their own
        return wanted in re.findall(r"\w+(?:[.,:'/-]\w+)*|[^\w\s]", text)
    return wanted in text


def needs_judge(references: Mapping[str, Any] | None) -> bool:
    return "fuzzy_match" in (references or {})


async def string_match(
    answer: str,
    references: Mapping[str, Any],
    *,
    question: str = "",
    note: str = "",
    judge: Judge | None = None,
) -> bool:
    """
    references  {"exact_match": text}, {"must_include": [text, ...]}, {"fuzzy_match": [text, ...] or "N/A"}, or several
    note        why the task cannot be done, where fuzzy_match is "N/A"
    """
    answer = cleaned(answer)
    for how, wanted in references.items():
        match how, wanted:
            case "exact_match", str(text):
                held = exact_match(text, answer)
            case "must_include", [*texts]:
                held = all(must_include(text, answer, words=len(texts) == 1) for text in texts)
            case "fuzzy_match", "N/A":
                held = exact_match("N/A", answer) or await _asked(judge)(
                    "unachievable", question, note, answer
                )
            case "fuzzy_match", [*texts]:
                held = True
                for text in texts:
                    held = held and await _asked(judge)("same", question, text, answer)
            case _:
                raise Explained(
                    f"reference_answers has {how!r}: {wanted!r}; wanted exact_match (a text), must_include (a list of "
                    "texts) or fuzzy_match (a list of texts, or 'N/A')"
                )
        if not held:
            return False
    return True


def _asked(judge: Judge | None) -> Judge:
    if judge is None:
        raise Explained(
            "this task is judged by fuzzy_match; give a judge, see ludus.rewards.webarena.Judge"
        )
    return judge


def url_match(url: str, reference: str, rule: str = "GOLD in PRED") -> bool:
    """Host and path of one of the references occur in those of `url`, and each query field has one of their values."""
    if rule != "GOLD in PRED":
        raise Explained(f"url_note is {rule!r}; WebArena knows 'GOLD in PRED'")
    place, query = _parts(url)
    wanted = [_parts(each) for each in reference.split(OR)]
    fields: dict[str, set[str]] = {}
    for _, asked in wanted:
        for name, values in asked.items():
            fields.setdefault(name, set()).update(values)
    return any(each in place for each, _ in wanted) and all(
        values & set(query.get(name, ())) for name, values in fields.items()
    )


def _parts(url: str) -> tuple[str, dict[str, list[str]]]:
    parts = urlsplit(url.rstrip("/"))
    return parts.netloc + parts.path, parse_qs(parts.query)


def content_match(found: str, required: Mapping[str, Any]) -> bool:
    """Whether what a locator found is as `required_contents` says; a part of must_include may be `a |OR| b`."""
    found = html.unescape(found)
    match required:
        case {"exact_match": str(text)}:
            return exact_match(text, found)
        case {"must_include": [*texts]}:
            return all(any(must_include(one, found) for one in text.split(OR)) for text in texts)
    raise Explained(
        f"required_contents is {dict(required)!r}; wanted exact_match (a text) or must_include (a list of texts)"
    )


# ---------------------------------------------------------------------------------------------- helper functions

PAGE = "__page__"
LAST = "__last_url__"


def helper_call(text: str, last_url: str) -> tuple[str, Sequence[Any]]:
    """Name and arguments of `func:name('__last_url__', __page__)`; PAGE stands for the page itself.

    Only a call with plain values is read, and nothing is evaluated.
    """
    source = text.partition("func:")[2].strip()
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            raise ValueError
        values = [
            PAGE if isinstance(each, ast.Name) and each.id == PAGE else ast.literal_eval(each)
            for each in call.args
        ]
    except (ValueError, SyntaxError):
        raise Explained(f"{text!r} is no call of a function with plain values") from None
    return call.func.id, [
        each.replace(LAST, last_url) if isinstance(each, str) else each for each in values
    ]


def reddit_post(url: str) -> str:
    """The address of the post that an address of the forum belongs to, http://HOST/f/BOARD/POST/; others unchanged."""
    parts = urlsplit(url)
    match parts.path.split("/"):
        case ["", "f", board, post, *_]:
            return f"{parts.scheme}://{parts.netloc}/f/{board}/{post}/"
    return url
