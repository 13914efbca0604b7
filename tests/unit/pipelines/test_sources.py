"""Sources: what is read from where, and each way in which a source can fail, by its reason."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import polars as pl
import pytest

from drivetrain.api.errors import SourceError, StoreError
from drivetrain.api.v1alpha1.dataset import Source
from drivetrain.pipelines.sources import SourceReader
from tests.support.s3 import S3Server
from tests.support.shop import a_dataset, visits, write_source
from tests.support.tls import certificate, https_server

PLACE = a_dataset().store
READER = SourceReader(PLACE, {})
FORMATS = {".parquet": "Parquet", ".csv": "CSV", ".jsonl": "JSONLines"}


def a_source(uri: str, suffix: str = ".parquet", **fields: object) -> Source:
    return Source.model_validate({"name": "visits", "uri": uri, "format": FORMATS[suffix], **fields})


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    frame = visits(30)
    uri = write_source(frame, tmp_path / f"visits{suffix}")
    found = READER.read(a_source(uri, suffix))
    assert found.columns == frame.columns
    assert found["price"].cast(pl.Float64).equals(frame["price"])


def test_all_files_below_a_prefix_are_read_in_order_and_markers_are_not(tmp_path: Path) -> None:
    write_source(visits(3, seed=2), tmp_path / "in" / "2026" / "b.parquet")
    write_source(visits(2, seed=1), tmp_path / "in" / "2025" / "a.parquet")
    (tmp_path / "in" / "_SUCCESS").write_text("")
    found = READER.read(a_source((tmp_path / "in").as_uri()))
    assert found["visit"].to_list() == ["v1-0", "v1-1", "v2-0", "v2-1", "v2-2"]


def test_a_column_that_only_later_files_have_is_null_before(tmp_path: Path) -> None:
    write_source(visits(2).drop("shelf"), tmp_path / "in" / "a.parquet")
    write_source(visits(2), tmp_path / "in" / "b.parquet")
    assert READER.read(a_source((tmp_path / "in").as_uri()))["shelf"].null_count() == 2


def test_the_fingerprint_changes_with_the_files_and_only_with_them(tmp_path: Path) -> None:
    source = a_source((tmp_path / "in").as_uri())
    write_source(visits(2), tmp_path / "in" / "a.parquet")
    first = READER.fingerprint(source)
    assert READER.fingerprint(source) == first
    write_source(visits(3), tmp_path / "in" / "b.parquet")
    assert READER.fingerprint(source) != first


def test_a_source_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    _fails("SourceNotFound", "nothing at", a_source((tmp_path / "absent.parquet").as_uri()))


def test_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    _fails("SourceNotFound", "nothing at", a_source((tmp_path / "in").as_uri()))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_source_without_rows_is_empty(tmp_path: Path, suffix: str) -> None:
    _fails("SourceEmpty", "no rows", a_source(write_source(visits(3).clear(), tmp_path / f"v{suffix}"), suffix))


def test_a_file_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("")
    _fails("SourceEmpty", "no rows", a_source((tmp_path / "v.csv").as_uri(), ".csv"))


@pytest.mark.parametrize(("written", "declared"), [(".csv", ".parquet"), (".parquet", ".csv"), (".csv", ".jsonl")])
def test_a_file_of_another_format_is_named_with_the_declared_one(tmp_path: Path, written: str, declared: str) -> None:
    uri = write_source(visits(3), tmp_path / f"v{written}")
    _fails("SourceFormat", f"is no {FORMATS[declared]}", a_source(uri, declared))


def test_files_that_do_not_agree_on_a_type_are_a_wrong_format(tmp_path: Path) -> None:
    write_source(pl.DataFrame({"x": [[1]]}), tmp_path / "in" / "a.parquet")
    write_source(pl.DataFrame({"x": ["a"]}), tmp_path / "in" / "b.parquet")
    _fails("SourceFormat", "do not agree", a_source((tmp_path / "in").as_uri()))


def test_a_missing_secret_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    source = a_source("s3://elsewhere/visits", credentials={"secretName": "their-keys"})
    reader = SourceReader(PLACE, {"AWS_ACCESS_KEY_ID": "store's own", "AWS_SECRET_ACCESS_KEY": "x"}, tmp_path)
    with pytest.raises(SourceError, match="kubectl create secret generic their-keys") as caught:
        reader.read(source)
    assert caught.value.reason == "CredentialsMissing"


def test_a_store_without_credentials_cannot_read_sources() -> None:
    _fails("CredentialsMissing", "AWS_ACCESS_KEY_ID", a_source("s3://elsewhere/visits"))


@pytest.mark.binaries
class TestOnS3:
    """The same on a bucket."""

    def test_one_object_or_all_below_a_prefix(self, s3_server: S3Server, s3_uri: str, tmp_path: Path) -> None:
        store = s3_server.open(s3_uri)
        for number in (1, 2):
            write_source(visits(number, seed=number), tmp_path / "v.parquet")
            store.upload(f"visits/{number}.parquet", tmp_path / "v.parquet")
        reader = SourceReader(s3_server.place(s3_uri), s3_server.environment())
        assert reader.read(a_source(f"{s3_uri}/visits/2.parquet")).height == 2
        assert reader.read(a_source(f"{s3_uri}/visits")).height == 3

    def test_a_source_is_read_with_its_own_secret(self, s3_server: S3Server, s3_uri: str, tmp_path: Path) -> None:
        uri = f"{s3_uri}/v.parquet"
        write_source(visits(2), tmp_path / "v.parquet")
        s3_server.open(s3_uri).upload("v.parquet", tmp_path / "v.parquet")
        (tmp_path / "visits").mkdir()
        for name, value in s3_server.environment().items():
            (tmp_path / "visits" / name).write_text(value + "\n")
        reader = SourceReader(s3_server.place(s3_uri), {}, tmp_path)
        assert reader.read(a_source(uri, credentials={"secretName": "own"})).height == 2

    def test_wrong_credentials_are_unreadable(self, s3_server: S3Server, s3_uri: str) -> None:
        reader = SourceReader(s3_server.place(s3_uri), {**s3_server.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"})
        _fails("SourceUnreadable", "refuses", a_source(f"{s3_uri}/visits"), reader)

    def test_a_bucket_that_is_not_there_is_not_found(self, s3_server: S3Server, s3_uri: str) -> None:
        reader = SourceReader(s3_server.place(s3_uri), s3_server.environment())
        _fails("SourceNotFound", "no bucket", a_source("s3://not-there/visits"), reader)


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """An https server on loopback: its address, and path to (status, body), to be filled by the test."""
    pages: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hash(body)}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    own = certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    with https_server(Handler, own) as port:
        yield f"https://localhost:{port}", pages


def test_a_file_is_read_from_the_web(website: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    address, pages = website
    pages["/visits.csv"] = (200, b"visit,price\nv1,1.9\n")
    source = a_source(f"{address}/visits.csv", ".csv")
    assert READER.read(source).to_dicts() == [{"visit": "v1", "price": "1.9"}]
    before = READER.fingerprint(source)
    pages["/visits.csv"] = (200, b"visit,price\nv1,1.8\n")
    assert READER.fingerprint(source) != before


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "SourceNotFound"), (410, "SourceNotFound"), (401, "SourceUnreadable"), (403, "SourceUnreadable")],
)
def test_what_the_web_answers_is_told_by_reason(
    website: tuple[str, dict[str, tuple[int, bytes]]], status: int, reason: str
) -> None:
    address, pages = website
    pages["/visits.csv"] = (status, b"")
    _fails(reason, "visits", a_source(f"{address}/visits.csv", ".csv"))


def test_a_server_in_trouble_is_tried_again_later(website: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    address, pages = website
    pages["/visits.csv"] = (503, b"")
    with pytest.raises(StoreError) as caught:
        READER.read(a_source(f"{address}/visits.csv", ".csv"))
    assert caught.value.reason == "SourceUnavailable"


def _fails(reason: str, words: str, source: Source, reader: SourceReader = READER) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        reader.read(source)
    assert caught.value.reason == reason
    assert caught.value.remedy
