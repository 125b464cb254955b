"""The options of an update: what is taken, and what never reaches an updater."""

from __future__ import annotations

import pytest

from piod.errors import BadRequest
from piod.system import UpdateRequest, read_update

WRONG: dict[str, tuple[object, ...]] = {
    "branch": (
        *(None, "", 5, True, ["main"], "-x", "--upload-pack=x", "a..b", "a.", "a/", "/a", "a b"),
        *("a\n", "a//b", ".a", "a/.b", "a.lock", "a;b", "a$b", "@", "é", "a" * 256),
    ),
    "repo": (
        *(None, "", "owner", "a/b/c", "-a/b", "a/-b", "a/..", "a/.", "/b", "a/", "a b/c"),
        *("https://x/y", "a/b\n", 1),
    ),
    "sha": (None, "", "abc", "a" * 41, "g" * 8, "-abcd", "0xabcd", "abcd\n", 12345),
    "version": (None, "", "-1", "1 2", "1\n", "$(x)", "1;2", "==1", "1" * 65, 26.2),
    "source": (
        *(None, "", "-e", "relative.zip", "~/x.zip", "http://x/y.whl", "file:///etc/passwd"),
        *("/tmp/../etc/x", "https://x/../y", "/tmp/a;b", "/tmp/a b", "git+https://x/y", "/tmp/x\n"),
        *("https://user@x/y", "https:///y", "/", 7),
    ),
    "no_deps": ("yes", "", 1, 0, []),
    "defer_web_restart": ("true", {}),
    "force": ("force", 1.0),
}

RIGHT = {
    "branch": ("main", "feature/a-b_c.d", "v26.2", "0"),
    "repo": ("pioreactor/piod", "A-b/c.d_e-f", "a/.github"),
    "sha": ("abcd", "DEADbeef", "0123456789abcdef0123456789abcdef01234567"),
    "version": ("26.2.3", "26.2.3rc1", "1.0+deb12u1", "latest"),
    "source": ("/tmp/release_26.2.3.zip", "https://example.org:8443/a/b-1.0.whl", "/a/b+c~d@e.deb"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(BadRequest, match=rf"^options\.{name} "):
            read_update("1", {name: value})


@pytest.mark.parametrize("name", RIGHT)
def test_a_value_is_taken_as_it_is(name: str) -> None:
    for value in RIGHT[name]:
        request, force = read_update("1", {name: value})
        assert getattr(request, name) == value
        assert not force


def test_a_flag_is_null_or_true_and_dashes_count_as_underscores() -> None:
    plain = UpdateRequest("1")
    assert read_update("1", {}) == (plain, False)
    assert read_update("1", {"no_deps": False, "force": False}) == (plain, False)
    both = UpdateRequest("1", no_deps=True, defer_web_restart=True)
    options = {"no-deps": None, "defer-web_restart": True, "force": None}
    assert read_update("1", options) == (both, True)


@pytest.mark.parametrize(
    "options",
    [{"no-deps": None, "no_deps": None}, {"x": 1}, {"--branch": "x"}, {"args": []}, {"": None}],
)
def test_an_option_given_twice_or_unknown_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match=r"twice|is not an option"):
        read_update("1", options)
