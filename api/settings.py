"""The settings: ``STAGECAST_*`` variables, or the same names in a file ``.env``; nothing else reads the environment."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from api.access import parse_keys
from api.storage.embedded import default_folder
from pipeline import plugin_settings, registry
from pipeline.errors import BadSetting
from pipeline.host import Options
from pipeline.live import Limits

PREFIX = plugin_settings.PREFIX
ENV_FILE = ".env"
SECRET = {"DATABASE_URL", "API_KEYS"}
"""Never shown: a password or a key may be in them."""
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Settings(BaseSettings):
    """What can be set; the description of each is in the README."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: str | None = None
    data_dir: Path = Field(default_factory=default_folder)

    stages: Annotated[tuple[Name, ...], NoDecode] = ("condense", "retrieval", "reranking", "generation")
    retriever: Name = "hybrid"
    reranker: Name = "flashrank"
    llm: Name | None = None
    embedder: Name | None = None
    bus: Name = "memory"

    llm_model: str | None = None
    llm_api_base: str | None = None
    llm_temperature: float | None = Field(default=None, ge=0, le=2)
    llm_max_tokens: int | None = Field(default=None, ge=1)
    llm_client: Literal["auto", "litellm"] = "auto"
    embedding_model: str | None = None
    embedding_dimension: int = Field(default=0, ge=0, le=4000)
    rerank_model: Name = "ms-marco-TinyBERT-L-2-v2"

    candidates: int = Field(default=50, ge=1, le=1000)
    sources: int = Field(default=8, ge=1, le=50)
    min_relevance: float = Field(default=0.25, ge=-1, le=1)
    history_tokens: int = Field(default=1500, ge=0)

    api_keys: Annotated[dict[bytes, str], NoDecode] = {}
    """The owner behind each key's digest."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    rate_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    max_streams_per_key: int | None = Field(default=None, ge=1)

    idle_timeout_s: Seconds = 30.0
    stage_idle_timeouts_s: Annotated[dict[Name, Seconds], NoDecode] = {}
    first_token_timeout_s: Seconds | None = None
    total_timeout_s: Seconds = 300.0
    heartbeat_s: float = Field(default=10.0, gt=0, le=20)
    resume_grace_s: Seconds = 30.0
    event_retention_s: float = Field(default=86_400.0, ge=600)
    flush_ms: float = Field(default=0, ge=0, le=25)
    max_streams: int = Field(default=1000, ge=1)
    max_upload_mb: int = Field(default=200, ge=1, le=100_000)
    threads: int = Field(default=4, ge=1, le=64)
    database_pool: int = Field(default=10, ge=1, le=200)
    sample: bool = True
    traces: Literal["off", "otlp", "console"] = "off"

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias=AliasChoices(f"{PREFIX}LOG_LEVEL", "LOG_LEVEL")
    )

    @field_validator("stages", "cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(_listed(value)) if isinstance(value, str) else value

    @field_validator("stage_idle_timeouts_s", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [entry.partition("=") for entry in _listed(value)]
        if not all(seconds for _, _, seconds in pairs):
            raise ValueError("it is a list of stages and seconds, as in retrieval=5,reranking=10")
        return {name.strip(): seconds.strip() for name, _, seconds in pairs}

    @field_validator("api_keys", mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        return parse_keys(value) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:80]!r} is no origin: https://example.com or http://localhost:3000 is")
        return value

    @field_validator("stages")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name each stage once, at least one, separated by commas")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, separator, rest = value.partition("://")
        if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"} or not separator:
            raise ValueError("it must begin with postgresql://")
        try:
            url = make_url(f"postgresql+asyncpg://{rest}")
        except (ArgumentError, ValueError):
            raise ValueError("it is no address: postgresql://user:password@host:port/database") from None
        query = {"ssl" if name == "sslmode" else name: given for name, given in url.query.items()}
        return url.set(query=query).render_as_string(hide_password=False)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _stages_of_limits(self) -> Self:
        if unknown := set(self.stage_idle_timeouts_s) - set(self.stages):
            names = ", ".join(sorted(unknown))
            raise BadSetting(f"setting {PREFIX}STAGE_IDLE_TIMEOUTS_S: no stage in force is named {names}")
        return self

    @property
    def plugins(self) -> dict[str, str]:
        """The name of the plugin in force for each port that has one."""
        return {
            "retriever": self.retriever,
            "reranker": self.reranker,
            "llm": self.llm or ("litellm" if self.llm_model else "extractive"),
            "embedder": self.embedder or ("litellm" if self.embedding_model else "minilm"),
            "bus": self.bus,
        }

    @cached_property
    def of_plugins(self) -> dict[str, str]:
        """What is given besides the settings here: those of plugins, by their names in capitals."""
        return {name: value for name, value in _given().items() if value and name not in KNOWN}

    @property
    def options(self) -> Options:
        """What plugins may know of the settings."""
        return Options(
            data_dir=self.data_dir,
            candidates=self.candidates,
            sources=self.sources,
            min_relevance=self.min_relevance,
            rerank_model=self.rerank_model,
            embedding_model=self.embedding_model or "",
            embedding_dimension=self.embedding_dimension,
            llm_model=self.llm_model or "",
            llm_api_base=self.llm_api_base,
            llm_temperature=self.llm_temperature,
            llm_max_tokens=self.llm_max_tokens,
            llm_client=self.llm_client,
            flush_ms=self.flush_ms,
            history_tokens=self.history_tokens,
        )

    @property
    def limits(self) -> Limits:
        """How long a run may take."""
        return Limits(
            idle_s=self.idle_timeout_s,
            stage_idle_s=self.stage_idle_timeouts_s,
            first_token_s=self.first_token_timeout_s,
            total_s=self.total_timeout_s,
        )


def _listed(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


KNOWN = {PREFIX + name.upper() for name in Settings.model_fields}


def _given() -> dict[str, str]:
    """Return our variables, by their names in capitals; the environment goes before ``.env``."""
    found = {**dotenv_values(ENV_FILE), **os.environ}
    return {name.upper(): value or "" for name, value in found.items() if name.upper().startswith(PREFIX)}


def load() -> Settings:
    """Read the settings; those of plugins are looked at when they are made.

    Raises:
        BadSetting: One is unknown or malformed; the message names it.
    """
    of_plugins = tuple(plugin_settings.prefix(row.name) for row in registry.installed())
    if unknown := sorted(name for name in _given() if name not in KNOWN and not name.startswith(of_plugins)):
        raise BadSetting(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(KNOWN))}")
    try:
        settings = Settings()
    except ValidationError as problem:
        raise BadSetting("; ".join(_explain(error) for error in problem.errors())) from None
    _pass_on_provider_keys()
    return settings


def _explain(error: object) -> str:
    assert isinstance(error, dict)
    name = str(error["loc"][0]).upper().removeprefix(PREFIX)
    shown = "" if name in SECRET else f" (it is {str(error['input'])[:80]!r})"
    return f"setting {PREFIX}{name}: {error['msg'].removeprefix('Value error, ')}{shown}"


def _pass_on_provider_keys() -> None:
    """Put the other names in ``.env``, such as ``OPENAI_API_KEY``, where the providers' clients look for them."""
    for name, value in dotenv_values(ENV_FILE).items():
        if value is not None and not name.startswith(PREFIX):
            os.environ.setdefault(name, value)
