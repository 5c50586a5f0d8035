"""Every failure that Katib's DB manager, the embedded one, gRPC and a mesh are known to answer."""

import grpc
import pytest
from partners import Fault, ScriptedDBManager

from katib_callbacks import RejectedError
from katib_callbacks.sinks.katib.fates import RULES, Fate, classify

REFUSED, NOT_WRITTEN, UNCLEAR = Fate.REFUSED, Fate.NOT_WRITTEN, Fate.UNCLEAR

PREPARE = "Failed to report observation log: Prepare SQL statement failed: "
EXECUTE = "Failed to report observation log: Execute SQL INSERT failed: "

CASES = [
    ("UNKNOWN", 'Error parsing start time 2026-01-31: parsing time "2026-01-31" as RFC3339', REFUSED),
    ("UNKNOWN", EXECUTE + "Error 1064 (42000): You have an error in your SQL syntax", REFUSED),
    ("UNKNOWN", PREPARE + "Error 1064 (42000): You have an error in your SQL", REFUSED),
    ("UNKNOWN", PREPARE + "pq: syntax error at end of input", REFUSED),
    ("UNKNOWN", PREPARE + "Error 1390 (HY000): Prepared statement contains too many placeholders", REFUSED),
    ("UNKNOWN", EXECUTE + "sql: expected 65536 arguments, got 131072", REFUSED),
    ("UNKNOWN", EXECUTE + "Error 1406 (22001): Data too long for column 'metric_name' at row 1", REFUSED),
    ("UNKNOWN", EXECUTE + "pq: value too long for type character varying(255)", REFUSED),
    ("UNKNOWN", EXECUTE + "Error 1366 (22007): Incorrect string value", REFUSED),
    ("UNKNOWN", EXECUTE + "Error 1292 (22007): Incorrect datetime value", REFUSED),
    ("UNKNOWN", EXECUTE + "Error 1105 (HY000): Unknown error", REFUSED),
    ("UNKNOWN", EXECUTE + "pq: date/time field value out of range", REFUSED),
    ("UNKNOWN", EXECUTE + 'pq: invalid byte sequence for encoding "UTF8": 0x00', REFUSED),
    ("UNKNOWN", PREPARE + "dial tcp 10.0.0.1:3306: connect: connection refused", NOT_WRITTEN),
    ("UNKNOWN", PREPARE + "Error 1040 (08004): Too many connections", NOT_WRITTEN),
    ("UNKNOWN", PREPARE + "pq: sorry, too many clients already", NOT_WRITTEN),
    ("UNKNOWN", PREPARE + "pq: remaining connection slots are reserved", NOT_WRITTEN),
    ("UNKNOWN", PREPARE + "read tcp 10.0.0.2:1->10.0.0.1:3306: read: connection reset by peer", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "Error 1290 (HY000): The MySQL server is running with the --read-only option", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "Error 1836 (HY000): Running in read-only mode", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "pq: cannot execute INSERT in a read-only transaction", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "Error 1021 (HY000): Disk full (/tmp/#sql_1.MAI)", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "Error 1114 (HY000): The table 'observation_logs' is full", NOT_WRITTEN),
    ("UNKNOWN", EXECUTE + "pq: could not extend file: No space left on device", NOT_WRITTEN),
    ("UNKNOWN", PREPARE + "driver: bad connection", UNCLEAR),
    ("UNKNOWN", EXECUTE + "dial tcp 10.0.0.1:3306: connect: connection refused", UNCLEAR),
    ("UNKNOWN", EXECUTE + "invalid connection", UNCLEAR),
    ("UNKNOWN", EXECUTE + "read tcp 10.0.0.2:1->10.0.0.1:3306: i/o timeout", UNCLEAR),
    ("UNKNOWN", EXECUTE + "driver: bad connection", UNCLEAR),
    ("UNKNOWN", EXECUTE + "dropped after 10640 ms", UNCLEAR),
    ("UNKNOWN", "Stream removed", UNCLEAR),
    ("UNKNOWN", "words that nobody has seen before", UNCLEAR),
    ("UNKNOWN", "", UNCLEAR),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: ... Connection refused", NOT_WRITTEN),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: ... Socket closed", NOT_WRITTEN),
    ("UNAVAILABLE", "DNS resolution failed for katib-db-manager.kubeflow:6789", NOT_WRITTEN),
    ("UNAVAILABLE", "errors resolving katib-db-manager.kubeflow:6789: [hostname lookup error]", NOT_WRITTEN),
    ("UNAVAILABLE", "no healthy upstream", NOT_WRITTEN),
    (
        "UNAVAILABLE",
        "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
        NOT_WRITTEN,
    ),
    (
        "UNAVAILABLE",
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        UNCLEAR,
    ),
    ("UNAVAILABLE", "Socket closed", UNCLEAR),
    ("UNAVAILABLE", "Stream removed", UNCLEAR),
    ("UNAVAILABLE", "GOAWAY received", UNCLEAR),
    ("UNAVAILABLE", "recvmsg:Connection reset by peer", UNCLEAR),
    ("UNAVAILABLE", "the database is locked", UNCLEAR),
    ("UNAVAILABLE", "cannot write to the database: attempt to write a readonly database", UNCLEAR),
    ("RESOURCE_EXHAUSTED", "Received message larger than max (5000000 vs. 4194304)", REFUSED),
    ("RESOURCE_EXHAUSTED", "too many requests", NOT_WRITTEN),
    ("INVALID_ARGUMENT", "row 1: the metric's name is empty", REFUSED),
    ("NOT_FOUND", "", REFUSED),
    ("ALREADY_EXISTS", "", REFUSED),
    ("PERMISSION_DENIED", "RBAC: access denied", REFUSED),
    ("UNAUTHENTICATED", "", REFUSED),
    ("FAILED_PRECONDITION", "", REFUSED),
    ("OUT_OF_RANGE", "", REFUSED),
    ("UNIMPLEMENTED", "unknown service api.v1.beta1.DBManager", REFUSED),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", UNCLEAR),
    ("CANCELLED", "", UNCLEAR),
    ("ABORTED", "", UNCLEAR),
    ("INTERNAL", "Received RST_STREAM with error code 2", UNCLEAR),
    ("DATA_LOSS", "", UNCLEAR),
]


