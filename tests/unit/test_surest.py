"""The answers from which a network goes on to learn are sure, and of all classes."""

import numpy as np
import pytest

from digitq.worker.learning.surest import MIN_SURE, TooFewError, choose_surest, refuse_few

DIGITS = [*"0123456789"]


def test_the_surest_are_chosen_and_none_that_is_doubted() -> None:
    confidence = np.array([0.9, 0.0, 0.5, 0.8, 0.7, 0.6])
    assert choose_surest(confidence, np.zeros(6, int), 0.5).tolist() == [0, 3, 4]
    assert choose_surest(confidence, np.zeros(6, int), 1.0).tolist() == [0, 2, 3, 4, 5]


def test_a_class_of_which_the_network_is_unsure_is_not_left_out() -> None:
    confidence = np.concatenate([np.linspace(0.9, 1, 90), np.linspace(0.1, 0.2, 10)])
    classes = np.repeat([1, 7], [90, 10])
    chosen = choose_surest(confidence, classes, 0.7)
    assert (classes[chosen] == 7).sum() == 6  # the surest 63 % of them
    assert confidence[chosen][classes[chosen] == 7].min() > 0.14
    assert (classes[chosen] == 1).sum() == 70


def test_too_few_answers_teach_nothing() -> None:
    refuse_few(np.arange(MIN_SURE) % 10, DIGITS)
    with pytest.raises(TooFewError, match="only 59 answers are sure: at least 60 are needed"):
        refuse_few(np.arange(MIN_SURE - 1) % 10, DIGITS)
    with pytest.raises(TooFewError, match="there is no sure answer of 8, 9$"):
        refuse_few(np.arange(MIN_SURE) % 8, DIGITS)
