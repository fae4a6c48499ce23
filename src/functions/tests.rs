//! The SDK over a real socket: raw HTTP/1.1 in, as the host writes it.

mod envelopes;
mod harness;
mod lifecycle;
mod logs;
mod parent;
mod requests;