@pytest.mark.parametrize(("status", "text", "fate"), CASES)
def test_a_failure_tells_what_became_of_its_rows(status, text, fate):
    assert classify(status, text) is fate


def test_every_status_and_every_row_of_the_table_has_its_case():
    decided_by = {
        next(rule for rule in RULES if rule.status == status and classify(status, text) is rule.fate)
        for status, text, _ in CASES
    }

    assert {status for status, _, _ in CASES} == {code.name for code in grpc.StatusCode} - {"OK"}
    assert {rule.status for rule in decided_by} == {rule.status for rule in RULES}


@pytest.mark.parametrize(("status", "text"), [case[:2] for case in CASES if case[2] is REFUSED])
def test_what_is_refused_is_sent_once_and_the_error_says_why(server: ScriptedDBManager, reporter, status, text):
    server.report_faults = [Fault(status, text)]

    with pytest.raises(RejectedError, match="refused for good") as caught:
        reporter.report({"loss": 0.5})

    assert server.calls == ["report"]
    assert (caught.value.attempts, caught.value.pending) == (1, 1)
    assert text in str(caught.value)
    assert server.values() == []


@pytest.mark.parametrize(("status", "text"), [case[:2] for case in CASES if case[2] is NOT_WRITTEN])
def test_what_was_not_written_is_sent_again_without_asking(server: ScriptedDBManager, reporter, status, text):
    server.report_faults = [Fault(status, text)] * 3

    receipt = reporter.report({"loss": 0.5})

    assert server.calls == ["report"] * 4
    assert (receipt.attempts, receipt.delivered, receipt.verified) == (4, 1, False)
    assert server.values() == [("loss", "0.5")]


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize(("status", "text"), [case[:2] for case in CASES if case[2] is UNCLEAR])
def test_what_is_unclear_is_read_back_before_it_is_sent_again(server, reporter, status, text, is_stored):
    server.report_faults = [Fault(status, text, is_stored=is_stored)]

    receipt = reporter.report({"loss": 0.5})

    assert server.calls[:2] == ["report", "get"]
    assert server.calls.count("report") == (1 if is_stored else 2)
    assert receipt.verified is is_stored
    assert server.values() == [("loss", "0.5")]
