//! What a client sends over its WebSocket once the handshake is done.

use std::io::{Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::request::requests;

/// Longest message taken; in earnest it is `SERVER_BODY_MAX`.
const LIMIT: usize = 4 * 1024;

/// The first byte says in what pieces the rest comes. No message is longer than the limit, however many frames it has,
/// and what is text is read as a request.
pub fn websocket(data: &[u8]) {
    let [piece, bytes @ ..] = data else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(2 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(8 * 1024)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let peer = Peer { bytes, piece: usize::from(*piece).max(1) };
    let mut socket = WebSocket::from_raw_socket(peer, Role::Server, Some(config));
    while let Ok(message) = socket.read() {
        assert!(message.len() <= LIMIT, "a message of {} bytes", message.len());
        if let Message::Text(text) = message {
            requests(text.as_bytes());
        }
    }
}

/// Sends what it has and takes whatever it is sent.
struct Peer<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.piece.min(self.bytes.len()).min(buffer.len());
        let (now, later) = self.bytes.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.bytes = later;
        Ok(length)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
