"""Templates that escape, data that cannot end its element, a policy by hash."""

import base64
import hashlib
import html
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from mindscore.pages.environment import asset, csp, embed, environment

PACKAGE = "mindscore.report"


def render(template, **values):
    return environment(PACKAGE).from_string(template).render(**values)


def test_what_a_template_shows_is_escaped():
    assert render("<p title='{{ it }}'>{{ it }}", it="<i>&\"'") == (
        "<p title='&lt;i&gt;&amp;&#34;&#39;'>&lt;i&gt;&amp;&#34;&#39;"
    )


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(UndefinedError):
        render("{{ nobody }}")


def test_a_packages_own_templates_and_the_shared_ones_are_found():
    names = environment(PACKAGE).list_templates()
    assert {"report.html", "words.html"} <= set(names)


@given(
    text=st.text() | st.sampled_from(["</script>", "<!--<script>", "]]>", "\u2028\u2029", "&lt;"])
)
def test_embedded_data_is_read_back_and_holds_no_markup(text):
    written = str(embed("it", {text: [text, 1.5, None]}))
    start, end = '<script type="application/json" id="it">', "</script>"
    assert written.startswith(start)
    assert written.endswith(end)
    inside = written[len(start) : -len(end)]
    assert not set(inside) & set("<>&\u2028\u2029")
    assert json.loads(inside) == {text: [text, 1.5, None]}


def test_the_id_of_embedded_data_is_escaped():
    assert 'id="&#34;&gt;"' in embed('">', {})


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        embed("it", float("nan"))


def test_a_diff_marks_what_only_one_side_has():
    macro = "{% from 'words.html' import side_by_side %}{{ side_by_side('A', one, 'B', two) }}"
    page = render(macro, one="yes <b>", two="yes <i>")
    assert "yes &lt;<del>b</del>&gt;" in page
    assert "yes &lt;<ins>i</ins>&gt;" in page


def test_a_policy_allows_these_scripts_and_styles_and_nothing_else():
    def digest(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    other = "zwei\u00e9"
    assert csp(["one", other], ["p{}"]).split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{digest('one')}' 'sha256-{digest(other)}'",
        f"style-src 'sha256-{digest('p{}')}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "script-src 'none'; style-src 'none'" in csp([], [])


@pytest.mark.parametrize("name", ["theme.css", "matrix.css", "matrix.js"])
def test_an_asset_can_stand_in_a_page(name):
    text = asset(name)
    assert "</" not in text
    assert "\r" not in text
    assert html.unescape(text) == text


def test_without_jinja_it_is_said_what_to_install():
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from mindscore.pages.environment import environment\n"
        "from mindscore._util.errors import UsageError\n"
        "try: environment('mindscore.report')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'mindscore[report]'" in done.stdout


def test_jinja_is_imported_only_where_it_is_used():
    code = "import sys, mindscore.cli.score; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_white_space_after_a_difference_is_not_marked():
    macro = "{% from 'words.html' import side_by_side %}{{ side_by_side('A', one, 'B', two) }}"
    made = environment("mindscore.report").from_string(macro)
    page = made.render(one="It is due on 12 March at noon.", two="It is due on 3  March at noon.")
    assert "on <del>12</del> March at" in page
    assert "on <ins>3</ins>  March at" in page
