"""Rows lie on disk from before the first attempt until they are stored, whatever happens to the process."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partners import NOON, FastClock, Fault, ScriptedDBManager, hostile_files

from katib_callbacks import DeliveryError, KatibReporter, MetricLog, SpoolError
from katib_callbacks.sinks.katib import spool as spool_files
from katib_callbacks.sinks.katib.spool_format import chunks, parse

HOSTILE = list(hostile_files("trial"))
HARMLESS_HEADERS = {"fewer rows than it tells", "a deep row", "a name with a surrogate", "rows of another time"}
"""The header alone is read before a report; a replay finds what is behind it."""

DOWN = Fault("UNAVAILABLE", "failed to connect to all addresses")


@pytest.fixture
def spool(tmp_path) -> Path:
    return tmp_path / "deep" / "spool"


@pytest.fixture
def spooling(server, clock, spool):
    with KatibReporter(server.address, trial_name="trial", spool_dir=spool, _runtime=clock.runtime) as reporter:
        yield reporter


def files(spool: Path) -> list[str]:
    return sorted(path.name for path in spool.iterdir())


def rows(*values: float) -> list[MetricLog]:
    return [MetricLog("loss", value, NOON.replace(microsecond=number)) for number, value in enumerate(values)]


def test_rows_lie_in_the_spool_while_they_are_delivered_and_not_after(server, spooling, spool):
    seen = []
    server.on_report = lambda: seen.append([path.read_text() for path in spool.iterdir()])

    receipt = spooling.report({"loss": 0.5, "accuracy": 0.25})

    ((text,),) = seen
    assert '"loss"' in text
    assert '"0.25"' in text
    assert files(spool) == []
    assert receipt.spooled == 0


def test_what_is_not_delivered_stays_and_the_error_says_where_and_what_for(server, spooling, spool):
    server.report_faults = [DOWN] * 10_000

    with pytest.raises(DeliveryError) as caught:
        spooling.report({"loss": 0.5})

    (path,) = spool.iterdir()
    assert str(path) in str(caught.value)
    assert f"`katib-callbacks replay {spool}` restores the rows, not the trial" in str(caught.value)
    held = spool_files.hold(path)
    assert [(log.name, log.value) for log in held.read().logs] == [("loss", 0.5)]
    held.release()


def test_a_disk_that_takes_nothing_is_warned_of_and_the_report_goes_out(server, clock, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with KatibReporter(server.address, trial_name="trial", spool_dir=blocked / "x", _runtime=clock.runtime) as reporter:
        receipt = reporter.report({"loss": 0.5})

    assert receipt.delivered == 1
    assert server.values() == [("loss", "0.5")]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(blocked) in record.message


def test_a_full_disk_is_an_error_that_names_the_directory_and_leaves_nothing(spool):
    script = f"""
import resource, signal, sys
from datetime import datetime, timezone
from pathlib import Path
from katib_callbacks import MetricLog, SpoolError
from katib_callbacks.sinks.katib import spool as spool_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
logs = [MetricLog("loss", 1, datetime(2026, 1, 31, tzinfo=timezone.utc))] * 10_000
try:
    spool_files.write(Path({str(spool)!r}), "trial", logs)
except SpoolError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert str(spool) in done.stdout
    assert "large" in done.stdout
    assert files(spool) == []


def test_a_disk_that_fills_up_is_warned_of_and_the_report_goes_out(server, spool):
    script = f"""
import resource, sys
from datetime import datetime, timezone
from katib_callbacks import KatibReporter, MetricLog
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
logs = [MetricLog("loss", number, datetime(2026, 1, 31, tzinfo=timezone.utc)) for number in range(2_000)]
receipt = KatibReporter({server.address!r}, trial_name="trial", spool_dir={str(spool)!r}).report_logs(logs)
print(receipt.delivered, receipt.spooled)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "2000 0\n"
    assert "Delivering without a spool: rows cannot be spooled to" in done.stderr
    assert len(server.values()) == 2_000
    assert files(spool) == []


def test_a_file_that_cannot_be_deleted_is_counted(server, spooling, spool, caplog):
    def take_away() -> None:
        (path,) = spool.iterdir()
        path.unlink()
        path.mkdir()  # not even root can unlink it

    server.on_report = take_away

    receipt = spooling.report({"loss": 0.5})

    assert (receipt.delivered, receipt.spooled) == (1, 1)
    assert "a replay will find that" in caplog.text


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "a/b", "Größe 名", "x" * 255, ".hidden", "a\nb"])
def test_any_trial_name_makes_a_safe_file_name(spool, name):
    file = spool_files.write(spool, name, rows(1))

    assert files(spool) == [file.path.name]
    assert not file.path.name.startswith(".")
    assert file.path.name.isascii()
    assert file.read().trial_name == name
    assert spool_files.left_behind(spool, name) == (1, rows(1)[0].timestamp)
    file.release()


@given(
    st.lists(
        st.builds(
            MetricLog,
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=255),
            st.floats(allow_nan=False),
            st.datetimes(timezones=st.just(NOON.tzinfo)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_rows_come_back_as_they_went_in(logs):
    spooled = parse(b"".join(chunks("trial", logs)))

    assert spooled.logs == logs
    assert spooled.trial_name == "trial"


@given(st.data())
def test_no_damage_is_read_as_rows(data):
    content = bytearray(b"".join(chunks("trial", rows(1, 2, 3))))
    position = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        content[position] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[position:]
    else:
        content.insert(position, data.draw(st.integers(0, 255)))

    try:
        logs = parse(bytes(content)).logs
    except (SpoolError, ValueError, TypeError, KeyError, AttributeError):
        return
    assert logs == rows(1, 2, 3)  # a blank more, or less, between a footer's words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its end is missing"),
        (b"hello\n", "its end is missing"),
        (b'{"format": "x"}\n{"crc32": 0}\n', "checksum"),
        (b'7\n{"crc32": 4086029421}\n', "damaged"),
    ],
)
def test_a_file_of_another_kind_is_named(spool, content, message):
    spool.mkdir(parents=True)
    path = spool / f"trial{spool_files.SUFFIX}"
    path.write_bytes(content)
    file = spool_files.hold(path)

    with pytest.raises(SpoolError, match=message) as caught:
        file.read()
    file.release()

    assert str(path) in str(caught.value)


def test_a_file_of_a_later_version_is_left_alone(spool):
    spool.mkdir(parents=True)
    body = b'{"format": "katib-callbacks spool", "version": 2}\n'
    path = spool / f"trial{spool_files.SUFFIX}"
    path.write_bytes(body + b'{"crc32": %d}\n' % zlib.crc32(body))
    file = spool_files.hold(path)

    with pytest.raises(SpoolError, match="version 2"):
        file.read()
    file.release()


def test_who_delivers_a_file_holds_it_alone(spool):
    file = spool_files.write(spool, "trial", rows(1))
    assert spool_files.hold(file.path) is None

    file.release()
    file.release()
    taken = spool_files.hold(file.path)
    assert taken is not None
    taken.remove()

    assert spool_files.hold(file.path) is None
    assert files(spool) == []


def test_a_forked_child_neither_frees_nor_keeps_its_parents_file(spool):
    script = f"""
