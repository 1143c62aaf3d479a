//! Messages on the wire, edited field by field: what no generated type would ever encode can stand in them.

use bytes::BufMut as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// One occurrence of a field: all after its tag's number.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    Varint(u64),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    /// So many groups, one in the other.
    Groups(usize),
}

/// A step into a message: the field's number, and which of its occurrences.
pub(crate) type Step = (u32, usize);

/// A change of a message.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// These in the place of every occurrence of a field of the message there.
    Field(Vec<Step>, u32, Vec<Raw>),
    /// Bytes after its end.
    Rest(Vec<u8>),
    /// All of it away.
    Nothing,
    /// A field of bytes more, so that it has this length in all.
    Pad(u32, usize),
}

impl Edit {
    /// How many bytes it brings, about.
    pub(crate) fn size(&self) -> usize {
        let of = |raw: &Raw| if let Raw::Bytes(bytes) = raw { bytes.len() } else { 0 };
        match self {
            Self::Field(_, _, values) => values.iter().map(of).sum(),
            Self::Rest(rest) => rest.len(),
            // At the bound itself, it is tried.
            Self::Nothing | Self::Pad(..) => 0,
        }
    }

    /// The message, changed.
    pub(crate) fn of(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Field(steps, number, values) => {
                edit(message, steps, &|inner| replaced(inner, *number, values))
            }
            Self::Rest(rest) => [message, rest].concat(),
            Self::Nothing => Vec::new(),
            Self::Pad(number, to) => {
                // Three bytes of tag and three of length; more of length than it takes is no fault in a varint.
                let mut out = message.to_vec();
                encode_key(*number, WireType::LengthDelimited, &mut out);
                let room = to - out.len() - 3;
                out.extend([0x80 | (room & 0x7f) as u8, 0x80 | (room >> 7 & 0x7f) as u8, (room >> 14) as u8]);
                out.resize(*to, 0);
                out
            }
        }
    }
}

fn replaced(message: &[u8], number: u32, values: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, entry) in entries(message).into_iter().filter(|(found, _)| *found != number) {
        out.extend_from_slice(entry);
    }
    values.iter().for_each(|value| put(&mut out, number, value));
    out
}

/// What occurrences of a field of the message at `steps` hold, where they are bytes.
pub(crate) fn contents(message: &[u8], steps: &[Step], number: u32) -> Vec<Vec<u8>> {
    let mut inner = message;
    for step in steps {
        inner = content(nth(inner, *step));
    }
    let found = entries(inner).into_iter().filter(|(found, _)| *found == number);
    found.map(|(_, entry)| content(entry).to_vec()).collect()
}

/// One field as it stands in a message.
pub(crate) fn encoded(number: u32, value: &Raw) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, number, value);
    out
}

fn edit(message: &[u8], steps: &[Step], change: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let Some((step, rest)) = steps.split_first() else { return change(message) };
    let inside = nth(message, *step);
    let mut out = Vec::new();
    for (_, entry) in entries(message) {
        if std::ptr::eq(entry, inside) {
            put(&mut out, step.0, &Raw::Bytes(edit(content(entry), rest, change)));
        } else {
            out.extend_from_slice(entry);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u32, value: &Raw) {
    match value {
        Raw::Varint(value) => {
            encode_key(number, WireType::Varint, out);
            encode_varint(*value, out);
        }
        Raw::Bytes(bytes) => {
            encode_key(number, WireType::LengthDelimited, out);
            encode_varint(bytes.len() as u64, out);
            out.put_slice(bytes);
        }
        Raw::Fixed32(bytes) => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.put_slice(bytes);
        }
        Raw::Fixed64(bytes) => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.put_slice(bytes);
        }
        Raw::Groups(depth) => {
            (0..*depth).for_each(|_| encode_key(number, WireType::StartGroup, out));
            (0..*depth).for_each(|_| encode_key(number, WireType::EndGroup, out));
        }
    }
}

fn nth(message: &[u8], (number, index): Step) -> &[u8] {
    let found = entries(message).into_iter().filter(|(found, _)| *found == number).nth(index);
    found.unwrap_or_else(|| panic!("the good request has no field {number} to look into: {message:x?}")).1
}

/// Number and bytes of each field of a good message, in their order.
fn entries(message: &[u8]) -> Vec<(u32, &[u8])> {
    let mut all = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let before = rest;
        let (number, wire) = decode_key(&mut rest).expect("a good message");
        let skip = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).expect("a number");
                0
            }
            WireType::LengthDelimited => decode_varint(&mut rest).expect("a length"),
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::StartGroup | WireType::EndGroup => panic!("no group in a good message"),
        };
        rest = &rest[usize::try_from(skip).expect("it fits")..];
        all.push((number, &before[..before.len() - rest.len()]));
    }
    all
}

/// What a field of bytes holds.
fn content(mut entry: &[u8]) -> &[u8] {
    decode_key(&mut entry).expect("a field");
    decode_varint(&mut entry).expect("a length");
    entry
}
