"""TRL's side of the comparison: steps of its GRPOTrainer on forced work, each when the driver asks for it.

    python trl_side.py FOLDER [--rows N]       commands on stdin, answers on stdout (measure.Channel)

The trainer is stock. Three functions are replaced, none of them on a measured path: the parser of responses, which
returns the forced tool call; `_generate` during the replay, which returns recorded trajectories; and counters around
`_generate_single_turn`. Gradient checkpointing, TRL's default, is off, which is in its favour.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import time

import datasets
import measure
import numpy as np
import peft
import torch
import transformers
import trl
import workload
from PIL import Image as PILImage
from safetensors.torch import save_file
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from trl.trainer import grpo_trainer
from workload import Workload


class Forced:
    """The tool, the parser of responses and the rewards, for the step under way."""

    def __init__(self, work: Workload) -> None:
        self.work, self.seconds, self.step = work, 0.0, 0
        self.images: list[np.ndarray] = []
        self.parsed = self.called = 0

    def begin(self, seconds: float) -> None:
        """Starts a step whose tools take this long."""
        self.seconds, self.parsed, self.called = seconds, 0, 0
        self.step += 1

    def parse(self, tokenizer: Any, ids: Any, prefix: Any = None, tools: Any = None) -> dict[str, Any]:
        """In place of TRL's parser: the text is decoded as it would be, and the turn calls the tool."""
        turn, row = 1 + self.parsed // self.work.trajectories, self.parsed % self.work.trajectories
        self.parsed += 1
        content = tokenizer.decode(ids)
        wanted = workload.expression(self.step * 10_000 + row // self.work.group_size, row % self.work.group_size, turn)
        arguments = {"expression": wanted, "number": turn, "row": row}
        call = {"type": "function", "function": {"name": "ground", "arguments": arguments}}
        return {"role": "assistant", "content": content, "tool_calls": [call]}

    def ground(self, expression: str, number: int, row: int) -> list[dict[str, Any]]:
        """Finds a thing in the image.

        Args:
            expression: words for it
            number: of the image in the conversation
            row: of the trajectory
        """
        if self.seconds:
            time.sleep(self.seconds)
        self.called += 1
        pixels = self.images[row // self.work.group_size]
        crop = PILImage.fromarray(workload.crop_of(pixels, expression))
        before, after = workload.observation(number, workload.box_of(expression))
        return [{"type": "text", "text": before}, {"type": "image", "image": crop}, {"type": "text", "text": after}]

    def reward(self, prompts: Any, **more: Any) -> list[float]:
        """The fixed rewards of a batch."""
        return [self.work.reward(row % self.work.group_size) for row in range(len(prompts))]


class Trainer(trl.GRPOTrainer):
    """GRPOTrainer with counters, and with recorded trajectories where there are some."""

    replayed: tuple[Any, ...] | None = None
    marks: measure.Marks | None = None
    prefilled = encoded = 0
    last: tuple[Any, ...] = ()

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, *rest: Any, **more: Any
    ) -> Any:
        self.prefilled += sum(map(len, prompt_ids))
        self.encoded += len(multimodal_fields["image_grid_thw"])
        return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *rest, **more)

    def _generate(self, prompts: Any) -> Any:
        self.last = self.replayed if self.replayed is not None else super()._generate(prompts)
        return self.last

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        found = super()._generate_and_score_completions(inputs)
        if self.marks is not None:
            self.marks.mark("rollout")
        return found


class Steps(transformers.TrainerCallback):
    """Lets the trainer make a step when a command asks for one, and answers after it."""

    def __init__(self, channel: measure.Channel, side: Side) -> None:
        self.channel, self.side, self._commands = channel, side, channel.commands()

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        """Waits for the next command; the end of the input ends the process, with nothing to clean up."""
        command = next(self._commands, None)
        if command is None:
            os._exit(0)
        self.command = command
        self.side.begin(command)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        """Keeps the gradients of a replay, and then drops them so that the optimizer changes nothing."""
        if self.command["do"] == "replay":
            self.side.keep_gradients()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        """Answers."""
        self.channel.send(self.side.end(self.command))


