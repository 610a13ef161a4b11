"""The report in other forms: JSON, CSV, Markdown, and a zip with data and without."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reported_results import everything, evidence, nodes, run_of

from harness.cli.main import _main
from harness.model import (
    BlockOwner,
    DelayReading,
    Failure,
    FileBlocks,
    NodeSettings,
    Observed,
    ObservedAfterMove,
    Ownership,
    PlantedChange,
    ReplicationProfile,
    Result,
    Run,
    Verdict,
    VerdictKind,
    Witness,
    Written,
)
from harness.report.bundle import StoredReport
from harness.report.export import CSV_COLUMNS, REPORT_SCHEMA, as_csv, as_json, as_markdown
from harness.report.formatting import clean
from harness.report.html import write_html
from harness.report.without_data import on_hardware, without_data
from harness.store import Store, judged_results
from harness.util.anonymous import ADDRESS, HOST, anonymizer

KEPT = Path(__file__).parents[2] / "docs" / "evidence"
DOC = Path(__file__).parents[2] / "docs" / "report-formats.md"
QUICK = next(KEPT.glob("quick-*"))
GOLDEN = Path(__file__).parent / "golden"
SECRET = "de ad be ef ca fe 01 23".replace(" ", "")


def stored(root: Path, results: list[Result], **changes: Any) -> Store:
    run = replace(run_of(results), id="run1", **changes)
    store = Store.create(root, run)
    for result in results:
        if result.evidence is not None:
            attempt = store.begin(result.cell)
            attempt.save(result.evidence)
            attempt.write_raw("console.log", "stor17 10.9.8.7 said something\n")
    return store


def planted_names(root: Path) -> Store:
    """A run in which names, addresses and content of blocks stand wherever they can."""
    base = next(one for one in everything() if one.evidence and one.evidence.samples)
    assert base.evidence
    found = base.evidence
    text = "stor17 stor17.example.org 10.9.8.7 fe80::5054:ff:fe12:3456 52:54:00:12:34:56 admin@example.org payroll.db"
    named = FileBlocks("/srv/payroll.db", BlockOwner.ALLOCATED, 930)
    dirty = replace(
        found,
        lab="stor17",
        samples=tuple(replace(one, a=SECRET, b=SECRET[::-1], path="/srv/payroll.db") for one in found.samples),
        ownership=Ownership(
            allocated=930,
            method="by hand on stor17",
            names=(text,),
            files=(named,),
        ),
        failure=Failure("lab", "work", text),
        kernel_errors=(text,),
        console_errors=(text,),
        event_log=(text,),
    )
    broken = evidence(replace(base.cell, repetition=2), [], [])
    store = stored(
        root,
        [replace(base, evidence=dirty), Result(broken.cell, None, broken)],
        lab_spec={"node_names": ["stor17", "stor18"], "management": "10.9.8.7/24", "guest": {"name": "payroll-vm"}},
        notes=(text,),
    )
    next(iter(store.attempt_folders()))[1].joinpath("hex.bin").write_bytes(bytes.fromhex(SECRET))
    return store


FORBIDDEN = ("stor17", "stor18", "10.9.8.7", "fe80::", "52:54:00", "example.org", "admin@", "payroll", SECRET,
             SECRET[::-1], " ".join(SECRET[at : at + 2] for at in range(0, len(SECRET), 2)))  # fmt: skip


def packed(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


# --------------------------------------------------------------------------- the zip


def test_zip_without_data_has_no_name_address_or_content_in_any_file(tmp_path: Path) -> None:
    store = planted_names(tmp_path)
    StoredReport(store, without=True).write_zip(tmp_path / "out.zip")
    files = packed(tmp_path / "out.zip")
    assert {name.rsplit("/", 1)[1] for name in files} == {
        "README.txt", "report.html", "report.json", "report.csv", "report.md", "run.json", "evidence.json",
        "verdict.json",
    }  # fmt: skip
    for name, content in files.items():
        for word in FORBIDDEN:
            assert word.lower() not in content.decode().lower(), f"{word} in {name}"
            assert word.lower() not in name.lower()
    assert bytes.fromhex(SECRET) not in b"".join(files.values())
    assert "930" in files["run1/report.csv"].decode(), "what was counted stays"


def test_zip_with_data_has_every_file_and_each_form(tmp_path: Path) -> None:
    store = planted_names(tmp_path)
    (tmp_path / "elsewhere").write_text("not of this run")
    (store.directory / "link").symlink_to(tmp_path / "elsewhere")
    path = store.directory / "run1.zip"
    for _ in range(2):
        StoredReport(store, without=False).write_zip(path)
    files = packed(path)
    assert bytes.fromhex(SECRET) in files.values() and b"stor17" in files["run1/report.html"]
    assert not [name for name in files if name.endswith((".zip", "link", ".lock"))]


def test_zip_without_data_can_be_read_again(tmp_path: Path) -> None:
    StoredReport(Store(QUICK), without=True).write_zip(tmp_path / "quick.zip")
    with zipfile.ZipFile(tmp_path / "quick.zip") as archive:
        archive.extractall(tmp_path)
    (again,) = (Store(path.parent) for path in tmp_path.glob("*/run.json"))
    kinds = [one.verdict.kind for one in judged_results(again) if one.verdict]
    assert len(kinds) == len([one for one in judged_results(Store(QUICK)) if one.verdict])


def test_without_data_a_verdict_quotes_nobody() -> None:
    """Names that stand in one place only: the controller's own, a node of a planted change, the hosts of a lab."""
    base = next(one for one in everything() if one.evidence)
    assert base.evidence
    said = "stor20 said: I/O error on payroll.db"
    change = PlantedChange(0, 8, "stor21")
    dirty = replace(base.evidence, event_log=(said,), planted=(change,))
    quoting = Verdict(
        VerdictKind.INCONCLUSIVE, f"the node said '{said}'", ("seen by ctrl9",), potency_reason="on stor21"
    )
    run = replace(run_of([base]), lab_spec={"hosts": {"stor22": {"ansible_host": "10.9.8.7"}}}, notes=("ctrl9",))
    cleaned = without_data(run, [replace(base, evidence=dirty, verdict=quoting)], (), ["ctrl9"])
    for word in ("stor20", "stor21", "stor22", "ctrl9", "payroll", "10.9.8.7"):
        assert word not in str(cleaned[:3]), word


