"""Messages to tokens: the templates are our own in the shape of real ones, and the real ones that TRL carries."""

from __future__ import annotations

import pickle
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ludus.data.render import Pictures, Renderer
from ludus.data.trace import Trace
from ludus.data.written import written
from ludus.types import Completion, Image, Message, Node, Patch, Sampling, Task

TEMPLATES = Path(__file__).parents[1] / "templates"
OURS = ["chatml", "thinking", "prefilled", "headers", "inst", "turns", "plain"]
CONTROLS = [
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<s>", "</s>", "[INST]", "[/INST]"),
    *("<start_of_turn>", "<end_of_turn>"),
]
END = {
    "chatml": "<|im_end|>",
    "thinking": "<|im_end|>",
    "prefilled": "<|im_end|>",
    "headers": "<|eot_id|>",
    "inst": "</s>",
    "turns": "<end_of_turn>",
}


def make_tokenizer(template: str | None, controls: list[str] = CONTROLS) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer: any text has ids, control tokens are special, `<think>` is not."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(controls),
        show_progress=False,
    )
    core.train_from_iterator(
        ["you see a door. user assistant open the door, take the key"], trainer
    )
    core.add_tokens(["<think>", "</think>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(controls)})
    tokenizer.chat_template = template
    return tokenizer


def renderer_of(name: str, **settings: Any) -> Renderer:
    return Renderer(make_tokenizer((TEMPLATES / f"{name}.jinja").read_text()), **settings)


def ids(renderer: Renderer, text: str) -> np.ndarray:
    return np.array(renderer.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)


def decode(renderer: Renderer, tokens: Any) -> str:
    return str(renderer.tokenizer.decode(tokens, skip_special_tokens=False))


def sampled(renderer: Renderer, context: Node, text: str) -> Node:
    tokens = ids(renderer, text)
    return Node(context, tokens, True, np.zeros(len(tokens), np.float32), role="assistant")


def as_the_tokenizer_says(renderer: Renderer, messages: list[Message], **extra: Any) -> list[int]:
    encoded: Any = renderer.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.text} for m in messages],
        add_generation_prompt=True,
        return_dict=False,
        strftime_now=renderer.now.strftime,
        **extra,
    )
    return list(encoded)


def user(text: str) -> Message:
    return Message("user", text)


def tool(text: str) -> Message:
    return Message("tool", text)


def said(text: str) -> Message:
    return Message("assistant", text)


# ------------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "text", ["open the door", " spaced\n", "a\n\nb ", "“é” 日本 🙂", '{"a": "\\n"}']
)
def test_a_conversation_opens_with_the_ids_that_the_tokenizer_gives(name: str, text: str) -> None:
    renderer = renderer_of(name)
    messages = [user(text), said("yes"), user("and " + text)]
    context = renderer.open(messages)
    assert context.tokens.tolist() == as_the_tokenizer_says(renderer, messages)
    assert context.parent is None and context.role == "prompt" and not context.trainable


@pytest.mark.parametrize("name", OURS)
def test_a_turn_appends_what_the_template_would_have_said(name: str) -> None:
    renderer = renderer_of(name)
    history = [user("you see a door"), said("open it" if name != "prefilled" else "x</think>y")]
    context = renderer.open(history[:1])
    node = sampled(renderer, context, history[1].text + END.get(name, ""))
    after = renderer.extend(node, "stop", history, [user("it is locked")])
    assert after.parent is node and not after.trainable and after.logprobs is None
    whole = decode(renderer, after.context())
    wanted = decode(renderer, as_the_tokenizer_says(renderer, [*history, user("it is locked")]))
    assert "".join(whole.split()) == "".join(wanted.split())


@pytest.mark.parametrize("name", END)
def test_a_cut_answer_is_closed_and_a_closed_one_is_not_closed_twice(name: str) -> None:
    renderer = renderer_of(name)
    end = renderer.tokenizer.convert_tokens_to_ids(END[name])
    assert end in renderer.stop_ids
    text = "open it" if name != "prefilled" else "x</think>y"
    history, new = [user("you see a door"), said(text)], [user("it is locked")]
    context = renderer.open(history[:1])
    cut = renderer.extend(sampled(renderer, context, text), "length", history, new)
    full = renderer.extend(sampled(renderer, context, text + END[name]), "stop", history, new)
    assert cut.tokens[0] == end
    assert cut.tokens[1:].tolist() == full.tokens.tolist()
    assert cut.context().tolist() == full.context().tolist()


