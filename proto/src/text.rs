//! Text that people choose, and how it is shown: the one rule for names, the one for labels.
//!
//! - A **name** is what something is found by: owners, projects, agents, sessions. Plain ASCII in lower case, so
//!   that two names that look alike are alike, and a name can stand in a path, a log line or a shell as it is.
//! - A **label** is for people, or a caller's own mark: descriptions, workers, display names, request ids. One
//!   line of UTF-8 that shows all it has: nothing invisible, nothing that steers a terminal or turns the reading
//!   direction, no blank but the space, and no space at an end. It is kept byte for byte, never normalized:
//!   nothing is found by it.
//!
//! Everything else (payloads, results, causes, passwords) is data: bounded, kept as it is, and escaped by
//! whoever shows it ([`escaped`]). All lengths are in bytes of UTF-8.

use std::borrow::Cow;

use crate::credential;

/// The longest name, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The rule for names, for refusals.
pub const NAME: &str = "1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit";

/// Whether a text is a name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    text.len() <= NAME_BYTES_MAX
        && text.bytes().all(fits)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// Whether a text is an id that a server made: the prefix, then 1 to 60 of a-z and 0-9.
#[must_use]
pub fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=60).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// Whether a text in metadata can name something: a project by name or id, the session of a cookie, a call. 1 to
/// 64 letters, digits, `.`, `_` and `-`; and no credential, which would be kept and shown for what it came instead of.
#[must_use]
pub fn is_mark(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits) && !credential::is_in(text)
}

/// Whether a text is a label of 1 to `bytes_max` bytes. What looks like a credential is none: it came into the
/// wrong field, and would be stored and shown.
#[must_use]
pub fn is_label(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.chars().any(is_hidden)
        && !credential::is_in(text)
}

/// The longest name of a file, bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// How many parts the name of a file has at most.
pub const FILE_NAME_PARTS_MAX: usize = 16;
/// The rule for names of files, for refusals.
pub const FILE_NAME: &str = "1 to 255 bytes that all show, in 1 to 16 parts with `/` between them; no part empty, `.` or `..`, and no `\\`";

/// Whether a text is the name of a file: a label, in parts. Never absolute, and no part leads out of a folder, so that
/// whoever does write it to a disk stays below the folder it is meant for.
#[must_use]
pub fn is_file_name(text: &str) -> bool {
    is_label(text, FILE_NAME_BYTES_MAX)
        && !text.contains('\\')
        && text.split('/').count() <= FILE_NAME_PARTS_MAX
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a character does not show, or changes how others show: controls, the format characters of Unicode
/// (general category Cf: bidirectional overrides, zero-width ones, tags), letters that are blank, line and
/// paragraph separators, and every blank but the space.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text as one line that shows all it has: hidden characters as `\u{1b}`, line ends as `\n`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    shown(text, is_hidden)
}

/// The same for a text of several lines: line ends and tabs stay.
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// A text of JSON with its hidden characters as `\u202e`: the same value to who reads JSON, and one line.
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn shown(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' if hidden(c) => out.extend(c.escape_default()),
            _ if hidden(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [&str; 20] = [
        "\0",
        "\u{1b}",
        "\n",
        "\r",
        "\t",
        "\u{7f}",
        "\u{85}",
        "\u{9b}",
        "\u{a0}",
        "\u{ad}",
        "\u{200b}",
        "\u{200d}",
        "\u{200f}",
        "\u{2028}",
        "\u{202e}",
        "\u{2066}",
        "\u{3000}",
        "\u{3164}",
        "\u{feff}",
        "\u{e0041}",
    ];

    #[test]
    fn names_are_plain() {
        for good in ["a", "0", "builder-1.x_y", &"a".repeat(64)] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", "-a", ".", "..", "_a", "A", "a b", "ä", "a/b", "a\n", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn labels_show_all_they_have() {
        for good in ["x", "Zoë's builder (2)", "e\u{301}", "\u{1f980}\u{fe0f}", "\u{5d0}\u{5d1}", "a  b"] {
            assert!(is_label(good, 64), "{good:?}");
            assert_eq!(escaped(good), good);
        }
        for bad in ["", " ", " a", "a ", &"\u{e9}".repeat(33)] {
            assert!(!is_label(bad, 64), "{bad:?}");
        }
        for hidden in HIDDEN {
            assert!(!is_label(&format!("a{hidden}b"), 64), "{hidden:?}");
            assert!(!is_name(&format!("a{hidden}b")), "{hidden:?}");
        }
    }

    // SF-03
    #[test]
    fn the_name_of_a_file_is_no_path_out_of_anywhere() {
        for good in
            ["a", "out/report (2).txt", "..a/b..", "...", "Zoë.csv", "C:", "a//b".replace("//", "/").as_str()]
        {
            assert!(is_file_name(good), "{good:?}");
        }
        let (long, deep) = ("a".repeat(256), ["a"; 17].join("/"));
        let bad = [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "./a",
            "..\\a",
            "a\\b",
            "C:\\a",
            "a\0b",
            "a\n",
            " a",
            "a ",
            "\u{202e}a",
            &long,
            &deep,
        ];
        for bad in bad {
            assert!(!is_file_name(bad), "{bad:?}");
        }
        assert!(is_file_name(&"a".repeat(255)) && is_file_name(&["a"; 16].join("/")));
    }

    #[test]
    fn what_is_shown_steers_nothing() {
        assert_eq!(escaped("a\u{1b}[31mb\n\u{202e}c"), "a\\u{1b}[31mb\\n\\u{202e}c");
        assert_eq!(escaped_lines("a\tb\nc\u{9b}d\r"), "a\tb\nc\\u{9b}d\\u{d}".replace("\\u{d}", "\\r"));
        assert_eq!(escaped_json("{\"a\":\"\u{9b}\u{e0041}\"}"), "{\"a\":\"\\u009b\\udb40\\udc41\"}");
        for hidden in HIDDEN {
            assert!(!escaped(hidden).chars().any(is_hidden), "{hidden:?}");
        }
    }

    #[test]
    fn marks_are_plain_and_no_credentials() {
        for good in ["a", "ses_0A", "Job-7.a_B", "-", &"x".repeat(64)] {
            assert!(is_mark(good), "{good:?}");
        }
        let misplaced = credential::Credential::new(credential::Kind::Client, &[3; 32]);
        for bad in ["", "a b", "é", "ses_1,", "a;b", &"x".repeat(65), misplaced.expose()] {
            assert!(!is_mark(bad), "{bad:?}");
        }
    }

    #[test]
    fn ids_have_their_prefix() {
        assert!(is_id("ses_0a", "ses_"));
        for bad in ["ses_", "job_0a", "ses_A", "ses_0-", &format!("ses_{}", "0".repeat(61))] {
            assert!(!is_id(bad, "ses_"), "{bad}");
        }
    }
}
