"""What the engine lists, read as apps, members, refusals and leftovers."""

import pytest

from dockscale.core.catalog import Catalog, Container, Image, Listing, survey

COMPOSE = "com.docker.compose."


def labelled(settings: dict[str, str] | None = None) -> dict[str, str]:
    own = {"enable": "true", "port": "8000", **(settings or {})}
    return {f"dockscale.{name}": value for name, value in own.items()}


def container(
    name: str,
    settings: dict[str, str] | None = None,
    *,
    created: float = 0.0,
    service: str = "",
    project: str = "demo",
    network: str = "default",
    state: str = "running",
) -> Container:
    labels = labelled(settings)
    if service:
        labels |= {COMPOSE + "project": project, COMPOSE + "service": service}
    return Container(id=f"id-of-{name}", name=name, labels=labels, created=created, network_mode=network, state=state)


def copy(name: str, of: str) -> Container:
    """One that dockscale made."""
    labels = {"dockscale.enable": "true", "dockscale.managed": "true", "dockscale.instance-of": of}
    return Container(id=f"id-of-{name}", name=name, labels=labels, state="running")


def image(name: str, settings: dict[str, str] | None = None, *, created: float = 0.0, digest: str = "1") -> Image:
    return Image(id=f"sha256:{digest}", name=name, labels=labelled(settings), created=created)


def read(*templates: Container | Image) -> Catalog:
    return survey(
        Listing(
            tuple(each for each in templates if isinstance(each, Container)),
            tuple(each for each in templates if isinstance(each, Image)),
        )
    )


def templates(catalog: Catalog) -> dict[str, str]:
    return {app_id: entry.template.name for app_id, entry in catalog.apps.items()}


def members(catalog: Catalog, app_id: str) -> list[str]:
    return [member.name for member in catalog.apps[app_id].members]


def refused(catalog: Catalog) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.source, each.problems) for each in catalog.invalid]


# Where apps come from.


def test_nothing_is_nothing() -> None:
    assert read() == Catalog()


@pytest.mark.parametrize("state", ["created", "running", "paused", "exited", "dead"])
def test_a_labelled_container_is_template_and_member_of_its_app_whatever_its_state(state: str) -> None:
    web = container("web", state=state)
    catalog = read(web)

    assert catalog.apps["web"].template is web
    assert catalog.apps["web"].members == (web,)
    assert catalog.apps["web"].spec.port == 8000
    assert (catalog.invalid, catalog.orphans) == ((), ())


def test_a_labelled_image_is_an_app_without_any_container() -> None:
    catalog = read(image("web:latest"))

    assert templates(catalog) == {"web": "web:latest"}
    assert members(catalog, "web") == []


