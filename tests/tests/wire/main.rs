//! HARDENING.md on the wire: bytes, frames and certificates at the real programs.
//!
//! - `settings`: what a server says of itself, and that it keeps to it;
//! - `inputs`: the table of inputs, byte by byte, and the answers that are written;
//! - `tls`: versions, protocols, and what is not HTTP/2;
//! - `certificates`: each certificate at both listeners of both services;
//! - `tokens`: garbage credentials at speed;
//! - `raw`, `hpack`: a client that writes frames by hand; `honest`: clients that must not feel any of it.

mod certificates;
mod honest;
mod hpack;
mod inputs;
mod raw;
mod settings;
mod tls;
mod tokens;
