from types import ModuleType

import numpy as np
import pytest

from brloss_d2.evaluation.replace import numpy_with, replaced


def test_names_are_replaced_for_the_time_of_the_block():
    module = ModuleType("other")
    module.number = 1
    with replaced(module, number=2):
        assert module.number == 2
    assert module.number == 1


def test_an_exception_brings_them_back_too():
    module = ModuleType("other")
    module.number = 1
    with pytest.raises(KeyError), replaced(module, number=2):
        raise KeyError
    assert module.number == 1


def test_a_name_that_is_not_there_is_no_replacement():
    """The package has changed: an error is better than a patch without effect."""
    with pytest.raises(AttributeError, match="nubmer"), replaced(ModuleType("other"), nubmer=2):
        pass


def test_numpy_with_more_names():
    numpy = numpy_with(in1d=np.isin)
    assert numpy.in1d([1, 2], [2]).tolist() == [False, True]
    assert numpy.arange is np.arange and not hasattr(numpy, "no_such_function")
    assert not hasattr(np, "no_such_function")