@pytest.mark.parametrize(
    ("template", "app_id"),
    [
        (container("demo-shop-1", service="shop"), "shop"),
        (container("My_Shop.1"), "my-shop-1"),
        (container("web", {"app_id": "shop"}, service="other"), "shop"),
        (image("shop"), "shop"),
        (image("shop:v2"), "shop"),
        (image("team/shop:v2"), "shop"),
        (image("registry.example.org:5000/team/My_Shop:v2"), "my-shop"),
        (image("shop:v2", {"app_id": "boutique"}), "boutique"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_an_app_is_called_by_its_label_or_service_or_name(template: Container | Image, app_id: str) -> None:
    assert list(read(template).apps) == [app_id]


def test_the_only_exposed_port_is_the_apps_port() -> None:
    web = Container(id="1", name="web", labels={"dockscale.enable": "true"}, ports=(3000,))

    assert read(web).apps["web"].spec.port == 3000


@pytest.mark.parametrize(
    "labels",
    [{}, {"dockscale.port": "80"}, {"dockscale.enable": "false", "dockscale.port": "nonsense", "dockscale.x": "y"}],
    ids=["no label", "no enable", "enable=false, and nonsense"],
)
def test_what_does_not_opt_in_is_not_touched_and_not_judged(labels: dict[str, str]) -> None:
    found = Container(id="1", name="web", labels=labels, network_mode="none")

    assert read(found, Image(id="2", name="web", labels=labels)) == Catalog()


# Copies.


def test_copies_join_the_app_that_they_are_copies_of() -> None:
    catalog = read(copy("web-1-ab", "web"), container("web"), copy("shop-1-cd", "shop"), image("shop:v1"))

    assert members(catalog, "web") == ["web", "web-1-ab"]
    assert members(catalog, "shop") == ["shop-1-cd"]
    assert catalog.orphans == ()


def test_a_copy_is_no_template_whatever_labels_it_brought_along() -> None:
    made = Container(
        id="2",
        name="web-1-ab",
        labels=labelled({"managed": "true", "instance-of": "web", "app_id": "other", "nonsense": "x"}),
    )

    assert templates(read(container("web"), made)) == {"web": "web"}
    assert read(container("web"), made).invalid == ()


@pytest.mark.parametrize("of", ["gone", ""])
def test_a_copy_whose_app_is_gone_is_an_orphan(of: str) -> None:
    left = copy("gone-1-ab", of)

    assert read(container("web"), left).orphans == (left,)


def test_copies_of_a_refused_app_are_orphans() -> None:
    left = copy("web-1-ab", "web")

    assert read(container("web", {"port": "x"}), left).orphans == (left,)


# Two that want the same.


def test_of_two_with_the_same_id_the_older_keeps_it_and_the_other_is_told_what_to_do() -> None:
    catalog = read(
        container("second", {"app_id": "web"}, created=2.0), container("first", {"app_id": "web"}, created=1.0)
    )

    assert templates(catalog) == {"web": "first"}
    assert members(catalog, "web") == ["first"]
    assert refused(catalog) == [
        (
            "container second",
            ("the app id 'web' is taken by container first; set another dockscale.app_id",),
        )
    ]


def test_compose_recreate_lets_the_newer_container_replace_the_older() -> None:
    old = container("demo-web-1", {"route.host": "web.example.org"}, created=1.0, service="web")
    new = container("demo-web-1-new", {"route.host": "web.example.org"}, created=2.0, service="web")
    catalog = read(new, old, copy("web-1-ab", "web"))

    assert templates(catalog) == {"web": "demo-web-1-new"}
    assert members(catalog, "web") == ["demo-web-1", "demo-web-1-new", "web-1-ab"]
    assert catalog.invalid == ()


@pytest.mark.parametrize(
    ("service", "project"), [("web", "other"), ("", "demo")], ids=["another project", "no compose at all"]
)
def test_only_the_same_service_of_the_same_project_replaces(service: str, project: str) -> None:
    old = container("old", {"app_id": "web"}, created=1.0, service="web")
    new = container("new", {"app_id": "web"}, created=2.0, service=service, project=project)
    catalog = read(old, new)

    assert templates(catalog) == {"web": "old"}
    assert [each.source for each in catalog.invalid] == ["container new"]


def test_two_containers_outside_compose_do_not_replace_each_other() -> None:
    old, new = container("old", {"app_id": "web"}, created=1.0), container("new", {"app_id": "web"}, created=2.0)

    assert templates(read(old, new)) == {"web": "old"}


def test_a_container_goes_before_an_image_of_the_same_id_whichever_is_older() -> None:
    catalog = read(image("web:v1", created=1.0), container("web", created=2.0))

    assert templates(catalog) == {"web": "web"}
    assert catalog.invalid == ()


def test_an_image_built_again_under_its_name_replaces_the_older() -> None:
    catalog = read(image("web:v1", created=2.0, digest="new"), image("web:v1", created=1.0, digest="old"))

    assert catalog.apps["web"].template.id == "sha256:new"
    assert catalog.invalid == ()


def test_two_images_with_the_same_id_do_not_replace_each_other() -> None:
    catalog = read(image("team/web:v1", created=1.0), image("other/web:v1", created=2.0))

    assert templates(catalog) == {"web": "team/web:v1"}
    assert refused(catalog) == [
        ("image other/web:v1", ("the app id 'web' is taken by image team/web:v1; set another dockscale.app_id",))
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"route.host": "a.org"}, {"route.host": "b.org,A.org"}, "the host a.org is taken by the app 'one'"),
        ({"route.host": "*.a.org"}, {"route.host": "*.a.org"}, "the host *.a.org is taken by the app 'one'"),
        ({"route.path": "/shop"}, {"route.path": "/shop/"}, "the path /shop is taken by the app 'one'"),
    ],
    ids=["host", "wildcard", "path"],
)
def test_of_two_with_the_same_route_the_older_keeps_it(
    first: dict[str, str], second: dict[str, str], told: str
) -> None:
    catalog = read(container("one", first, created=1.0), container("two", second, created=2.0))

    assert list(catalog.apps) == ["one"]
    assert refused(catalog) == [("container two", (f"{told}; choose another route",))]