def test_the_line_break_after_the_end_of_turn_belongs_to_the_template() -> None:
    renderer = renderer_of("chatml")
    context = renderer.open([user("hi")])
    node = sampled(renderer, context, "go<|im_end|>")
    after = renderer.extend(node, "stop", [user("hi"), said("go")], [user("ok")])
    assert decode(renderer, after.tokens) == (
        "\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"
    )


def test_another_stop_token_is_kept_and_the_turn_is_closed_as_the_template_closes_it() -> None:
    renderer = renderer_of("chatml")
    eos = renderer.tokenizer.eos_token
    assert renderer.tokenizer.eos_token_id in renderer.stop_ids
    node = sampled(renderer, renderer.open([user("hi")]), f"go{eos}")
    after = renderer.extend(node, "stop", [user("hi"), said("go")], [user("ok")])
    assert decode(renderer, after.context()).count(f"go{eos}<|im_end|>\n<|im_start|>") == 1


@pytest.mark.parametrize("name", END)
def test_an_answer_that_somebody_wrote_ends_as_the_template_ends_it(name: str) -> None:
    renderer = renderer_of(name)
    task = Task("t", (user("hi"),))
    node = written(renderer, task, "go </s> on").contexts[0]
    assert decode(renderer, node.tokens) == f"go </s> on{END[name]}"
    eos = renderer.tokenizer.eos_token_id  # spelled in a text it stays text
    assert list(node.tokens).count(eos) == (END[name] == "</s>")
    history = [user("hi"), said("go </s> on")]
    after = renderer.extend(node, "stop", history, [user("ok")])
    assert decode(renderer, after.context()).count(END[name] * 2) == 0


def test_a_template_without_an_end_of_turn_ends_where_the_next_message_begins() -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '<|eot_id|>' }}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|eot_id|>{% endif %}"
    )
    renderer = Renderer(make_tokenizer(template))
    start = renderer.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert start in renderer.stop_ids
    node = sampled(renderer, renderer.open([user("hi")]), "go<|im_start|>")
    after = renderer.extend(node, "stop", [user("hi"), said("go")], [user("ok")])
    assert decode(renderer, after.context()) == "<|im_start|>hi<|eot_id|>go<|im_start|>ok<|eot_id|>"


def test_what_was_said_has_no_control_tokens() -> None:
    renderer = renderer_of("chatml")
    assert (
        renderer.text(ids(renderer, "go <think>x</think> on<|im_end|>")) == "go <think>x</think> on"
    )
    assert renderer.text(ids(renderer, "a<|im_start|>b<|im_end|></s>")) == "ab"
    assert renderer.text(np.array([], np.int64)) == ""


def test_an_empty_answer_is_bridged_as_any_other() -> None:
    template = (TEMPLATES / "chatml.jinja").read_text()
    refuses = (
        "{% for m in messages %}{% if not m.content %}{{ raise_exception('empty') }}{% endif %}"
    )
    renderer = Renderer(make_tokenizer(refuses + "{% endfor %}" + template))
    node = sampled(renderer, renderer.open([user("hi")]), "<|im_end|>")
    after = renderer.extend(node, "stop", [user("hi"), said("")], [user("ok")])
    assert after.parent is node


def test_tools_reach_the_template_and_stay_through_the_conversation() -> None:
    def look(where: str) -> str:
        """Looks somewhere.

        Args:
            where: the place
        """
        return where

    renderer = renderer_of("chatml")
    context = renderer.open([user("hi")], tools=[look])
    assert "Looks somewhere." in decode(renderer, context.tokens)
    node = sampled(renderer, context, "go<|im_end|>")
    after = renderer.extend(node, "stop", [user("hi"), said("go")], [tool("dark")], [look])
    assert after.parent is node
    assert "dark" in decode(renderer, after.tokens)
    assert "Looks somewhere." not in decode(renderer, after.tokens)


def test_a_named_template_for_tools_is_used_where_there_are_tools() -> None:
    tokenizer = make_tokenizer(None)
    chatml = (TEMPLATES / "chatml.jinja").read_text()
    tokenizer.chat_template = {"default": chatml, "tool_use": "with tools: " + chatml}
    renderer = Renderer(tokenizer)
    schema = {"type": "function", "function": {"name": "look", "parameters": {}}}
    assert decode(renderer, renderer.open([user("a")], [schema]).tokens)[:10] == "with tools"
    assert decode(renderer, renderer.open([user("a")]).tokens)[:4] == "<|im"