import os
from datetime import datetime, timezone
from pathlib import Path
from katib_callbacks import MetricLog
from katib_callbacks.sinks.katib import spool as spool_files
row = MetricLog("loss", 1, datetime(2026, 1, 31, tzinfo=timezone.utc))
file = spool_files.write(Path({str(spool)!r}), "trial", [row])
pid = os.fork()
if pid == 0:
    os._exit(0 if spool_files.hold(file.path) is None else 1)
assert os.waitpid(pid, 0)[1] == 0
assert spool_files.hold(file.path) is None
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=240)


def test_an_orphan_of_the_process_that_spooled_does_not_keep_its_file(spool):
    script = f"""
import os, sys, time
from datetime import datetime, timezone
from pathlib import Path
from katib_callbacks import MetricLog
from katib_callbacks.sinks.katib import spool as spool_files
row = MetricLog("loss", 1, datetime(2026, 1, 31, tzinfo=timezone.utc))
file = spool_files.write(Path({str(spool)!r}), "trial", [row])
if os.fork() == 0:
    sys.stdout.close()
    os.close(1)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.read()
        assert process.wait(60) == -9
        (path,) = spool.iterdir()
        file = spool_files.hold(path)
        assert file is not None
        file.release()
    finally:
        process.stdin.close()
        process.stdout.close()


def test_files_are_listed_in_the_order_of_their_rows(spool):
    late = spool_files.write(spool, "b", [MetricLog("loss", 1, NOON.replace(hour=14))])
    early = spool_files.write(spool, "c", [MetricLog("loss", 1, NOON)])
    damaged = spool / f"a{spool_files.SUFFIX}"
    damaged.write_text("?")
    (spool / "notes.txt").write_text("not ours")

    assert spool_files.list_files(spool) == [early.path, late.path, damaged]
    early.release()
    late.release()


def test_timestamps_begin_after_those_that_lie_in_the_spool(server, clock, spool):
    future = NOON.replace(year=2090)
    spool_files.write(spool, "trial", [MetricLog("loss", 1, future)]).release()

    with KatibReporter(server.address, trial_name="trial", spool_dir=spool, _runtime=clock.runtime) as reporter:
        reporter.report({"loss": 2})

    assert server.rows == [("trial", "loss", "2", "2090-01-31T12:00:00.000001Z")]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_of_the_trial_is_set_aside_and_its_reports_go_out(server, clock, spool, caplog, kind):
    trial = f"attacked by {kind}"
    spool_files.write(spool, trial, rows(1)).release()
    path = spool / f"{trial.replace(' ', '_')}-0{spool_files.SUFFIX}"
    path.write_bytes(hostile_files(trial)[kind])
    with KatibReporter(server.address, trial_name=trial, spool_dir=spool, _runtime=clock.runtime) as reporter:
        reporter.report({"loss": 2})

    assert server.values(trial) == [("loss", "2")]
    (left,) = [path for path in spool.iterdir() if not path.name.endswith(spool_files.SUFFIX)] or [path]
    assert left.name.endswith(spool_files.DAMAGED_SUFFIX) or kind in HARMLESS_HEADERS
    assert all(str(left) in record.message for record in caplog.records)


def test_what_clearing_leaves_in_the_spool_is_warned_of(server, spool, caplog):
    spool_files.write(spool, "cleared", [MetricLog("loss", 1, NOON)]).release()
    with KatibReporter(
        server.address, trial_name="cleared", spool_dir=spool, previous_attempt="clear", _runtime=FastClock().runtime
    ) as reporter:
        reporter.report({"loss": 2})

    assert "1 undelivered reports of an earlier attempt of trial 'cleared'" in caplog.text
    assert len(files(spool)) == 1


def test_no_secret_gets_into_the_spool(server: ScriptedDBManager, clock, spool, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    texts = []
    server.on_report = lambda: texts.extend(path.read_text() for path in spool.iterdir())
    with KatibReporter(
        server.address,
        trial_name="trial",
        spool_dir=spool,
        token_path=token,
        allow_insecure_token=True,
        _runtime=clock.runtime,
    ) as reporter:
        reporter.report({"loss": 1})

    assert len(texts) == 1
    assert "s3cret" not in texts[0]
    assert server.authorizations == ["Bearer s3cret"]
