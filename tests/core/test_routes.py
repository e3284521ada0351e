"""Host and path lead to the app that the contract names, with path and query as they were sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.routes import OF_THE_HUB, Climbs, Here, Routes, Target, ToApp, ToHub, ToList, ToSlash
from dockscale.core.spec import AppSpec, Route

NOBODY = "127.0.0.1:9527"
"""A host that names no app."""


def app(
    app_id: str, *, host: str = "", path: str | None = None, strip: bool = True, workspace: str = "public"
) -> AppSpec:
    hosts = tuple(host.split(",")) if host else ()
    return AppSpec(app_id=app_id, workspace=workspace, port=8000, route=Route(host=hosts, path=path, strip_path=strip))


def routes(*specs: AppSpec, domain: str = "localhost") -> Routes:
    return Routes(specs, domain)


def served(found: Target | None) -> str:
    assert isinstance(found, ToApp), found
    return found.app_id


# Host.


@pytest.mark.parametrize(
    "host",
    [
        "shop.example.org",
        "shop.example.org:9527",
        "SHOP.Example.ORG",
        "shop.example.org.",
        "Shop.example.org.:443",
    ],
)
def test_an_exact_host_is_found_however_it_is_written(host: str) -> None:
    assert routes(app("shop", host="shop.example.org")).match(host, "/a?b") == ToApp("shop", "/a?b")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example.org", "wild"),
        ("a.b.example.org", "wild"),
        ("a.deep.example.org", "deep"),
        ("www.example.org", "exact"),
        ("deep.example.org", "wild"),
    ],
    ids=["one label", "two labels", "longest wildcard", "exact first", "a wildcard is no match for its own stem"],
)
def test_an_exact_host_goes_before_a_wildcard_and_a_longer_wildcard_before_a_shorter(host: str, expected: str) -> None:
    table = routes(
        app("wild", host="*.example.org"), app("deep", host="*.deep.example.org"), app("exact", host="www.example.org")
    )

    assert served(table.match(host, "/")) == expected


@pytest.mark.parametrize("host", ["example.org", "badexample.org", "org", ""])
def test_a_wildcard_does_not_match_its_stem_or_what_only_ends_like_it(host: str) -> None:
    assert routes(app("wild", host="*.example.org")).match(host, "/") is None


@pytest.mark.parametrize("host", ["hello.localhost", "hello.localhost:9527", "HELLO.LOCALHOST", "hello.localhost."])
def test_an_app_has_its_id_as_a_host_below_the_domain(host: str) -> None:
    assert routes(app("hello")).match(host, "/x") == ToApp("hello", "/x")


def test_the_domain_is_a_setting() -> None:
    table = routes(app("hello"), domain="Apps.Example.org")

    assert served(table.match("hello.apps.example.org", "/")) == "hello"
    assert table.match("hello.localhost", "/") is None


@pytest.mark.parametrize("host", ["localhost", "nobody.localhost", "a.hello.localhost", "hellolocalhost"])
def test_other_names_below_the_domain_lead_nowhere(host: str) -> None:
    assert routes(app("hello")).match(host, "/") is None


def test_an_exact_host_goes_before_a_wildcard_before_the_apps_own_name() -> None:
    hello, exact, wild = app("hello"), app("exact", host="hello.localhost"), app("wild", host="*.localhost")

    assert served(routes(hello, exact, wild).match("hello.localhost", "/")) == "exact"
    assert served(routes(hello, wild).match("hello.localhost", "/")) == "wild"
    assert served(routes(hello).match("hello.localhost", "/")) == "hello"


@pytest.mark.parametrize("target", ["/health/liveness", "/public/apps/other/", "/public/apps", "/shop/x"])
def test_a_host_goes_before_every_path(target: str) -> None:
    table = routes(app("hello"), app("other"), app("shop", path="/shop"))

    assert table.match("hello.localhost", target) == ToApp("hello", target)


@pytest.mark.parametrize("host", ["[::1]", "[::1]:9527", "[2001:db8::8000]:80"])
def test_an_ipv6_host_is_no_name(host: str) -> None:
    assert routes(app("hello")).match(host, "/public/apps/hello/x") == ToApp("hello", "/x", "/public/apps/hello")


# What dockscale serves itself.


@pytest.mark.parametrize("here", list(Here))
def test_health_is_served_by_dockscale_itself(here: Here) -> None:
    assert routes().match(NOBODY, here.value) is here
    assert routes().match(NOBODY, here.value + "?verbose") is here


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/health/liveness", Here.LIVENESS),
        ("/health/readiness", Here.READINESS),
        ("/public/apps", ToList("public")),
        ("/public/apps/", ToList("public")),
        ("/public/apps/hello", ToSlash("/public/apps/hello/")),
        ("/public/apps/hello/x", ToApp("hello", "/x", "/public/apps/hello")),
    ],
)
def test_a_prefix_of_everything_never_shadows_what_dockscale_serves(target: str, expected: Target) -> None:
    assert routes(app("root", path="/"), app("hello")).match(NOBODY, target) == expected


@pytest.mark.parametrize("target", ["/health", "/health/services", "/ws/", "/ws/apps/x/", "/rpc/x", "/assets/x.mjs"])
def test_a_prefix_of_everything_leaves_reserved_paths_alone(target: str) -> None:
    assert routes(app("root", path="/")).match(NOBODY, target) is None


@pytest.mark.parametrize("target", ["/", "/healthy", "/wsx", "/x/health/liveness", "/public", "//health/liveness"])
def test_a_prefix_of_everything_takes_what_is_left(target: str) -> None:
    assert routes(app("root", path="/")).match(NOBODY, target) == ToApp("root", target)


@pytest.mark.parametrize("path", ["/public/apps/hello", "/public/apps"])
def test_a_prefix_never_shadows_an_app_below_its_workspace(path: str) -> None:
    table = routes(app("greedy", path=path), app("hello"))

    assert table.match(NOBODY, "/public/apps/hello/x") == ToApp("hello", "/x", "/public/apps/hello")


# Workspaces.


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/public/apps/hello/", "/"),
        ("/public/apps/hello/?", "/?"),
        ("/public/apps/hello/a/b", "/a/b"),
        ("/public/apps/hello/a?x=1&y=%2F&z", "/a?x=1&y=%2F&z"),
        ("/public/apps/hello/a?x=?y", "/a?x=?y"),
        ("/public/apps/hello/a%2Fb", "/a%2Fb"),
        ("/public/apps/hello//a//b/", "//a//b/"),
        ("/public/apps/hello/a?next=/../..", "/a?next=/../.."),
    ],
)
def test_an_app_below_its_workspace_sees_path_and_query_byte_for_byte(target: str, path: str) -> None:
    assert routes(app("hello")).match(NOBODY, target) == ToApp("hello", path, "/public/apps/hello")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/public/apps/hello", "/public/apps/hello/"),
        ("/public/apps/hello?", "/public/apps/hello/?"),
        ("/public/apps/hello?a=%2F&b=c/d", "/public/apps/hello/?a=%2F&b=c/d"),
    ],
)
def test_an_app_without_its_slash_is_redirected_with_its_query(target: str, location: str) -> None:
    assert routes(app("hello")).match(NOBODY, target) == ToSlash(location)


@pytest.mark.parametrize("target", ["/public/apps", "/public/apps/", "/public/apps?limit=1", "/public/apps/?limit=1"])
def test_a_workspace_lists_its_apps(target: str) -> None:
    assert routes().match(NOBODY, target) == ToList("public")


def test_a_workspace_is_known_by_its_apps() -> None:
    table = routes(app("hello", workspace="team-a"))

    assert table.match(NOBODY, "/team-a/apps") == ToList("team-a")
    assert table.match(NOBODY, "/team-b/apps") is None


@pytest.mark.parametrize(
    "target",
    ["/public/apps/nobody/", "/public/apps/nobody", "/team-a/apps/hello/", "/public/app/hello/", "/", "/public"],
)
def test_an_unknown_app_or_one_of_another_workspace_is_no_app(target: str) -> None:
    found = routes(app("hello"), app("other", workspace="team-a")).match(NOBODY, target)

    assert found is None or isinstance(found, ToHub)


# The hub.


@pytest.mark.parametrize("path", sorted(OF_THE_HUB))
@pytest.mark.parametrize("query", ["", "?", "?client_id=a&token=/b"])
def test_paths_of_the_hub_are_no_apps(path: str, query: str) -> None:
    assert routes(app("root", path="/")).match(NOBODY, path + query) == ToHub(path + query)


@pytest.mark.parametrize("target", ["/public/services", "/public/services/", "/public/services/a:b@c/d.e?x=1"])
def test_the_services_of_a_workspace_that_has_apps_go_before_every_prefix(target: str) -> None:
    table = routes(app("root", path="/"), app("greedy", path="/public/services"))

    assert table.match(NOBODY, target) == ToHub(target)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/team-b/services", ToHub("/team-b/services")),
        ("/team-b/services/a/b?c", ToHub("/team-b/services/a/b?c")),
        ("/team-b/apps/a:b@c/x?y", ToHub("/team-b/apps/a:b@c/x?y", "team-b", "a:b@c")),
        ("/team-b/apps/svc", ToHub("/team-b/apps/svc", "team-b", "svc")),
    ],
)
def test_what_may_be_a_service_is_the_hubs_unless_a_prefix_takes_it(target: str, expected: ToHub) -> None:
    assert routes(app("hello")).match(NOBODY, target) == expected
    assert routes(app("root", path="/")).match(NOBODY, target) == ToApp("root", target)


@pytest.mark.parametrize("name", ["nobody", "other"])
def test_an_apps_address_that_no_app_of_the_workspace_has_may_be_a_services(name: str) -> None:
    table = routes(app("hello"), app("other", workspace="team-a"), app("root", path="/"))

    assert table.match(NOBODY, f"/public/apps/{name}/x") == ToHub(f"/public/apps/{name}/x", "public", name)


@pytest.mark.parametrize("target", ["*", "/", "//services", "//apps/x/", "/team-b", "/team-b/apps", "/team-b/apps/"])
def test_what_can_be_no_service_is_nobodys(target: str) -> None:
    assert routes(app("hello")).match(NOBODY, target) is None


@pytest.mark.parametrize("target", ["/ws", "/rpc", "/public/services/x", "/public/apps/nobody/"])
def test_a_host_goes_before_the_hub(target: str) -> None:
    assert routes(app("hello")).match("hello.localhost", target) == ToApp("hello", target)


# Path prefixes.


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/shop", ToApp("shop", "/", "/shop")),
        ("/shop?x", ToApp("shop", "/?x", "/shop")),
        ("/shop/", ToApp("shop", "/", "/shop")),
        ("/shop/a?b=%2F", ToApp("shop", "/a?b=%2F", "/shop")),
        ("/shop//a", ToApp("shop", "//a", "/shop")),
        ("/shop/admin", ToApp("admin", "/", "/shop/admin")),
        ("/shop/admin/x", ToApp("admin", "/x", "/shop/admin")),
        ("/shop/administrator", ToApp("shop", "/administrator", "/shop")),
        ("/shopping", ToApp("root", "/shopping")),
    ],
)
def test_the_longest_prefix_wins_and_is_stripped(target: str, expected: ToApp) -> None:
    table = routes(app("shop", path="/shop"), app("root", path="/"), app("admin", path="/shop/admin"))

    assert table.match(NOBODY, target) == expected


@pytest.mark.parametrize("target", ["/shop", "/shop?", "/shop/", "/shop/a?b=%2F", "/shop//a/../b"])
def test_a_prefix_that_is_not_stripped_leaves_the_path_alone(target: str) -> None:
    assert routes(app("shop", path="/shop", strip=False)).match(NOBODY, target) == ToApp("shop", target)


# Climbing.


@pytest.mark.parametrize("dots", ["..", "%2e%2e", "%2E%2E", ".%2e", "%2E.", "%2e%2E"])
@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("hello.localhost", "/{}"),
        ("hello.localhost", "/{}/x"),
        ("hello.localhost", "/a/{}/{}/x"),
        ("hello.localhost", "/./{}/x"),
        (NOBODY, "/public/apps/hello/{}"),
        (NOBODY, "/public/apps/hello/{}/other/"),
        (NOBODY, "/public/apps/hello/a/{}/{}/x?y"),
        (NOBODY, "/shop/{}"),
        (NOBODY, "/shop/{}/x"),
        (NOBODY, "/kept/{}/x"),
        (NOBODY, "/{}/x"),
        (NOBODY, "/public/apps/nobody/{}/hello/"),
        (NOBODY, "/public/services/{}/{}/{}/x"),
    ],
)
def test_a_path_that_climbs_above_the_apps_root_is_refused(host: str, path: str, dots: str) -> None:
    table = routes(app("hello"), app("other"), app("shop", path="/shop"), app("kept", path="/kept", strip=False))

    with pytest.raises(Climbs):
        table.match(host, path.replace("{}", dots))


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a/%2e%2E/b",
        "/a/..",
        "/...",
        "/..a/b",
        "/a../b",
        "/%2e%2e%2e",
        "/./a",
        "/a/b/../../c",
        "/.well-known/x",
    ],
)
def test_dots_that_stay_inside_the_apps_part_are_passed_on(path: str) -> None:
    table = routes(app("hello"), app("shop", path="/shop"))

    assert table.match("hello.localhost", path) == ToApp("hello", path)
    assert table.match(NOBODY, "/public/apps/hello" + path) == ToApp("hello", path, "/public/apps/hello")
    assert table.match(NOBODY, "/shop" + path) == ToApp("shop", path, "/shop")


# All of it.

SEGMENT = st.sampled_from(["", "a", "..", ".", "%2e%2E", "public", "apps", "hello", "shop", "health", "...", "%2F"])


@given(segments=st.lists(SEGMENT, min_size=1, max_size=8), query=st.sampled_from(["", "?", "?a=/../b&c=%2F", "??"]))
def test_wherever_a_request_goes_the_app_sees_what_was_sent(segments: list[str], query: str) -> None:
    table = routes(app("hello"), app("shop", path="/shop"), app("root", path="/"))
    target = "/" + "/".join(segments) + query
    try:
        found = table.match(NOBODY, target)
    except Climbs:
        return

    if isinstance(found, ToApp):
        assert found.path.startswith("/")
        assert found.prefix + found.path in (target, target.replace("/shop", "/shop/", 1))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (app("hello"), ["hello.localhost/", "/public/apps/hello/"]),
        (
            app("shop", host="shop.example.org,*.shop.example.org", path="/shop", workspace="team-a"),
            ["shop.example.org/", "*.shop.example.org/", "shop.localhost/", "/shop", "/team-a/apps/shop/"],
        ),
    ],
    ids=["plain", "with routes"],
)
def test_an_app_knows_its_addresses_most_specific_first(spec: AppSpec, expected: list[str]) -> None:
    assert routes(spec).urls(spec) == expected


def test_routes_read_as_a_status_line() -> None:
    table = routes(app("a", host="a.org,*.b.org"), app("b", path="/b"))

    assert repr(table) == "<Routes apps=2 hosts=2 prefixes=1>"