class Side:
    """A trainer with its work."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.work = folder, Workload.load(folder)
        self.forced = Forced(self.work)
        grpo_trainer.parse_response = self.forced.parse
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.response_template = {"forced": True}
        images = Qwen2VLImageProcessor.from_pretrained(folder)
        processor = transformers.Qwen2_5_VLProcessor(
            image_processor=images,
            tokenizer=tokenizer,
            video_processor=transformers.Qwen2VLVideoProcessor(),
            chat_template=tokenizer.chat_template,
        )
        model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        model = peft.PeftModel.from_pretrained(model, str(folder / "adapter"), is_trainable=True)
        self.trainer = Trainer(
            model=model, reward_funcs=[self.forced.reward], args=self._settings(rows), processing_class=processor,
            train_dataset=self._dataset(), tools=[self.forced.ground],
        )  # fmt: skip

    def _settings(self, rows: int) -> trl.GRPOConfig:
        work = self.work
        forced = {"max_new_tokens": work.turn_tokens, "min_new_tokens": work.turn_tokens}
        return trl.GRPOConfig(
            output_dir=str(self.folder / "trl"), use_cpu=True, bf16=False, seed=0,
            per_device_train_batch_size=rows, gradient_accumulation_steps=work.trajectories // rows,
            num_generations=work.group_size, max_completion_length=100_000, max_tool_calling_iterations=work.calls,
            generation_kwargs={**forced, "suppress_tokens": list(work.suppressed)}, temperature=1.0,
            loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, scale_rewards="none", num_iterations=1,
            learning_rate=work.learning_rate, lr_scheduler_type="constant", max_grad_norm=1e9, weight_decay=0.0,
            gradient_checkpointing=False, shuffle_dataset=False, max_steps=work.steps, remove_unused_columns=False,
            logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip

    def _dataset(self) -> datasets.Dataset:
        rows = []
        for number in range(self.work.groups * self.work.steps):
            text = [{"role": "system", "content": self.work.instructions}]
            text.append({"role": "user", "content": workload.question(number)})
            rows.append({"prompt": text, "image": PILImage.open(self.folder / f"{number}.png"), "number": number})
        return datasets.Dataset.from_list(rows)

    def begin(self, command: dict[str, Any]) -> None:
        """Before a step."""
        trainer, start = self.trainer, self.forced.step * self.work.groups
        paths = [self.folder / f"{start + each}.png" for each in range(self.work.groups)]
        self.forced.images = [np.asarray(PILImage.open(path)) for path in paths]
        self.forced.begin(float(command.get("latency", 0)))
        trainer.replayed = self._recorded() if command["do"] == "replay" else None
        trainer.prefilled = trainer.encoded = 0
        trainer.marks = measure.Marks()

    def end(self, command: dict[str, Any]) -> dict[str, Any]:
        """After a step: what it cost and what work it was."""
        assert self.trainer.marks is not None
        self.trainer.marks.mark("train")
        tokens = self._tokens()
        return {
            **self.trainer.marks.report(),
            "tokens": tokens,
            "tool_calls": [self.work.calls] * (self.forced.called // self.work.calls),
            "prefilled": self.trainer.prefilled,
            "unique": sum(each["observation"] for each in tokens)
            + sum(each["prompt"] for each in tokens[:: self.work.group_size]),
            "encoded": self.trainer.encoded,
            "images": self.work.groups + self.work.trajectories * self.work.calls,
        }

    def _tokens(self) -> list[dict[str, int]]:
        pad = self.trainer._image_pad_token_id
        prompts, completions, masks = self.trainer.last[:3]
        return [
            {
                "prompt": len(prompt),
                "model": sum(mask),
                "observation": len(mask) - sum(mask),
                "image": [*prompt, *completion].count(pad),
            }
            for prompt, completion, mask in zip(prompts, completions, masks, strict=True)
        ]

    def _recorded(self) -> tuple[Any, ...]:
        """What `_generate` returns, of the trajectories that gog's side wrote down."""
        found = torch.load(self.folder / "replay.pt", weights_only=False)
        prompts, completions, masks, shown, returned = [], [], [], [], []
        for row in found["rows"]:
            first, *rest = row["segments"]
            prompts.append(list(first["tokens"]))
            completions.append([token for each in rest for token in each["tokens"]])
            masks.append([int(each["source"] == "model") for each in rest for _ in each["tokens"]])
            images = [
                [PILImage.fromarray(found["pixels"][name]) for name in each["images"]] for each in row["segments"]
            ]
            shown.append([image for part in images for image in part])
            returned.append([image for part in images[1:] for image in part])
        texts = [[{"role": "assistant", "content": ""}] for _ in prompts]
        return prompts, completions, masks, texts, None, {}, shown, returned

    def keep_gradients(self) -> None:
        """Writes the gradients down and clears them."""
        found = {name: each.grad for name, each in self.trainer.model.named_parameters() if each.grad is not None}
        save_file({name: each.clone() for name, each in found.items()}, self.folder / "trl_gradients.safetensors")
        for each in self.trainer.model.parameters():
            each.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8, help="trajectories of a forward and backward pass")
    given = parser.parse_args()
    channel = measure.Channel()
    torch.set_num_threads(1)
    side = Side(given.folder, given.rows)
    channel.send({"ready": True, "rss": measure.memory("VmRSS")})
    side.trainer.add_callback(Steps(channel, side))
    side.trainer.train()


if __name__ == "__main__":
    main()
