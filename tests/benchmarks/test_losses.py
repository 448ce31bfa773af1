"""The benchmark of the losses: its parts, and the program from end to end."""

import time
from pathlib import Path

import pytest
import torch

from grid import measure, summary, table
from grid.table import OK, Row
from support import timing
from support.contenders import CONTENDERS, FOCAL, Contender
from support.problems import SOURCES, SYNTHETIC, draw, load_recording
from tests.helpers.programs import Programs

ROOT = Path(__file__).parents[2]
STAMP = {"device": "d", "versions": "v", "commit": "c", "scores": SYNTHETIC, "share": 0.01}


@pytest.mark.parametrize("source", SOURCES)
def test_draw(source):
    problem = draw(source, 20_000, 0.05)
    assert problem.logits.shape == problem.labels.shape == (20_000,)
    assert (problem.labels == 1).sum() == len(problem.quality) == 1000
    assert (problem.quality >= 0).all() and (problem.quality <= 1).all()
    again = draw(source, 20_000, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(problem, again, strict=True))
    assert not torch.equal(problem.logits, draw(source, 20_000, 0.05, seed=1).logits)


@pytest.mark.parametrize("source", SOURCES[1:])
def test_recorded_scores_are_drawn_as_recorded(source):
    recording = load_recording()
    problem = draw(source, 100_000, 0.1)
    drawn = {
        "negatives": problem.logits[problem.labels == 0],
        "positives": problem.logits[problem.labels == 1],
    }
    for what, values in drawn.items():
        recorded = torch.tensor(recording["snapshots"][source][what], dtype=torch.float64)
        levels = torch.tensor(recording["levels"], dtype=torch.float64)
        spread = float(recorded[-1] - recorded[0])
        torch.testing.assert_close(
            values.double().quantile(levels[4:-4]), recorded[4:-4], atol=0.03 * spread, rtol=0
        )


