"""The policy server, with the shipped tiny model; no test depends on what it has learned."""

from __future__ import annotations

import json
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gog import prompts, tool_api
from gog.completions import Job, Prompt, Sampling
from gog.errors import UserError
from gog.images import Image
from gog.spec import PixelBounds
from gog_recipes.models.completion import PolicyModel
from gog_recipes.world import TINY, drawing, entities, scenes
from gog_tools.policy import server as policy_server

RAW = "/v1/completions"
GATED = ("gog_tools.policy.server", "--base", "tiny", "--backend", "gate_policy:GateModel")
QUESTION = "what is the height of the red ring ?"
PROMPT = prompts.prompt(QUESTION, style="terse")


def image(seed=1):
    scene = scenes.draw_scene(random.Random(seed), entities.build(7), "train", 3)
    return drawing.scene(scene.things, scene.background)


IMAGE = tool_api.encode_image(image())


def complete(server, **settings):
    """The choice of a raw completion, with token ids and log-probabilities."""
    body = {"prompt": PROMPT, "images": [IMAGE], "max_tokens": 12, "logprobs": 1, "return_token_ids": True, **settings}
    answer = server.post(RAW, body)
    assert answer.status == 200, answer.body
    (choice,) = answer.json()["choices"]
    return choice


def refusal(server, path, **body):
    answer = server.post(path, body)
    assert answer.json()["error"]["message"]
    return answer.status, answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def policy(servers):
    return servers.policy


@pytest.fixture
def adapter(policy):
    """Loads adapters and unloads them at the end."""
    loaded = []

    def load(name, path):
        assert policy.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}).status == 200
        loaded.append(name)
        return name

    yield load
    for name in loaded:
        policy.post("/v1/unload_lora_adapter", {"lora_name": name})


def models(policy):
    return [model["id"] for model in policy.get("/v1/models").json()["data"]]


# ---------------------------------------------------------------- completions


def test_a_chat_with_an_image_completes_like_the_agents_raw_prompt(policy):
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "text", "text": QUESTION},
    ]
    settings = {"max_tokens": 8, "temperature": 0, "return_token_ids": True, "logprobs": True}
    answer = policy.post(tool_api.CHAT_PATH, {"messages": [{"role": "user", "content": parts}], **settings}).json()
    (choice,), raw = answer["choices"], complete(policy, max_tokens=8, temperature=0)
    assert choice["prompt_token_ids"] == raw["prompt_token_ids"] and choice["token_ids"] == raw["token_ids"]
    assert choice["message"] == {"role": "assistant", "content": raw["text"]}
    assert [item["logprob"] for item in choice["logprobs"]["content"]] == raw["logprobs"]["token_logprobs"]
    assert answer["usage"]["completion_tokens"] == len(raw["token_ids"])


def test_a_placeholder_is_repeated_once_per_image_token(policy):
    ids = complete(policy, temperature=0)["prompt_token_ids"]
    pad = max(set(ids), key=ids.count)
    assert ids.count(pad) == 16  # 112 px by 112 px are 4 x 4 tokens
    assert complete(policy, prompt=ids, temperature=0) == complete(policy, temperature=0)
    folded = [token for place, token in enumerate(ids) if token != pad or ids[place - 1] != pad]
    assert complete(policy, prompt=folded, temperature=0) == complete(policy, temperature=0)


def test_logprobs_do_not_depend_on_where_the_prompt_ends(policy):
    """What generate() keeps between tokens (cache, image positions) must equal a fresh pass."""
    whole = complete(policy, seed=3, temperature=1.0, max_tokens=6)
    begun = whole["prompt_token_ids"]
    for place, token in enumerate(whole["token_ids"][1:], 1):
        greedy = complete(policy, prompt=begun + whole["token_ids"][:place], max_tokens=1, temperature=0)
        if greedy["token_ids"] == [token]:
            assert greedy["logprobs"]["token_logprobs"][0] == pytest.approx(
                whole["logprobs"]["token_logprobs"][place], abs=1e-4
            )
    greedy = complete(policy, temperature=0, max_tokens=5)
    for place, token in enumerate(greedy["token_ids"]):
        again = complete(policy, prompt=begun + greedy["token_ids"][:place], max_tokens=1, temperature=0)
        assert again["token_ids"] == [token]
        assert again["logprobs"]["token_logprobs"][0] == pytest.approx(
            greedy["logprobs"]["token_logprobs"][place], abs=1e-4
        )


def test_a_seed_repeats_its_draws_and_another_differs(policy):
    hot = {"temperature": 100, "max_tokens": 10}
    assert complete(policy, seed=1, **hot) == complete(policy, seed=1, **hot)
    assert complete(policy, seed=1, **hot) != complete(policy, seed=2, **hot)


