//! Hostile values, by the kind of field that they are put into.

use std::iter::repeat_n;

use prost::Message as _;
use prost_reflect::Kind;

use crate::{
    edit::{Edit, Raw, contents, encoded},
    fields::{Field, nested},
};

/// The longest text that any field of ours takes, bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// The most bytes that any field of ours takes.
const DATA_BYTES_MAX: usize = 256 * 1024;
/// A field that nobody has defined.
const UNKNOWN: u32 = 15_000;

/// Fields of text that take any characters, and why.
const DATA: &[(&str, &str)] = &[
    ("interlock.auth.v1.LoginRequest.password", "a secret is hashed as it is, and never shown"),
    ("interlock.auth.v1.UnlockRequest.password", "a secret is hashed as it is, and never shown"),
    ("interlock.auth.v1.SetOwnerRequest.password", "a secret is hashed as it is, and never shown"),
    (
        "interlock.auth.v1.ChangePasswordRequest.current_password",
        "a secret is hashed as it is, and never shown",
    ),
    ("interlock.auth.v1.ChangePasswordRequest.new_password", "a secret is hashed as it is, and never shown"),
    (
        "interlock.gateway.v1.SetSessionPasswordRequest.password",
        "a secret is hashed as it is, and never shown",
    ),
    ("interlock.gateway.v1.JoinSessionRequest.password", "a secret is hashed as it is, and never shown"),
    (
        "interlock.gateway.v1.WorkRequest.Finish.cause",
        "an outcome must not be lost over what a program wrote",
    ),
];

/// One hostile value, to be put into a good request.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// For people.
    pub(crate) what: String,
    pub(crate) edit: Edit,
    /// As a refusal names the field; empty for the message itself.
    pub(crate) path: String,
    pub(crate) fate: Fate,
    /// What an answer must give back where it has such a field.
    pub(crate) echo: Option<Echo>,
}

/// What may become of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Good for no field of its kind: refused, by the field's name.
    Never,
    /// Taken and given back, refused by the field's name, or refused with a reason that is right for it.
    Either,
    /// Not protobuf: `malformed request`.
    Malformed,
    /// Over the bound of messages.
    TooLarge,
}

/// A value as an answer would give it back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Echo {
    Text(String),
    Bytes(Vec<u8>),
    Number(u64),
}

/// Whether time is given to try all.
pub(crate) fn every_value() -> bool {
    std::env::var_os("INTERLOCK_LONG").is_some()
}

/// A value alone.
struct Value {
    what: String,
    raw: Raw,
    fate: Fate,
    echo: Option<Echo>,
}

/// Every case of a field, on a good request.
pub(crate) fn of_field(field: &Field, good: &[u8], bound: usize) -> Vec<Case> {
    let number = field.of.number();
    let items = || contents(good, &field.steps, number);
    let case = |what: String, values: &[Raw], path: &str, fate, echo| Case {
        what,
        edit: Edit::Field(field.steps.clone(), number, values.to_vec()),
        path: path.to_owned(),
        fate,
        echo,
    };
    let mut all = Vec::new();
    // Of a list, the second item is the hostile one; the first is good.
    let first: Vec<Raw> = match field.of.is_list() {
        true => vec![Raw::Bytes(items().first().cloned().unwrap_or_default())],
        false => Vec::new(),
    };
    let path = if field.of.is_list() { format!("{}[1]", field.path) } else { field.path.clone() };
    if !(field.of.is_list() && nested(&field.of).is_some()) {
        for value in values(field, good, bound) {
            let whole: Vec<Raw> = first.iter().cloned().chain([value.raw]).collect();
            all.push(case(value.what, &whole, &path, value.fate, value.echo));
        }
    }
    if field.of.is_list() {
        let item = Raw::Bytes(items().first().expect("the good request has an item of each list").clone());
        // As many as fit into a message: more are refused before anybody looks at the field.
        let most = 10_000.min((bound - good.len() - 64) / (item_bytes(&item) + 4));
        for (times, fate) in [(2, Fate::Either), (33, Fate::Either), (65, Fate::Either), (most, Fate::Never)]
        {
            let list: Vec<Raw> = repeat_n(item.clone(), times).collect();
            all.push(case(format!("one item {times} times"), &list, &field.path, fate, None));
        }
    }
    all.push(case("absent".to_owned(), &[], &field.path, Fate::Either, None));
    all
}

fn item_bytes(item: &Raw) -> usize {
    match item {
        Raw::Bytes(bytes) => bytes.len(),
        _ => 10,
    }
}

