"""Look at the built pages as axe-core does, by day and by night: python tools/accessibility.py.

Every page of _build/html is opened in headless Chromium at the width of a desk and of a phone, in
the light and in the dark theme; axe-core (fetched from npm, checksum compared) looks for violations
of WCAG 2.1 A and AA and of good practice. A serious or critical one ends the check with status 1.
Not part of `make test`: a bare machine has no browser.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import print_page
from tfp_gaps.book.data import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ROOT / "_build" / "html"
PACKAGE = ("axe-core", "4.14.1")
DIGEST = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (1280, 500)
THEMES = ("light", "dark")
GRAVE = ("serious", "critical")

_RUN = """
<script>%s</script>
<script>
window.addEventListener("load", function () {
  function say(found) {
    var note = document.createElement("pre");
    note.id = "axe-found";
    note.textContent = JSON.stringify(found);
    document.body.appendChild(note);
  }
  // Before they are set, formulas are no text.
  var formulas = window.MathJax && MathJax.startup && MathJax.startup.promise;
  Promise.resolve(formulas).then(function () {
    return axe.run(document, {resultTypes: ["violations"]});
  }).then(function (found) {
    say(found.violations.map(function (v) {
      return {id: v.id, impact: v.impact, help: v.help, count: v.nodes.length,
        where: v.nodes.slice(0, 3).map(function (n) { return n.html.slice(0, 200); }),
        why: v.nodes.slice(0, 1).map(function (n) { return n.failureSummary; })};
    }));
  }).catch(function (error) {
    say([{id: "error", impact: "critical", help: String(error), count: 1, where: [""], why: []}]);
  });
});
</script>
"""


def script():
    """The source of axe-core.

    Raises:
      packages.FetchError: if it cannot be fetched, or is not the expected archive.
    """
    archive = packages.fetch_archive(*PACKAGE, digest=DIGEST)
    return packages.read_member(archive, "package/axe.min.js").decode()


def browser():
    """Path of a Chromium.

    Raises:
      SystemExit: if there is none.
    """
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise SystemExit(
        f"A browser is needed, but none of {', '.join(BROWSERS)} is on the path. Install Chromium."
    )


def examine(page, axe, chromium, *, theme, width):
    """Violations that axe-core finds on one page, a list of dicts.

    Raises:
      RuntimeError: if the page does not answer.
    """
    text = page.read_text(encoding="utf-8")
    # As a reader's earlier choice, which the theme's own script would otherwise replace.
    chosen = f'<script>localStorage.mode = localStorage.theme = "{theme}"</script>'
    text = text.replace("<head>", f"<head>{chosen}", 1)
    added = _RUN % axe.replace("</script", "<\\/script")
    # Beside the original, so that its styles and scripts are found.
    with tempfile.NamedTemporaryFile(
        "w", suffix=".html", prefix=".axe-", dir=page.parent, encoding="utf-8"
    ) as copy:
        before, _, after = text.rpartition("</body>")
        copy.write(f"{before}{added}</body>{after}")
        copy.flush()
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--window-size={width},1000", "--virtual-time-budget=600000"]
        shown = subprocess.run(
            [*command, pathlib.Path(copy.name).as_uri()],
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout
    answer = re.search(r'<pre id="axe-found"[^>]*>(.*?)</pre>', shown, re.DOTALL)
    if answer is None:
        raise RuntimeError(f"{page.name} gave no answer within a minute. Open it by hand.")
    raw = answer[1]
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " "), ("&amp;", "&")):
        raw = raw.replace(entity, character)
    return json.loads(raw)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names without .html; all by default")
    arguments = parser.parse_args()
    wanted = [PAGES / f"{name}.html" for name in arguments.pages] or [
        # The page to print says what the others say.
        path
        for path in sorted(PAGES.glob("*.html"))
        if path.name != print_page.NAME
    ]
    absent = [path.name for path in wanted if not path.is_file()]
    if absent or not wanted:
        raise SystemExit(f"Build the pages first (make html): {absent or PAGES} is not there.")
    axe, chromium, grave = script(), browser(), 0
    for page in wanted:
        for width in WIDTHS:
            for theme in THEMES:
                for found in examine(page, axe, chromium, theme=theme, width=width):
                    grave += found["impact"] in GRAVE
                    print(
                        f"{page.stem}, {width} px, {theme}: {found['impact']}: {found['help']} "
                        f"({found['id']}, {found['count']} places): {found['where'][0]}"
                    )
    print(f"{len(wanted)} pages, {grave} serious or critical violations")
    sys.exit(grave > 0)


if __name__ == "__main__":
    main()
