"""TRL's side of a comparison: its GRPOTrainer, set to do the same job, as its documentation says to.

Everything that TRL offers and the job does not need is off: evaluation, logs, checkpoints, the reference model (beta is
0 by default), gradient checkpointing (on by default, it would only cost time here), bfloat16 (the job is in float32).
The loss is TRL's default (`dapo`): clipped surrogate, averaged over the tokens of the batch, as on our side.

Multi-turn: a `rollout_func` in which all conversations take a turn together: one call of `generate` on their
left-padded tokens, one call of each environment, and the new tokens appended as they are, with `env_mask` to say who
wrote them.
"""

# TRL does not say what it exports, and types its arguments more narrowly than it takes them.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportRedeclaration=false

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Coroutine
from typing import Any

import torch
from transformers import GenerationConfig, TrainerCallback

from ludus.benches.job import Job, following, scripted, sums, unstopped, variety
from ludus.benches.side import Channel
from ludus.types import Message, Step

# TRL imports every tracker that it finds. None is used here, and none should count as its memory.
sys.modules.update(dict.fromkeys(("mlflow", "trackio", "wandb")))  # type: ignore[arg-type]

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.models import unwrap_model_for_generation
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this bench compares with TRL; type: pip install trl") from error


class Timed(GRPOTrainer):
    """Tells when it has sampled, and notes how many tokens."""

    channel: Channel
    sampled, read = 0, 0

    def _generate(self, prompts: list[Any]) -> Any:
        out = super()._generate(prompts)
        self.channel.sampled()
        prompt_ids, completion_ids, env_mask = out[:3]
        self.sampled = sum(map(sum, env_mask)) if env_mask else sum(map(len, completion_ids))
        self.read = sum(map(len, prompt_ids)) + sum(map(len, completion_ids))
        return out


class Turns(TrainerCallback):
    """Does each optimiser step when it is told to."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self.job, self.channel = job, channel
        self.trainer: Timed | None = None

    def on_step_begin(self, *args: Any, **settings: Any) -> None:
        self.channel.begin()

    def on_step_end(self, *args: Any, **settings: Any) -> None:
        assert self.trainer is not None
        self.channel.end(
            rollouts=self.job.rollouts,
            sampled=self.trainer.sampled,
            read=self.trainer.read,
        )


class Rollouts:
    """The multi-turn rollout_func."""

    def __init__(self, job: Job, tokenizer: Any) -> None:
        self.job, self.tokenizer = job, tokenizer
        self.renderer = unstopped(tokenizer)
        self.env = scripted(job.tasks)
        self.loop = asyncio.new_event_loop()
        self.of = {task.id: task for task in self.env.tasks()}
        self.generation = GenerationConfig(
            max_new_tokens=job.new,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=None,
            disable_compile=True,
        )

    def __call__(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        tasks = [self.of[prompt[-1]["content"]] for prompt in prompts]
        steps = self._together([self.env.reset(task, 0) for task in tasks])
        said = [
            [*task.prompt, Message("user", step.observation)]
            for task, step in zip(tasks, steps, strict=True)
        ]
        prompt_ids = [self.renderer.open(history).tokens.tolist() for history in said]
        completion_ids: list[list[int]] = [[] for _ in prompts]
        env_mask: list[list[int]] = [[] for _ in prompts]
        rewards = [0.0] * len(prompts)
        with (
            unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
            torch.inference_mode(),
        ):
            for turn in range(self.job.turns):
                contexts = [p + c for p, c in zip(prompt_ids, completion_ids, strict=True)]
                answers = self._generate(model, contexts)
                actions = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
                moves = zip(steps, actions, strict=True)
                steps = self._together([self.env.step(s.state, a) for s, a in moves])
                for i, (answer, action, step) in enumerate(
                    zip(answers, actions, steps, strict=True)
                ):
                    rewards[i] += step.reward
                    completion_ids[i] += answer
                    env_mask[i] += [1] * len(answer)
                    if turn + 1 < self.job.turns:
                        said[i].append(Message("assistant", action))
                        shown = Message("user", step.observation)
                        between = following(self.renderer, said[i], shown)
                        said[i].append(shown)
                        completion_ids[i] += between
                        env_mask[i] += [0] * len(between)
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": None,  # TRL computes its own where it needs them; with one update a batch it does not
            "env_mask": env_mask,
            "rewards": rewards,
        }

    def _together(self, calls: list[Coroutine[Any, Any, Step]]) -> list[Step]:
        async def gathered() -> list[Step]:
            return await asyncio.gather(*calls)

        return self.loop.run_until_complete(gathered())

    def _generate(self, model: Any, contexts: list[list[int]]) -> list[list[int]]:
        padded = self.tokenizer.pad(
            {"input_ids": contexts}, padding_side="left", return_tensors="pt"
        )
        out = model.generate(**padded, generation_config=self.generation)
        return out[:, padded["input_ids"].shape[1] :].tolist()


def run(job: Job, channel: Channel) -> None:
    model, tokenizer = job.model()
    tokenizer.padding_side = "left"
    model.generation_config.eos_token_id = (
        None  # it would fill in where a GenerationConfig has None
    )
    if job.turns:
        names = [task.id for task in scripted(job.tasks).tasks()]
        prompts = [[{"role": "user", "content": name}] for name in names]
        rollouts = Rollouts(job, tokenizer)

        def reward(rewards: list[float], **others: Any) -> list[float]:
            return rewards

    else:
        tasks = sums(job.tasks, job.examples)
        prompts = [[{"role": "user", "content": task.prompt[0].text}] for task in tasks]
        rollouts = None

        def reward(completions: list[Any], **others: Any) -> list[float]:
            return [variety(messages[-1]["content"]) for messages in completions]

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=1 + job.steps,
            per_device_train_batch_size=job.rows,
            gradient_accumulation_steps=job.rollouts // job.rows,
            num_generations=job.answers,
            max_completion_length=job.new,
            # nothing stops an answer, here as on our side
            generation_kwargs={"min_new_tokens": job.new},
            learning_rate=job.lr,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            seed=job.seed,
        )
        turns = Turns(job, channel)
        trainer = Timed(
            model=model,
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            rollout_func=rollouts,
            callbacks=[turns],
        )
        turns.trainer, trainer.channel = trainer, channel
        channel.ready(model.num_parameters())
        trainer.train()