def test_without_data_of_a_play_that_came_to_no_verify_names_no_node() -> None:
    """On two real machines no specification has their names either."""
    base = next(one for one in everything() if one.evidence)
    assert base.evidence
    settings = NodeSettings(ReplicationProfile())
    read = DelayReading("then", None, {"stor31": None})
    dirty = replace(
        base.evidence, migrations=(), verify=None, planted=(),
        observed=Observed(nodes={"stor30": settings}, delays=(read,)),
        written=Written("stor32", 1, ()), witness=Witness(watched=False, reason="stor30", nodes=("stor33",)),
        observed_after_moves=(ObservedAfterMove(1, "stor34", None),),
    )  # fmt: skip
    cleaned = without_data(run_of([base]), [replace(base, evidence=dirty)])
    assert "stor3" not in str(cleaned[:3]) and "(host 1)" in str(cleaned[1])


def test_without_data_default_on_hardware_only() -> None:
    run: Run = run_of([])
    assert not on_hardware(run) and not on_hardware(Store(QUICK).run())
    assert on_hardware(replace(run, lab_spec={"inventory": "hosts.yml"}))
    assert on_hardware(replace(run, lab_spec={"provider": "hardware"}))


def test_write_html_of_a_run_on_hardware_has_no_name_address_or_content(tmp_path: Path) -> None:
    store = planted_names(tmp_path)
    page = tmp_path / "page.html"
    run = store.run()
    owned = replace(run, lab_spec={**run.lab_spec, "provider": "hardware"})
    write_html(page, owned, judged_results(store), attempts=store.every_attempt(), unreadable=["stor17 is full"])
    for word in FORBIDDEN:
        assert word.lower() not in page.read_text().lower(), word
    write_html(page, run, judged_results(store), attempts=store.every_attempt())
    assert "stor17" in page.read_text(), "a nested lab's page has all of it"


@pytest.mark.parametrize(
    "text, left",
    [
        ("from 192.168.1.5:7789", f"from {ADDRESS}:7789"),
        ("peer fe80::1%eth0 gone", f"peer {ADDRESS} gone"),
        ("2001:db8:0:0:0:0:0:1", ADDRESS),
        ("52:54:00:aa:bb:cc", ADDRESS),
        ("db1.prod.example.org is down", f"{HOST} is down"),
        ("mail to root@db1", f"mail to {ADDRESS}"),
        ("Db1 and db12, db1-repl", "(host 1) and db12, (host 1)-repl"),
        ("at 07:57:08 DRBD 8.4.11, QEMU 10.0.13", "at 07:57:08 DRBD 8.4.11, QEMU 10.0.13"),
        ("none-ext4-mmap-link20ms-crash.qemu", "none-ext4-mmap-link20ms-crash.qemu"),
        ("12 of 30 blocks: 4 free", "12 of 30 blocks: 4 free"),
    ],
)
def test_anonymizer_takes_names_and_addresses_only(text: str, left: str) -> None:
    assert anonymizer(["db1"])(text) == left


