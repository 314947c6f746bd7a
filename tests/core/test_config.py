"""Settings: their bounds, how they combine, and whose value wins."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.config import Config, config_options
from bellwire.core.errors import ConfigError

NO_ENVIRONMENT: dict[str, str] = {}


def test_the_defaults_are_the_documented_ones() -> None:
    config = Config()
    assert (config.ping_interval, config.pong_timeout, config.max_missed_pongs) == (25.0, 5.0, 2)
    assert (config.client_ping_interval, config.client_ping_timeout) == (25.0, 30.0)
    assert config.path == "/socket.io/"
    assert config.transports == ("polling", "websocket")
    assert config.max_message_bytes == 1_000_000
    assert config.per_message_deflate is False
    assert config.broker == "memory://"
    assert (config.history_messages, config.history_seconds, config.history_bytes) == (1_000, 600.0, 4 * 1024 * 1024)
    assert config.connection_state_recovery is False
    assert config.session_lifetime == 600.0
    assert (config.message_rate, config.refusal_rate) == ("100/s", "1000/min")


def test_every_field_has_a_default_and_a_description() -> None:
    options = config_options()
    assert [option.field for option in options] == list(Config.__struct_fields__)
    for option in options:
        assert option.default == getattr(Config(), option.field)
        assert len(option.help) > 10
        assert "\n" not in option.help


def test_types_for_a_command_line() -> None:
    types = {option.field: option.type for option in config_options()}
    assert types["ping_interval"] is float
    assert types["max_missed_pongs"] is int
    assert types["per_message_deflate"] is bool
    assert types["path"] is str
    assert str(types["transports"]).startswith("tuple[")


def test_it_is_frozen_and_hashable() -> None:
    config = Config()
    with pytest.raises(AttributeError):
        config.ping_interval = 1.0  # type: ignore[misc]
    assert hash(config) == hash(Config())
    assert config == Config()


def test_the_settings_of_conformance_suites_are_legal() -> None:
    config = Config(
        ping_interval=0.3, pong_timeout=0.2, max_missed_pongs=1, client_ping_interval=0.3, client_ping_timeout=0.2
    )
    assert config.ping_interval == 0.3


@pytest.mark.parametrize(
    ("path", "normalised"),
    [("/socket.io/", "/socket.io/"), ("socket.io", "/socket.io/"), ("/a/b", "/a/b/"), ("/", "/"), ("", "/")],
)
def test_a_path_gets_its_slashes(path: str, normalised: str) -> None:
    assert Config(path=path).path == normalised


def test_values_are_brought_into_their_types() -> None:
    config = Config(ping_interval=20, transports=["websocket"])  # type: ignore[arg-type]
    assert (config.ping_interval, type(config.ping_interval)) == (20.0, float)
    assert config.transports == ("websocket",)


WRONG: list[tuple[str, Any, str]] = [
    ("ping_interval", 0, r"ping_interval = 0: Expected `float` > 0\.0 \(seconds between two pings"),
    ("ping_interval", -1.0, r"ping_interval = -1\.0"),
    ("ping_interval", float("nan"), r"ping_interval = nan"),
    ("ping_interval", float("inf"), r"ping_interval = inf: Expected `float` <= 86400"),
    ("ping_interval", "25", r"ping_interval = '25': Expected `float`, got `str`"),
    ("ping_interval", True, r"ping_interval = True: Expected `float`, got `bool`"),
    ("max_missed_pongs", 0, r"max_missed_pongs = 0: Expected `int` >= 1"),
    ("max_missed_pongs", 1.5, r"max_missed_pongs = 1\.5: Expected `int`, got `float`"),
    ("max_attachments", 11, r"max_attachments = 11: Expected `int` <= 10"),
    ("max_packets_per_post", 1023, r"max_packets_per_post = 1023: Expected `int` >= 1024"),
    ("message_rate", "100", r"message_rate = '100': Expected another form \(events one connection may"),
    ("allowed_origins", ("a",), r"Expected another form - at `\$\[0\]` \(origins of pages"),
    ("transports", (), r"transports = \(\): Expected `array` of length >= 1"),
    ("transports", ("smoke",), r"transports = \('smoke',\): .*polling, websocket, or both"),
    ("transports", ("polling", "polling"), r"transports .* holds one twice"),
    ("per_message_deflate", 1, r"per_message_deflate = 1: Expected true or false, got `int`"),
    ("path", "/a b/", r"path = '/a b/': .*between two slashes"),
    ("path", "/a\n", r"path = "),
    ("path", "/a?b", r"path = "),
    ("path", None, r"path = None: Expected `str`"),
    *(
        ("allowed_origins", (wrong,), r"allowed_origins = .*https://chat\.example")
        for wrong in (
            "chat.example",
            "https://a.example/",
            "null",
            "https://*",
            "https://a.*.example",
            "**",
            "",
            "//a\n",
        )
    ),
    ("tls_key", "key.pem", r"tls_key = 'key\.pem' is the key of no certificate: .*tls_cert"),
    ("behind_proxy", ("proxy",), r"behind_proxy holds 'proxy': .*write an address"),
    ("behind_proxy", ("10.0.0.1/8",), r"behind_proxy holds '10\.0\.0\.1/8': .*has host bits set"),
    ("behind_proxy", ("",), r"behind_proxy holds ''"),
    ("cookie", "a b", r"cookie = 'a b'"),
    ("cookie", "a\n", r"cookie = "),
    ("broker", "", r"broker = '': .*memory:// is this process"),
    ("broker", "host:4222", r"broker = 'host:4222': .*nats://host:4222"),
    ("broker", "nats://a b", r"broker = 'nats://a b': "),
    ("history_messages", 0, r"history_messages = 0: Expected `int` >= 1"),
    ("history_seconds", 0, r"history_seconds = 0: Expected `float` > 0\.0"),
    ("history_bytes", 999, r"history_bytes = 999: Expected `int` >= 1000"),
    ("session_lifetime", 0, r"session_lifetime = 0: Expected `float` > 0\.0 \(seconds a lost client"),
    ("shutdown_grace", -0.1, r"shutdown_grace = -0\.1: Expected `float` >= 0\.0"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_a_wrong_value_is_named_with_what_would_be_right(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(**{field: value})


def test_origins_and_proxies_are_lists() -> None:
    origins = ("https://a.example", "http://[::1]:8000", "https://*.a.example:*", "app://x", "*")
    given = {"allowed_origins": ",".join(origins), "behind_proxy": "127.0.0.1, 10.0.0.0/8,::1"}
    config = Config.load(environ=NO_ENVIRONMENT, flags=given)
    assert config.allowed_origins == origins
    assert config.behind_proxy == ("127.0.0.1", "10.0.0.0/8", "::1")


@pytest.mark.parametrize(
    "value", ["nats://user:secret@ho st", "user:secret@host", ["nats://secret@host"], "nats://us:se/c,ret@secret @h"]
)
def test_a_wrong_broker_is_named_without_its_secrets(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"broker = .*\*\*\*@h") as raised:
        Config(broker=value)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        Config.load(environ=NO_ENVIRONMENT, flags={"broker": value})
    assert "secret" not in str(raised.value)
    assert "from --broker" in str(raised.value)


def test_clients_are_not_told_to_hang_up_on_a_healthy_connection() -> None:
    with pytest.raises(ConfigError, match=r"= 55 s is less than .* = 65 s.*set client_ping_timeout to 40 or more"):
        Config(ping_interval=60)
    assert Config(ping_interval=60, client_ping_timeout=40).ping_interval == 60


def test_volatile_events_give_way_before_the_connection_does() -> None:
    with pytest.raises(ConfigError, match="volatile_buffer_bytes = 65536 is more than send_buffer_bytes = 1000"):
        Config(send_buffer_bytes=1000)
    assert Config(send_buffer_bytes=1000, volatile_buffer_bytes=100).send_buffer_bytes == 1000


def test_code_gives_way_to_toml_to_the_environment_to_flags(tmp_path: Path) -> None:
    file = tmp_path / "bellwire.toml"
    file.write_text("pong_timeout = 2\nmax_missed_pongs = 3\nrooms_per_socket = 4\n")
    environ = {"BELLWIRE_MAX_MISSED_PONGS": "5", "BELLWIRE_ROOMS_PER_SOCKET": "6"}
    config = Config.load(
        Config(ping_interval=20.0, pong_timeout=1.0), toml=file, environ=environ, flags={"rooms_per_socket": 7}
    )
    assert config.ping_interval == 20.0
    assert config.pong_timeout == 2.0
    assert config.max_missed_pongs == 5
    assert config.rooms_per_socket == 7


def test_nothing_given_changes_nothing() -> None:
    base = Config(ping_interval=20.0)
    assert Config.load(base, environ=NO_ENVIRONMENT, flags={"ping_interval": None}) == base
    assert Config.load(None, environ=NO_ENVIRONMENT) == Config()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_PONG_TIMEOUT", "1.5")
    assert Config.load().pong_timeout == 1.5
    assert Config().pong_timeout == 5.0


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("ping_interval", "0.5", 0.5),
        ("ping_interval", "20", 20.0),
        ("max_message_bytes", "5", 5),
        ("per_message_deflate", "true", True),
        ("per_message_deflate", "0", False),
        ("transports", "websocket", ("websocket",)),
        ("transports", " websocket , polling ", ("websocket", "polling")),
        ("path", "live", "/live/"),
    ],
)
def test_text_is_converted(field: str, text: str, value: object) -> None:
    variable = f"BELLWIRE_{field.upper()}"
    assert getattr(Config.load(environ={variable: text}), field) == value
    assert getattr(Config.load(environ=NO_ENVIRONMENT, flags={field: text}), field) == value


def test_an_error_names_the_variable_the_flag_or_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('pong_timeout = "soon"')
    with pytest.raises(ConfigError, match=r"pong_timeout = 'soon' \(from .*settings\.toml\): Expected `float`"):
        Config.load(toml=file, environ=NO_ENVIRONMENT)
    with pytest.raises(ConfigError, match=r"pong_timeout = '' \(from BELLWIRE_PONG_TIMEOUT\): Expected `float`"):
        Config.load(environ={"BELLWIRE_PONG_TIMEOUT": ""})
    with pytest.raises(
        ConfigError, match=r"'yes' \(from BELLWIRE_PER_MESSAGE_DEFLATE\): Expected true or false, got `str`"
    ):
        Config.load(environ={"BELLWIRE_PER_MESSAGE_DEFLATE": "yes"})
    with pytest.raises(ConfigError, match=r"pong_timeout = -1 \(from --pong-timeout\): Expected `float` > 0"):
        Config.load(environ=NO_ENVIRONMENT, flags={"pong_timeout": -1})


def test_values_that_do_not_go_together_are_named_with_their_sources(tmp_path: Path) -> None:
    file = tmp_path / "bellwire.toml"
    file.write_text("client_ping_timeout = 1\nvolatile_buffer_bytes = 5\n")
    with pytest.raises(ConfigError) as raised:
        Config.load(toml=file, environ={"BELLWIRE_PING_INTERVAL": "100"}, flags={"pong_timeout": "7"})
    assert str(raised.value).endswith(
        f"(client_ping_timeout is from {file}, ping_interval is from BELLWIRE_PING_INTERVAL, "
        "pong_timeout is from --pong-timeout)"
    )
    with pytest.raises(ConfigError, match=r"or less \(send_buffer_bytes is from --send-buffer-bytes\)$"):
        Config.load(environ={}, flags={"send_buffer_bytes": "1000"})


def test_a_table_in_the_file_is_told_that_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "bellwire.toml"
    file.write_text("[bellwire]\nping_interval = 20\n")
    with pytest.raises(ConfigError, match=r"^\[bellwire\] in .*toml is a table: settings stand at the top level"):
        Config.load(toml=file, environ={})


def test_an_unknown_setting_is_an_error_with_a_guess(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("ping_intervall = 3")
    with pytest.raises(ConfigError, match=r"ping_intervall .*settings\.toml.* did you mean ping_interval\?"):
        Config.load(toml=file, environ=NO_ENVIRONMENT)
    with pytest.raises(ConfigError, match=r"zzz \(from flags\) is not a setting: there are path, transports"):
        Config.load(environ=NO_ENVIRONMENT, flags={"zzz": 1})
    with pytest.raises(TypeError, match="zzz"):
        Config(zzz=1)  # type: ignore[call-arg]


def test_variables_that_are_no_settings_are_left_alone() -> None:
    # Kubernetes makes such variables for a service called bellwire.
    environ = {"BELLWIRE_SERVICE_HOST": "10.0.0.1", "BELLWIRE_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"}
    assert Config.load(environ=environ) == Config()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read: No such file"):
        Config.load(toml=tmp_path / "missing.toml", environ=NO_ENVIRONMENT)
    for content in (b"a = ", b"\xff\xfe"):
        file = tmp_path / "broken.toml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
            Config.load(toml=file, environ=NO_ENVIRONMENT)


@given(
    field=st.sampled_from([option.field for option in config_options()]),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(max_size=3)),
)
def test_any_value_gives_a_config_or_a_config_error(field: str, value: Any) -> None:
    try:
        config = Config(**{field: value})
        assert Config(**msgspec.structs.asdict(config)) == config
    except ConfigError as error:
        assert field in str(error)  # noqa: PT017 - either way is right


@given(
    field=st.sampled_from([option.field for option in config_options()]),
    text=st.text() | st.from_regex(r"\A[-0-9.,ea-z]{0,6}\Z"),
)
def test_any_text_gives_a_config_or_a_config_error(field: str, text: str) -> None:
    variable = f"BELLWIRE_{field.upper()}"
    try:
        config = Config.load(environ={variable: text})
        assert Config(**msgspec.structs.asdict(config)) == config
    except ConfigError as error:
        assert field in str(error)  # noqa: PT017
