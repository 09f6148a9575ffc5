"""A base model that completes prompts, with LoRA adapters loaded and unloaded by name.

Requests of one adapter are generated together, left-padded, each with its own temperature, limit and stop strings, by
transformers' own generate(): a logits processor samples every row and leaves generate() one token to take. Not
thread-safe: the policy server queues its calls for one thread. Adapters are safetensors on the language model's
linears. No paging, no streaming, no prefix sharing: use vLLM for those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import peft
import safetensors
import safetensors.torch
import torch
import transformers

from gog import adapters
from gog.completions import Completion, Job, Prompt
from gog.errors import UserError
from gog.spec import PixelBounds
from gog_recipes.models import loading, lora, lora_linear, policy_model, sampling
from gog_recipes.models.family import Processor

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
"""An image in a prompt, where the folder has no chat template."""


class PolicyModel:
    """The model, its tokenizer and image processor, its adapters. Implements gog.completions.Model; not thread-safe.

    Args:
        folder: the base model in Hugging Face form, of any supported family
        device: torch device
        dtype: type of the weights
        pixels: bounds of the size of images, which must be those of training

    Raises:
        UserError: for a folder that cannot be loaded.
    """

    def __init__(
        self, folder: Path, *, device: str = "cpu", dtype: str = "float32", pixels: PixelBounds | None = None
    ) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.processor = policy_model.folder_processor(
            folder, "full", pixels
        )  # not used: requests bring their own prompts
        self.tokenizer = self.processor.tokenizer
        self.model: Any = policy_model.load_folder(folder, torch.device(device), getattr(torch, dtype))
        self.device = torch.device(device)
        self.length = int(self.model.config.get_text_config().max_position_embeddings)
        self.generation = _plain_generation(self.model.generation_config, self.processor)
        self.adapters: dict[str, str] = {}
        self._loaded = 0

    # ---------------------------------------------------------------- adapters

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads an adapter under a new name. Raises UserError, and leaves the model as it was."""
        lora.check(self.model, folder)
        self._loaded += 1
        key = f"adapter{self._loaded}"  # peft names modules after adapters, and those may hold no dots
        try:
            self._attach(key, peft.PeftConfig.from_pretrained(str(folder)))
            self._fill(key, safetensors.torch.load_file(folder / adapters.WEIGHTS))
        except (RuntimeError, ValueError, TypeError, KeyError, OSError, safetensors.SafetensorError) as error:
            self._forget(key)
            raise UserError(f"cannot be loaded: {loading.brief(error)}", where=str(folder)) from error
        self.model.eval().to(self.device)
        self.adapters[name] = key

    def _attach(self, key: str, config: Any) -> None:
        """Adds an adapter of this shape to the model, without its weights."""
        config.inference_mode, config.init_lora_weights = True, False
        if isinstance(self.model, peft.PeftModel):
            self.model.add_adapter(key, config)
        else:
            self.model = peft.get_peft_model(self.model, config, key)
        lora_linear.install(self.model)

    def _fill(self, key: str, weights: dict[str, torch.Tensor]) -> None:
        """Loads the weights; raises ValueError unless they are exactly the adapter's."""
        loaded = peft.set_peft_model_state_dict(self.model, weights, key)
        missing = [name for name in loaded.missing_keys if f".{key}." in name]
        if missing or loaded.unexpected_keys:
            raise ValueError(f"{len(missing)} weights are missing, {len(loaded.unexpected_keys)} have no place")

    def unload_adapter(self, name: str) -> None:
        """Drops an adapter; without effect when none has this name, because two requests may ask for it at once."""
        if name in self.adapters:
            self._forget(self.adapters.pop(name))

    def _forget(self, key: str) -> None:
        if not isinstance(self.model, peft.PeftModel) or key not in self.model.peft_config:
            return
        if len(self.model.peft_config) > 1:
            self.model.delete_adapter(key)
        else:  # a PeftModel needs at least one
            self.model = self.model.unload()

    # ---------------------------------------------------------------- completions

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]:
        """A completion, or the UserError that forbids it, for each job, in order."""
        results: list[Completion | Exception] = []
        ready: dict[str, list[tuple[int, sampling.Row]]] = {}
        for index, job in enumerate(jobs):
            try:
                row = self._prepare(job)
                ready.setdefault(job.adapter, []).append((index, row))
                results.append(row.completion)
            except UserError as error:
                results.append(error)
        for adapter, rows in ready.items():
            self._generate(adapter, [row for _, row in rows])
        return results

    def _prepare(self, job: Job) -> sampling.Row:
        if job.adapter and job.adapter not in self.adapters:
            raise UserError(f"there is no adapter {job.adapter!r} any more", where="model", remedy="see /v1/models")
        patches = [self.processor.patches(image) for image in job.prompt.images]
        ids = self._tokens(job.prompt, [self.processor.image_tokens(item.grid) for item in patches])
        room = self.length - len(ids)
        if room < (job.sampling.max_tokens or 1):
            raise UserError(
                f"{len(ids)} prompt tokens and {job.sampling.max_tokens or 1} new ones are more than {self.length}",
                where="max_tokens",
                remedy="shorten the prompt or ask for fewer",
            )
        return sampling.Row(Completion(tuple(ids)), job.sampling, patches, job.sampling.max_tokens or room)

    def _tokens(self, prompt: Prompt, image_tokens: Sequence[int]) -> list[int]:
        """Token ids of a prompt, each image pad repeated once per image token."""
        given = prompt.text
        ids = self.tokenizer.encode(given, add_special_tokens=False) if isinstance(given, str) else list(given)
        size = len(self.tokenizer)
        if any(not 0 <= token < size for token in ids):
            raise UserError(f"token ids must lie in 0 to {size - 1}", where="prompt")
        pads = ids.count(self.processor.image_pad)
        if not isinstance(given, str) and pads == sum(image_tokens):
            return ids
        if pads != len(image_tokens) or not ids:
            raise UserError(
                f"{pads} image placeholders for {len(image_tokens)} images" if ids else "empty", where="prompt"
            )
        counts = iter(image_tokens)
        return [token for i in ids for token in ([i] * next(counts) if i == self.processor.image_pad else [i])]

    @torch.no_grad()
    def _generate(self, adapter: str, rows: list[sampling.Row]) -> None:
        """Fills the rows' completions."""
        sampler = sampling.Sampler(rows, self.tokenizer, self.generation.eos_token_id)
        with self._adapter_applied(adapter):
            self.model.generate(
                **self._inputs(rows),
                generation_config=self.generation,
                max_new_tokens=max(row.max_tokens for row in rows),
                logits_processor=transformers.LogitsProcessorList([sampler]),
                stopping_criteria=transformers.StoppingCriteriaList([sampler.finished]),
            )
        for row in rows:
            row.conclude(self.tokenizer)

    def _adapter_applied(self, adapter: str) -> Any:
        """A context in which the named adapter is applied; empty: the base model."""
        if adapter:
            self.model.set_adapter(self.adapters[adapter])
        return (
            contextlib.nullcontext()
            if adapter or not isinstance(self.model, peft.PeftModel)
            else self.model.disable_adapter()
        )

    def _inputs(self, rows: list[sampling.Row]) -> dict[str, torch.Tensor]:
        """Left-padded ids, their mask, which tokens are images, and the images of all rows in order."""
        width = max(len(row.completion.prompt_tokens) for row in rows)
        ids = np.full((len(rows), width), self.generation.pad_token_id)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            prompt = row.completion.prompt_tokens
            ids[number, width - len(prompt) :] = prompt
            mask[number, width - len(prompt) :] = 1
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.processor.image_pad).astype(int),
        }
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
        patches = [item for row in rows for item in row.patches]
        if patches:
            pixels = torch.from_numpy(np.concatenate([item.rows for item in patches]))
            tensors["pixel_values"] = pixels.to(self.device, next(self.model.parameters()).dtype)
            tensors["image_grid_thw"] = torch.tensor([item.grid for item in patches], device=self.device)
        return tensors

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Each token as text."""
        return list(self.tokenizer.convert_ids_to_tokens(list(tokens)))

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Chat messages as a prompt: by the folder's chat template, as plain ChatML where it has none.

        Raises:
            UserError: for messages that the template refuses, such as a role that it does not know.
        """
        if self.tokenizer.chat_template:
            try:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except jinja2.TemplateError as error:
                raise UserError(f"the chat template refuses them: {loading.brief(error)}", where="messages") from None
        turns = "".join(f"<|im_start|>{m['role']}\n{_plain(m['content'])}<|im_end|>\n" for m in messages)
        return f"{turns}<|im_start|>assistant\n"


def _plain(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(IMAGE if part["type"] == "image" else part["text"] for part in content)


def _plain_generation(own: Any, processor: Processor) -> Any:
    """The folder's end tokens, and what neither the folder nor training samples, without its sampling settings."""
    tokenizer: Any = processor.tokenizer
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    suppressed = sorted({*(own.suppress_tokens or ()), *processor.suppress_tokens}.difference(ends))
    return transformers.GenerationConfig(
        do_sample=False, eos_token_id=ends, pad_token_id=pad, suppress_tokens=suppressed or None
    )
