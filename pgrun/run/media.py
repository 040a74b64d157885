"""`Image` and `File`: what belongs to an input beside its text. They are stored with the run, so their size is limited."""

import mimetypes
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrun.errors import UsageError
from pgrun.run._storable import find_unstorable

MAX_BYTES = 10_000_000
"""Of all images and files of one run together: they are in its row, and read by whoever claims it. Larger ones go by URL."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image; give one of `url`, `content` and `filepath`.

    Attributes:
        url: Where the provider finds it.
        content: Its bytes.
        filepath: Of a file that is read when the run is submitted.
        mime_type: Of the content, for example ``image/png``. Default: by the name of the file or the first bytes.
        format: The same in short, for example ``png``.
        detail: How closely the model looks: low, high or auto.
    """

    url: str | None = None
    content: bytes | None = None
    filepath: str | Path | None = None
    mime_type: str | None = None
    format: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class File:
    """A document, such as a PDF; give one of `url`, `content` and `filepath`.

    Attributes:
        url: Where the provider finds it.
        content: Its bytes, or its text.
        filepath: Of a file that is read when the run is submitted.
        mime_type: Of the content. Default: by its name.
        filename: What the model is told as its name. Default: that of `filepath`.
    """

    url: str | None = None
    content: bytes | str | None = None
    filepath: str | Path | None = None
    mime_type: str | None = None
    filename: str | None = None


def media_of(images: Iterable[Image] | None, files: Iterable[File] | None) -> list[dict[str, Any]]:
    """Images and files as they are stored, see `Message.media`.

    Raises:
        UsageError: One of them is something else, cannot be read, or all together are too big.
    """
    found = [_image(f"images[{place}]", each) for place, each in enumerate(_listed("images", images))]
    found += [_file(f"files[{place}]", each) for place, each in enumerate(_listed("files", files))]
    size = sum(len(each.get("data", "")) for each in found) * 3 // 4
    if size > MAX_BYTES:
        raise UsageError(
            f"images and files: {size} bytes, more than the {MAX_BYTES} that are stored with a run; give large ones by url="
        )
    return found


def _listed(name: str, items: Any) -> list[Any]:
    if items is None:
        return []
    if not isinstance(items, list | tuple):
        raise UsageError(f"{name}={items!r:.100}: a list")
    return [*items]


def _image(name: str, image: object) -> dict[str, Any]:
    if not isinstance(image, Image):
        raise UsageError(f"{name}: an Image, not {image!r:.100}")
    given = image.mime_type or (f"image/{image.format.lower().replace('jpg', 'jpeg')}" if image.format else None)
    content, mime_type, _ = _content(name, image, given)
    if content is not None:
        mime_type = mime_type or _sniffed(content)
        if mime_type is None:
            raise UsageError(f'{name}: say what it is, for example mime_type="image/png"')
    return _stored(name, "image", image.url, content, mime_type=mime_type, detail=image.detail)


def _file(name: str, file: object) -> dict[str, Any]:
    if not isinstance(file, File):
        raise UsageError(f"{name}: a File, not {file!r:.100}")
    content, mime_type, filename = _content(name, file, file.mime_type)
    filename = file.filename or filename
    if content is not None:
        mime_type = mime_type or mimetypes.guess_type(filename or "")[0] or "application/pdf"
        filename = filename or f"file{mimetypes.guess_extension(mime_type) or ''}"
    return _stored(name, "file", file.url, content, mime_type=mime_type, filename=filename)


def _content(name: str, item: Image | File, mime_type: str | None) -> tuple[bytes | None, str | None, str | None]:
    """Bytes, type and name of what is there; no bytes if it is elsewhere."""
    if sum(each is not None for each in (item.url, item.content, item.filepath)) != 1:
        raise UsageError(f"{name}: give one of url=, content= and filepath=")
    if item.filepath is not None:
        path = Path(item.filepath)
        try:
            return path.read_bytes(), mime_type or mimetypes.guess_type(path.name)[0], path.name
        except OSError as error:
            raise UsageError(f"{name}: {path}: {error.strerror}") from error
    content = item.content.encode() if isinstance(item.content, str) else item.content
    if content is not None and not isinstance(content, bytes):
        raise UsageError(f"{name}: content= is bytes, not {content!r:.100}")
    return content, mime_type, None


def _stored(name: str, kind: str, url: str | None, content: bytes | None, **known: str | None) -> dict[str, Any]:
    where = {"url": url} if content is None else {"data": b64encode(content).decode()}
    data = {"type": kind, **where, **{key: value for key, value in known.items() if value is not None}}
    if reason := find_unstorable(data, name=name):
        raise UsageError(reason)
    return data


def _sniffed(content: bytes) -> str | None:
    """The type of an image by its first bytes."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    begins = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
    return next((mime_type for start, mime_type in begins.items() if content.startswith(start)), None)