def test_a_request_gets_the_same_completion_in_a_batch_as_alone(policy):
    asked = [{"seed": i, "temperature": 2.0, "max_tokens": 4 + i} for i in range(4)]
    asked += [
        {"prompt": f"{PROMPT}<think> red ring", "temperature": 0},
        {"prompt": "<|im_start|>user\nwhat", "images": []},
    ]
    asked[-1] |= {"seed": 9, "temperature": 3.0}
    alone = [complete(policy, **one) for one in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: complete(policy, **one), asked))
    for one, other in zip(alone, together, strict=True):
        assert one["token_ids"] == other["token_ids"]
        assert one["logprobs"]["token_logprobs"] == pytest.approx(other["logprobs"]["token_logprobs"], abs=1e-4)


def test_a_stop_string_ends_the_text_and_is_returned_only_on_request(policy):
    free = complete(policy, seed=4, temperature=100)
    stop = free["logprobs"]["tokens"][3]
    stopped = complete(policy, seed=4, temperature=100, stop=["never", stop])
    assert stopped["token_ids"] == free["token_ids"][: free["logprobs"]["tokens"].index(stop) + 1]
    assert stopped["finish_reason"] == "stop" and stopped["stop_reason"] == stop
    assert stop not in stopped["text"]
    kept = complete(policy, seed=4, temperature=100, stop=stop, include_stop_str_in_output=True)
    assert kept["text"] == stopped["text"] + stop


def test_the_limit_ends_a_completion(policy):
    choice = complete(policy, seed=5, temperature=100, max_tokens=3)
    assert len(choice["token_ids"]) == 3 and choice["finish_reason"] == "length"


def test_image_tokens_are_never_generated(policy):
    written = {token for seed in range(6) for token in complete(policy, seed=seed, temperature=50.0)["token_ids"]}
    prompt = complete(policy, temperature=0)["prompt_token_ids"]
    assert not written & {prompt[place] for place in (0, 3, 4)}  # <|im_start|>, <|vision_start|>, <|image_pad|>


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"images": []}, "prompt"),
        ({"images": [IMAGE, IMAGE]}, "prompt"),
        ({"images": ["AAAA"]}, "image 1"),
        ({"prompt": "", "images": []}, "prompt"),
        ({"prompt": [10**9], "images": []}, "prompt"),
        ({"prompt": [-1], "images": []}, "prompt"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"n": 2}, "n"),
        ({"stream": True}, "stream"),
        ({"top_p": 0.5}, "top_p"),
    ],
)
def test_an_unsupported_value_is_refused_with_its_field(policy, settings, field):
    status, sentence = refusal(policy, RAW, **{"prompt": PROMPT, "images": [IMAGE], "max_tokens": 4, **settings})
    assert status == 400 and sentence.startswith(field)


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "file:///etc/passwd", "data:text/html;base64,AAAA"])
def test_images_are_never_fetched_from_an_address(policy, url):
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    status, sentence = refusal(policy, tool_api.CHAT_PATH, messages=[{"role": "user", "content": parts}])
    assert status == 400 and "data URL" in sentence


def test_an_unknown_model_is_a_404(policy):
    assert refusal(policy, RAW, prompt="what", model="step-9")[0] == 404


def test_health_answers_while_completions_are_generated(start, gate, held):
    server = start(*GATED, "--options", json.dumps({"gate": str(gate)}))
    answers = []
    request_thread = threading.Thread(target=lambda: answers.append(server.post(RAW, {"prompt": "x"})))
    assert server.url
    request_thread.start()
    with held():
        assert server.get("/health").status == 200 and models(server) == ["base"]
        assert not answers
    request_thread.join(30)
    assert answers[0].json()["choices"][0]["text"] == "done"


# ---------------------------------------------------------------- adapters


def test_an_adapter_changes_its_own_requests_only(policy, adapter):
    base = complete(policy, temperature=0)
    one, two = adapter("step-1.0", "one"), adapter("step-2.0", "two")
    assert models(policy) == ["base", one, two]
    logprobs = {name: complete(policy, temperature=0, model=name)["logprobs"] for name in ("base", one, two)}
    assert logprobs["base"] == base["logprobs"]
    assert logprobs[one] != logprobs["base"] != logprobs[two] != logprobs[one]


def test_requests_of_several_adapters_at_once_do_not_mix(policy, adapter):
    names = ["base", adapter("mix-1", "one"), adapter("mix-2", "two")] * 3
    alone = [complete(policy, temperature=0, model=name)["logprobs"]["token_logprobs"] for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        together = list(pool.map(lambda name: complete(policy, temperature=0, model=name), names))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other["logprobs"]["token_logprobs"], abs=1e-4)


def test_a_joined_adapter_is_served_like_any_other(policy, adapter):
    names = ["base", adapter("part-1", "one"), adapter("part-2", "two"), adapter("whole-1", "joined")]
    wrote = [complete(policy, temperature=0, model=name)["logprobs"]["token_logprobs"] for name in names]
    assert all(one != other for place, one in enumerate(wrote) for other in wrote[:place])


