"""What autolog patches in frameworks without entry points: ``driver.patched``, a class and the name of its method."""

import inspect

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_patched(driver):
    owner, name = driver.patched
    before = getattr(owner, name), name in vars(owner)
    yield
    assert (getattr(owner, name), name in vars(owner)) == before


def test_the_patch_looks_like_the_method(autolog, driver):
    owner, name = driver.patched
    plain = getattr(owner, name)
    autolog()
    patched = getattr(owner, name)
    assert patched is not plain
    assert inspect.signature(patched) == inspect.signature(plain)
    assert (patched.__doc__, patched.__qualname__) == (plain.__doc__, plain.__qualname__)


def test_a_second_call_patches_nothing_more(autolog, driver):
    owner, name = driver.patched
    autolog(metrics=driver.loss)
    patched = getattr(owner, name)
    autolog(metrics=driver.score)
    assert getattr(owner, name) is patched


def test_somebody_elses_patch_on_top_of_ours_stays_and_ours_is_off(autolog, driver, rows):
    owner, name = driver.patched
    is_own, plain = name in vars(owner), getattr(owner, name)
    autolog(metrics=driver.score)
    ours, calls = getattr(owner, name), []

    def theirs(self, *args, **kwargs):
        calls.append(self)
        return ours(self, *args, **kwargs)

    setattr(owner, name, theirs)
    try:
        autolog(disable=True)
        assert getattr(owner, name) is theirs
        driver.trainer().train()
        assert calls
        assert rows() == []
    finally:
        if is_own:
            setattr(owner, name, plain)
        else:
            delattr(owner, name)


def test_somebody_elses_patch_below_ours_comes_back(autolog, driver):
    owner, name = driver.patched
    is_own, plain = name in vars(owner), getattr(owner, name)

    def theirs(self, *args, **kwargs):
        return plain(self, *args, **kwargs)

    setattr(owner, name, theirs)
    try:
        autolog()
        assert getattr(owner, name) is not theirs
        autolog(disable=True)
        assert getattr(owner, name) is theirs
    finally:
        if is_own:
            setattr(owner, name, plain)
        else:
            delattr(owner, name)
