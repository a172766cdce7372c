"""A result file in a bucket: it is written in the current folder, and uploaded when it is whole."""

from pathlib import Path

from pydantic import ValidationError

from digitq.producer.provenance import PARSER, Record
from digitq.producer.sinks.journal import Identity
from digitq.producer.sinks.resumable import FileSink
from digitq.protocol.errors import OutputError, StoreError, UsageError
from digitq.protocol.formats.stores import WEB, has_object, remove, upload
from digitq.protocol.settings import What
from digitq.protocol.text import shown


class StoreSink(FileSink):
    """A result file that is being written, for a bucket. If the upload fails, all rows and their
    record stay in the current folder, and the same run only uploads them."""

    def __init__(self, url: str, run: Identity, overwrite: bool = False) -> None:
        """Open or resume the file. Raises as `FileSink`, and `UsageError` if there is no such
        bucket."""
        if WEB.match(url):
            raise UsageError(f"can't write {shown(url)}: name a file, or s3://, gs:// or az://")
        self._is_there = has_object(url)
        name = url.rpartition("/")[2]
        self._record_path = Path(f"{name}.partial.rec")
        super().__init__(Path(name), {**run, "out": url}, overwrite, url)
        if overwrite:
            self._record_path.unlink(missing_ok=True)

    def exists(self) -> bool:
        return self._is_there and not self._record_path.exists()  # if it does, it may be replaced

    def finish(self, read: What = "digit", record: Record | None = None) -> None:
        try:
            self._is_there = has_object(self.name)  # it may have been made during the run
        except UsageError as error:
            raise OutputError(str(error)) from None
        super().finish(read, record)

    def upload(self) -> bool:
        try:
            record = PARSER.validate_json(self._record_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return False
        if record.counts != self.counts:
            return False
        self.finish(record.read, record)
        return True

    def _replace(self, written: Path, record: Record | None) -> None:
        try:
            if record:
                self._write_record(self._record_path, record)
            remove(f"{self.name}.json")
            upload(written, self.name)
            if record:
                upload(self._record_path, f"{self.name}.json")
        except (PermissionError, StoreError) as error:
            raise OutputError(str(error)) from None
        self._record_path.unlink(missing_ok=True)  # first, since it says that rows are here
        self.partial.unlink(missing_ok=True)
