//! A server on loopback, with certificates of its own, seen from its sockets.

mod calls;
mod connections;
mod fixture;
mod gate;
