//! Header blocks by hand (RFC 7541): written as literals that nobody indexes, read as far as a server needs them
//! that was told to keep no table.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names of the static table, from its first entry (appendix A); those of pseudo-headers stand for themselves.
const STATIC: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];
/// The values of the entries `:status`, 8 to 14.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
/// Bits of the Huffman code of ` ` to `~` (appendix B). The code is canonical: lengths are all of it.
const HUFFMAN_BITS: [u8; 95] = [
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
];
/// NUL is the one code of up to 15 bits that is not visible.
const NUL_BITS: u8 = 13;

/// A header block of these fields.
pub(crate) fn block(fields: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer of section 5.1 behind a prefix of seven bits, without Huffman's.
fn length(block: &mut Vec<u8>, n: usize) {
    let Some(mut rest) = n.checked_sub(127) else {
        return block.push(u8::try_from(n).expect("below 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// Reads a header block into the status, where it has one, and the fields.
///
/// # Panics
/// Where it is no header block, or one for who keeps a table.
pub(crate) fn read(block: &[u8], headers: &mut HeaderMap) -> Option<u16> {
    let (mut status, mut at) = (None, Reader { block });
    while let Some(first) = at.block.first().copied() {
        let (name, value) = match first {
            0x80.. => {
                let index = at.integer(7);
                status =
                    Some(STATUSES[index.checked_sub(8).expect("`:status` is all that a server indexes")]);
                continue;
            }
            // The size of a table that is not kept.
            0x20..0x40 => {
                at.integer(5);
                continue;
            }
            0x40..0x80 => at.field(6),
            _ => at.field(4),
        };
        if name == ":status" {
            status = value.parse().ok();
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(&value).expect("visible"));
        }
    }
    status
}

struct Reader<'a> {
    block: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.block.split_first().expect("a block that is not cut off");
        self.block = rest;
        *first
    }

    fn integer(&mut self, prefix: u32) -> usize {
        let most = (1 << prefix) - 1;
        let mut n = usize::from(self.byte()) & most;
        if n == most {
            for shift in (0..28).step_by(7) {
                let byte = usize::from(self.byte());
                n += (byte & 127) << shift;
                if byte < 128 {
                    break;
                }
            }
        }
        n
    }

    fn text(&mut self) -> String {
        let huffman = self.block[0] & 0x80 != 0;
        let n = self.integer(7);
        let (text, rest) = self.block.split_at(n);
        self.block = rest;
        if huffman { plain(text) } else { String::from_utf8(text.to_vec()).expect("ASCII") }
    }

    fn field(&mut self, prefix: u32) -> (String, String) {
        let name = match self.integer(prefix) {
            0 => self.text(),
            index => STATIC[index - 1].to_owned(),
        };
        (name, self.text())
    }
}

/// Undoes Huffman's coding.
fn plain(coded: &[u8]) -> String {
    let mut symbols: Vec<(u8, u8)> = (b' '..=b'~').zip(HUFFMAN_BITS).map(|(c, bits)| (bits, c)).collect();
    symbols.push((NUL_BITS, 0));
    symbols.retain(|(bits, _)| *bits <= 15);
    symbols.sort_unstable();
    let (mut text, mut code, mut bits) = (String::new(), 0_u32, 0_u8);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        (code, bits) = (code << 1 | u32::from(bit), bits + 1);
        if let Some(found) = symbol(&symbols, code, bits) {
            text.push(found.into());
            (code, bits) = (0, 0);
        }
    }
    assert!(bits < 8, "what is left is padding");
    text
}

/// The symbol of a code: the codes of a length follow each other, and those of the next begin after them.
fn symbol(sorted: &[(u8, u8)], code: u32, bits: u8) -> Option<u8> {
    let (mut next, mut length) = (0_u32, 0_u8);
    for (their_bits, symbol) in sorted {
        next <<= their_bits - length;
        length = *their_bits;
        if length == bits && next == code {
            return Some(*symbol);
        }
        next += 1;
    }
    None
}

#[test]
fn header_blocks_are_read_as_the_standard_writes_them() {
    // RFC 7541 C.4.1 and C.6.1: Huffman, and a status of another value than those of the table.
    assert_eq!(
        plain(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
        "www.example.com"
    );
    let mut headers = HeaderMap::new();
    let block = [0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b];
    assert_eq!(read(&block, &mut headers), Some(302));
    assert_eq!(headers["cache-control"], "private");
    assert_eq!(read(&[0x88], &mut headers), Some(200));
    let long = "x".repeat(300);
    let fields = [("a".to_owned(), long.clone()), ("b".to_owned(), String::new())];
    let mut headers = HeaderMap::new();
    assert_eq!(read(&self::block(&fields), &mut headers), None);
    assert_eq!(
        (headers["a"].to_str().ok(), &headers["b"]),
        (Some(long.as_str()), &HeaderValue::from_static(""))
    );
}
