"""XML of annotations: what is parsed, and what is refused before it can grow."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError, ReadError
from keypatch.formats.annotations import xml

LAUGHS = '<?xml version="1.0"?>\n<!DOCTYPE a [\n<!ENTITY l0 "ha">\n{}]>\n<a>&l30;</a>'.format(
    "".join(f'<!ENTITY l{i + 1} "&l{i};&l{i};">\n' for i in range(30))
)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("start", ["", "\ufeff", '<?xml version="1.0" encoding="UTF-8"?>\r\n', "<!-- a\n comment -->"])
def test_a_tree_with_its_attributes_and_texts(tmp_path, start):
    root = xml.parse_xml(write(tmp_path, f'{start}<a b="1 &lt; 2"><c>å</c>\n<c/><![CDATA[<d>]]></a>'))
    assert (root.tag, root.attrib) == ("a", {"b": "1 < 2"})
    assert [child.text for child in root.findall("c")] == ["å", None]
    assert root.find("d") is None


def test_a_stated_encoding_does_not_hide_anything(tmp_path):
    assert xml.parse_xml(write(tmp_path, '<?xml version="1.0" encoding="latin-1"?><a>å</a>')).text == "å"
    hidden = b'<?xml version="1.0" encoding="cp037"?>' + '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("cp037")
    with pytest.raises(FormatError, match="UTF-8 text"):
        xml.parse_xml(write(tmp_path, hidden))
    with pytest.raises(FormatError, match="UTF-16"):
        xml.parse_xml(write(tmp_path, "<a/>".encode("utf-16")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LAUGHS, "<!DOCTYPE in line 2"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>', "<!DOCTYPE in line 1"),
        ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><a/>', "<!DOCTYPE in line 1"),
        ('<a>\n<!ENTITY b "c"></a>', "<!ENTITY in line 2"),
        ("<a>&b;</a>", "undefined entity"),
        ("<a><b></a>", "mismatched tag in line 1, column 9"),
        ("<a><b>\n", "no element found in line 2"),
        ("<a/><a/>", "junk after document element"),
        ("a,b\n", "syntax error in line 1, column 1"),
        ("", "no element found"),
    ],
)
def test_one_line_for_what_is_refused(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(FormatError) as caught:
        xml.parse_xml(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_entities_are_refused_before_they_take_memory(tmp_path):
    path = write(tmp_path, LAUGHS)
    tracemalloc.start()
    with pytest.raises(FormatError):
        xml.parse_xml(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = write(tmp_path, "")
    with path.open("wb") as file:
        file.truncate(xml.MOST_BYTES + (1 << 20))
    with pytest.raises(FormatError, match="at most 256 MiB, found 257 MiB"):
        xml.parse_xml(path)


def test_nesting_without_end_does_not_crash(tmp_path):
    depth = 200_000
    root = xml.parse_xml(write(tmp_path, "<a>" * depth + "</a>" * depth))
    assert sum(1 for _ in root.iter()) == depth


def test_no_file(tmp_path):
    with pytest.raises(ReadError, match="nothing there"):
        xml.parse_xml(tmp_path / "nope.xml")
    with pytest.raises(ReadError, match="a folder"):
        xml.parse_xml(tmp_path)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: f"<a>{text}</a>".encode())))
def test_garbage_is_an_error_of_ours(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("garbage"), content)
    with contextlib.suppress(FormatError):
        assert xml.parse_xml(path).tag
