"""Grounding DINO and OWLv2 with random weights of the real architectures, beside transformers' own single images."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import transformers
from kserve.errors import InvalidInput
from safetensors import torch as tensor_files
from support import detector_folders

from gog import regions, tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.grounding import model, phrases, server
from gog_tools.grounding.backend import Detector
from gog_tools.grounding.grounding_dino import GroundingDino
from gog_tools.grounding.owlv2 import Owlv2
from gog_tools.serving import backends

PHOTOGRAPHS = [Image(getattr(skimage.data, name)()) for name in ("coffee", "chelsea", "astronaut", "rocket", "chelsea")]
EXPRESSIONS = ["a cup", "the left cat. the right eye of the animal", "person", "a rocket. a tower. the sky", "tail"]
OPEN: dict[str, Any] = {"threshold": 0.0, "overlap": 1.0, "limit": 100, "device": "cpu"}
"""Every box that the network makes comes back."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("detectors")
    return {
        "grounding-dino": detector_folders.grounding_dino(root / "dino"),
        "owlv2": detector_folders.owlv2(root / "owlv2"),
    }


@pytest.fixture(scope="module")
def dino(folders: dict[str, Path]) -> GroundingDino:
    return GroundingDino(weights=str(folders["grounding-dino"]), text_threshold=0.0, **OPEN)


@pytest.fixture(scope="module")
def owl(folders: dict[str, Path]) -> Owlv2:
    return Owlv2(weights=str(folders["owlv2"]), **OPEN)


def rows(boxes: Any, scores: Any) -> list[tuple[float, ...]]:
    """Score and box of each detection, best first; sides in hundredths of a pixel are beyond float32 sums."""
    return sorted((score, *box) for score, box in zip(scores, boxes, strict=True))[::-1]


def assert_same(found: list[tool_api.Detection], theirs: list[tuple[float, ...]]) -> None:
    """Detections are these scores and boxes, to the accuracy of float32 sums."""
    ours = rows([each.box for each in found], [each.score for each in found])
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert own[0] == pytest.approx(other[0], abs=1e-4)
        assert own[1:] == pytest.approx(other[1:], abs=0.05)


