"""Settings: every value an operator can choose, in one frozen object.

Owns the whole: the groups (network, rights, streams, channels) joined, and how a channel's policy follows from them.
Must never read the environment or a file by itself: config/sources.py does, because it has to know where each value
came from. So `Settings(port=1)` is the same on every machine. What one value may be is checked here; what two values
may be together in config/checks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.app_companies import Companies
from config.app_facilities import Facilities
from config.app_jobs import Jobs
from config.app_monitors import Monitors
from config.app_prices import Prices
from config.applications import Applications
from config.bridges import Bridges
from config.caching import Caching
from config.channels import ChannelPolicySettings, Channels, ChannelSettings
from config.fields import Group
from config.network import Admission, Broadcasting, Listening
from config.operation import Operation
from config.rights import Rights
from config.streams import History, Lag, Streams

__all__ = ["ENVIRONMENT_PREFIX", "GROUPS", "ChannelPolicySettings", "ChannelSettings", "Settings"]

ENVIRONMENT_PREFIX = "RINGCAST_"
# In the order of the reference.
GROUPS: tuple[type[Group], ...] = (
    Listening,
    Rights,
    Streams,
    History,
    Lag,
    Channels,
    Admission,
    Broadcasting,
    Operation,
    Applications,
    Caching,
    Facilities,
    Prices,
    Monitors,
    Jobs,
    Companies,
    Bridges,
)


class Settings(
    Bridges,
    Companies,
    Jobs,
    Monitors,
    Prices,
    Facilities,
    Caching,
    Applications,
    Operation,
    Broadcasting,
    Admission,
    Channels,
    Lag,
    History,
    Streams,
    Rights,
    Listening,
    BaseSettings,
):
    """All settings. Immutable; a change takes a restart."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is not ours)
        init_settings: PydanticBaseSettingsSource,
        *_others: Any,
        **_more: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: see the module's head."""
        return (init_settings,)

    @property
    def development(self) -> bool:
        """True if no key is configured: everybody on the loopback interface may do everything."""
        return self.jwt_secret is None and self.jwt_public_key is None and self.jwks_url is None

    def channel(self, name: str, defaults: Mapping[str, Any] | None = None) -> ChannelPolicySettings:
        """The policy of channel `name`: its overrides, else `defaults` (an application's), else these settings."""
        own = self.channels.get(name, ChannelSettings()).model_dump(exclude_none=True)
        common = {
            field: getattr(self, field)
            for field in ChannelPolicySettings.model_fields
            if field in type(self).model_fields
        }
        return ChannelPolicySettings.model_validate(common | dict(defaults or {}) | own)
