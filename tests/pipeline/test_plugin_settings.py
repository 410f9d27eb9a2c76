"""Settings that plugins declare: names, types, errors."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from pipeline.errors import BadSetting
from pipeline.plugin_settings import Setting, declared_by, listed, read


class Own(msgspec.Struct, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="where it is")]
    depth: Annotated[int, Meta(ge=1, le=9)] = 3
    ratio: float = 0.5
    exact: bool = False
    words: tuple[str, ...] = ("a", "b")
    mode: Literal["fast", "good"] = "good"
    folder: Path = Path("models")
    model: str | None = None

    def __post_init__(self):
        if self.exact and self.mode == "fast":
            raise ValueError("exact is not fast")


URL = {"STAGECAST_MY_STORE_URL": "http://x"}


def test_values_become_what_was_declared_and_the_rest_keeps_its_default():
    given = {"DEPTH": "7", "RATIO": "1", "EXACT": "true", "WORDS": "c, d,", "FOLDER": "~/m", "MODEL": "x"}
    settings = read(Own, "my-store", URL | {f"STAGECAST_MY_STORE_{name}": value for name, value in given.items()})
    assert settings == Own(
        url="http://x", depth=7, ratio=1.0, exact=True, words=("c", "d"), folder=Path.home() / "m", model="x"
    )
    assert read(Own, "my-store", URL) == Own(url="http://x")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEPTH", "10", "setting STAGECAST_MY_STORE_DEPTH: Expected `int` <= 9 (it is '10')"),
        ("DEPTH", "many", "setting STAGECAST_MY_STORE_DEPTH: Expected `int`, got `str` (it is 'many')"),
        ("EXACT", "perhaps", "STAGECAST_MY_STORE_EXACT: Expected `bool`"),
        ("MODE", "slow", "STAGECAST_MY_STORE_MODE: Invalid enum value 'slow'"),
    ],
)
def test_a_malformed_one_is_named_with_what_it_should_be(name, value, said):
    with pytest.raises(BadSetting) as refused:
        read(Own, "my-store", URL | {f"STAGECAST_MY_STORE_{name}": value})
    assert said in str(refused.value)


def test_what_may_hold_a_secret_is_not_shown():
    class Sealed(msgspec.Struct):
        api_key: Annotated[str, Meta(min_length=8)]

    with pytest.raises(BadSetting, match="STAGECAST_X_API_KEY") as refused:
        read(Sealed, "x", {"STAGECAST_X_API_KEY": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_one_without_a_default_must_be_given():
    with pytest.raises(BadSetting, match="STAGECAST_MY_STORE_URL: 'my-store' needs it"):
        read(Own, "my-store", {})


def test_what_the_plugin_itself_refuses_is_told_with_its_words():
    with pytest.raises(BadSetting, match=r"STAGECAST_MY_STORE_\*: exact is not fast"):
        read(Own, "my-store", URL | {"STAGECAST_MY_STORE_EXACT": "1", "STAGECAST_MY_STORE_MODE": "fast"})


def test_the_list_says_what_each_takes():
    rows = {setting.variable.removeprefix("STAGECAST_MY_STORE_"): setting for setting in listed(Own, "my-store")}
    assert rows["URL"] == Setting("STAGECAST_MY_STORE_URL", "str", None, "where it is")
    told = {name: (setting.kind, setting.default) for name, setting in rows.items()}
    assert told["DEPTH"] == ("int >= 1 <= 9", "3")
    assert told["EXACT"] == ("bool", "False")
    assert told["WORDS"] == ("str, ...", "a,b")
    assert told["MODE"] == ("fast or good", "good")
    assert told["FOLDER"] == ("path", "models")
    assert told["MODEL"] == ("str", "")


def test_settings_are_a_struct_or_none():
    class Plugin:
        Settings = dict

    with pytest.raises(TypeError):
        declared_by(Plugin)
    assert declared_by(object()) is None
