"""Writes trl/completions with TRL's own GRPOTrainer, on completions that its `rollout_func` returns.

python write_trl.py FOLDER        needs trl==1.16.0 and pandas
"""

from __future__ import annotations

import sys

import datasets
import episodes
import transformers
import trl

TOKENIZER = episodes.tokenizer()
ROWS = episodes.rows()


def roll_out(prompts, trainer):
    """The completions of each prompt in turn, in place of the model's."""
    left = {question: [row[3] for row in ROWS if row[0] == question] for question in episodes.QUESTIONS}
    texts = [left[next(question for question in left if question in prompt)].pop(0) for prompt in prompts]
    ids = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in texts]
    read = [TOKENIZER(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    return {"prompt_ids": read, "completion_ids": ids, "logprobs": [[-0.1] * len(each) for each in ids]}


def accuracy_reward(completions, answer, file, log_extra, **more):
    log_extra("image_path", file)
    log_extra("answer", answer)
    return [float(f"<answer>{gold}</answer>" in text) for text, gold in zip(completions, answer, strict=True)]


def format_reward(completions, **more):
    return [0.5 if "</answer>" in text else None for text in completions]


def main() -> None:
    data = [
        {"prompt": episodes.prompt(question), "answer": gold, "file": image}
        for question, (gold, image) in episodes.QUESTIONS.items()
    ]
    config = transformers.Qwen2Config(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1,
    )  # fmt: skip
    settings = trl.GRPOConfig(
        output_dir=sys.argv[1], log_completions=True, num_generations=2, per_device_train_batch_size=4, max_steps=1,
        logging_steps=1, use_cpu=True, report_to=[], save_strategy="no", max_completion_length=2000, bf16=False,
        shuffle_dataset=False, log_multimodal=False,
    )  # fmt: skip
    trl.GRPOTrainer(
        transformers.Qwen2ForCausalLM(config), [accuracy_reward, format_reward], settings,
        datasets.Dataset.from_list(data), processing_class=TOKENIZER, rollout_func=roll_out,
    ).train()  # fmt: skip


if __name__ == "__main__":
    main()
