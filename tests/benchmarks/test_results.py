"""What docs/results.md says is what is in docs/results."""

from pathlib import Path

import pytest

import results

FOLDER = results.ROOT / "docs" / "results"
PAGE = (results.ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", ["AP rare", "AP common"])
def test_tables_of_rare_classes(metric: str) -> None:
    rows = results.read(FOLDER / "imbalance_means.csv")
    for comparison in {row["comparison"] for row in rows}:
        lines = results.interval_rows(rows, comparison, metric)
        assert len(lines) == 7
        assert "\n".join(lines) in PAGE


@pytest.mark.parametrize(
    ("metric", "ahead"),
    [
        (
            "AP",
            {(name, f"ratio_{n}") for name in ("rare_pcb", "rare_shapes") for n in (1, 10, 100)},
        ),
        (
            "AP rare",
            {("rare_pcb", "ratio_10"), ("rare_shapes", "ratio_1"), ("rare_shapes", "ratio_10")},
        ),
    ],
)
def test_where_ranking_losses_are_ahead_with_every_seed(
    metric: str, ahead: set[tuple[str, str]]
) -> None:
    """The sentence in which the section on rare classes ends, and the one before it."""
    ap: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in results.read(FOLDER / "imbalance.csv"):
        if row["images"] == "test":
            by_seed = ap.setdefault((row["comparison"], row["data"]), {})
            by_seed.setdefault(row["seed"], {})[row["loss"]] = float(row[metric])
    assert len(ap) == 6
    for case, by_seed in ap.items():
        assert len(by_seed) == 3
        for loss in ("rs", "brs"):
            leads = []
            for values in by_seed.values():
                others = [value for name, value in values.items() if name not in ("rs", "brs")]
                assert len(others) == 5
                leads.append(values[loss] - max(others))
            assert (min(leads) > 0) == (case in ahead)


@pytest.mark.parametrize(
    ("name", "seeds"), [("imbalance", 3), ("pretrained", 3), ("sampling", 3), ("learning_rates", 2)]
)
def test_means_are_those_of_the_runs(name: str, seeds: int) -> None:
    runs = results.read(FOLDER / f"{name}.csv")
    metrics = [column for column in runs[0] if "AP" in column]
    for row in results.read(FOLDER / f"{name}_means.csv"):
        if row["seed"] == "mean":
            of = {"comparison": row["comparison"], "data": row["case"], "loss": row["loss"]}
            own = [run for run in runs if run["images"] == "test" and of.items() <= run.items()]
            assert len(own) == seeds
            for metric in metrics:
                if own[0][metric] or row[metric]:
                    mean = sum(float(run[metric]) for run in own) / seeds
                    assert mean == pytest.approx(float(row[metric]), abs=1e-3)


def test_tables_of_learning_rates() -> None:
    rows = results.validated(results.read(FOLDER / "learning_rates.csv"))
    for comparison in {row["comparison"] for row in rows}:
        lines = results.rate_rows(row for row in rows if row["comparison"] == comparison)
        assert len(lines) == 6
        assert "\n".join(lines) in PAGE


@pytest.mark.parametrize(
    ("line", "comparison", "lowest", "highest"),
    [
        ("shapes, 0.25 to 4", "tune_shapes", 0.25, 4),
        ("shapes, 1 to 8", "tune_shapes", 1, 8),
        ("BCCD, 0.25 to 4", "tune_bccd", 0.25, 4),
        ("BCCD, 1 to 8", "tune_bccd", 1, 8),
    ],
)
def test_flatness(line: str, comparison: str, lowest: float, highest: float) -> None:
    rows = results.validated(results.read(FOLDER / "learning_rates.csv"))
    curves = results.rate_curves(row for row in rows if row["comparison"] == comparison)
    assert f"| highest minus lowest AP | {' | '.join(curves)} |\n" in PAGE
    inside = [[y for x, y in c.items() if lowest <= x <= highest] for c in curves.values()]
    cells = [f"{max(values) - min(values):.1f}" for values in inside]
    assert f"| {' | '.join([line, *cells])} |\n" in PAGE


def test_tables_of_pools() -> None:
    rows = results.read(FOLDER / "pools_means.csv")
    names = dict.fromkeys(row["comparison"] for row in rows)
    assert len(names) == 4
    for name in names:
        lines = results.interval_rows(rows, name, "AP")
        assert len(lines) == 2
        assert "\n".join(lines) in PAGE
    by_seed = {(r["comparison"], r["loss"], r["case"], r["seed"]): r for r in rows}
    for name, exact, loss in (
        *((name, "rs", "brs") for name in names if name.endswith("_rs")),
        *((name, "ap", "bap") for name in names if name.endswith("_ap")),
    ):
        for images in (1, 2, 4, 8):
            low, high = (
                by_seed[name, loss, f"images_per_pool={images}", end][f"AP minus {exact}"]
                for end in ("95 % from", "95 % to")
            )
            assert float(low) < 0 < float(high), "the page says so"


def test_tables_of_pretrained_backbones() -> None:
    runs = results.read(FOLDER / "pretrained.csv")
    rows = results.read(FOLDER / "pretrained_means.csv")
    names = dict.fromkeys(row["comparison"] for row in rows)
    assert names
    for name in names:
        metric, loss = results.compared([row for row in rows if row["comparison"] == name])
        lines = results.interval_rows(rows, name, metric)
        reference, *differences = results.interval_rows(rows, name, f"{metric} minus {loss}")
        assert reference.startswith(f"| {loss} | 0.0 [0.0, 0.0]")
        assert len(differences) == len(lines) - 1 >= 2
        costs = results.cost_rows(runs, name, metric)
        assert len(costs) == len(lines)
        for table in (lines, differences, costs):
            assert "\n".join(table) in PAGE


def test_table_of_sampling() -> None:
    """Faster R-CNN on BCCD with the sampling of the baseline, and without."""
    own = results.read(FOLDER / "sampling_means.csv")
    pretrained = results.read(FOLDER / "pretrained_means.csv")

    def cells(rows: list[results.Row], comparison: str, metric: str) -> list[str]:
        lines = results.interval_rows(rows, comparison, metric)
        return [line.split(" | ")[1].removesuffix(" |") for line in lines]  # BCCD is the first

    for metric in ("AP", "AP minus ce"):
        sampled = cells(own, "faster_rcnn_sampled", metric)
        ce, *unsampled = cells(pretrained, "pretrained_faster_rcnn", metric)
        assert sampled[0] == ce, "the same trainings"
        if metric == "AP":
            unsampled = [*cells(own, "faster_rcnn_unsampled", metric), *unsampled]
            losses = ["ce", "rs", "brs"]
        else:
            sampled, losses = sampled[1:], ["rs - ce", "brs - ce"]
        for row in zip(losses, sampled, unsampled, strict=True):
            assert f"| {' | '.join(row)} |\n" in PAGE


def test_results_with_the_best_rates() -> None:
    rows = results.read(FOLDER / "learning_rates_means.csv")
    for name, metric in (
        ("tune_shapes", "AP"),
        ("tune_bccd", "AP"),
        ("tune_bccd", "AP rare"),
        ("tune_bccd", "AP common"),
    ):
        row = results.mean_row(rows, name, metric, ["rs", "brs"])
        assert row.count("|") == 8
        assert f" | {row}\n" in PAGE


@pytest.mark.parametrize(
    ("name", "comparisons", "cases", "metrics"),
    [
        ("imbalance", ["rare_toys"], ["ratio_1", "ratio_10"], "AP rare,AP common"),
        (
            *("pools", ["pools_toys_rs", "pools_toys_ap"], ["pool=2", "pool=10"]),
            "AP,AP minus rs,AP minus ap",
        ),
        ("pretrained", ["pretrained_atss", "pretrained_mask_rcnn"], ["toys", "bccd"], "AP,mask AP"),
    ],
)
def test_gather_and_draw(
    tmp_path: Path, name: str, comparisons: list[str], cases: list[str], metrics: str
) -> None:
    for comparison in comparisons:
        for case in cases:
            table = tmp_path / comparison / case / "table.csv"
            table.parent.mkdir(parents=True)
            others = ",5" * metrics.count(",")
            lines = [f"loss,seed,{metrics}", f"brs,1,3{others}"]
            ends = ("95 % from", "mean", "95 % to")
            lines += [f"brs,{what},{n}{others}" for n, what in enumerate(ends)]
            table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / comparison / "runs.csv").write_text("data,loss\ntoys,brs\n", encoding="utf-8")
    folder = tmp_path / "results"
    arguments = ["--gather", name, *(str(tmp_path / c) for c in comparisons)]
    assert results.main([*arguments, "--folder", str(folder)]) == 0
    assert results.read(folder / f"{name}.csv") == [
        {"comparison": comparison, "data": "toys", "loss": "brs"} for comparison in comparisons
    ]
    means = results.read(folder / f"{name}_means.csv")
    own = [row for row in means if row["comparison"] == comparisons[0]]
    assert len(own) == 6, "no single runs"
    assert [path.name for path in folder.glob("*.png")] == [f"{name}.png"]
    assert (folder / f"{name}.png").stat().st_size > 10_000
    first, *_ = metrics.split(",")
    assert results.interval_rows(means, comparisons[0], first) == [
        "| brs | 1.0 [0.0, 2.0] | 1.0 [0.0, 2.0] |"
    ]


