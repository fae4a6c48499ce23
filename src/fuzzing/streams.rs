//! What providers send: server-sent events, and the answers in them.

use uuid::Uuid;

use crate::config::app::ProviderKind;
use crate::llm::providers::Parser;
use crate::llm::sse::Frames;
use crate::llm::{LlmError, Upstream};

const FORMATS: [ProviderKind; 4] =
    [ProviderKind::Openai, ProviderKind::Azure, ProviderKind::Responses, ProviderKind::Anthropic];

/// The first byte chooses the provider's format, the second where the stream is cut. However it is cut, it means the
/// same; a long event is refused instead of kept.
pub fn streams(data: &[u8]) {
    let [format, cut, bytes @ ..] = data else { return };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let whole = read(format, [bytes]);
    let cut = usize::from(*cut).max(1);
    assert_eq!(read(format, bytes.chunks(cut)), whole, "in pieces of {cut} bytes");
    assert_eq!(read(format, bytes.chunks(1)), whole, "byte by byte");

    let limit = 64;
    let mut frames = Frames::new(limit);
    let mut longest = 0;
    for piece in bytes.chunks(cut) {
        let taken = frames.push(piece, &mut |event| {
            longest = longest.max(event.data.len());
            Ok(())
        });
        if taken.is_err() {
            break;
        }
    }
    // Bytes that are no UTF-8 become three each.
    assert!(longest <= 3 * limit, "{longest} bytes of one event");
}

fn read<'a>(
    format: ProviderKind,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Upstream>, Result<(), LlmError>) {
    let mut parser = Parser::new(format, "dep", Uuid::from_u128(7), 1 << 20);
    let mut found = Vec::new();
    for piece in pieces {
        if let Err(error) = parser.push(piece, &mut |upstream| found.push(upstream)) {
            return (found, Err(error));
        }
    }
    let end = parser.finish(&mut |upstream| found.push(upstream));
    (found, end)
}
