"""Data Docs that read well without a network: Great Expectations' pages, their CDN styles replaced by a short one."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

# Stands in for Bootstrap and its scripts: everything is unfolded, nothing needs a click.
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; margin: 0 auto; max-width: 72rem; padding: 1.5rem; }
a { color: #0b63b0; } h4, h5, h6 { margin: 1.2rem 0 .4rem; font-size: 1.05rem; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 1rem; }
td, th { border-bottom: 1px solid #d8dfe6; padding: .35rem .6rem; text-align: left; vertical-align: top; }
th { font-weight: 600; } ol, ul { padding-left: 1.2rem; }
.navbar ol, .nav { list-style: none; padding: 0; } .nav-item, .breadcrumb-item { display: inline-block; margin-right: 1rem; }
.alert { background: #eef2f6; padding: .6rem 1rem; border-radius: .3rem; }
.text-success { color: #1a7f37; } .text-danger { color: #c62828; }
.fa-check-circle::before { content: "\\2713"; } .fa-times::before { content: "\\2717"; }
.fa-exclamation-triangle::before { content: "\\26A0"; } i { font-style: normal; font-weight: 700; }
.passed { color: #1a7f37; } .failed { color: #c62828; } [onclick], .card:has([onclick]) { display: none; }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
<p class="{verdict}"><strong>{verdict}</strong>: {n_met} of {n_expectations} expectations met.</p>
<ul>{failures}</ul>
<p><a href="validation.html">Results of every expectation</a> · <a href="suite.html">The suite</a></p>
</body></html>
"""


def data_docs_site(folder: Path) -> DataContextConfig:
    """An in-memory project whose Data Docs are written below `folder`."""
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"dataset": site},
        progress_bars=ProgressBarsConfig(globally=False),
    )


def offline_pages(folder: Path, title: str, n_expectations: int, failures: Sequence[str]) -> dict[str, str]:
    """Pages by name: `index.html` (own: the built-in one is drawn by scripts), `validation.html`, `suite.html`."""
    pages = {
        "index.html": _PAGE.format(
            title=html.escape(title),
            style=_STYLE,
            verdict="failed" if failures else "passed",
            n_met=n_expectations - len(failures),
            n_expectations=n_expectations,
            failures="".join(f"<li>{html.escape(failure)}</li>" for failure in failures),
        )
    }
    for name, pattern in (("validation.html", "validations/**/*.html"), ("suite.html", "expectations/**/*.html")):
        for path in folder.glob(pattern):
            pages[name] = offline(path.read_text(encoding="utf-8"))
    return pages


def offline(page: str) -> str:
    """The page without anything that loads from elsewhere, styled by itself, its links between the three pages."""
    for element in ("script", "style", "footer"):
        page = re.sub(rf"<{element}\b.*?</{element}>", "", page, flags=re.DOTALL)
    page = re.sub(r"<(link|img)\b[^>]*>", "", page)
    page = re.sub(r'href="[^"]*index\.html"', 'href="index.html"', page)
    page = re.sub(r'href="[^"]*expectations/[^"]*\.html"', 'href="suite.html"', page)
    page = re.sub(r'href="[^"]*validations/[^"]*\.html"', 'href="validation.html"', page)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>", 1)