def test_table_keeps_rows(tmp_path):
    path = tmp_path / "folder" / "a.csv"
    measured = Row(**STAMP, logits=100, positives=1, loss="rs", rounds=3, both_ms=1.25, x_focal=2.0)
    skipped = Row(**STAMP, logits=1000, positives=10, loss="rs", status=table.TIME)
    assert table.read(path) == []
    table.append(path, [measured])
    table.append(path, [skipped])
    assert table.read(path) == [measured, skipped]
    path.write_text("other,columns\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        table.read(path)


def test_time_limit():
    with pytest.raises(timing.TimeLimitError), timing.time_limit(0.02):
        while True:
            time.sleep(0.001)
    with timing.time_limit(0.02):
        pass
    time.sleep(0.03)  # the alarm is off again


def test_peak_memory_counts_what_is_alive_at_once():
    logits = torch.zeros(2**20, requires_grad=True)  # 4 MiB
    # Two products alive; backward: the gradients of both and of the logits, nothing else.
    assert timing.peak_memory(lambda: logits.sum(), logits, "cpu") == pytest.approx(4, abs=0.1)
    assert timing.peak_memory(lambda: (logits * 2 * 3).sum(), logits, "cpu") >= 8


@pytest.fixture
def small_grid():
    return measure.Grid(
        sizes=[1000, 2000],
        shares=[0.01],
        sources=[SYNTHETIC],
        losses=[FOCAL, "rs"],
        device="cpu",
        rounds=2,
        limit=5.0,
    )


def test_grid_measures_what_is_missing(tmp_path, small_grid):
    path = tmp_path / "a.csv"
    first = [row for rows in measure.measure_missing(small_grid, path) for row in rows]
    assert [row.cell[1:] for row in first] == [
        (size, 0.01, loss) for size in (1000, 2000) for loss in (FOCAL, "rs")
    ]
    for row in first:
        assert row.status == OK and row.rounds == 2
        assert 0 < row.both_p20_ms <= row.both_ms <= row.both_p80_ms
        assert min(row.forward_ms, row.backward_ms, row.limit_ms) > 0
        assert row.extra_mib > 0 and row.commit
    assert first[0].x_focal == 1
    text = path.read_text()
    assert list(measure.measure_missing(small_grid, path)) == []
    assert path.read_text() == text
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    (again,) = measure.measure_missing(small_grid, path)
    assert [row.cell for row in again] == [first[1].cell]


def test_grid_skips_what_takes_too_long_and_all_that_is_larger(tmp_path, small_grid, monkeypatch):
    tried = []

    def prepare(problem):
        def forward():
            tried.append(len(problem.logits))
            for _ in range(1000):
                time.sleep(0.001)
            return problem.logits.sum()

        return forward

    monkeypatch.setitem(CONTENDERS, "slow", Contender(prepare, "slow"))
    slow = small_grid._replace(losses=["slow", "rs"], limit=0.1)
    rows = [row for part in measure.measure_missing(slow, tmp_path / "a.csv") for row in part]
    assert tried == [1000]
    by_loss = {loss: [row.status for row in rows if row.loss == loss] for loss in ("slow", "rs")}
    assert by_loss == {"slow": [table.TIME] * 2, "rs": [OK] * 2}


def test_grid_refuses_matrices_beyond_memory(tmp_path, small_grid):
    huge = small_grid._replace(losses=["brs_matrices"], sizes=[10**8], shares=[0.05])
    ((row,),) = measure.measure_missing(huge, tmp_path / "a.csv")
    assert row.status == table.MEMORY and row.both_ms is None


def test_grid_refuses_the_file_of_another_device(tmp_path, small_grid):
    path = tmp_path / "a.csv"
    table.append(path, [Row(**STAMP, logits=1, positives=1, loss="rs")])
    with pytest.raises(ValueError, match="measured on d, not"):
        list(measure.measure_missing(small_grid, path))


def test_summary_finds_growth_and_ratios():
    def row(loss: str, logits: int, share: float, ms: float) -> Row:
        cell = {**STAMP, "share": share, "logits": logits, "positives": round(logits * share)}
        return Row(**cell, loss=loss, both_ms=ms, x_focal=ms / 100, extra_mib=logits / 2**17)

    rows = [
        row("rs", logits, share, ms=logits**1.5 * share**0.5 * 1e-6)
        for logits in (10**4, 10**5, 10**6)
        for share in (0.001, 0.01)
    ]
    assert summary.growth_in_logits(rows) == pytest.approx(1.5)
    assert summary.growth_in_positives(rows) == pytest.approx(0.5)
    assert summary.bytes_per_logit(rows) == pytest.approx(8)
    loop = row("rs_loop", 10**5, 0.01, ms=1000.0)
    skipped = Row(**STAMP, logits=10**6, positives=1, loss="rs_loop", status=table.TIME, limit_s=5)
    text = summary.summarize([*rows, loop, skipped])
    assert "1.00 (1e+06 x 1.0%, synthetic)" in text  # 100 ms and 100 ms
    assert "316 (1e+05 x 1.0%, synthetic)" in text  # 1000 ms and 3.16 ms
    assert "`rs_loop` | longer than 5 s | 1e+06 x 1.0%" in text


def test_quick(programs: Programs, tmp_path):
    words = [str(ROOT / "benchmarks" / "losses.py"), "--quick", "--device", "cpu"]
    words += ["--output", str(tmp_path), "--scores", SYNTHETIC, "rpn_late"]
    programs.run(words, tmp_path)
    rows = table.read(tmp_path / "cpu.csv")
    assert {row.loss for row in rows} == set(CONTENDERS)
    assert {row.scores for row in rows} == {SYNTHETIC, "rpn_late"}
    assert all(row.status == OK for row in rows if CONTENDERS[row.loss].ours)
    assert "time / focal" in (tmp_path / "cpu.md").read_text()
    for picture in ("cpu_time.png", "cpu_ratio.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