def test_a_name_already_loaded_is_refused(policy, adapter):
    adapter("taken", "one")
    before = complete(policy, temperature=0, model="taken")
    for name in ("taken", "base"):
        status, sentence = refusal(policy, "/v1/load_lora_adapter", lora_name=name, lora_path="two")
        assert status == 409 and name in sentence
    assert complete(policy, temperature=0, model="taken") == before


def test_an_unloaded_adapter_is_gone(policy, adapter):
    adapter("passing", "one")
    assert policy.post("/v1/unload_lora_adapter", {"lora_name": "passing"}).status == 200
    assert models(policy) == ["base"]
    assert refusal(policy, RAW, prompt="what", model="passing")[0] == 404
    assert refusal(policy, "/v1/unload_lora_adapter", lora_name="passing")[0] == 404


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "link", "one/../../elsewhere"])
def test_adapters_are_read_from_their_folder_only(policy, path):
    assert refusal(policy, "/v1/load_lora_adapter", lora_name="stray", lora_path=path)[0] == 403


@pytest.mark.parametrize("path", ["pickled", "wide", "partial", "nowhere", "one\x00"])
def test_an_adapter_that_cannot_be_loaded_changes_nothing(policy, adapters, path):
    before, name = complete(policy, temperature=0), f"bad-{path[:3]}"
    assert refusal(policy, "/v1/load_lora_adapter", lora_name=name, lora_path=path)[0] == 400
    assert models(policy) == ["base"]
    assert complete(policy, temperature=0) == before
    good = {"lora_name": name, "lora_path": str(adapters / "one")}
    assert policy.post("/v1/load_lora_adapter", good).status == 200
    assert policy.post("/v1/unload_lora_adapter", {"lora_name": name}).status == 200


def test_a_server_started_without_a_source_loads_no_adapters(start, gate):
    server = start(*GATED, "--options", json.dumps({"gate": str(gate)}))
    status, sentence = refusal(server, "/v1/load_lora_adapter", lora_name="x", lora_path="x")
    assert status == 403 and "--adapters" in sentence


def test_a_name_is_never_reused_for_other_weights_even_after_unloading(policy, adapter):
    adapter("kept", "one")
    before = complete(policy, temperature=0, model="kept")
    assert policy.post("/v1/unload_lora_adapter", {"lora_name": "kept"}).status == 200
    status, sentence = refusal(policy, "/v1/load_lora_adapter", lora_name="kept", lora_path="two")
    assert status == 409 and "kept" in sentence and models(policy) == ["base"]
    adapter("kept", "one")
    assert complete(policy, temperature=0, model="kept") == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 101, "-x"])
def test_an_invalid_adapter_name_is_refused(policy, name):
    assert refusal(policy, "/v1/load_lora_adapter", lora_name=name, lora_path="one")[0] == 400


@pytest.mark.parametrize(("config", "reason"), [(None, "config.json"), ('{"model_type": "llama"}', "llama")])
def test_a_folder_without_a_supported_model_is_refused(capsys, tmp_path, config, reason):
    if config:
        (tmp_path / "config.json").write_text(config)
    assert policy_server.main(["--model", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err


# ---------------------------------------------------------------- back ends


def test_a_back_end_from_outside_is_used_by_its_name(start):
    server = start("gog_tools.policy.server", "--base", "tiny", "--backend", "marked_policy:MarkedModel")
    assert server.post(RAW, {"prompt": "x"}).json()["choices"][0]["text"] == "plain"


@pytest.mark.parametrize("name", ["nowhere", "gog_nowhere:Model", "marked_policy:Nothing"])
def test_an_unknown_back_end_is_refused_with_the_known_ones(capsys, name):
    assert policy_server.main(["--model", "tiny", "--backend", name]) == 2
    error = capsys.readouterr().err
    assert "--backend" in error and name in error and "transformers" in error


# ---------------------------------------------------------------- chat templates


def test_messages_that_the_chat_template_refuses_are_a_fault_of_the_request(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(TINY, folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match=r"messages: .*roles must alternate"):
        PolicyModel(folder).render([{"role": "user", "content": "x"}])


def test_a_policy_sees_images_at_the_size_that_it_was_trained_with():
    image = Image(np.full((112, 112, 3), 200, np.uint8))
    prompt = Prompt("<|vision_start|><|image_pad|><|vision_end|>what ?", (image,))
    lengths = []
    for pixels in (None, PixelBounds(max_pixels=56 * 56)):
        (completion,) = PolicyModel(TINY, pixels=pixels).complete([Job(prompt, Sampling(max_tokens=1))])
        lengths.append(len(completion.prompt_tokens))
    assert lengths[0] - lengths[1] == 16 - 4