def test_gather_keeps_other_comparisons(tmp_path: Path) -> None:
    def gather(comparison: str, metric: str, value: int) -> None:
        source = tmp_path / comparison
        source.mkdir(exist_ok=True)
        runs = f"data,loss,{metric}\ntoys,rs,{value}\n"
        (source / "runs.csv").write_text(runs, encoding="utf-8")
        rows = [f"rs,{seed},{value}" for seed in ("mean", "95 % from", "95 % to")]
        text = "\n".join([f"loss,seed,{metric}", *rows]) + "\n"
        (source / "table.csv").write_text(text, encoding="utf-8")
        arguments = ["--gather", "own", str(source), "--folder", str(tmp_path / "results")]
        assert results.main(arguments) == 0

    gather("first", "AP", 1)
    gather("second", "mask AP", 2)
    gather("first", "AP", 3)
    assert results.read(tmp_path / "results" / "own.csv") == [
        {"comparison": "second", "loss": "rs", "data": "toys", "mask AP": "2", "AP": ""},
        {"comparison": "first", "loss": "rs", "data": "toys", "mask AP": "", "AP": "3"},
    ]
    means = results.read(tmp_path / "results" / "own_means.csv")
    assert [(row["comparison"], row["case"], row["AP"]) for row in means] == [
        *[("second", "toys", "")] * 3,
        *[("first", "toys", "3")] * 3,
    ]
    assert results.compared(means[:3]) == ("mask AP", "rs")
    assert results.compared(means[3:]) == ("AP", "rs")