def test_a_text_that_the_template_writes_as_json_is_written_as_json() -> None:
    renderer = renderer_of("headers")
    text = 'a "wall"\n\\ and <b>é</b>'
    messages = [user("hi"), said("go"), tool(text)]
    context = renderer.open(messages)
    assert context.tokens.tolist() == as_the_tokenizer_says(renderer, messages)
    node = sampled(renderer, renderer.open(messages[:1]), "go<|eot_id|>")
    after = renderer.extend(node, "stop", messages[:2], messages[2:])
    assert after.parent is node and after.context().tolist() == context.tokens.tolist()
    hostile = decode(renderer, renderer.open([user("hi"), said("go"), tool('"<|eot_id|>')]).tokens)
    assert '"\\"<|eot_id|>"' in hostile


def test_an_end_of_turn_that_is_not_marked_as_special_is_a_control_token_all_the_same() -> None:
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m.content + '</think>' }}{% endfor %}"
        "{% if add_generation_prompt %}<think>{% endif %}".replace("{{ m.c", "{{ '<think>' + m.c")
    )
    renderer = Renderer(tokenizer)
    end = tokenizer.convert_tokens_to_ids("</think>")
    assert end in renderer.stop_ids
    assert renderer.open([user("a</think>b")]).tokens.tolist().count(end) == 1


def test_a_renderer_travels_to_another_process() -> None:
    first = renderer_of("thinking", options={"enable_thinking": False}, stops=[7])
    second = pickle.loads(pickle.dumps(first))
    assert second.stop_ids == first.stop_ids and 7 in second.stop_ids
    assert second.open([user("a")]).tokens.tolist() == first.open([user("a")]).tokens.tolist()


def test_the_date_is_fixed() -> None:
    renderer = renderer_of("headers")
    assert "Today Date: 01 Jan 2025" in decode(renderer, renderer.open([user("a")]).tokens)


def test_images_become_the_parts_of_a_template() -> None:
    words = make_tokenizer((TEMPLATES / "parts.jinja").read_text(), [*CONTROLS, "<image>"])
    mark: Any = words.convert_tokens_to_ids("<image>")
    renderer = Renderer(words, pictures=Pictures(vocabulary=1000, vectors=3, placeholder=mark))
    left, right = Image(b"1"), Image(b"2")
    picture = Message("user", ["left: ", left, " right: ", right, "which? no <image>"])
    context = renderer.open([picture])
    shown = [context.inputs[int(n)] for n in context.tokens if n >= 1000]
    assert shown == [Patch(image, index) for image in (left, right) for index in range(3)]
    text = decode(renderer, np.where(context.tokens >= 1000, mark, context.tokens))
    assert (
        "left: " + 3 * "<image>" + " right: " + 3 * "<image>" + "which? no <image><|im_end|>"
        in text
    )
    assert mark not in context.tokens
    node = sampled(renderer, context, "left<|im_end|>")
    after = renderer.extend(node, "stop", [picture, said("left")], [user("sure?")])
    assert after.parent is node and "sure?" in decode(renderer, after.tokens) and not after.inputs
    again = pickle.loads(pickle.dumps(renderer)).open([picture])
    assert again.tokens.tolist() == context.tokens.tolist()


def test_a_model_that_reads_text_alone_is_shown_no_images() -> None:
    with pytest.raises(ValueError, match="show 1 pictures, and the model reads text alone"):
        renderer_of("parts").open([Message("user", [Image(b"1"), "which?"])])


# ------------------------------------------------------------------------------------- rewriting


def test_reasoning_that_is_dropped_when_the_user_speaks_opens_a_new_context() -> None:
    renderer = renderer_of("thinking")
    text = "<think>\na door\n</think>\n\nopen it"
    history = [user("hi"), said(text)]
    context = renderer.open(history[:1])
    node = sampled(renderer, context, text + "<|im_end|>")
    assert renderer.extend(node, "stop", history, [tool("locked")]).parent is node
    fresh = renderer.extend(node, "stop", history, [user("now?")])
    assert fresh.parent is None and fresh.origin is node and fresh.role == "prompt"
    assert fresh.tokens.tolist() == as_the_tokenizer_says(renderer, [*history, user("now?")])
    assert "a door" not in decode(renderer, fresh.tokens)
    # without reasoning nothing is dropped, whatever was cached for the same roles
    plain = sampled(renderer, context, "open it<|im_end|>")
    assert (
        renderer.extend(plain, "stop", [user("hi"), said("open it")], [user("now?")]).parent
        is plain
    )