/// Cases of a request as a whole.
pub(crate) fn of_message(bound: usize) -> Vec<Case> {
    let case =
        |what: &str, edit, fate| Case { what: what.to_owned(), edit, path: String::new(), fate, echo: None };
    let rest = |what: &str, bytes: &[u8], fate| case(what, Edit::Rest(bytes.to_vec()), fate);
    let unknown =
        [Raw::Varint(u64::MAX), Raw::Fixed32([255; 4]), Raw::Fixed64([255; 8]), Raw::Bytes(vec![255; 99])];
    let unknown: Vec<u8> = unknown.iter().flat_map(|raw| encoded(UNKNOWN, raw)).collect();
    let nest = |depth| encoded(UNKNOWN, &Raw::Groups(depth));
    vec![
        case("nothing", Edit::Nothing, Fate::Either),
        rest("unknown fields", &unknown, Fate::Either),
        rest("unknown groups, 50 deep", &nest(50), Fate::Either),
        rest("unknown groups, 10,000 deep", &nest(10_000), Fate::Malformed),
        case("as long as it may be", Edit::Pad(UNKNOWN, bound), Fate::Either),
        case("one byte too long", Edit::Pad(UNKNOWN, bound + 1), Fate::TooLarge),
        rest("tag 0", &[0, 0], Fate::Malformed),
        rest("a field cut off", &[0x0a, 0x7f], Fate::Malformed),
        rest("a tag that never ends", &[0xff; 11], Fate::Malformed),
        rest("an end without a group", &[0x0c], Fate::Malformed),
    ]
}

fn values(field: &Field, good: &[u8], bound: usize) -> Vec<Value> {
    let present = contents_of_text(field, good);
    let mut all = match field.of.kind() {
        Kind::String => texts(field, &present, bound - good.len() - 64),
        Kind::Bytes => data(bound - good.len() - 64),
        Kind::Bool => numbers(&[0, 1]).into_iter().chain(wide(&[2, u64::MAX])).collect(),
        Kind::Enum(of) => {
            let known =
                of.values().map(|value| u64::try_from(value.number()).expect("ours are not negative"));
            let known: Vec<u64> = known.collect();
            let unknown = [99, i32::MAX as u64, u64::MAX, i64::from(i32::MIN) as u64];
            let never = unknown.map(|n| Value { fate: Fate::Never, echo: None, ..number(n) });
            numbers(&known).into_iter().chain(never).chain(wide(&[1 << 32, (1 << 32) + 1])).collect()
        }
        Kind::Uint32 | Kind::Int32 => {
            numbers(&[0, 1, 2, 32, 33, 64, 65, 500, 501, 10_000, u64::from(u32::MAX)])
                .into_iter()
                .chain(wide(&[1 << 32, 1 << 63, u64::MAX]))
                .collect()
        }
        Kind::Uint64 | Kind::Int64 => {
            let edge = i64::MAX as u64;
            numbers(&[0, 1, 2, 1 << 32, edge - 1, edge, edge + 1, u64::MAX - 1, u64::MAX])
        }
        Kind::Message(of) if of.full_name() == "google.protobuf.Duration" => spans(),
        Kind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => instants(),
        Kind::Message(_) => messages(),
        other => panic!("{}: no hostile values for {other:?}; add some", field.of.full_name()),
    };
    // Of another wire type than the field's.
    let wrong = match field.of.kind() {
        Kind::String | Kind::Bytes | Kind::Message(_) => Raw::Varint(1),
        _ => Raw::Fixed64([1; 8]),
    };
    all.push(Value { what: "another wire type".to_owned(), raw: wrong, fate: Fate::Malformed, echo: None });
    all
}