def single_grounding_dino(folder: Path, image: Image, expression: str, threshold: float) -> dict[str, Any]:
    """The answer of transformers' own processor and model to one image."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    text = phrases.join(phrases.split(expression))
    inputs = processor(images=image.pixels, text=text, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    answer: dict[str, Any] = processor.post_process_grounded_object_detection(
        outputs, inputs.input_ids, threshold=threshold, text_threshold=0.0, target_sizes=[image.pixels.shape[:2]]
    )[0]
    return answer


def single_owlv2(folder: Path, image: Image, expression: str, threshold: float) -> dict[str, Any]:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    labels = [list(phrases.split(expression))]
    inputs = processor(images=image.pixels, text=labels, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    answer: dict[str, Any] = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=[image.pixels.shape[:2]], text_labels=labels
    )[0]
    return answer


def test_grounding_dino_answers_a_batch_as_transformers_answers_single_images(folders, dino):
    found = dino.detect(PHOTOGRAPHS, EXPRESSIONS)
    for image, expression, ours in zip(PHOTOGRAPHS, EXPRESSIONS, found, strict=True):
        theirs = single_grounding_dino(folders["grounding-dino"], image, expression, dino.threshold)
        assert_same(ours, rows(theirs["boxes"].tolist(), theirs["scores"].tolist()))
        assert ours


def test_owlv2_answers_a_batch_as_transformers_answers_single_images(folders, owl):
    found = owl.detect(PHOTOGRAPHS, EXPRESSIONS)
    for image, expression, ours in zip(PHOTOGRAPHS, EXPRESSIONS, found, strict=True):
        theirs = single_owlv2(folders["owlv2"], image, expression, owl.threshold)
        assert_same(ours, rows(theirs["boxes"].tolist(), theirs["scores"].tolist()))
        by_score = sorted(zip(theirs["scores"].tolist(), theirs["text_labels"], strict=True), reverse=True)
        assert [each.label for each in ours] == [label for _, label in by_score]


def test_an_answer_does_not_depend_on_what_shares_the_batch(dino, owl):
    for detector in (dino, owl):
        together = detector.detect(PHOTOGRAPHS, EXPRESSIONS)
        for image, expression, answer in zip(PHOTOGRAPHS, EXPRESSIONS, together, strict=True):
            (alone,) = detector.detect([image], [expression])
            assert_same(answer, rows([each.box for each in alone], [each.score for each in alone]))
            assert [each.label for each in answer] == [each.label for each in alone]


@pytest.mark.parametrize("size", [(2, 5_000), (5_000, 2), (1, 5_000)])
def test_an_image_that_is_too_thin_is_refused_alone_and_with_its_size(dino, size):
    thin = Image(np.zeros((*size, 3), np.uint8))
    with pytest.raises(UserError, match=f"image: the detector cannot resize {size[1]} x {size[0]} pixels"):
        dino.detect([thin], ["a cup"])
    served = model.GroundingModel(dino, batch_size=2, batch_wait=0.05)
    bodies = [tool_api.with_image(instance("a cup"), each) for each in (thin, PHOTOGRAPHS[0])]

    async def both():
        return await asyncio.gather(*map(served.predict, bodies), return_exceptions=True)

    refused, answer = asyncio.run(both())
    assert isinstance(refused, InvalidInput) and "less thin" in str(refused)
    assert json.loads(answer)["predictions"]


def instance(expression):
    """A request about one image that is still to be filled in."""
    return tool_api.GroundingRequest(instances=[tool_api.GroundingInstance(image="", expression=expression)])


def test_an_image_that_is_not_thin_and_breaks_the_processor_is_no_fault_of_the_request(dino, monkeypatch):
    def breaks(**_):
        raise ValueError("wrong configuration")

    monkeypatch.setattr(dino.processor, "image_processor", breaks)
    with pytest.raises(ValueError, match="wrong configuration"):
        dino.detect(PHOTOGRAPHS[:1], EXPRESSIONS[:1])


def test_images_of_one_shape_share_a_forward_pass(dino, monkeypatch):
    passes = []
    whole = dino.model.forward
    monkeypatch.setattr(
        dino.model, "forward", lambda **inputs: passes.append(len(inputs["input_ids"])) or whole(**inputs)
    )
    dino.detect([PHOTOGRAPHS[1]] * 5 + PHOTOGRAPHS[2:3], ["a cat", "an eye. a nose", "ear", "fur", "?", "person"])
    assert sorted(passes) == [1, 4]


@pytest.mark.parametrize("name", ["dino", "owl"])
def test_an_image_is_encoded_once_for_all_expressions_of_a_pass_and_they_are_answered_alike(name, request, monkeypatch):
    detector, encoded, prepared = request.getfixturevalue(name), [], []
    encoder = detector.model.get_submodule(detector.vision)
    whole, features = encoder.forward, detector._features
    monkeypatch.setattr(
        encoder, "forward", lambda *given, **named: encoded.append(rows_of(given, named)) or whole(*given, **named)
    )
    monkeypatch.setattr(detector, "_features", lambda image: prepared.append(image) or features(image))
    cat, person = PHOTOGRAPHS[1], PHOTOGRAPHS[2]
    shown = [cat, person, cat, person, cat]
    together = detector.detect(shown, ["a cat", "a person", "an ear", "a hat", "fur"])
    assert sum(encoded) == len(prepared) == 2
    for image, expression, answer in zip(shown, ["a cat", "a person", "an ear", "a hat", "fur"], together, strict=True):
        (alone,) = detector.detect([image], [expression])
        assert_same(answer, rows([each.box for each in alone], [each.score for each in alone]))


def rows_of(given: tuple[Any, ...], named: dict[str, Any]) -> int:
    """Images that a vision encoder is given."""
    return len(given[0] if given else named["pixel_values"])


def test_an_expression_without_words_finds_nothing_without_a_forward_pass(dino, owl, monkeypatch):
    for detector in (dino, owl):
        monkeypatch.setattr(detector.model, "forward", None)
        assert detector.detect(PHOTOGRAPHS[:3], ["", " . ? ", "<>"]) == [[], [], []]


@pytest.mark.parametrize("expression", ["word " * 200, "a. " * 300, "\x00", "狮子", "é" * 1_000, "<|endoftext|> [SEP]"])
def test_any_expression_is_answered(dino, owl, expression):
    for detector in (dino, owl):
        (found,) = detector.detect([PHOTOGRAPHS[1]], [expression])
        assert all(each.label in phrases.split(expression) for each in found)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (31, 29)])
def test_an_image_of_any_shape_is_answered(dino, owl, shape):
    for detector in (dino, owl):
        detector.detect([Image(PHOTOGRAPHS[0].pixels[: shape[0], : shape[1]])], ["a cup"])


def test_boxes_are_best_first_apart_and_no_more_than_the_limit(folders):
    detector = GroundingDino(weights=str(folders["grounding-dino"]), threshold=0.0, overlap=0.3, limit=4, device="cpu")
    (found,) = detector.detect([PHOTOGRAPHS[1]], ["cat"])
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True) and 1 <= len(found) <= 4
    pairs = itertools.combinations([each.box for each in found], 2)
    assert all(regions.overlap(one, other) <= 0.3 for one, other in pairs)


def test_a_box_below_the_threshold_is_left_out(folders, dino):
    (every,) = dino.detect([PHOTOGRAPHS[1]], ["cat. dog"])
    middle = sorted(each.score for each in every)[len(every) // 2]
    strict = GroundingDino(weights=str(folders["grounding-dino"]), text_threshold=0.0, **{**OPEN, "threshold": middle})
    (found,) = strict.detect([PHOTOGRAPHS[1]], ["cat. dog"])
    assert [each.score for each in found] == pytest.approx(
        [each.score for each in every if each.score > middle], abs=1e-4
    )


def test_boxes_are_in_pixels_of_the_image_however_large_it_is(dino, owl):
    """The network sees both at one size, so its boxes are the same parts of them."""
    small = Image(PHOTOGRAPHS[2].pixels[::4, ::4].copy())
    large = Image(small.pixels.repeat(4, 0).repeat(4, 1))
    for detector in (dino, owl):
        (of_small,) = detector.detect([small], ["person"])
        sides = [side for each in of_small for side in each.box]
        (of_large,) = detector.detect([large], ["person"])
        assert max(side for each in of_large for side in each.box) > 2 * max(sides)


def test_a_phrase_is_the_label_of_a_box_and_separators_are_none(dino):
    probabilities = torch.zeros(3, 64)
    owners = dino._owners([("a cat", "the red sign")])[0]
    tokens = dino.processor.tokenizer.convert_ids_to_tokens(dino._encode([("a cat", "the red sign")])["input_ids"][0])
    assert [token for token, phrase in zip(tokens, owners, strict=True) if phrase < 0] == ["[CLS]", ".", ".", "[SEP]"]
    probabilities[0, tokens.index("c")] = 0.9
    probabilities[1, tokens.index("s")] = 0.9
    probabilities[2, tokens.index(".")] = 0.9
    dino_about = dino._about(probabilities, owners)
    assert dino_about == [0, 1, -1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_other_types_answer(folders, dtype):
    for kind, name in ((GroundingDino, "grounding-dino"), (Owlv2, "owlv2")):
        detector = kind(weights=str(folders[name]), dtype=dtype, **OPEN)
        (found,) = detector.detect([PHOTOGRAPHS[1]], ["cat"])
        assert str(detector.model.dtype) == f"torch.{dtype}" and found


def load(name: str, **options: Any) -> Any:
    return backends.load("grounding", name, json.dumps(options), Detector, {"fetch_model": lambda: Path})


def fault(name: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(name, **options)
    return caught.value.sentence()


def test_both_are_back_ends_by_name(folders):
    assert isinstance(load("grounding-dino", weights=str(folders["grounding-dino"])), GroundingDino)
    assert isinstance(load("owlv2", weights=str(folders["owlv2"])), Owlv2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "weights"),
        ({"weights": "/nowhere"}, "weights"),
        ({"weights": "DIR", "threshold": 1.5}, "threshold"),
        ({"weights": "DIR", "threshold": "high"}, "threshold"),
        ({"weights": "DIR", "limit": 0}, "limit"),
        ({"weights": "DIR", "batch": 1_000}, "batch"),
        ({"weights": "DIR", "dtype": "int8"}, "dtype"),
        ({"weights": "DIR", "device": "toaster"}, "device"),
        ({"weights": "DIR", "device": "meta:x"}, "device"),
        ({"weights": "DIR", "treshold": 0.3}, "treshold"),
    ],
)
def test_a_wrong_option_is_refused_by_name(folders, options, named):
    given = {key: str(folders["owlv2"]) if value == "DIR" else value for key, value in options.items()}
    assert named in fault("owlv2", **given)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.delitem(sys.modules, "gog_tools.grounding.owlv2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    sentence = fault("owlv2", weights="/x")
    assert "transformers" in sentence and "gog[recipes]" in sentence


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_weights_of_another_architecture_are_refused(folders):
    assert "'owlv2', not 'grounding-dino'" in fault("grounding-dino", weights=str(folders["owlv2"]))


def test_a_pickle_is_refused(folders, tmp_path):
    folder = copied(folders["owlv2"], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in fault("owlv2", weights=str(folder))


def test_code_of_the_folder_is_never_run(folders, tmp_path):
    folder = copied(folders["owlv2"], tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (folder / "evil.py").write_text("raise SystemExit(9)")
    assert "auto_map" in fault("owlv2", weights=str(folder))


def test_half_a_download_is_refused(folders, tmp_path):
    folder = copied(folders["grounding-dino"], tmp_path / "half")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "model.safetensors" in fault("grounding-dino", weights=str(folder))


def test_a_missing_weight_is_refused_by_name(folders, tmp_path):
    folder = copied(folders["owlv2"], tmp_path / "less")
    weights = tensor_files.load_file(folder / "model.safetensors")
    del weights["box_head.dense0.weight"]
    tensor_files.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "box_head.dense0.weight" in fault("owlv2", weights=str(folder))


def test_the_tokenizer_of_another_model_is_refused(folders, tmp_path):
    folder = copied(folders["grounding-dino"], tmp_path / "foreign")
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "?", "a"])}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    assert "tokenizer" in fault("grounding-dino", weights=str(folder))


def test_weights_that_are_not_numbers_are_refused(folders, tmp_path):
    folder = copied(folders["owlv2"], tmp_path / "nan")
    weights = tensor_files.load_file(folder / "model.safetensors")
    weights["box_head.dense0.weight"].fill_(float("nan"))
    tensor_files.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "not finite" in fault("owlv2", weights=str(folder), threshold=0.0)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Red ring", ("red ring",)),
        ("a lion. a sign.", ("a lion", "a sign")),
        ("a lion; a lion", ("a lion",)),
        ("the no.5 car", ("the no.5 car",)),
        ("what?", ("what",)),
        ("two\nlines", ("two", "lines")),
        (" . ; ", ()),
        ("", ()),
    ],
)
def test_an_expression_holds_one_or_several_phrases(expression, expected):
    assert phrases.split(expression) == expected
    caption = phrases.join(expected)
    for index, phrase in enumerate(expected):
        begin = caption.index(phrase)
        assert phrases.owner(expected, begin, begin + len(phrase)) == index


@pytest.mark.slow
def test_the_server_answers_a_photograph(start, folders):
    """Through the command line that docs/tools.md names."""
    started = start(
        "gog_tools.grounding.server", "--backend", "grounding-dino", "--weights", str(folders["grounding-dino"]),
        "--device", "cpu", "--options", json.dumps({"threshold": 0.0, "text_threshold": 0.0}),
    )  # fmt: skip
    body = {"instances": [{"image": tool_api.encode_image(PHOTOGRAPHS[0]), "expression": "the cup. a spoon"}]}
    answer = started.post(tool_api.GROUNDING_PATH, body)
    (prediction,) = tool_api.GroundingResponse.model_validate_json(answer.body).predictions
    assert answer.status == 200 and prediction.detections
    assert {each.label for each in prediction.detections} <= {"the cup", "a spoon"}


def test_the_server_refuses_wrong_weights_at_start(folders, capsys):
    wrong = ["--backend", "grounding-dino", "--weights", str(folders["owlv2"])]
    assert server.main(wrong) == 2
    assert "weights: " in capsys.readouterr().err


def test_an_argument_that_is_also_an_option_is_refused(folders, capsys):
    twice = ["--backend", "owlv2", "--weights", str(folders["owlv2"]), "--options", '{"weights": "/elsewhere"}']
    assert server.main(twice) == 2
    assert "weights is given twice" in capsys.readouterr().err
