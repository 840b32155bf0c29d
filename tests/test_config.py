"""Settings of any kind become plain, bounded data, and secrets stay away from the run card."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainvitals.card import RunCard, read_card
from trainvitals.config import ALL_CHARACTERS, ENTRIES, HIDDEN, is_secret, plain_config
from trainvitals.errors import UsageError

JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.text(max_size=10),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=20)


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass
class Job:
    optimizer: Optimizer = field(default_factory=Optimizer)
    data: Path = Path("data/c4")


class Plain:
    """As in nanoGPT's configurator: a class with attributes."""

    batch_size = 12
    _private = 1

    def run(self) -> None: ...


WANTED = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "data": "data/c4"}


@pytest.mark.parametrize(("config", "wanted"), [
    (None, {}), ({}, {}), (Job(), WANTED), (argparse.Namespace(**vars(Job())), WANTED),
    (SimpleNamespace(a=argparse.Namespace(b=1)), {"a": {"b": 1}}), (OrderedDict(a={1: {2}}), {"a": {"1": [2]}}),
    (Plain, {"batch_size": 12}), (Plain(), {"batch_size": 12}),
    ({"f": len, "t": dict, "n": float("nan")}, {"f": "<builtins.len>", "t": "<builtins.dict>", "n": "nan"})])
def test_kinds_of_settings(config: Any, wanted: dict[str, Any]) -> None:
    assert plain_config(config) == (wanted, [])


def test_models_and_configurations_of_others() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", lr=(float, 0.1), api_key=(str, "abc"))
    assert plain_config({"inner": model()}) == ({"inner": {"lr": 0.1, "api_key": HIDDEN}}, ["inner.api_key"])
    transformers = pytest.importorskip("transformers")
    found, hidden = plain_config(transformers.LlamaConfig(num_hidden_layers=3, vocab_size=99))
    assert found["num_hidden_layers"] == 3 and found["eos_token_id"] == 2 and not hidden


def test_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"a": {"b": [1, 2]}, "c": "${a.b}", "lost": "${nowhere}"})
    found, _ = plain_config(config)
    assert found["a"] == {"b": [1, 2]} and found["c"] == [1, 2] and "cannot be read" in found["lost"]


class Interpolated(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


def test_what_cannot_be_read_is_named_and_the_rest_stays() -> None:
    found, _ = plain_config({"a": 1, "b": Interpolated(x=1)})
    assert found == {"a": 1, "b": {"x": "<cannot be read: KeyError>"}}
    for wrong in (5, "text", [1], 1.5):
        with pytest.raises(UsageError, match="config must be"):
            plain_config(wrong)


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_plain_data_stays_as_it_is_and_the_card_holds_it(value: Any) -> None:
    config = {"x": value}
    found, hidden = plain_config(config)
    if not hidden:
        assert found == config
    card = RunCard(config=found)
    text = card.to_json()
    again, wrong = read_card(text, "run.json")
    assert not wrong and again.config == json.loads(text)["config"]


def test_large_and_endless_settings_are_bounded() -> None:
    endless: dict[str, Any] = {"a": [1]}
    endless["self"], endless["list"] = endless, [endless]
    assert plain_config(endless)[0]["self"]["self"] == "<nested in itself>"
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    assert "nested too deeply" in json.dumps(plain_config({"d": deep})[0])
    wide = plain_config({f"k{i}": i for i in range(100_000)})[0]
    assert len(wide) <= ENTRIES + 1 and "cut" in wide["…"]
    long = plain_config({"k": ["x" * 10_000] * 10_000, "l": "y" * 10**7})[0]
    assert len(json.dumps(long)) < 2 * ALL_CHARACTERS
    assert len(RunCard(config=plain_config({"a": list(range(10**6))})[0]).to_json()) < 8 << 20


SECRETS = [
    ("password", "hunter2"), ("db_passwd", "x"), ("API_KEY", "k"), ("openaiApiKey", "k"),
    ("aws_secret_access_key", "k"),
    ("token", "abc"), ("hf_token", "abc"), ("hub_token", "<HUB_TOKEN>"), ("HF-TOKEN", "x"), ("wandb_token", "x"),
    ("authToken", "x"), ("credentials", {"user": "me"}), ("gitlab_token", "x"), ("client_secret", "x"),
    ("db_pwd", 1234),
    ("my_service_token", "a8f3e1c2b4d5f6a7b8c9"), ("anything", "hf_" + "a1B2" * 8), ("x", "sk-proj-" + "a" * 30),
    ("url", "https://user:pw@host/path"), ("key", "-----BEGIN RSA PRIVATE KEY-----\nabc"), ("x", "AKIA" + "A1B2" * 4)]
HARMLESS = [
    ("tokenizer", "gpt2"), ("max_tokens", 2048), ("pad_token", "<|endoftext|>"), ("eos_token_id", 2), ("num_tokens", 9),
    ("tokens_per_batch", 1 << 20), ("bos_token", "<s>"), ("mask_token", "[MASK]"), ("unk_token", "<unk>"), ("key", "a"),
    ("token_budget", "10B"), ("PWD", "/home/me"), ("image_token", "<image>"), ("use_auth_token", True),
    ("hf_token", None), ("token", ""),
    ("password", None), ("keyboard", "x"), ("secretary", "x"), ("data", "https://huggingface.co/datasets/c4"),
    ("path", "s3://bucket/a:b@c"), ("num_key_value_heads", 8), ("key_size", 64), ("monkey", "x"),
    ("sep_token", "[SEP]")]


@pytest.mark.parametrize(("key", "value"), SECRETS)
def test_secrets_are_hidden(key: str, value: Any) -> None:
    assert is_secret(key, value)
    found, hidden = plain_config({"a": [{key: value}]})
    assert found == {"a": [{key: HIDDEN}]} and hidden == [f"a[0].{key}"]


@pytest.mark.parametrize(("key", "value"), HARMLESS)
def test_what_language_models_call_tokens_and_keys_is_shown(key: str, value: Any) -> None:
    assert plain_config({key: value}) == ({key: value}, [])


def test_a_secret_in_a_list_is_hidden() -> None:
    assert plain_config({"args": ["--key", "hf_" + "a1B2" * 8]}) == ({"args": ["--key", HIDDEN]}, ["args[1]"])
