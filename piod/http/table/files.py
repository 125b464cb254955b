"""Files of the data directory; its export and import."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.archives import ArchiveHandlers, ImportForm
from piod.http.downloads import ZIP_MEDIA
from piod.http.files import LISTING_EXAMPLE, PATH, FileHandlers, RemoveSchema
from piod.http.routes import COMMAND, GET, POST, Answer, Route
from piod.http.tasks import LAUNCHED

TAG = "Files"
TEXT = "text/plain"


def file_routes(files: FileHandlers, archives: ArchiveHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    api = "/unit_api"
    yield Route(
        GET,
        PATH,
        files.to_root,
        tag=TAG,
        summary="The data directory",
        description="Leads to the path that ends with a slash.",
        answers={308: Answer("The same with a slash.", "", media=TEXT)},
    )
    yield Route(
        GET,
        f"{PATH}/{{req_path:[\\s\\S]*}}",  # a name may hold a line feed, which . does not match
        files.look,
        tag=TAG,
        summary="What is in a folder, or in a file",
        description="A folder is listed. Of a file come the bytes, as text/plain; conditions and "
        "ranges work. The values of password and api_key in configuration files are masked; "
        "databases are refused (403). While the marker file DISALLOW_UI_FILE_SYSTEM exists, all "
        "is refused.",
        path_params={"req_path": "Path below the data directory; empty for itself."},
        answers={
            200: Answer("The listing, or the bytes of the file.", LISTING_EXAMPLE),
            206: Answer("A part of the file.", "[cluster.topology]\n", media=TEXT),
            304: Answer("The client has it already.", "", media=TEXT),
        },
        errors=(404, 416),
        max_age_s=5,
    )
    yield Route(
        COMMAND,
        f"{api}/system/remove_file",
        files.remove,
        tag=TAG,
        summary="Delete a file",
        description="The result is true, or false when there is no such file. Databases, what "
        "belongs to piod and the markers DISALLOW_UI_… are refused.",
        body=RemoveSchema,
        answers=LAUNCHED,
        errors=(404, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/zipped_dot_pioreactor",
        archives.export,
        tag=TAG,
        summary="Export the data directory",
        description="A zip of all files, made while it is sent; of databases, copies that are "
        "whole. Links that lead out are left out. Its last entry says of which unit it is.",
        answers={200: Answer("The archive.", "(binary zip)", media=ZIP_MEDIA)},
        errors=(429,),
        shows_secrets=True,
    )
    yield Route(
        POST,
        f"{api}/import_zipped_dot_pioreactor",
        archives.import_archive,
        tag=TAG,
        summary="Import a data directory",
        description="Running jobs are stopped, then the archive replaces the files of the unit, "
        "wholly or not at all; no job starts meanwhile. piod's ledger stays; the archive's is put "
        "beside it. Refused (409) during an update, before a reboot, and while plugins are "
        "installed.",
        form=ImportForm,
        answers=LAUNCHED,
        errors=(409, 429, 503, 507),
    )