def test_routes_that_only_overlap_go_together() -> None:
    catalog = read(
        container("one", {"route.host": "*.a.org", "route.path": "/shop"}, created=1.0),
        container("two", {"route.host": "www.a.org", "route.path": "/shop/admin"}, created=2.0),
    )

    assert list(catalog.apps) == ["one", "two"]


def test_a_route_that_a_newer_version_gave_up_is_free() -> None:
    catalog = read(
        container("web-old", {"route.host": "a.org"}, created=1.0, service="web"),
        container("web-new", {"route.host": "b.org"}, created=2.0, service="web"),
        container("other", {"route.host": "a.org"}, created=3.0),
    )

    assert templates(catalog) == {"web": "web-new", "other": "other"}
    assert catalog.invalid == ()


def test_a_newer_version_that_is_refused_for_its_route_leaves_the_older_ones_routes_taken() -> None:
    catalog = read(
        container("web-old", {"route.host": "a.org"}, created=1.0, service="web"),
        container("rival", {"route.host": "b.org"}, created=2.0),
        container("web-new", {"route.host": "b.org"}, created=3.0, service="web"),
        container("late", {"route.host": "a.org"}, created=4.0),
    )
    hosts = [host for entry in catalog.apps.values() for host in entry.spec.route.host]

    assert templates(catalog) == {"web": "web-old", "rival": "rival"}
    assert [each.source for each in catalog.invalid] == ["container web-new", "container late"]
    assert sorted(hosts) == ["a.org", "b.org"]


# What cannot be an app.


def test_a_bad_label_names_the_container_the_label_and_its_value_and_the_others_go_on() -> None:
    catalog = read(
        container("bad", {"autoscaling.max_instances": "many", "autoscaling.min_instnces": "1"}), container("good")
    )

    assert list(catalog.apps) == ["good"]
    (invalid,) = catalog.invalid
    assert (invalid.source, invalid.app_id) == ("container bad", "bad")
    unknown, wrong = invalid.problems
    assert "dockscale.autoscaling.min_instnces is unknown" in unknown
    assert "did you mean dockscale.autoscaling.min_instances?" in unknown
    assert "label dockscale.autoscaling.max_instances = 'many': " in wrong


def test_an_enable_that_is_neither_true_nor_false_is_told() -> None:
    assert refused(read(image("web:v1", {"enable": "maybe"}))) == [
        ("image web:v1", ("label dockscale.enable = 'maybe': must be true or false",))
    ]


def test_a_missing_port_is_told() -> None:
    (invalid,) = read(Container(id="1", name="web", labels={"dockscale.enable": "true"}, ports=(80, 443))).invalid

    assert "dockscale.port is missing" in invalid.problems[0]


@pytest.mark.parametrize("network", ["none", "container:db"])
def test_an_app_without_a_network_of_its_own_is_refused(network: str) -> None:
    problem = f"its network mode is {network}, so it has no network of its own; give it a bridge network"

    assert refused(read(container("web", network=network))) == [("container web", (problem,))]


def test_on_the_hosts_network_there_can_be_only_one() -> None:
    (invalid,) = read(container("web", network="host")).invalid

    assert "two instances would want the same port" in invalid.problems[0]
    assert "dockscale.autoscaling.max_instances=1" in invalid.problems[0]


def test_on_the_hosts_network_there_can_be_many_that_have_no_port() -> None:
    assert list(read(container("web", {"type": "rpc", "port": ""}, network="host")).apps) == ["web"]


@pytest.mark.parametrize("settings", [{"autoscaling.max_instances": "1"}, {"autoscaling.enabled": "false"}])
def test_one_instance_may_have_the_hosts_network(settings: dict[str, str]) -> None:
    assert list(read(container("web", settings, network="host")).apps) == ["web"]
