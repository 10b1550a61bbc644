"""Naughty strings: data of every kind that programs have taken for something else, in the manner of the Big List.

None begins or ends with white space, which loading trims from every cell.

https://github.com/minimaxir/big-list-of-naughty-strings
"""

from __future__ import annotations

NAUGHTY = (
    # Markup that runs where it is not escaped
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</script><svg onload=alert(1)>",
    "</textarea></title><script>alert(1)</script>",
    '" autofocus onfocus=alert(1) x="',
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "http://example.com/\"onmouseover='alert(1)'",
    "<!--#exec cmd=\"/bin/ls\"--><![CDATA[x]]><?php echo 1; ?>",
    "<a href='java\u0000script:alert(1)'>".replace("\u0000", "&#0;"),
    "&lt;b&gt; &amp;amp; &#x3C;",
    # Templates and formats
    "{{ 7 * 7 }}",
    "{% for x in y %}{{ config }}",
    "${7*7}#{7*7}<%= 7*7 %>",
    "${jndi:ldap://127.0.0.1/a}",
    "%s%d%n{0}{x!r}%(x)s",
    "%00%0d%0aSet-Cookie: a=b",
    "%E0%80%AF%c0%ae",
    # Languages of databases and shells
    "'; DROP TABLE files; --",
    "' OR 1=1 -- 1",
    '1"; SELECT pg_sleep(60); --',
    "a' UNION SELECT NULL,NULL--",
    ":name $1 %s ? \\N \\.",
    "$(touch pwned)`touch pwned`; touch pwned |",
    "--help",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "file:///etc/passwd",
    "{\"$gt\": \"\"}",
    '{"a": [1, {"b": null}]}',
    # Words that mean something elsewhere
    "undefined", "null", "NULL", "None", "nil", "true", "FALSE", "NaN", "-Infinity", "CON", "hasOwnProperty", "__proto__",
    # Numbers, or not
    "0", "-0", "1e1000", "1/0", "0x1F", "1,000.50", "٠١٢٣٤", "９９", "9" * 100, "-9223372036854775808", "infinity", "-95.5",
    # What spreadsheet programs run
    "=1+1", "+x", "-2+3", "@SUM(A1)", "=cmd|' /C calc'!A0", "a\t=1", "'=1+1",
    # Cells, lines and lists
    "a,b;c|d", 'a"b""c', "two\nlines", "a\u2028b\u2029c\x85d", "\\", "a\\nb", "*_%", ",", "\u00ac`~!@#$%^&*()_+",
    # Scripts, marks and signs
    "Ω≈ç√∫˜µ≤≥÷", "田中さんにあげて下さい", "الكل في المجمو عة", "\u202etest\u202c", "\u2066nested\u2069", "ÅÍÎÏ˝ÓÔ\uf8ffÒÚÆ☃",
    "caf\u00e9", "cafe\u0301", "Z\u0351\u036b\u0343a\u0329\u0356l\u034eg\u0341o\u034f", "ǆ Ǆ ǅ ß ẞ ı İ K", "ﷺ",
    "👾 🙇 💁 🙅", "👩‍👩‍👧‍👦", "🇺🇸🇷🇺", "a\u200b\u200c\u200d\ufeffb", "\ufdd0 \uffff \U0010ffff", "null\x7f",
    "\x01\x1b[31mred\x07",
)  # fmt: skip


NAMES: list[tuple[bytes, str]] = [
    (name.encode(), name)
    for name in (
        "two\nlines.csv",
        "carriage\rreturn.csv",
        "tab\t.csv",
        "'single' and \"double\".csv",
        "x" * 251 + ".csv",
        "é" * 125 + "x.csv",
        "--help.csv",
        "-.csv",
        "a..csv",
        "a..%2f..%2f..%2fetc%2fpasswd.csv",
        "..\\..\\windows.csv".replace("..", "x.."),
        "C:\\autoexec.csv",
        "$(touch pwned).csv",
        "`touch pwned`.csv",
        "; touch pwned; .csv",
        "|touch pwned|.csv",
        "'; DROP TABLE ops.files; --.csv",
        "%s %(x)s {0} :name $1.csv",
        "\\N.csv",
        "*?[a-z].csv",
        "~root.csv",
        " space around .csv",
        "\x01\x1b[31mred\x07.csv",
        "\u202evsc.exe.csv",
        "caf\u00e9.csv",
        "cafe\u0301.csv",
        "🌧.csv",
        "con.csv",
        "file:x.csv",
        "http:example.csv",
        "a.csv.gz.zip.csv",
    )
] + [
    (b"caf\xe9.csv", "caf\\xe9.csv"),
    (b"\xff\xfe.csv", "\\xff\\xfe.csv"),
    (b"\xed\xa0\x80.csv", "\\xed\\xa0\\x80.csv"),
]
