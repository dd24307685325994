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
_SUMMARY = """
<h1>{title}</h1>
<p class="{verdict}"><strong>{verdict}</strong>: {n_met} of {n_expectations} expectations met.</p>
<ul>{failures}</ul>
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
    """Pages by name: `validation.html`, begun with a summary of our own, and `suite.html`.

    They do not link to each other: each is opened by a signed link, and a link from it would not be signed.
    """
    summary = _SUMMARY.format(
        title=html.escape(title),
        verdict="failed" if failures else "passed",
        n_met=n_expectations - len(failures),
        n_expectations=n_expectations,
        failures="".join(f"<li>{html.escape(failure)}</li>" for failure in failures),
    )
    pages = {}
    for name, pattern, head in (
        ("validation.html", "validations/**/*.html", summary),
        ("suite.html", "expectations/**/*.html", ""),
    ):
        for path in folder.glob(pattern):
            pages[name] = offline(path.read_text(encoding="utf-8"), head)
    return pages


def offline(page: str, head: str = "") -> str:
    """The page without anything that loads from elsewhere or leads there, styled by itself, `head` at its top."""
    for element in ("script", "style", "footer"):
        page = re.sub(rf"<{element}\b.*?</{element}>", "", page, flags=re.DOTALL)
    page = re.sub(r"<(link|img)\b[^>]*>", "", page)
    page = re.sub(r'<a\b[^>]*href="(?!#)[^"]*"[^>]*>(.*?)</a>', r"\1", page, flags=re.DOTALL)
    page = re.sub(r"<body\b[^>]*>", lambda body: body.group() + head, page, count=1)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>", 1)