def test_cases_are_in_the_order_of_their_numbers() -> None:
    rows = [
        {"comparison": "a", "case": case, "loss": "rs", "seed": seed, "AP": value}
        for case, value in (("pool=10", "2"), ("pool=9.5", "1"))
        for seed in ("95 % from", "mean", "95 % to")
    ]
    assert results.interval_rows(rows, "a", "AP") == ["| rs | 1.0 [1.0, 1.0] | 2.0 [2.0, 2.0] |"]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert results.main([str(tmp_path)]) == 1
    assert "--gather NAME" in capsys.readouterr().err
    assert results.main(["--gather", "a", str(tmp_path), "--folder", str(tmp_path / "b")]) == 1
    assert "expected an output folder of compare_losses.py" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_drawn_is_not_gathered(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def gather(name: str, *rows: str, runs: str = "data,loss\ntoys,rs\n") -> str:
        source = tmp_path / "comparison"
        source.mkdir(exist_ok=True)
        (source / "runs.csv").write_text(runs, encoding="utf-8")
        text = "\n".join(["loss,seed,AP", *rows]) + "\n"
        (source / "table.csv").write_text(text, encoding="utf-8")
        folder = tmp_path / "results"
        assert results.main(["--gather", name, str(source), "--folder", str(folder)]) == 1
        assert not folder.exists()
        return capsys.readouterr().err

    whole = [f"rs,{seed},1" for seed in ("mean", "95 % from", "95 % to")]
    assert "no intervals of ce: repeat" in gather("pools", *whole, "ce,mean,1")
    assert "no intervals of rs" in gather("pools")
    assert "no intervals of rs" in gather("pools", *(whole[i] for i in (0, 2)))
    assert "rows differ in length" in gather("pools", *whole, "rs,1")
    words = [f"rs,{seed},many" for seed in ("mean", "95 % from", "95 % to")]
    assert "cannot be drawn: ValueError" in gather("pretrained", *words)
    assert "no intervals of ce" in gather("pools", *whole, runs="data,loss\ntoys,ce\n")
    assert "expected runs with data and loss" in gather("pools", *whole, runs="data,loss\n")
    assert "expected a word" in gather("pools_means", *whole)
    assert "expected a word" in gather("pools.csv", *whole)
    assert "vfl has no style" in gather(
        "pools", *whole, *(row.replace("rs", "vfl") for row in whole)
    )
    assert "expected AP rare, AP common; see --rare" in gather("imbalance", *whole)
    twice = ["--gather", "own", str(tmp_path / "comparison"), str(tmp_path / "comparison" / ".")]
    assert results.main(twice) == 1
    assert "the same name" in capsys.readouterr().err
    (tmp_path / "comparison" / "runs.csv").unlink()
    assert results.main(twice[:3]) == 1
    assert "expected an output folder" in capsys.readouterr().err


def test_intervals_need_not_contain_the_mean(tmp_path: Path) -> None:
    rows = [
        f"pretrained_a,toys,rs,{s},{x}" for s, x in (("mean", 1), ("95 % from", 2), ("95 % to", 3))
    ]
    text = "\n".join(["comparison,case,loss,seed,AP", *rows]) + "\n"
    (tmp_path / "pretrained_means.csv").write_text(text, encoding="utf-8")
    assert results.main(["--folder", str(tmp_path)]) == 0
    assert (tmp_path / "pretrained.png").stat().st_size > 10_000


def test_rate_curves() -> None:
    rows = [
        {"loss": "rs", "factor": factor, "AP": ap, "diverged": diverged}
        for factor, ap, diverged in (("2", "50", "0"), ("0.5", "10", "0"), ("2", "", "1"))
    ]
    assert results.rate_curves(rows) == {"rs": {0.5: 10.0, 2.0: 25.0}}
