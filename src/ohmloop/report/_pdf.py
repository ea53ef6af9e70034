"""A report as PDF, by WeasyPrint: an extra."""

from __future__ import annotations

import hashlib

from ohmloop.errors import OhmloopError
from ohmloop.report._style import printed


def to_pdf(html: str) -> bytes:
    """Return a page as PDF; the same page gives the same bytes with the same WeasyPrint and fonts.

    Args:
        html: A self-contained page of this package.

    Raises:
        OhmloopError: If WeasyPrint, or the Pango library that it draws text with, is not installed.
    """
    try:
        from weasyprint import HTML  # type: ignore[import-untyped]  # it has no types
        from weasyprint.urls import URLFetcher  # type: ignore[import-untyped]
    except ImportError as error:
        raise OhmloopError(
            f'PDF needs WeasyPrint ({error}): pip install "ohmloop[pdf]". The HTML prints well from any '
            "browser."
        ) from error
    except OSError as error:
        first = str(error).partition("\n")[0]
        raise OhmloopError(
            f"PDF needs the Pango library ({first}): on Debian or Ubuntu, sudo apt install libpango-1.0-0 "
            "libpangoft2-1.0-0 libharfbuzz-subset0; elsewhere see WeasyPrint's own page on installation. The "
            "HTML prints well from any browser."
        ) from error
    # A page loads nothing from elsewhere: pictures within it are data.
    document = HTML(string=printed(html), url_fetcher=URLFetcher(allowed_protocols=["data"]))
    # The identifier of a PDF is random unless it is given; no time of writing is in it.
    content: bytes = document.write_pdf(pdf_identifier=hashlib.sha256(html.encode()).digest()[:16])
    return content
