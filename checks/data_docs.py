"""Data Docs that read well without a network: Great Expectations' pages, their CDN styles replaced by a short one."""

from __future__ import annotations

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
h1 { font-size: 1.5rem; } h2 { margin: 1.6rem 0 .4rem; font-size: 1.15rem; } img.drop { max-width: 100%; }
.passed, .met .mark { color: #1a7f37; } .failed, .failed .mark { color: #c62828; } .warned, .warned .mark { color: #9a6700; }
.skipped { color: #5b6773; } ul.unmet { list-style: none; padding: 0; } .mark { width: 1.5rem; font-weight: 700; }
.expectations { table-layout: fixed; } .expectations td { overflow-wrap: anywhere; } .expectations th:first-child { width: 1.5rem; }
.expectations tr.met { color: #5b6773; } tr.failed, tr.warned { color: inherit; }
.expectations th:last-child { width: 10rem; } code { font-size: .85em; } [onclick], .card:has([onclick]) { display: none; }
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


def offline_pages(folder: Path, suites: Sequence[str], head: str) -> dict[str, str]:
    """Pages by name: `validation.html`, which begins with `head`, and `suite.html`, each with these suites in order.

    They do not link to each other: each is opened by a signed link, and a link from it would not be signed.
    """
    pages = {}
    for name, pattern, first in (
        ("validation.html", "validations/{}/**/*.html", head),
        ("suite.html", "expectations/{}.html", ""),
    ):
        found = [path.read_text(encoding="utf-8") for suite in suites for path in folder.glob(pattern.format(suite))]
        if found:
            pages[name] = offline(_with_bodies(found[0], found[1:]), first)
    return pages


def _with_bodies(page: str, others: Sequence[str]) -> str:
    """The page with what the bodies of others hold after its own. Their anchors are the page's no more."""
    bodies = [re.sub(r"^.*?<body\b[^>]*>|</body>.*$", "", other, flags=re.DOTALL) for other in others]
    return page.replace("</body>", "".join(bodies) + "</body>", 1)


def offline(page: str, head: str = "") -> str:
    """The page without anything that loads from elsewhere or leads there, styled by itself, `head` at its top."""
    for element in ("script", "style", "footer"):
        page = re.sub(rf"<{element}\b.*?</{element}>", "", page, flags=re.DOTALL)
    page = re.sub(r"<(link|img)\b[^>]*>", "", page)
    page = re.sub(r'<a\b[^>]*href="(?!#)[^"]*"[^>]*>(.*?)</a>', r"\1", page, flags=re.DOTALL)
    page = re.sub(r"<body\b[^>]*>", lambda body: body.group() + head, page, count=1)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>", 1)