# --------------------------------------------------------------------------- JSON, CSV, Markdown


def test_json_has_schema_and_every_play_and_is_documented() -> None:
    found = json.loads(as_json(run_of(everything()), everything(), ("x cannot be read",)))
    assert found["report_schema"] == REPORT_SCHEMA and found["unreadable"] == ["x cannot be read"]
    assert sum(len(cell["plays"]) for cell in found["cells"]) == len(everything())
    documented = DOC.read_text()
    assert f"`report_schema` is {REPORT_SCHEMA}." in documented
    for key in (*found, *found["run"], *found["cells"][0], *found["questions"][0]):
        assert f"`{key}`" in documented, key


def test_csv_a_line_for_each_play_and_no_formula() -> None:
    results = everything()
    lines = list(csv.DictReader(io.StringIO(as_csv(run_of(results), results))))
    ids = [result.cell.id for result in results]
    # A torn byte of an id is written out.
    assert [line["cell"] for line in lines] == [clean(name.replace("\udcff", "\\udcff")) for name in ids]
    assert tuple(lines[0]) == CSV_COLUMNS
    assert not [value for line in lines for value in line.values() if value[:1] in ("=", "+", "-", "@")]


def test_markdown_answer_maps_and_nothing_that_is_markup() -> None:
    text = as_markdown(run_of(everything()), everything())
    assert "Is cache=none safe" in text and "| Filesystem |" in text and "DIVERGED" in text
    assert "<script" not in text and "\x1b" not in text


# --------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["drbd-harness", *words])
        with pytest.raises(SystemExit) as ended:
            _main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.mark.parametrize(
    "option, start", [("--json", '{\n "report_schema": 1'), ("--csv", "run,cell,"), ("--markdown", "## DRBD")]
)
def test_report_prints_each_form_or_writes_it(command: Any, tmp_path: Path, option: str, start: str) -> None:
    store = stored(tmp_path, everything()[:4])
    code, out, _ = command("report", str(store.directory), option)
    assert code == 0 and out.startswith(start) and not (store.directory / "report.html").exists()
    code, out, _ = command("report", str(store.directory), option, "-o", str(tmp_path / "file"))
    assert code == 0 and (tmp_path / "file").read_text().startswith(start)
    assert out.strip() == str(tmp_path / "file")


def test_report_two_forms_one_sentence(command: Any, tmp_path: Path) -> None:
    store = stored(tmp_path, everything()[:4])
    code, _, err = command("report", str(store.directory), "--json", "--zip")
    assert code == 4 and "--json and --zip are two forms" in err


def test_report_open_without_browser_says_where(command: Any, tmp_path: Path, monkeypatch: Any) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url))
    store = stored(tmp_path, everything()[:4])
    code, out, err = command("report", str(store.directory), "--open")
    assert code == 0 and shown == [Path(out.strip()).as_uri()] and "no browser" in err


def test_report_broken_and_missing_evidence_named_and_the_rest_shown(command: Any, tmp_path: Path) -> None:
    results = [one for one in everything() if one.evidence][:4]
    store = stored(tmp_path, results)
    folders = [folder for _, folder in store.attempt_folders()]
    (folders[0] / "evidence.json").write_text("{")
    (folders[1] / "evidence.json").unlink()
    code, _, err = command("report", str(store.directory))
    assert code == 0 and "is damaged" in err
    page = (store.directory / "report.html").read_text()
    assert "Unreadable" in page and str(store.directory) not in page
    assert len(nodes(page, "//details[contains(@class, 'cell')]")) == 4
    for option in ("--json", "--markdown"):
        assert "is damaged" in command("report", str(store.directory), option)[1]


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (Path(__file__).parent / "golden").iterdir() if path.is_dir())
)
def test_report_of_every_stored_schema_in_each_form(name: str) -> None:
    store = Store(GOLDEN / name)
    for without in (False, True):
        found = StoredReport(store, without=without)
        assert nodes(found.html(raw=False), "/html")
        assert json.loads(found.json())["report_schema"] and found.csv() and found.markdown()


def test_page_alone_leads_to_no_raw_file(tmp_path: Path) -> None:
    page = StoredReport(Store(QUICK), without=True).html(raw=False)
    assert not [link for link in nodes(page, "//a/@href") if not link.startswith("#")]
    assert not nodes(page, "//table[@class='hex']")
