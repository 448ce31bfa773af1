from brloss_d2.utils.suggest import did_you_mean

KNOWN = ["max_iter", "max_items", "seed"]


def test_close_names_are_suggested_best_first() -> None:
    assert did_you_mean("max_itr", KNOWN) == " Did you mean max_iter or max_items?"
    assert did_you_mean("max_itr", KNOWN, count=1, prefix="a.") == " Did you mean a.max_iter?"
    assert did_you_mean("max_itr", KNOWN, first=["x", "max_items"]) == (
        " Did you mean x or max_items or max_iter?"
    )


def test_nothing_is_said_if_nothing_is_close() -> None:
    assert did_you_mean("wandb", KNOWN) == ""
    assert did_you_mean("sed", KNOWN, cutoff=0.99) == ""
