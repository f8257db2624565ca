"""Signals to stop are remembered, a second one is not, and all is as before at the end."""

import signal
import threading

import pytest

from multibox.training.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered(handlers, number):
    with Interrupts() as interrupts:
        assert interrupts.heard is None
        signal.raise_signal(number)
        assert interrupts.heard is number
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_a_second_one_ends_it_at_once(handlers):
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_what_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
    assert interrupts.heard is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_leave_the_handlers_alone(handlers):
    seen = []

    def enter():
        with Interrupts():
            seen.append({each: signal.getsignal(each) for each in handlers})

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handlers]