def test_reasoning_of_an_earlier_turn_counts_too_and_only_until_it_is_gone() -> None:
    renderer = renderer_of("thinking")
    thought, act = "<think>a</think>b", "c"
    # before the user spoke: already dropped, so one more user message changes nothing
    old = [user("1"), said(thought), user("2"), said(act), tool("3"), said(act)]
    # after the user spoke: still there, and dropped by the next user message
    new = [user("1"), said(act), user("2"), said(thought), tool("3"), said(act)]
    for history, kept in [(old, True), (new, False)]:
        node = sampled(renderer, renderer.open(history[:-1]), act)
        assert (renderer.extend(node, "stop", history, [user("4")]).parent is node) == kept


def test_all_that_was_said_can_be_kept_against_the_template() -> None:
    renderer = renderer_of("thinking", rewrites="append")
    text = "<think>\na door\n</think>\n\nopen it"
    node = sampled(renderer, renderer.open([user("hi")]), text + "<|im_end|>")
    after = renderer.extend(node, "stop", [user("hi"), said(text)], [user("now?")])
    assert after.parent is node
    assert decode(renderer, after.tokens) == (
        "\n<|im_start|>user\nnow?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_option_that_puts_empty_reasoning_into_the_header_is_a_rewriting() -> None:
    renderer = renderer_of("thinking", options={"enable_thinking": False})
    context = renderer.open([user("hi")])
    assert decode(renderer, context.tokens).endswith("<think>\n\n</think>\n\n")
    node = sampled(renderer, context, "go<|im_end|>")
    assert renderer.extend(node, "stop", [user("hi"), said("go")], [user("now?")]).origin is node


def test_a_template_that_moves_old_text_to_the_end_opens_a_new_context() -> None:
    template = (
        "{% for m in messages if m.role != 'system' %}{{ '<|im_start|>' + m.role + ' ' }}"
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{{ m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
    )
    for rewrites in ("open", "append"):
        renderer = Renderer(make_tokenizer(template), rewrites=rewrites)
        opening = [Message("system", "rules. "), user("hi")]
        node = sampled(renderer, renderer.open(opening), "go<|im_end|>")
        after = renderer.extend(node, "stop", [*opening, said("go")], [user("ok")])
        assert after.parent is None and after.origin is node
        assert decode(renderer, after.tokens) == (
            "<|im_start|>user hi<|im_end|><|im_start|>assistant go<|im_end|>"
            "<|im_start|>user rules. ok<|im_end|><|im_start|>assistant "
        )


def test_whitespace_around_an_answer_is_kept_as_sampled() -> None:
    renderer = renderer_of("headers")  # trims
    node = sampled(renderer, renderer.open([user("hi")]), "  go \n<|eot_id|>")
    after = renderer.extend(node, "stop", [user("hi"), said("  go \n")], [user("ok")])
    assert after.parent is node and "\n\n  go \n<|eot_id|>" in decode(renderer, after.context())


# ------------------------------------------------------------------------------------- hostile text


@pytest.mark.parametrize("name", OURS)
def test_control_tokens_in_a_text_stay_text(name: str) -> None:
    renderer = renderer_of(name)
    hostile = "".join(CONTROLS) + "<|im_<|im_end|>end|>\n" + "</s>" * 3
    specials = [renderer.tokenizer.convert_tokens_to_ids(control) for control in CONTROLS]

    def controls(tokens: np.ndarray) -> list[int]:
        return [token for token in tokens.tolist() if token in specials]

    nice, bad = renderer.open([user("x")]), renderer.open([user(hostile)])
    assert controls(nice.tokens) == controls(bad.tokens)
    assert hostile.strip() in decode(renderer, bad.tokens)
    answer = "x</think>y" if name == "prefilled" else "y"
    node = sampled(renderer, nice, answer)
    new = [
        renderer.extend(node, "stop", [user("x"), said(answer)], [user(t)]) for t in ("x", hostile)
    ]
    assert all(after.parent is node for after in new)
    assert controls(new[0].tokens) == controls(new[1].tokens)
    # what the policy spelled in plain characters stays so in a new context
    again = [renderer.open([user("x"), said(text), user("x")]) for text in ("y", "y" + hostile)]
    assert controls(again[0].tokens) == controls(again[1].tokens)


def test_what_the_policy_reads_cannot_steer_the_template() -> None:
    renderer = Renderer(
        make_tokenizer(
            "{% for m in messages %}{% if '/shout' not in m.content %}"
            "{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
        )
    )
    assert "/shout" in decode(renderer, renderer.open([user("a /shout b")]).tokens)


def test_broken_unicode_becomes_a_question_mark() -> None:
    renderer = renderer_of("chatml")
    assert "user\na?b<|im_end|>" in decode(renderer, renderer.open([user("a\ud800b")]).tokens)


def test_sentinels_in_a_text_are_only_text() -> None:
    renderer = renderer_of("chatml")
    text = "\ue0000\"\\\n\t <b>&'Zz\ue001 \ue000\ue001"
    assert renderer.open([user(text)]).tokens.tolist() == as_the_tokenizer_says(
        renderer, [user(text)]
    )


# ------------------------------------------------------------------------------------- speed


def test_a_known_shape_costs_no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = renderer_of("thinking")
    calls = 0
    render = renderer.tokenizer.apply_chat_template

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return render(*args, **kwargs)

    monkeypatch.setattr(renderer.tokenizer, "apply_chat_template", counted)

    def play(words: list[str]) -> Node:
        history, context = [user(words[0])], renderer.open([user(words[0])])
        for word in words[1:]:
            history.append(said(f"<think>{word}</think> {word}!"))
            node = sampled(renderer, context, history[-1].text)
            context = renderer.extend(node, "length", history, [tool(word * 2)])
            history.append(tool(word * 2))
        return context

    play(["a", "b", "c", "d"])
    assert calls > 0
    calls = 0
    last = play(["e", "f\n\ng", "h", "i  i"])
    assert calls == 0
    assert decode(renderer, last.tokens) == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\ni  ii  i\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


# ------------------------------------------------------------------------------------- errors


def test_a_template_that_loses_a_role_names_the_message() -> None:
    template = (
        "{% for m in messages if m.role != 'tool' %}{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
    )
    renderer = Renderer(make_tokenizer(template))
    with pytest.raises(ValueError, match=r"loses or changes the text of message 1 .*role tool"):
        renderer.open([user("a"), tool("b")])
    node = sampled(renderer, renderer.open([user("a")]), "go")
    with pytest.raises(ValueError, match=r"message 2 .*role tool.*template=\.\.\."):
        renderer.extend(node, "stop", [user("a"), said("go")], [tool("b")])


@pytest.mark.parametrize(
    "filter", ["upper", "replace(' ', '')", "e", "truncate(3)", "replace('\\n', '')"]
)
def test_a_template_that_changes_a_text_is_refused(filter: str) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' }}"
        "{% if m.role == 'user' %}{{ m.content | "
        + filter
        + " }}{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    with pytest.raises(ValueError, match=r"message 0 .*role user"):
        Renderer(make_tokenizer(template))


def test_a_role_that_the_template_refuses_is_explained() -> None:
    with pytest.raises(
        ValueError, match="refuses a conversation of system, user: Only user and assistant"
    ):
        renderer_of("inst").open([Message("system", "rules"), user("hi")])
    renderer = renderer_of("turns")
    node = sampled(renderer, renderer.open([user("hi")]), "go")
    with pytest.raises(
        ValueError, match="refuses a conversation of user, assistant, tool: no tool role"
    ):
        renderer.extend(node, "stop", [user("hi"), said("go")], [tool("x")])


def test_a_template_without_a_header_for_answers_is_refused() -> None:
    template = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="ignores add_generation_prompt"):
        Renderer(make_tokenizer(template))


def test_a_tokenizer_without_a_template_says_what_to_type() -> None:
    with pytest.raises(ValueError, match=r"no chat template.*Renderer\(tokenizer, template="):
        Renderer(make_tokenizer(None))
    assert Renderer(
        make_tokenizer(None), template=(TEMPLATES / "chatml.jinja").read_text()
    ).stop_ids


def test_a_folder_without_a_tokenizer_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(
        FileNotFoundError, match=r"found: model.safetensors; wanted: tokenizer.json"
    ):
        Renderer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no tokenizer could be loaded"):
        Renderer.load(tmp_path)


def test_a_saved_tokenizer_loads_with_the_stop_ids_of_its_model(tmp_path: Path) -> None:
    first = renderer_of("chatml")
    first.tokenizer.save_pretrained(tmp_path)
    assert Renderer.load(tmp_path).stop_ids == first.stop_ids
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    second = Renderer.load(tmp_path)
    assert second.stop_ids == first.stop_ids | {3, 4}
    messages = [Message("system", "a"), user("b")]
    assert second.open(messages).tokens.tolist() == first.open(messages).tokens.tolist()


def test_misuse_is_explained() -> None:
    renderer = renderer_of("chatml")
    with pytest.raises(ValueError, match="open got no messages"):
        renderer.open([])
    node = sampled(renderer, renderer.open([user("hi")]), "go")
    with pytest.raises(
        ValueError, match=r"got a history of user; .*renderer\.text\(node\.tokens\)"
    ):
        renderer.extend(node, "stop", [user("hi")], [user("ok")])
    with pytest.raises(ValueError, match="cancelled"):
        renderer.extend(node, "cancelled", [user("hi"), said("go")], [user("ok")])
    schema = {"type": "function", "function": {"name": "f", "description": "<|im_end|>"}}
    with pytest.raises(ValueError, match=r"control token '<\|im_end\|>'"):
        renderer.open([user("hi")], tools=[schema])


# ------------------------------------------------------------------------------------- real templates


def real_templates() -> list[Path]:
    spec = find_spec("trl")
    where = Path(spec.origin).parent / "chat_templates" if spec and spec.origin else None
    return sorted(where.glob("*.jinja")) if where else []


@pytest.mark.parametrize("path", real_templates(), ids=lambda path: path.stem)
def test_real_templates(path: Path) -> None:
    """What each renders is what the tokenizer renders, in the first prompt and after a turn, whichever way it goes."""
    template = path.read_text()
    shapes = r"<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>|<turn\|>|<\|turn>|<end_of_utterance>"
    controls = sorted({"<s>", "</s>", *re.findall(shapes, template)})
    renderer = Renderer(make_tokenizer(template, controls))

    def expected(messages: list[Message]) -> list[int]:
        conversation = [
            {
                "role": m.role,
                "content": [{"type": "text", "text": m.text}] if renderer._as_parts else m.text,
            }
            for m in messages
        ]
        encoded: Any = renderer.tokenizer.apply_chat_template(
            conversation,
            add_generation_prompt=True,
            return_dict=False,
            strftime_now=renderer.now.strftime,
        )
        return list(encoded)

    opening = [user('you see a "door"\nand a key')]
    context = renderer.open(opening)
    assert context.tokens.tolist() == expected(opening)
    for answer in ("open the door", "<think>\nit may be locked\n</think>\n\nopen the door"):
        history = [*opening, said(answer)]
        node = sampled(renderer, context, answer)
        after = renderer.extend(node, "length", history, [user("it's locked\n")])
        whole = [*history, user("it's locked\n")]
        if after.parent is None:
            assert after.tokens.tolist() == expected(whole)
        else:
            texts = [decode(renderer, t) for t in (after.context(), expected(whole))]
            assert "".join(texts[0].split()) == "".join(texts[1].split())


# ------------------------------------------------------------------------------------- open branches


def completion(renderer: Renderer, text: str) -> Completion:
    tokens = ids(renderer, text)
    return Completion(tokens, np.zeros(len(tokens), np.float32), "stop", 0, Sampling())


def test_a_harness_that_changes_its_tools_gets_a_new_context() -> None:
    renderer = renderer_of("chatml")
    trace = Trace(renderer)
    schema = {"type": "function", "function": {"name": "look", "parameters": {}}}
    messages = [user("hi")]
    _, text = trace.answer(trace.context(messages), messages, completion(renderer, "go<|im_end|>"))
    messages = [*messages, said(text), user("ok")]
    assert trace.context(messages).parent is not None
    assert trace.context(messages, [schema]).parent is None
    assert trace.opened == 2


def test_a_prompt_answered_twice_branches() -> None:
    renderer = renderer_of("chatml")
    trace = Trace(renderer)
    messages = [user("hi")]
    first, text = trace.answer(
        trace.context(messages), messages, completion(renderer, "go<|im_end|>")
    )
    messages = [*messages, said(text), user("ok")]
    twins = [
        trace.answer(trace.context(messages), messages, completion(renderer, word))[0]
        for word in "ab"
    ]
    assert trace.contexts == tuple(twins) and trace.opened == 1
    assert all(first in twin.chain() for twin in twins)
