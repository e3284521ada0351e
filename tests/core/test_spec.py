"""Labels become a spec, or a sentence for each thing that is wrong with them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.schedule import Schedule
from dockscale.core.spec import LABELS, AppSpec, SelectionMode, SpecError, enabled, parse, slug

# behaviour.md section 4, in its order: label, default, an example of what may be written, what that means.
CONTRACT: list[tuple[str, object, str, object]] = [
    ("app_id", "web", "shop-2", "shop-2"),
    ("workspace", "public", "team-a", "team-a"),
    ("name", "", "My shop", "My shop"),
    ("type", "", "asgi", "asgi"),
    ("runtime", "", "python", "python"),
    ("version", "", "1.2", "1.2"),
    ("description", "", "Sells things", "Sells things"),
    ("port", 8000, "9000", 9000),
    ("route.host", (), "Shop.example.org, *.shop.example.org", ("shop.example.org", "*.shop.example.org")),
    ("route.path", None, "/shop/", "/shop"),
    ("route.strip_path", True, "false", False),
    ("service_selection_mode", SelectionMode.RANDOM, "min_load", SelectionMode.MIN_LOAD),
    ("visibility", "public", "protected", "protected"),
    ("priority", 0, "-5", -5),
    ("lazy", True, "false", False),
    ("autoscaling.enabled", True, "false", False),
    ("autoscaling.min_instances", 1, "0", 0),
    ("autoscaling.max_instances", 10, "3", 3),
    ("autoscaling.target_requests_per_instance", 100, "20", 20),
    ("autoscaling.scale_up_threshold", 0.9, "0.8", 0.8),
    ("autoscaling.scale_down_threshold", 0.3, "0.25", 0.25),
    ("autoscaling.scale_up_cooldown", 300, "30s", 30),
    ("autoscaling.scale_down_cooldown", 600, "1m", 60),
    ("autoscaling.step", "proportional", "one", "one"),
    ("autoscaling.target_concurrency", None, "2.5", 2.5),
    ("autoscaling.max_concurrency", None, "8", 8),
    ("autoscaling.standby_instances", 0, "2", 2),
    ("autoscaling.standby_max_age", 3600, "30m", 1800),
    ("autoscaling.schedule", None, "0 8 * * * = 3", Schedule.parse("0 8 * * * = 3")),
    ("autoscaling.metric_path", None, "/stats?format=text", "/stats?format=text"),
    ("autoscaling.metric_name", None, "jobs:waiting", "jobs:waiting"),
    ("autoscaling.metric_target", None, "2.5", 2.5),
    ("autoscaling.max_queue", 1000, "5", 5),
    ("autoscaling.queue_timeout", 60, "1.5", 1.5),
    ("startup_config.timeout", 60, "2m", 120),
    ("startup_config.health_path", None, "/healthz?deep=1", "/healthz?deep=1"),
    ("startup_config.wait_for_service", "default", "default", "default"),
    ("startup_config.stop_after_inactive", 0, "1h", 3600),
    ("startup_config.waiting_page", False, "true", True),
    ("shutdown_config.drain_timeout", 30, "5m", 300),
    ("shutdown_config.stop_timeout", 10, "250ms", 0.25),
]
NAMES = [row[0] for row in CONTRACT]
GAUGE = {"autoscaling.metric_name": "queue_length", "autoscaling.metric_target": "5"}
"""Labels that are understood only together."""


def parsed(labels: Mapping[str, str] | None = None, *, ports: tuple[int, ...] = (8000,)) -> AppSpec:
    return parse({f"dockscale.{name}": value for name, value in (labels or {}).items()}, app_id="web", ports=ports)


def problems(labels: Mapping[str, str], *, ports: tuple[int, ...] = (8000,)) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parsed(labels, ports=ports)
    return caught.value.problems


def setting(spec: AppSpec, name: str) -> object:
    value: object = spec
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_the_labels_are_those_of_the_contract_in_its_order() -> None:
    assert list(LABELS) == [f"dockscale.{name}" for name in NAMES]


@pytest.mark.parametrize(("name", "default"), [row[:2] for row in CONTRACT], ids=NAMES)
def test_a_label_left_out_has_the_contracts_default(name: str, default: object) -> None:
    assert setting(parsed(), name) == default


@pytest.mark.parametrize(("name", "text", "meaning"), [(row[0], *row[2:]) for row in CONTRACT], ids=NAMES)
def test_a_label_is_understood(name: str, text: str, meaning: object) -> None:
    others = GAUGE if name.startswith("autoscaling.metric_") else {}

    assert setting(parsed({**others, name: text}), name) == meaning


def test_the_seeds_example_is_understood() -> None:
    scaling = parsed(
        {
            "autoscaling.enabled": "True",
            "autoscaling.min_instances": "1",
            "autoscaling.max_instances": "3",
            "autoscaling.target_requests_per_instance": "20",
            "autoscaling.scale_up_threshold": "0.8",
            "autoscaling.scale_down_threshold": "0.3",
            "autoscaling.scale_up_cooldown": "30",
            "autoscaling.scale_down_cooldown": "60",
        }
    ).autoscaling

    assert (scaling.min_instances, scaling.max_instances, scaling.target_requests_per_instance) == (1, 3, 20)
    assert (scaling.scale_up_cooldown, scaling.scale_down_cooldown) == (30, 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600), ("0", 0), ("1.5h", 5400), (" 30 s ", 30), ("250ms", 0.25)],
)
def test_a_duration_is_read_as_seconds(text: str, expected: float) -> None:
    assert parsed({"autoscaling.scale_up_cooldown": text}).autoscaling.scale_up_cooldown == expected


@pytest.mark.parametrize("text", ["soon", "-5", "5 minutes", "1h30m", "1e3", "inf", "nan", "5d", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    (problem,) = problems({"autoscaling.scale_up_cooldown": text})

    assert problem.startswith(f"label dockscale.autoscaling.scale_up_cooldown = {text!r}: ")


def test_a_duration_that_is_none_is_told_how_to_be_written() -> None:
    (problem,) = problems({"startup_config.timeout": "soon"})

    assert problem == ("label dockscale.startup_config.timeout = 'soon': is not a duration; write 30, 30s, 5m or 1h")


@pytest.mark.parametrize("name", ["startup_config.timeout", "autoscaling.queue_timeout"])
def test_a_time_in_which_something_must_happen_cannot_be_zero(name: str) -> None:
    assert problems({name: "0s"}) == [f"label dockscale.{name} = '0s': input should be greater than 0"]


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("True", True), ("FALSE", False), ("false", False)])
def test_a_yes_or_no_is_read_however_it_is_capitalized(text: str, expected: bool) -> None:
    assert parsed({"lazy": text}).lazy is expected


def test_a_yes_or_no_that_is_neither_is_refused() -> None:
    (problem,) = problems({"lazy": "maybe"})

    assert problem.startswith("label dockscale.lazy = 'maybe': ")


@pytest.mark.parametrize(
    ("label", "suggestion"),
    [
        ("autoscaling.max_instance", "dockscale.autoscaling.max_instances"),
        ("max_instances", "dockscale.autoscaling.max_instances"),
        ("autoscaling.target_request_per_instance", "dockscale.autoscaling.target_requests_per_instance"),
        ("prot", "dockscale.port"),
        ("route.hosts", "dockscale.route.host"),
        ("startup_config.helth_path", "dockscale.startup_config.health_path"),
    ],
)
def test_an_unknown_label_is_refused_with_the_nearest_real_one(label: str, suggestion: str) -> None:
    assert problems({label: "1"}) == [f"label dockscale.{label} is unknown; did you mean {suggestion}?"]


def test_an_unknown_label_like_no_other_names_where_all_are_listed() -> None:
    assert problems({"z" * 40: "1"}) == [f"label dockscale.{'z' * 40} is unknown; `dockscale labels` lists them all"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "http"),
        ("autoscaling.min_instances", "-1"),
        ("autoscaling.max_instances", "0"),
        ("autoscaling.max_instances", "many"),
        ("autoscaling.max_instances", "2.5"),
        ("autoscaling.target_requests_per_instance", "0"),
        ("autoscaling.target_requests_per_instance", "inf"),
        ("autoscaling.scale_up_threshold", "nan"),
        ("autoscaling.scale_down_threshold", "-0.1"),
        ("autoscaling.max_concurrency", "0"),
        ("autoscaling.max_queue", "-1"),
        ("autoscaling.step", "two"),
        ("autoscaling.schedule", "0 8 * * *"),
        ("autoscaling.metric_path", "metrics"),
        ("autoscaling.metric_path", "/metrics#all"),
        ("autoscaling.metric_name", "queue-length"),
        ("autoscaling.metric_name", "1st"),
        ("autoscaling.metric_name", 'queue{kind="mail"}'),
        ("autoscaling.metric_target", "0"),
        ("autoscaling.metric_target", "inf"),
        ("autoscaling.metric_target", "nan"),
        ("service_selection_mode", "fastest"),
        ("app_id", "My App"),
        ("app_id", "-web"),
        ("app_id", "a" * 64),
        ("workspace", "Public"),
        ("route.path", "shop"),
        ("route.path", "/shop/../admin"),
        ("route.path", "/a//b"),
        ("route.path", "/shop?x=1"),
        ("route.path", "/sh%6fp"),
        ("route.host", "web.example.org:80"),
        ("route.host", "web.*.org"),
        ("route.host", "http://web.example.org"),
        ("startup_config.health_path", "healthz"),
        ("startup_config.health_path", "/health z"),
    ],
)
def test_a_value_out_of_range_is_refused_by_label_and_value(name: str, text: str) -> None:
    (problem,) = problems({name: text})

    assert problem.startswith(f"label dockscale.{name} = {text!r}: ")
    assert len(problem) > len(f"label dockscale.{name} = {text!r}: ") + 10


def test_a_gauge_is_asked_for_at_metrics_if_no_path_is_given() -> None:
    scaling = parsed(GAUGE).autoscaling

    assert (scaling.metric_path, scaling.metric_name, scaling.metric_target) == ("/metrics", "queue_length", 5)
    assert AppSpec.model_validate_json(parsed(GAUGE).model_dump_json()).autoscaling == scaling


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("metric_name",), "autoscaling.metric_target"),
        (("metric_target",), "autoscaling.metric_name"),
        (("metric_path",), "autoscaling.metric_name and autoscaling.metric_target"),
        (("metric_path", "metric_name"), "autoscaling.metric_target"),
    ],
)
def test_half_a_gauge_is_refused_with_what_is_missing(given: tuple[str, ...], missing: str) -> None:
    gauge = {"autoscaling.metric_path": "/metrics", **GAUGE}

    assert problems({f"autoscaling.{name}": gauge[f"autoscaling.{name}"] for name in given}) == [
        f"{missing} must be given: a gauge needs its name and its target"
    ]


def test_min_above_max_names_both_labels_and_values() -> None:
    assert problems({"autoscaling.min_instances": "5", "autoscaling.max_instances": "2"}) == [
        "autoscaling.min_instances (5) is above autoscaling.max_instances (2)"
    ]


@pytest.mark.parametrize("down", ["0.9", "1.2"])
def test_a_down_threshold_that_is_not_below_the_up_threshold_is_refused(down: str) -> None:
    assert problems({"autoscaling.scale_down_threshold": down}) == [
        f"autoscaling.scale_down_threshold ({down}) must be below autoscaling.scale_up_threshold (0.9)"
    ]


def test_a_schedule_that_asks_for_more_than_max_names_both() -> None:
    schedule = "0 8 * * * = 2; 0 9 * * * Europe/Berlin = 3; 0 20 * * * = 0"

    assert problems({"autoscaling.schedule": schedule, "autoscaling.max_instances": "2"}) == [
        "autoscaling.schedule (0 9 * * * Europe/Berlin = 3) is above autoscaling.max_instances (2)"
    ]


def test_a_schedule_that_cannot_be_read_is_told_with_its_label() -> None:
    (problem,) = problems({"autoscaling.schedule": "0 8 * * * 2"})

    assert problem == (
        "label dockscale.autoscaling.schedule = '0 8 * * * 2': entry '0 8 * * * 2' has no = before the minimum; "
        "write, for example, 0 8 * * mon-fri Europe/Berlin = 3"
    )


def test_a_spec_with_a_schedule_survives_json() -> None:
    spec = parsed({"autoscaling.schedule": "0 8 * * * = 2"})

    assert spec.model_dump(mode="json")["autoscaling"]["schedule"] == "0 8 * * * = 2"
    assert AppSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(parsed({"autoscaling.schedule": "0 8 * * * = 2"}))


def test_min_equal_to_max_is_a_fixed_number() -> None:
    assert parsed({"autoscaling.min_instances": "3", "autoscaling.max_instances": "3"}).bounds == (3, 3)


def test_an_app_without_autoscaling_has_one_instance_whatever_its_bounds() -> None:
    assert parsed({"autoscaling.enabled": "false", "autoscaling.min_instances": "4"}).bounds == (1, 1)


@pytest.mark.parametrize(
    ("ports", "told"),
    [((), "exposes no TCP port"), ((80, 443), "exposes 80, 443")],
    ids=["none", "two"],
)
def test_a_missing_port_is_refused_where_the_image_leaves_it_open(ports: tuple[int, ...], told: str) -> None:
    (problem,) = problems({}, ports=ports)

    assert "dockscale.port is missing" in problem
    assert told in problem


def test_a_port_label_wins_over_what_the_image_exposes() -> None:
    assert parsed({"port": "443"}, ports=(80, 443)).port == 443
    assert parsed({"port": "9000"}, ports=(80,)).port == 9000


def test_every_problem_is_told_at_once() -> None:
    told = problems(
        {"autoscaling.max_instance": "3", "lazy": "maybe", "startup_config.timeout": "soon"},
        ports=(),
    )

    assert len(told) == 4
    assert [label for label in ("max_instance ", "lazy", "timeout", "port") if any(label in each for each in told)] == [
        "max_instance ",
        "lazy",
        "timeout",
        "port",
    ]


def test_the_error_reads_as_all_its_problems() -> None:
    error = SpecError(["one is wrong", "two is wrong"])

    assert str(error) == "one is wrong; two is wrong"


@pytest.mark.parametrize("written", ["rpc", " RPC "])
@pytest.mark.parametrize("ports", [(), (80,), (80, 443)])
def test_an_app_of_type_rpc_needs_no_port_and_has_none(written: str, ports: tuple[int, ...]) -> None:
    spec = parsed({"type": written}, ports=ports)

    assert (spec.speaks_rpc, spec.type, spec.port) == (True, "rpc", 0)
    assert spec.startup_config.wait_for_service == "default"
    assert not parsed({"type": "rpc-like"}).speaks_rpc


def test_an_app_of_type_rpc_says_which_service_makes_it_ready() -> None:
    spec = parsed({"type": "rpc", "startup_config.wait_for_service": "model"})

    assert spec.startup_config.wait_for_service == "model"


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"type": "rpc", "port": "9000"}, "label dockscale.port = '9000': apps of type rpc have no port; leave it out"),
        (
            {"type": "rpc", "startup_config.health_path": "/up", **GAUGE},
            "startup_config.health_path and autoscaling.metric_path cannot be asked for: apps of type rpc have no port",
        ),
        (
            {"startup_config.wait_for_service": "model"},
            "startup_config.wait_for_service is for apps with dockscale.type=rpc only",
        ),
        (
            {"type": "rpc", "startup_config.wait_for_service": "a:b"},
            "label dockscale.startup_config.wait_for_service = 'a:b': is no service's name; none has / : @ *",
        ),
    ],
)
def test_what_makes_no_sense_for_this_kind_of_app_is_refused(labels: dict[str, str], told: str) -> None:
    assert problems(labels) == [told]


def test_labels_that_dockscale_writes_itself_are_no_settings() -> None:
    labels = {"enable": "true", "managed": "true", "instance-of": "shop", "revision": "sha256:1"}

    assert parsed(labels) == parsed()


def test_labels_of_others_are_none_of_its_business() -> None:
    labels = {"com.docker.compose.service": "x", "dockscaled.port": "nonsense", "dockscale": "true"}

    assert parse(labels, app_id="web", ports=(8000,)) == parsed()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", "web"),
        ("My_App.v2", "my-app-v2"),
        ("--x--", "x"),
        ("a" * 62 + "-b", "a" * 62),
        ("a" * 100, "a" * 63),
        ("ÜÖ", ""),
        ("", ""),
    ],
)
def test_a_name_is_made_an_app_id(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_a_name_of_which_no_app_id_can_be_made_asks_for_the_label() -> None:
    with pytest.raises(SpecError, match=r"dockscale\.app_id"):
        parse({}, app_id="ÜÖ", ports=(8000,))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, False),
        ({"dockscale.enable": "true"}, True),
        ({"dockscale.enable": " True "}, True),
        ({"dockscale.enable": "false"}, False),
        ({"dockscale.port": "80"}, False),
    ],
    ids=["no label", "true", "capital and spaces", "false", "other labels only"],
)
def test_only_enable_true_opts_in(labels: dict[str, str], expected: bool) -> None:
    assert enabled(labels) is expected


@pytest.mark.parametrize("text", ["maybe", "", "1", "yes"])
def test_an_enable_that_is_neither_true_nor_false_is_an_error(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        enabled({"dockscale.enable": text})

    assert caught.value.problems == [f"label dockscale.enable = {text!r}: must be true or false"]


NAMES_OF_ALL_KINDS = st.one_of(
    st.sampled_from([*LABELS, "dockscale.enable", "dockscale.autoscaling", "dockscale.route", "dockscale."]),
    st.text(max_size=12).map("dockscale.".__add__),
    st.text(max_size=12),
)
VALUES_OF_ALL_KINDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["true", "1", "-1", "0.5", "5m", "inf", "nan", "1e999", "/", "*.", "9" * 5000, "\ud800", "none"]),
    st.floats().map(str),
    st.integers().map(str),
)


@given(
    labels=st.dictionaries(NAMES_OF_ALL_KINDS, VALUES_OF_ALL_KINDS, max_size=6),
    app_id=st.text(max_size=12),
    ports=st.lists(st.integers(1, 65535), max_size=2).map(tuple),
)
def test_whatever_labels_say_they_are_a_spec_or_a_spec_error(
    labels: dict[str, str], app_id: str, ports: tuple[int, ...]
) -> None:
    told: list[str] = []
    spec = None
    try:
        spec = parse(labels, app_id=app_id, ports=ports)
    except SpecError as error:
        told = error.problems

    assert (spec is None) is (told != [])
    assert all(told)
    if spec is not None:
        low, high = spec.bounds
        assert (0 if spec.speaks_rpc else 1) <= spec.port <= 65535
        assert 0 <= low <= high >= 1


@given(text=st.text(max_size=100))
def test_a_slug_is_an_app_id_or_nothing(text: str) -> None:
    made = slug(text)

    if made:
        assert parse({}, app_id=text, ports=(8000,)).app_id == made