fn contents_of_text(field: &Field, good: &[u8]) -> String {
    if !matches!(field.of.kind(), Kind::String) {
        return String::new();
    }
    let found = contents(good, &field.steps, field.of.number());
    found.first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

fn texts(field: &Field, present: &str, room: usize) -> Vec<Value> {
    let data = DATA.iter().any(|(name, _)| *name == field.of.full_name());
    let hidden = if data { Fate::Either } else { Fate::Never };
    let text = |what: &str, text: String, fate| {
        let echo = (!text.is_empty()).then(|| Echo::Text(text.clone()));
        Value { what: what.to_owned(), raw: Raw::Bytes(text.into_bytes()), fate, echo }
    };
    let long = |bytes: usize, fate| text(&format!("{bytes} letters"), "a".repeat(bytes), fate);
    let mut all = vec![text("empty", String::new(), Fate::Either)];
    for fits in [1, 16, 60, 63, 64, 65, 128, 129, 255, 256, 257, TEXT_BYTES_MAX] {
        all.push(long(fits, Fate::Either));
    }
    for much in [TEXT_BYTES_MAX + 1, 16 * 1024, room] {
        all.push(long(much, Fate::Never));
    }
    for (what, inside) in HIDDEN {
        all.push(text(what, format!("a{inside}b"), hidden));
    }
    let behind = HIDDEN.iter().filter(|(what, _)| LAST.contains(what) || every_value());
    for (what, inside) in behind {
        all.push(text(&format!("{what}, after the good value"), format!("{present}{inside}"), hidden));
    }
    for (what, odd) in ODD {
        all.push(text(what, (*odd).to_owned(), Fate::Either));
    }
    for (what, blank) in
        [("a leading blank", format!(" {present}x")), ("a trailing blank", format!("x{present} "))]
    {
        all.push(text(what, blank, hidden));
    }
    all.push(text("300 combining marks", format!("a{}", "\u{301}".repeat(300)), Fate::Either));
    all.push(text("2,000 combining marks", format!("a{}", "\u{301}".repeat(2_000)), Fate::Never));
    if let Some(foreign) = foreign(present) {
        all.push(text("one of its kind that nobody made", foreign, Fate::Either));
        all.push(text("in capitals", present.to_uppercase(), Fate::Either));
        all.push(text("cut off", present[..present.len() - 1].to_owned(), Fate::Either));
        all.push(text("once more behind it", format!("{present}{present}"), Fate::Either));
    }
    for (what, bytes) in NO_UTF8 {
        let raw = Raw::Bytes([present.as_bytes(), bytes].concat());
        all.push(Value { what: (*what).to_owned(), raw, fate: Fate::Malformed, echo: None });
    }
    all
}

/// An id of the same kind, with its last digits changed.
fn foreign(id: &str) -> Option<String> {
    let at = id.len().checked_sub(4).filter(|at| id.is_char_boundary(*at) && id.contains('_'))?;
    Some(format!("{}zzzz", &id[..at]))
}

/// Characters that do not show or change how others show.
const HIDDEN: &[(&str, &str)] = &[
    ("NUL", "\0"),
    ("a control character", "\u{1}"),
    ("a bell", "\u{7}"),
    ("an escape sequence", "\u{1b}[31m"),
    ("DEL", "\u{7f}"),
    ("a C1 control", "\u{9b}31m"),
    ("a line feed", "\n"),
    ("carriage return and line feed", "\r\n"),
    ("a tab", "\t"),
    ("a line separator", "\u{2028}"),
    ("a right-to-left override", "\u{202e}gpj"),
    ("a right-to-left mark", "\u{200f}"),
    ("a bidirectional isolate", "\u{2066}x\u{2069}"),
    ("a zero-width space", "\u{200b}"),
    ("a zero-width joiner", "\u{200d}"),
    ("a byte order mark", "\u{feff}"),
    ("a soft hyphen", "\u{ad}"),
    ("a blank letter", "\u{3164}"),
    ("an invisible tag", "\u{e0041}"),
    ("a no-break space", "\u{a0}"),
];

/// Those that are tried behind a good value too; with `INTERLOCK_LONG`, all are.
const LAST: &[&str] = &["NUL", "a line feed", "a right-to-left override", "a zero-width space"];

/// Texts that are good for some fields.
const ODD: &[(&str, &str)] = &[
    ("the folder above", "../"),
    ("a path", "../../etc/passwd"),
    ("two points", ".."),
    ("a point", "."),
    ("a slash inside", "a/b"),
    ("a path, percent-encoded", "%2e%2e%2f"),
    ("a percent sign and NUL's code", "a%00b"),
    ("a flag", "-rf"),
    ("a blank", " "),
    ("a blank inside", "a b"),
    ("another script", "\u{5d0}\u{5d1}\u{5d2}"),
    ("letters of full width", "\u{ff41}\u{ff42}"),
    ("composed", "\u{e9}"),
    ("decomposed", "e\u{301}"),
    ("ten combining marks", "a\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}\u{309}\u{30a}"),
    ("emoji", "\u{1f980}"),
    ("a quote", "a'; DROP TABLE session; --"),
    ("JSON", "{\"a\":1}"),
    ("a format", "%s%n{}"),
    ("a number", "18446744073709551616"),
    ("`system`", "system"),
    ("`admin`", "admin"),
    ("a noncharacter", "\u{10ffff}"),
];

/// What is no UTF-8.
const NO_UTF8: &[(&str, &[u8])] = &[
    ("a byte of no character", &[0xff]),
    ("half a character", &[0xc3]),
    ("a surrogate", &[0xed, 0xa0, 0x80]),
    ("an overlong NUL", &[0xc0, 0x80]),
    ("beyond the last character", &[0xf4, 0x90, 0x80, 0x80]),
];

fn data(room: usize) -> Vec<Value> {
    let bytes = |what: String, bytes: Vec<u8>, fate| Value {
        what,
        raw: Raw::Bytes(bytes.clone()),
        fate,
        echo: (!bytes.is_empty()).then_some(Echo::Bytes(bytes)),
    };
    let mut all = vec![
        bytes("empty".to_owned(), Vec::new(), Fate::Either),
        bytes("NUL".to_owned(), vec![0], Fate::Either),
        bytes("every byte".to_owned(), (0..=255).collect(), Fate::Either),
        bytes("no UTF-8".to_owned(), vec![0xff, 0xc3, 0x28], Fate::Either),
        bytes("an escape sequence and a line".to_owned(), b"\x1b[2J\nfake line".to_vec(), Fate::Either),
    ];
    let sizes = [31, 32, 33, 16 * 1024, 16 * 1024 + 1, DATA_BYTES_MAX, DATA_BYTES_MAX + 1, room];
    for size in sizes.into_iter().filter(|size| *size <= room) {
        let fate = if size > DATA_BYTES_MAX { Fate::Never } else { Fate::Either };
        all.push(bytes(format!("{size} bytes"), vec![0xa5; size], fate));
    }
    all
}

fn number(n: u64) -> Value {
    let echo = (n != 0).then_some(Echo::Number(n));
    Value { what: format!("{n}"), raw: Raw::Varint(n), fate: Fate::Either, echo }
}

fn numbers(all: &[u64]) -> Vec<Value> {
    all.iter().map(|n| number(*n)).collect()
}

/// More bits than the field has: protobuf says that a reader takes the low ones, and every library does.
fn wide(all: &[u64]) -> Vec<Value> {
    let value = |n: &u64| Value { what: format!("{n}, too wide for the field"), echo: None, ..number(*n) };
    all.iter().map(value).collect()
}

fn spans() -> Vec<Value> {
    const DAY: i64 = 24 * 3600;
    let span = |seconds, nanos, fate| Value {
        what: format!("{seconds} s {nanos} ns"),
        raw: Raw::Bytes(prost_types::Duration { seconds, nanos }.encode_to_vec()),
        fate,
        echo: None,
    };
    let good = [(0, 0), (0, 1), (0, 999_999_999), (60, 0), (60, 1), (61, 0), (DAY, 0), (DAY, 1)];
    let bad = [
        (-1, 0),
        (0, -1),
        (1, -1),
        (-1, 1),
        (0, 1_000_000_000),
        (0, i32::MAX),
        (0, i32::MIN),
        (315_576_000_001, 0),
        (i64::MAX, i32::MAX),
        (i64::MIN, i32::MIN),
    ];
    let good = good.map(|(seconds, nanos)| span(seconds, nanos, Fate::Either));
    good.into_iter().chain(bad.map(|(seconds, nanos)| span(seconds, nanos, Fate::Never))).collect()
}

fn instants() -> Vec<Value> {
    let instant = |seconds, nanos, fate| Value {
        what: format!("{seconds} s {nanos} ns since 1970"),
        raw: Raw::Bytes(prost_types::Timestamp { seconds, nanos }.encode_to_vec()),
        fate,
        echo: None,
    };
    let (first, last) = (-62_135_596_800, 253_402_300_799);
    let good = [(0, 0), (0, 999_999_999), (-1, 1), (1_800_000_000, 1), (first, 0), (last, 999_999_999)];
    let bad = [
        (first - 1, 0),
        (last + 1, 0),
        (0, -1),
        (0, 1_000_000_000),
        (0, i32::MIN),
        (i64::MAX, i32::MAX),
        (i64::MIN, 0),
    ];
    let good = good.map(|(seconds, nanos)| instant(seconds, nanos, Fate::Either));
    good.into_iter().chain(bad.map(|(seconds, nanos)| instant(seconds, nanos, Fate::Never))).collect()
}

/// A message in a message, as a whole; its own fields are cases of their own.
fn messages() -> Vec<Value> {
    let value =
        |what: &str, bytes, fate| Value { what: what.to_owned(), raw: Raw::Bytes(bytes), fate, echo: None };
    vec![
        value("empty", Vec::new(), Fate::Either),
        value("unknown fields alone", encoded(UNKNOWN, &Raw::Varint(1)), Fate::Either),
        value("cut off", vec![0x0a, 0x7f], Fate::Malformed),
        value("no message", b"\xff\xff\xff".to_vec(), Fate::Malformed),
    ]
}
