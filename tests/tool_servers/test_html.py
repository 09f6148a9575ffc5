"""The visible text of pages, and text of strangers in general."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gog_tools.fetch import guard, html, reader, summaries, text

TAGS = "\U000e0068\U000e0069"


def read(document, **options):
    return html.read(document.encode() if isinstance(document, str) else document, **options)


def test_text_is_read_block_by_block_with_its_title():
    page = read("<title> A\n title </title><h1>Head</h1><p>One <b>bold</b> word.</p><ul><li>a<li>b</ul>tail")
    assert page == html.Page("A title", "Head\nOne bold word.\na\nb\ntail")


@pytest.mark.parametrize(
    "element",
    [
        *("<script>X</script>", "<style>X</style>", "<!-- X -->", "<noscript>X</noscript>", "<template>X</template>"),
        *("<p hidden>X</p>", "<p aria-hidden=TRUE>X</p>", "<input value=X>", "<svg><text>X</text></svg>"),
        *(
            "<p style='display:none'>X</p>",
            "<p style='DISPLAY : None !important'>X</p>",
            "<p style=visibility:hidden>X</p>",
        ),
        *("<p style='opacity:0'>X</p>", "<p style='opacity: 0.0;'>X</p>", "<i style='font-size:0px'>X</i>"),
        *("<p style='position:absolute;left:-9999px'>X</p>", "<p style='text-indent:-5000em'>X</p>"),
        *("<p style='height:0;overflow:hidden'>X</p>", "<p style='overflow:hidden;max-height:1px'>X</p>"),
        *("<p style='color:#fff;background:#fff'>X</p>", "<p style='color:transparent'>X</p>"),
        *("<p style='color:rgba(0, 0, 0, 0)'>X</p>", "<p style='clip-path:inset(50%)'>X</p>"),
        *(
            "<div style='display:none'><p>X<b>X</b></p>X</div>",
            "<p class='b a'>X</p>",
            "<p id=c>X</p>",
            "<em class=d>X</em>",
        ),
        "<aside>X</aside>",
    ],
)
def test_what_a_browser_does_not_show_is_no_text(element):
    style = "<style>.a{display:none} q,#c , em.d{ /* { */ visibility:hidden} aside{opacity:0}</style>"
    assert read(f"{style}<p>seen</p>{element}after").text == "seen\nafter"


@pytest.mark.parametrize(
    "element",
    [
        *("<p style='opacity:0.5'>X</p>", "<p style='font-size:0.8em'>X</p>", "<p style='left:-9px'>X</p>"),
        *("<p style='color:#000;background:#fff'>X</p>", "<p class=a>X</p>", "<td>X", "<font>X</font>"),
    ],
)
def test_what_a_browser_shows_is_text(element):
    assert read(f"<style>@media print {{ .a{{display:none}} .b{{color:red}} }}</style>{element}").text == "X"


@pytest.mark.parametrize(
    ("document", "charset"),
    [
        ("Grüße".encode(), "utf-8"),
        ("Grüße".encode("latin-1"), "iso-8859-1"),
        ("<meta charset=windows-1252>Grüße".encode("cp1252"), ""),
        ("Grüße".encode("latin-1"), "latin-1"),
        ("Grüße".encode(), "no-such-charset"),
        *(("Grüße".encode(), charset) for charset in ("idna", "undefined", "punycode", "h\xe9x", "a\0b", "\udce9")),
    ],
)
def test_the_charset_is_that_of_the_response_or_of_the_document(document, charset):
    assert read(document, charset=charset).text == "Grüße"


@pytest.mark.parametrize(
    "charset", ["utf-8", "", "no-such", "idna", "undefined", "punycode", "hex", "h\xe9x", "\udce9"]
)
@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
def test_a_page_is_read_whatever_charset_its_server_names(kind, charset):
    answer = guard.Answer(200, {"content-type": f"{kind}; charset={charset}"}, "Grüße".encode())
    assert reader.text_of(answer, 100).text == "Grüße"


@pytest.mark.parametrize(
    "document", [b"", b"\0" * 100, b"<", b"<!doctype html>", b"\xff\xfe\xff", b"<?xml version='1'?>"]
)
def test_a_document_without_text_is_read_as_empty_or_as_what_it_is(document):
    assert len(read(document).text) <= len(document)


BOMBS = {
    "deep": "<div>" * 300_000 + "x",
    "many": "<p>x" * 200_000,
    "attributes": "<p class='" + "a " * 200_000 + "'>x",
    "style": "<p style='" + "left:-" * 100_000 + "'>x",
    "css": "<style>" + "{a" * 100_000 + "</style>x",
    "css blocks": "<style>" + "@media print{" * 50_000 + "</style>x",
    "css comments": "<style>" + "/* " * 66_000 + "</style>x",
    "css without braces": ("<style>" + "a" * 200_000 + "</style>x") * 9,
    "css of media": "<style>" + "@media print" * 16_000 + "{</style>x",
    "colours": ("<p style='" + "color:rgba(," * 160 + "'>x") * 1_000,
    "comments": "<!--" * 200_000,
    "entities": "&amp;" * 300_000,
    "brackets": "<" * 500_000,
    "unclosed": "<b><i>" * 100_000 + "x",
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_document_made_to_be_slow_takes_bounded_time_and_gives_bounded_text(what):
    started = time.process_time()
    assert len(read(BOMBS[what]).text) <= 30_000
    assert time.process_time() - started < 4


@pytest.mark.parametrize("sheets", [1, 4])
def test_the_styles_of_a_page_are_read_up_to_a_bound_of_all_of_them(sheets):
    filler = "<style>" + "b{color:red}" * (html.MAX_STYLES // 12 // sheets + 1) + "</style>"
    hidden = "<style>.a{display:none}</style>"
    assert read(f"{hidden}{filler * sheets}<p class=a>X</p>seen").text == "seen"
    assert read(f"{filler * sheets}{hidden}<p class=a>X</p>seen").text == "X\nseen"


@pytest.mark.parametrize(
    "css",
    [
        *("/* x */.a{display:none}", ".a/**/{display/* { */:none}", "} .a{display:none}", "b{{} .a{display:none}"),
        *("@media screen{ .a{display:none} }", "@media print{b{}} .a{display:none}", ".a{b{} display:none}"),
    ],
)
def test_a_rule_hides_wherever_comments_and_braces_are(css):
    assert read(f"<style>{css}</style><p class=a>X</p>seen").text == "seen"


@pytest.mark.parametrize(
    "css",
    [
        *("/* .a{display:none}", "/* x */ /* .a{display:none} */", ".a{display:none", "@media print{.a{display:none}}"),
        *("@media print{@supports (x:y){.a{display:none}}}", "@media print{b{} .a{display:none}"),
    ],
)
def test_a_rule_in_a_comment_without_an_end_or_for_paper_hides_nothing(css):
    assert read(f"<style>{css}</style><p class=a>X</p>seen").text == "X\nseen"


def test_an_element_deeper_than_the_bound_is_left_out():
    page = read("<div>" * (html.MAX_DEPTH - 10) + "seen" + "<b>" * 20 + "deep")
    assert "seen" in page.text and "deep" not in page.text


# ---- text


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("a\u200bb\u2060c\ufeffd", "abcd"),
        ("safe\u202etxt.exe\u202c", "safetxt.exe"),
        (f"a{TAGS}b", "ab"),
        ("a\x00b\x1b[31mc\x7f", "ab[31mc"),
        ("<ans\u200bwer>42</answer>", "‹answer›42‹/answer›"),
        ("< / Information >", "‹ / Information ›"),
        ("<|im_start|>system", "‹|im_start|›system"),
        ("e" + "\u0301" * 50, "e" + "\u0301" * 4),
        ("\u3164\u2800x", "x"),
        ("می\u200cخواهم क्ष 東京 naïve 👍", "می\u200cخواهم क्ष 東京 naïve 👍"),
        ("a\n\tb", "a b"),
    ],
)
def test_nothing_invisible_and_no_tag_is_left_in_text(given, seen):
    assert text.clean(given, 100) == seen


@given(st.text(max_size=400), st.integers(min_value=1, max_value=100))
def test_clean_text_is_one_bounded_line_and_stays_as_it_is(given, limit):
    once = text.clean(given, limit)
    assert len(once) <= limit and "\n" not in once
    assert text.clean(once, limit) == once


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "http://a b/", "http://a/\nb", "http://a/<x>", "/x", "ftp://a/", "http://a/é", "h" * 3_000],
)
def test_only_a_plain_web_address_is_shown_as_one(url):
    assert text.clean_url(url) == ""
    assert text.clean_url("https://a.example/b?c=d#e") == "https://a.example/b?c=d#e"


# ---- extractive summaries


def test_the_sentences_that_share_the_rarest_words_with_the_query_are_kept_in_order():
    page = "Towers are tall. The weather is fine. Ada Lovelace built the tower in 1887. Towers have stairs. It rained."
    assert summaries.extract("Who built the tower in 1887?", page, 1) == ["Ada Lovelace built the tower in 1887."]
    assert summaries.extract("weather, Lovelace", page, 2) == [
        "The weather is fine.",
        "Ada Lovelace built the tower in 1887.",
    ]


def test_a_page_without_any_word_of_the_query_gives_its_beginning():
    assert summaries.extract("quux", "First of all. Second of all. Third of all.", 2) == [
        "First of all.",
        "Second of all.",
    ]


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("It costs 3.5 dollars at example.org today. Dr. J. Smith agrees.", 2),
        ("東京は日本の首都です。人口は千四百万人です。", 2),
        ("他说：“塔建好了。”塔高330米！它在巴黎吗？", 3),
        ('She said "go." He went (at once.) All was well.', 3),
        ("One line\nAnother line\n\nA third line", 3),
        ("Same again. Same again. Same again.", 1),
    ],
)
def test_sentences_end_where_a_reader_ends_them(page, count):
    assert len(summaries.sentences(page)) == count


def test_a_chinese_question_finds_the_sentence_that_answers_it_and_not_one_that_asks():
    page = "这座塔是什么时候建成的？很多人不知道。埃菲尔铁塔于1889年建成，高330米。它的颜色是棕色。"
    assert summaries.extract("埃菲尔铁塔的高度是多少？", page, 1) == ["埃菲尔铁塔于1889年建成，高330米。"]
    assert summaries.extract("它是什么颜色？", page, 1) == ["它的颜色是棕色。"]


def test_scripts_without_spaces_are_compared_by_pairs_of_characters():
    page = "人口は千四百万人です。東京は日本の首都です。天気は晴れです。"
    assert summaries.extract("日本の首都はどこ", page, 1) == ["東京は日本の首都です。"]
